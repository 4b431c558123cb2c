//! Reads `[[rule]]`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
};

use bundle::image::Allowed;
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::{
    MAX_ENTRIES, demands,
    fault::{Faults, position},
    integer,
    reader::{At, Keys, Table, wrong_type},
};
use crate::{
    rule::{Entries, Rule, Threshold, Values},
    scope::Scope,
    spelling::did_you_mean,
    target::{LOAD_KINDS, TargetPattern},
    version::Version,
    vocabulary,
};

pub(super) const RULE: Keys = Keys {
    known: &[
        "attach",
        "forbid_calls",
        "load_targets",
        "map_sizes",
        "max_age",
        "min_version",
        "name",
        "program_types",
        "require",
        "scope",
        "signed_by",
        "tunables",
        "when",
    ],
    later: &[("mode", "set `mode` once for the whole policy")],
};

pub(super) const SIGNED_BY: Keys = Keys {
    known: &["at_least", "of"],
    later: &[],
};

/// Most values in `one_of`: what the gate's record of a tunable holds.
const MOST_VALUES: usize = 8;

pub(super) fn read(
    text: &str,
    file: &Table<'_, '_>,
    owners: &BTreeMap<String, String>,
    names: &[String],
    faults: &mut Faults<'_>,
) -> Vec<Rule> {
    let tables = file.tables("rule", faults);
    if tables.len() > MAX_ENTRIES {
        let message = format!("{} rules; at most {MAX_ENTRIES} are allowed", tables.len());
        faults.add(tables[MAX_ENTRIES].span(), message);
        return Vec::new();
    }
    let mut seen = HashMap::new();
    let mut rules = Vec::new();
    for value in tables {
        let Some(table) = Table::open("rule", value, &RULE, faults) else {
            continue;
        };
        let name = table.required_string("name", faults);
        if let Some(name) = &name {
            super::check_name("rule", name.span.clone(), name.value, faults);
            super::check_unique("rule", text, name, &mut seen, faults);
        }
        let line = position(text, table.span().start).0;
        let scope = read_scope(&table, faults);
        let signed_by = read_threshold(&table, owners, names, faults);
        let rest = read_limits(&table, faults);
        let max_age = demands::read_max_age(&table, signed_by.as_ref(), owners, faults);
        // A missing part is a fault already; the policy is not built then.
        if let (Some(name), Some(scope), Some(signed_by)) = (name, scope, signed_by) {
            rules.push(Rule {
                name: name.value.to_owned(),
                line,
                scope,
                signed_by,
                max_age,
                ..rest
            });
        }
    }
    rules
}

/// A rule that says nothing: its limits are the defaults.
pub(super) fn defaults(faults: &mut Faults<'_>) -> Rule {
    let nothing = DeTable::new();
    read_limits(&Table::of("rule", 0..0, &nothing, &RULE, faults), faults)
}

/// All that has a default.
fn read_limits(table: &Table<'_, '_>, faults: &mut Faults<'_>) -> Rule {
    let program_types = read_types(table, faults);
    let load_targets = read_load_targets(table, &program_types, faults);
    let (tunables, other_tunables) = read_named(table, "tunables", faults, read_values);
    let (map_sizes, other_map_sizes) = read_named(table, "map_sizes", faults, read_entries);
    Rule {
        name: String::new(),
        line: 0,
        scope: Scope::nothing(),
        signed_by: Threshold {
            at_least: 1,
            of: Vec::new(),
        },
        program_types,
        load_targets,
        attach: read_attach(table, faults),
        forbid_calls: read_calls(table, faults),
        tunables,
        other_tunables,
        map_sizes,
        other_map_sizes,
        min_version: read_version(table, faults),
        require: demands::read_required(table, faults),
        when: demands::read_when(table, faults),
        max_age: None,
        until: None,
        defaults: table.lacking(RULE.known),
    }
}

fn read_scope(table: &Table<'_, '_>, faults: &mut Faults<'_>) -> Option<Scope> {
    let At { span, value } = table.required_string("scope", faults)?;
    Scope::parse(value)
        .map_err(|message| faults.add(span, message))
        .ok()
}

fn read_threshold(
    table: &Table<'_, '_>,
    owners: &BTreeMap<String, String>,
    names: &[String],
    faults: &mut Faults<'_>,
) -> Option<Threshold> {
    table.require("signed_by", faults);
    let table = Table::open("signed_by", table.value("signed_by")?, &SIGNED_BY, faults)?;
    table.require("of", faults);
    let at_least = table.integer("at_least", 1..=MAX_ENTRIES as i64, faults);
    if at_least.is_none() && table.value("at_least").is_some() {
        return None;
    }
    let of = table.strings("of", faults)?;
    if of.value.is_empty() {
        faults.add(
            of.span,
            "`of` names nobody, so nothing could ever be admitted",
        );
        return None;
    }
    let mut all_known = true;
    let mut seen = BTreeSet::new();
    for At { span, value } in &of.value {
        if !names.iter().any(|name| name == value) {
            let hint = did_you_mean(value, names.iter().map(String::as_str));
            faults.add(
                span.clone(),
                format!("no [keys.{value}] in this policy{hint}"),
            );
        } else if !seen.insert(*value) {
            faults.add(span.clone(), format!("`of` names {value:?} twice"));
        }
        all_known &= owners.contains_key(*value);
    }
    let (span, at_least) = match at_least {
        Some(at) => (at.span, usize::try_from(at.value).unwrap_or(usize::MAX)),
        None => (of.span.clone(), 1),
    };
    let of: Vec<String> = of.value.iter().map(|name| name.value.to_owned()).collect();
    if all_known {
        check_reachable(span, at_least, &of, owners, faults);
    }
    Some(Threshold { at_least, of })
}

/// A threshold that no set of signatures can meet is a mistake, not a lock.
fn check_reachable(
    span: Range<usize>,
    at_least: usize,
    of: &[String],
    owners: &BTreeMap<String, String>,
    faults: &mut Faults<'_>,
) {
    let mut found = BTreeMap::new();
    let mut twins = Vec::new();
    for name in of {
        let Some(owner) = owners.get(name) else {
            continue;
        };
        if let Some(first) = found.insert(owner, name)
            && first != name
        {
            twins.push(format!("{first} and {name} are one key"));
        }
    }
    if at_least > found.len() {
        let mut message = format!(
            "`at_least` is {at_least}, but `of` names {} distinct {}, so nothing could ever \
             be admitted",
            found.len(),
            if found.len() == 1 { "key" } else { "keys" }
        );
        if !twins.is_empty() {
            message = format!("{message} ({})", twins.join(", "));
        }
        faults.add(span, message);
    }
}

fn read_types(table: &Table<'_, '_>, faults: &mut Faults<'_>) -> BTreeSet<String> {
    let Some(types) = table.strings("program_types", faults) else {
        return vocabulary::ordinary_types().map(str::to_owned).collect();
    };
    if types.value.is_empty() {
        let message = "`program_types` is empty, so nothing could ever be admitted";
        faults.add(types.span, message);
    }
    let mut allowed = BTreeSet::new();
    for At { span, value } in types.value {
        if vocabulary::is_program_type(value) {
            allowed.insert(value.to_owned());
        } else {
            let hint = did_you_mean(value, vocabulary::program_types());
            faults.add(span, format!("unknown program type {value:?}{hint}"));
        }
    }
    allowed
}

fn read_load_targets(
    table: &Table<'_, '_>,
    types: &BTreeSet<String>,
    faults: &mut Faults<'_>,
) -> Vec<TargetPattern> {
    let targets = match table.strings("load_targets", faults) {
        None => vec![TargetPattern::any()],
        Some(patterns) => read_patterns(patterns.value, LOAD_KINDS, faults),
    };
    let names_ext = targets.iter().any(|target| target.kind() == Some("ext"));
    if types.contains("ext") && !names_ext && table.value("program_types").is_some() {
        faults.add(
            table.span(),
            "a rule that allows ext programs names what they may replace: \
             load_targets = [\"ext:PROGRAM:FUNCTION\"]",
        );
    }
    targets
}

fn read_attach(table: &Table<'_, '_>, faults: &mut Faults<'_>) -> Vec<TargetPattern> {
    let Some(patterns) = table.strings("attach", faults) else {
        return vec![TargetPattern::any()];
    };
    let kinds: Vec<&str> = vocabulary::program_types()
        .filter(|kind| !["ext", "lsm", "struct_ops", "tracing"].contains(kind))
        .collect();
    let mut attach = Vec::new();
    for pattern in patterns.value {
        let kind = pattern.value.split(':').next().unwrap_or_default();
        if LOAD_KINDS.contains(&kind) || kind == "tracing" {
            let message = format!(
                "{:?} is bound when it is loaded: name it in `load_targets`",
                pattern.value
            );
            faults.add(pattern.span, message);
        } else {
            attach.extend(read_patterns(vec![pattern], &kinds, faults));
        }
    }
    attach
}

fn read_patterns(
    patterns: Vec<At<&str>>,
    kinds: &[&str],
    faults: &mut Faults<'_>,
) -> Vec<TargetPattern> {
    let mut read = Vec::new();
    for At { span, value } in patterns {
        match TargetPattern::parse(value, kinds) {
            Ok(pattern) => read.push(pattern),
            Err(message) => faults.add(span, message),
        }
    }
    read
}

fn read_calls(table: &Table<'_, '_>, faults: &mut Faults<'_>) -> BTreeSet<String> {
    let mut forbidden = BTreeSet::new();
    let Some(calls) = table.strings("forbid_calls", faults) else {
        return forbidden;
    };
    for At { span, value } in calls.value {
        let is_kfunc = value
            .strip_prefix("kfunc:")
            .is_some_and(|name| !name.is_empty());
        if is_kfunc || vocabulary::is_helper(value) {
            forbidden.insert(value.to_owned());
            continue;
        }
        let mut hint = did_you_mean(value, vocabulary::helpers());
        if hint.is_empty() {
            hint = format!("; a kernel function is written \"kfunc:{value}\"");
        }
        faults.add(span, format!("unknown helper {value:?}{hint}"));
    }
    forbidden
}

fn read_version(table: &Table<'_, '_>, faults: &mut Faults<'_>) -> Option<Version> {
    let At { span, value } = table.string("min_version", faults)?;
    let version = Version::parse(value);
    if version.is_none() {
        let message = format!("want a version as in \"1.4.0\"; got {value:?}");
        faults.add(span, message);
    }
    version
}

/// A table whose keys are names of the bundle's, and `"*"` for all others.
fn read_named<T>(
    table: &Table<'_, '_>,
    key: &'static str,
    faults: &mut Faults<'_>,
    read: fn(&Spanned<DeValue<'_>>, &mut Faults<'_>) -> Option<T>,
) -> (BTreeMap<String, T>, Option<T>) {
    let mut named = BTreeMap::new();
    let mut others = None;
    let Some(value) = table.value(key) else {
        return (named, others);
    };
    let Some(table) = value.get_ref().as_table() else {
        let message = wrong_type(key, "a table from names to limits", value.get_ref());
        faults.add(value.span(), message);
        return (named, others);
    };
    for (name, value) in table {
        let Some(limit) = read(value, faults) else {
            continue;
        };
        let name: &str = name.get_ref();
        if name == "*" {
            others = Some(limit);
        } else {
            named.insert(name.to_owned(), limit);
        }
    }
    (named, others)
}

const VALUES: Keys = Keys {
    known: &["max", "min", "one_of"],
    later: &[],
};

fn read_values(value: &Spanned<DeValue<'_>>, faults: &mut Faults<'_>) -> Option<Values> {
    if let Some(text) = value.get_ref().as_str() {
        return read_any(text, value, "{ min, max }, { one_of } or \"any\"", faults)
            .then_some(Values(Allowed::Any));
    }
    let table = Table::open("tunable", value, &VALUES, faults)?;
    let min = table.integer("min", i64::MIN..=i64::MAX, faults);
    let max = table.integer("max", i64::MIN..=i64::MAX, faults);
    let Some(list) = table.value("one_of") else {
        return read_range(&table, min, max, faults);
    };
    if table.value("min").is_some() || table.value("max").is_some() {
        faults.add(list.span(), "either `one_of` or `min` and `max`, not both");
        return None;
    }
    read_one_of(list, faults)
}

fn read_range(
    table: &Table<'_, '_>,
    min: Option<At<i64>>,
    max: Option<At<i64>>,
    faults: &mut Faults<'_>,
) -> Option<Values> {
    if table.value("min").is_none() || table.value("max").is_none() {
        let message = "a range needs both `min` and `max`; or write { one_of = […] } or \"any\"";
        faults.add(table.span(), message);
        return None;
    }
    let (min, max) = (min?, max?);
    if min.value > max.value {
        let message = format!("`min` {} is above `max` {}", min.value, max.value);
        faults.add(min.span, message);
        return None;
    }
    Some(Values(Allowed::Range(min.value, max.value)))
}

fn read_one_of(list: &Spanned<DeValue<'_>>, faults: &mut Faults<'_>) -> Option<Values> {
    let Some(items) = list.get_ref().as_array() else {
        let message = wrong_type("one_of", "an array of integers", list.get_ref());
        faults.add(list.span(), message);
        return None;
    };
    if items.is_empty() || items.len() > MOST_VALUES {
        let message = format!(
            "`one_of` has 1 to {MOST_VALUES} values; got {}",
            items.len()
        );
        faults.add(list.span(), message);
        return None;
    }
    let values = items
        .iter()
        .map(|item| integer("one_of", item, i64::MIN..=i64::MAX, faults).map(|at| at.value))
        .collect::<Vec<_>>();
    let values: Option<Vec<i64>> = values.into_iter().collect();
    values.map(|values| Values(Allowed::OneOf(values)))
}

const MAP: Keys = Keys {
    known: &["max_entries"],
    later: &[
        ("key_size", "a map's key has the size that was signed"),
        ("value_size", "a map's value has the size that was signed"),
    ],
};

const RANGE: Keys = Keys {
    known: &["max", "min"],
    later: &[],
};

fn read_entries(value: &Spanned<DeValue<'_>>, faults: &mut Faults<'_>) -> Option<Entries> {
    if let Some(text) = value.get_ref().as_str() {
        let want = "{ max_entries = { min, max } } or \"any\"";
        return read_any(text, value, want, faults).then_some(Entries::ANY);
    }
    let table = Table::open("map size", value, &MAP, faults)?;
    table.require("max_entries", faults);
    let range = Table::open("max_entries", table.value("max_entries")?, &RANGE, faults)?;
    let limits = 0..=i64::from(u32::MAX);
    let min = range.integer("min", limits.clone(), faults);
    let max = range.integer("max", limits, faults);
    match read_range(&range, min, max, faults)?.0 {
        Allowed::Range(min, max) => Some(Entries {
            min: u32::try_from(min).ok()?,
            max: u32::try_from(max).ok()?,
        }),
        Allowed::Any | Allowed::OneOf(_) => None,
    }
}

fn read_any(text: &str, value: &Spanned<DeValue<'_>>, want: &str, faults: &mut Faults<'_>) -> bool {
    if text != "any" {
        faults.add(value.span(), format!("want {want}; got {text:?}"));
    }
    text == "any"
}
