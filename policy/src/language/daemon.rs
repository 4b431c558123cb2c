//! Reads `[daemon]`: which files may take the place of the enforcer's own.

use std::collections::BTreeSet;

use bundle::Digest;

use super::{
    fault::Faults,
    generators::sums,
    reader::{Keys, Table},
};

pub(super) const DAEMON: Keys = Keys {
    known: &["sha256"],
    later: &[],
};

/// SHA-256 of each.
pub(super) fn read(file: &Table<'_, '_>, faults: &mut Faults<'_>) -> BTreeSet<Digest> {
    let Some(table) = file.section("daemon", &DAEMON, faults) else {
        return BTreeSet::new();
    };
    table.require("sha256", faults);
    sums(&table, "sha256", faults).unwrap_or_default()
}
