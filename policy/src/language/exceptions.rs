//! Reads `[[exception]]`.

use std::collections::HashMap;

use bundle::Digest;
use jiff::Timestamp;

use super::{
    MAX_ENTRIES,
    fault::{Faults, position},
    reader::{At, Keys, Table, wrong_type},
    rules,
};
use crate::exception::Exception;

pub(super) const EXCEPTION: Keys = Keys {
    known: &["bundle", "reason", "until"],
    later: &[
        (
            "scope",
            "remove it: the digest names the bundle wherever it is",
        ),
        ("signed_by", "remove it, or write a [[rule]]"),
    ],
};

pub(super) fn read(text: &str, file: &Table<'_, '_>, faults: &mut Faults<'_>) -> Vec<Exception> {
    let tables = file.tables("exception", faults);
    if tables.len() > MAX_ENTRIES {
        let message = format!(
            "{} exceptions; at most {MAX_ENTRIES} are allowed",
            tables.len()
        );
        faults.add(tables[MAX_ENTRIES].span(), message);
        return Vec::new();
    }
    let mut seen: HashMap<Digest, usize> = HashMap::new();
    let mut exceptions = Vec::new();
    for value in tables {
        let Some(table) = Table::open("exception", value, &EXCEPTION, faults) else {
            continue;
        };
        let line = position(text, table.span().start).0;
        let bundle = read_bundle(&table, faults);
        let reason = table.required_string("reason", faults);
        if let Some(reason) = &reason {
            super::check_name("reason", reason.span.clone(), reason.value, faults);
        }
        let until = read_until(&table, faults);
        let (Some(bundle), Some(reason), Some(until)) = (bundle, reason, until) else {
            continue;
        };
        if let Some(first) = seen.insert(bundle.value, line) {
            let message = format!("the exception on line {first} is for this bundle too");
            faults.add(bundle.span, message);
        }
        let limits = rules::defaults(faults);
        exceptions.push(Exception::new(
            bundle.value,
            reason.value.to_owned(),
            until,
            line,
            limits,
        ));
    }
    exceptions
}

fn read_bundle(table: &Table<'_, '_>, faults: &mut Faults<'_>) -> Option<At<Digest>> {
    let At { span, value } = table.required_string("bundle", faults)?;
    match value.parse() {
        Ok(value) => Some(At { span, value }),
        Err(_) => {
            let message = format!("want the digest of a bundle, sha256:HEX; got {value:?}");
            faults.add(span, message);
            None
        }
    }
}

/// A moment is the same everywhere: a date and time with its offset.
fn read_until(table: &Table<'_, '_>, faults: &mut Faults<'_>) -> Option<Timestamp> {
    table.require("until", faults);
    let value = table.value("until")?;
    let Some(written) = value.get_ref().as_datetime() else {
        let message = wrong_type("until", "a date and time", value.get_ref());
        faults.add(value.span(), format!("{message}: {EXAMPLE}"));
        return None;
    };
    let moment = match (written.date, written.time, written.offset) {
        (Some(_), Some(_), Some(_)) => written.to_string().parse().ok(),
        _ => None,
    };
    if moment.is_none() {
        let message =
            format!("`until` must be a date, a time and an offset; got {written}: {EXAMPLE}");
        faults.add(value.span(), message);
    }
    moment
}

const EXAMPLE: &str = "write it as 2027-01-31T18:00:00Z, without quotes";
