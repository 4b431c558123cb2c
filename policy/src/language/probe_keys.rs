//! Reads `[probes]`: whose lists of probe programs are taken.

use std::collections::BTreeMap;

use super::{
    TrustedKey,
    fault::Faults,
    reader::{Keys, Table},
};
use crate::spelling::did_you_mean;

pub(super) const PROBES: Keys = Keys {
    known: &["signed_by"],
    later: &[],
};

/// Names of keys, any one of which is enough.
pub(super) fn read(
    file: &Table<'_, '_>,
    keys: &BTreeMap<String, TrustedKey>,
    faults: &mut Faults<'_>,
) -> Vec<String> {
    let Some(table) = file.section("probes", &PROBES, faults) else {
        return Vec::new();
    };
    table.require("signed_by", faults);
    let Some(named) = table.strings("signed_by", faults) else {
        return Vec::new();
    };
    if named.value.is_empty() {
        faults.add(
            named.span,
            "`signed_by` is empty: no list would ever be taken",
        );
    }
    let mut signers = Vec::new();
    for name in named.value {
        if !keys.contains_key(name.value) {
            let hint = did_you_mean(name.value, keys.keys().map(String::as_str));
            faults.add(name.span, format!("no key is named {:?}{hint}", name.value));
        } else if !signers.iter().any(|known| known == name.value) {
            signers.push(name.value.to_owned());
        }
    }
    signers
}
