//! Reads `[[generator]]`.

use std::collections::{BTreeSet, HashMap};

use bundle::{Digest, kernel};
use serde_spanned::Spanned;
use toml::de::DeValue;

use super::{
    fault::{Faults, position},
    reader::{At, Keys, Table, wrong_type},
};
use crate::{
    generator::{
        FORBIDDEN, Generator, MAP_TYPES, MAX_INSNS, MAX_MAPS, MOST, MOST_INSNS, MOST_LIBRARIES,
        PinnedFile,
    },
    spelling::did_you_mean,
    vocabulary,
};

pub(super) const GENERATOR: Keys = Keys {
    known: &[
        "cgroup",
        "exe",
        "forbid_calls",
        "libraries",
        "map_types",
        "maps",
        "max_insns",
        "name",
        "permit",
        "program_types",
        "uid",
    ],
    later: &[(
        "attach",
        "remove it; places of generated programs are not compared",
    )],
};

pub(super) const PINNED: Keys = Keys {
    known: &["dmverity", "fsverity", "path", "sha256"],
    later: &[(
        "fsverity_signed_by",
        "use `fsverity`, with the digest that `fsverity digest FILE` prints",
    )],
};

pub(super) fn read(text: &str, file: &Table<'_, '_>, faults: &mut Faults<'_>) -> Vec<Generator> {
    let tables = file.tables("generator", faults);
    if tables.len() > MOST {
        let message = format!("{} generators; at most {MOST} are allowed", tables.len());
        faults.add(tables[MOST].span(), message);
        return Vec::new();
    }
    let mut names = HashMap::new();
    let mut generators = Vec::new();
    for value in tables {
        let Some(table) = Table::open("generator", value, &GENERATOR, faults) else {
            continue;
        };
        let name = table.required_string("name", faults);
        if let Some(name) = &name {
            super::check_name("generator", name.span.clone(), name.value, faults);
            super::check_unique("generator", text, name, &mut names, faults);
        }
        table.require("exe", faults);
        let exe = table
            .value("exe")
            .and_then(|value| pinned("exe", value, faults));
        let number = |key: &str, range: std::ops::RangeInclusive<i64>, faults: &mut Faults<'_>| {
            let found = table.integer(key, range, faults)?;
            u32::try_from(found.value).ok()
        };
        let maps = number("maps", 0..=i64::from(MAX_MAPS), faults);
        let max_insns = number("max_insns", 1..=i64::from(MOST_INSNS), faults);
        let uid = number("uid", 0..=i64::from(u32::MAX - 1), faults);
        let libraries = libraries(&table, faults);
        let program_types = program_types(&table, faults);
        let forbid_calls = words(&table, "forbid_calls", FORBIDDEN, "helper", faults);
        let map_types = words(&table, "map_types", MAP_TYPES, "map type", faults);
        let cgroup = cgroup(&table, faults);
        let permit = table.flag("permit", faults);
        let (Some(name), Some(exe)) = (name, exe) else {
            continue;
        };
        generators.push(Generator {
            name: name.value.to_owned(),
            line: position(text, table.span().start).0,
            exe,
            libraries,
            program_types,
            forbid_calls,
            map_types,
            maps: maps.unwrap_or(MAX_MAPS),
            max_insns: max_insns.unwrap_or(MAX_INSNS),
            cgroup,
            uid,
            permit,
            defaults: table.lacking(GENERATOR.known),
        });
    }
    generators
}

fn pinned(
    what: &'static str,
    value: &Spanned<DeValue<'_>>,
    faults: &mut Faults<'_>,
) -> Option<PinnedFile> {
    let table = Table::open(what, value, &PINNED, faults)?;
    let path = table.required_string("path", faults);
    if let Some(path) = &path
        && !path.value.starts_with('/')
    {
        let message = format!("`path` must begin with /; got {:?}", path.value);
        faults.add(path.span.clone(), message);
    }
    let sha256 = sums(&table, "sha256", faults);
    let fsverity = sums(&table, "fsverity", faults);
    let dmverity = sums(&table, "dmverity", faults);
    if sha256.is_none() && fsverity.is_none() && dmverity.is_none() {
        table.require("sha256", faults);
    }
    Some(PinnedFile {
        path: path?.value.to_owned(),
        sha256: sha256.unwrap_or_default(),
        fsverity: fsverity.unwrap_or_default(),
        dmverity: dmverity.unwrap_or_default(),
    })
}

/// One digest in hex, or several; `None` where the key is not there.
pub(super) fn sums(
    table: &Table<'_, '_>,
    key: &str,
    faults: &mut Faults<'_>,
) -> Option<BTreeSet<Digest>> {
    let value = table.value(key)?;
    let found = match value.get_ref() {
        DeValue::String(_) => table.string(key, faults).map(|sum| vec![sum]),
        _ => table.strings(key, faults).map(|sums| sums.value),
    };
    let found = found.unwrap_or_default();
    if found.is_empty() {
        faults.add(
            value.span(),
            format!("`{key}` has no digest: it would admit nothing"),
        );
    }
    let mut digests = BTreeSet::new();
    for At { span, value } in found {
        match format!("sha256:{value}").parse::<Digest>() {
            Ok(digest) => _ = digests.insert(digest),
            Err(_) => faults.add(span, format!("a SHA-256 has 64 hex digits; got {value:?}")),
        }
    }
    Some(digests)
}

fn libraries(table: &Table<'_, '_>, faults: &mut Faults<'_>) -> Vec<PinnedFile> {
    let Some(value) = table.value("libraries") else {
        return Vec::new();
    };
    let Some(array) = value.get_ref().as_array() else {
        let message = wrong_type("libraries", "an array of { path, sha256 }", value.get_ref());
        faults.add(value.span(), message);
        return Vec::new();
    };
    if array.len() > MOST_LIBRARIES {
        let message = format!(
            "{} libraries; at most {MOST_LIBRARIES} are allowed",
            array.len()
        );
        faults.add(value.span(), message);
        return Vec::new();
    }
    array
        .iter()
        .filter_map(|item| pinned("library", item, faults))
        .collect()
}

fn program_types(table: &Table<'_, '_>, faults: &mut Faults<'_>) -> BTreeSet<String> {
    table.require("program_types", faults);
    let Some(types) = table.strings("program_types", faults) else {
        return BTreeSet::new();
    };
    if types.value.is_empty() {
        let message = "`program_types` is empty: the generator may load nothing";
        faults.add(types.span, message);
    }
    let mut allowed = BTreeSet::new();
    for At { span, value } in types.value {
        if vocabulary::ordinary_types().any(|kind| kind == value) {
            allowed.insert(value.to_owned());
        } else if vocabulary::is_program_type(value) {
            let message = format!(
                "a generator cannot load {value}: such programs change or load others, so they \
                 must be signed"
            );
            faults.add(span, message);
        } else {
            let hint = did_you_mean(value, vocabulary::ordinary_types());
            faults.add(span, format!("unknown program type {value:?}{hint}"));
        }
    }
    allowed
}

/// Helpers or map types, each known; the defaults where the key is not there.
fn words(
    table: &Table<'_, '_>,
    key: &str,
    defaults: &[&str],
    what: &str,
    faults: &mut Faults<'_>,
) -> BTreeSet<String> {
    let Some(found) = table.strings(key, faults) else {
        return defaults.iter().map(|&word| word.to_owned()).collect();
    };
    let is_known = |word: &str| match what {
        "helper" => vocabulary::is_helper(word),
        _ => kernel::map_type(word).is_some(),
    };
    let mut known = BTreeSet::new();
    for At { span, value } in found.value {
        if is_known(value) {
            known.insert(value.to_owned());
        } else {
            let hint = did_you_mean(value, defaults.iter().copied());
            faults.add(span, format!("unknown {what} {value:?}{hint}"));
        }
    }
    known
}

fn cgroup(table: &Table<'_, '_>, faults: &mut Faults<'_>) -> Option<String> {
    let At { span, value } = table.string("cgroup", faults)?;
    let is_odd = |part: &str| part.is_empty() || part == "." || part == "..";
    let parts = value.strip_prefix('/').map(|rest| rest.split('/'));
    if parts.is_none_or(|mut parts| parts.any(is_odd)) || value.contains('*') {
        let message = format!(
            "`cgroup` is one path from the root of the control groups, as \"/system.slice\"; got \
             {value:?}"
        );
        faults.add(span, message);
        return None;
    }
    Some(value.to_owned())
}
