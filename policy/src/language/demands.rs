//! Reads what a rule demands beyond signatures and types: attestations, conditions, age.

use std::{collections::BTreeMap, ops::Range};

use serde_spanned::Spanned;
use toml::de::DeValue;

use super::{
    fault::Faults,
    reader::{At, Keys, Table, wrong_type},
};
use crate::{
    condition::{About, Condition},
    predicate,
    rule::{MaxAge, Required, Threshold},
    spelling::did_you_mean,
};

pub(super) const REQUIRED: Keys = Keys {
    known: &["type", "when"],
    later: &[],
};

/// `["spdx", { type = "slsa-provenance", when = "…" }]`.
pub(super) fn read_required(table: &Table<'_, '_>, faults: &mut Faults<'_>) -> Vec<Required> {
    let Some(value) = table.value("require") else {
        return Vec::new();
    };
    let Some(items) = value.get_ref().as_array() else {
        let message = wrong_type("require", "an array", value.get_ref());
        faults.add(value.span(), message);
        return Vec::new();
    };
    items
        .iter()
        .filter_map(|item| read_one(item, faults))
        .collect()
}

fn read_one(item: &Spanned<DeValue<'_>>, faults: &mut Faults<'_>) -> Option<Required> {
    if let Some(name) = item.get_ref().as_str() {
        return Some(Required {
            predicate_type: read_type(item.span(), name, faults)?,
            when: None,
        });
    }
    if item.get_ref().as_table().is_none() {
        let want = "an array of predicate types, or of { type = …, when = … }";
        faults.add(item.span(), wrong_type("require", want, item.get_ref()));
        return None;
    }
    let table = Table::open("require", item, &REQUIRED, faults)?;
    let At { span, value } = table.required_string("type", faults)?;
    let predicate_type = read_type(span, value, faults)?;
    let when = match table.value("when") {
        None => None,
        Some(_) => Some(read_condition(
            &table,
            About::Predicate(&predicate_type),
            faults,
        )?),
    };
    Some(Required {
        predicate_type,
        when,
    })
}

/// A short name, or the URI itself.
fn read_type(span: Range<usize>, name: &str, faults: &mut Faults<'_>) -> Option<String> {
    let uri = predicate::uri(name).map(str::to_owned);
    if uri.is_none() {
        let hint = did_you_mean(name, predicate::NAMES.iter().map(|(name, _)| *name));
        let message =
            format!("unknown attestation {name:?}{hint}; or write the URI of its predicate type");
        faults.add(span, message);
    }
    uri
}

/// The rule's own condition.
pub(super) fn read_when(table: &Table<'_, '_>, faults: &mut Faults<'_>) -> Option<Condition> {
    read_condition(table, About::Inventory, faults)
}

fn read_condition(
    table: &Table<'_, '_>,
    about: About<'_>,
    faults: &mut Faults<'_>,
) -> Option<Condition> {
    let At { span, value } = table.string("when", faults)?;
    Condition::parse(value, about)
        .map_err(|flaw| {
            let message = format!("condition: {}", flaw.message);
            faults.add_within(span, value, flaw.offset, message);
        })
        .ok()
}

/// `max_age`, where enough of the rule's signers have a trusted time at all.
pub(super) fn read_max_age(
    table: &Table<'_, '_>,
    signed_by: Option<&Threshold>,
    owners: &BTreeMap<String, String>,
    faults: &mut Faults<'_>,
) -> Option<MaxAge> {
    let At { span, value } = table.string("max_age", faults)?;
    let Some(age) = MaxAge::parse(value) else {
        let message = format!("want an age as in \"90d\", \"36h\" or \"12w\"; got {value:?}");
        faults.add(span, message);
        return None;
    };
    let signed_by = signed_by?;
    let has_time = |name: &&String| owners.get(*name).is_none_or(|owner| !is_key(owner));
    let timed = signed_by.of.iter().filter(has_time).count();
    if timed < signed_by.at_least {
        faults.add(
            span,
            "a signature by a key carries no trusted time: `max_age` needs signers of \
             [keyless] or [x509]",
        );
        return None;
    }
    Some(age)
}

/// Owners of certificates say so; a key's is its digest.
fn is_key(owner: &str) -> bool {
    owner.starts_with("sha256:")
}
