//! Reads `[[shape]]`.

use std::collections::{BTreeSet, HashMap};

use super::{
    fault::{Faults, position},
    reader::{At, Keys, Table},
};
use crate::{
    shape::{CALLS, MAX_INSNS, Shape, TYPES},
    spelling::did_you_mean,
    vocabulary,
};

/// Most shapes: the gate holds a shape's types in fixed slots.
const MOST: usize = 16;

pub(super) const SHAPE: Keys = Keys {
    known: &["calls", "maps", "max_insns", "name", "program_types"],
    later: &[
        ("exe", "a shape is for anyone, whoever makes it"),
        ("cgroup", "remove it"),
    ],
};

pub(super) fn read(text: &str, file: &Table<'_, '_>, faults: &mut Faults<'_>) -> Vec<Shape> {
    if file.value("shape").is_none() {
        return vec![Shape::built_in()];
    }
    let tables = file.tables("shape", faults);
    if tables.len() > MOST {
        let message = format!("{} shapes; at most {MOST} are allowed", tables.len());
        faults.add(tables[MOST].span(), message);
        return Vec::new();
    }
    let mut names = HashMap::new();
    let mut shapes = Vec::new();
    for value in tables {
        let Some(table) = Table::open("shape", value, &SHAPE, faults) else {
            continue;
        };
        let name = table.required_string("name", faults);
        if let Some(name) = &name {
            super::check_name("shape", name.span.clone(), name.value, faults);
            super::check_unique("shape", text, name, &mut names, faults);
        }
        shapes.push(Shape {
            name: name.map_or_else(String::new, |name| name.value.to_owned()),
            line: position(text, table.span().start).0,
            program_types: program_types(&table, faults),
            calls: calls(&table, faults),
            maps: maps(&table, faults),
            max_insns: table
                .integer("max_insns", 1..=i64::from(MAX_INSNS), faults)
                .map_or(MAX_INSNS, |at| u32::try_from(at.value).unwrap_or(MAX_INSNS)),
            defaults: table.lacking(SHAPE.known),
        });
    }
    shapes
}

fn program_types(table: &Table<'_, '_>, faults: &mut Faults<'_>) -> BTreeSet<String> {
    table.require("program_types", faults);
    let Some(types) = table.strings("program_types", faults) else {
        return BTreeSet::new();
    };
    if types.value.is_empty() {
        faults.add(
            types.span,
            "`program_types` is empty: the shape admits nothing",
        );
    }
    let mut allowed = BTreeSet::new();
    for At { span, value } in types.value {
        if TYPES.contains(&value) {
            allowed.insert(value.to_owned());
        } else if vocabulary::is_program_type(value) {
            let message = format!(
                "a shape cannot allow {value}: only {} can do no harm whoever makes it",
                TYPES.join(" and ")
            );
            faults.add(span, message);
        } else {
            let hint = did_you_mean(value, TYPES.iter().copied());
            faults.add(span, format!("unknown program type {value:?}{hint}"));
        }
    }
    allowed
}

fn calls(table: &Table<'_, '_>, faults: &mut Faults<'_>) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    let Some(calls) = table.strings("calls", faults) else {
        return allowed;
    };
    for At { span, value } in calls.value {
        if CALLS.contains(&value) {
            allowed.insert(value.to_owned());
        } else if vocabulary::is_helper(value) {
            let message = format!(
                "a shape cannot allow {value}: only helpers without effect can be allowed to \
                 anyone ({})",
                CALLS.join(", ")
            );
            faults.add(span, message);
        } else {
            let hint = did_you_mean(value, CALLS.iter().copied());
            faults.add(span, format!("unknown helper {value:?}{hint}"));
        }
    }
    allowed
}

fn maps(table: &Table<'_, '_>, faults: &mut Faults<'_>) -> u32 {
    if let Some(maps) = table.integer("maps", 0..=64, faults)
        && maps.value != 0
    {
        faults.unsupported(
            maps.span,
            "`maps` above 0 in a shape is known but not supported yet: what a map holds would \
             be unchecked; write 0",
        );
    }
    0
}
