//! `bpfseal inspect`.

use std::path::Path;

use bundle::{
    Layout, MalformedBundle, MalformedObject, UnverifiedBundle, embedded,
    inventory::{self, DataSection, Inventory, Object, Program},
};
use comfy_table::{ContentArrangement, Table, presets};
use policy::Reason;

use crate::{
    Failure, Output,
    commands::pack::describe_loaders,
    output::printable,
    registry::Connection,
    source::{Opened, Source},
};

/// Show what a BPF object, a bundle or an executable contains, read from its bytes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal inspect xdp.bpf.o
  bpfseal inspect /usr/sbin/opensnoop --json
  bpfseal inspect registry.example.com/net/xdp:v1

What it is, is told by its content. Nothing is verified: `bpfseal verify` does that. The
recorded inventory of a bundle is compared with its objects. `--schema` prints the JSON
Schema of what `--json` prints; docs/inventory.md explains it.")]
pub struct Args {
    /// What to look at.
    #[arg(
        value_name = "OBJECT|BUNDLE|REFERENCE|EXECUTABLE",
        required_unless_present = "schema"
    )]
    source: Option<String>,
    /// Print the JSON Schema of an inventory.
    #[arg(long, conflicts_with = "source")]
    schema: bool,
    #[command(flatten)]
    connection: Connection,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let Some(source) = &args.source else {
        let schema = schemars::schema_for!(Inventory);
        output.result(&schema, || {
            serde_json::to_string_pretty(&schema).unwrap_or_default()
        });
        return Ok(());
    };
    let opened = Source::parse(source)?.open(&args.connection, output)?;
    let inventory = match opened {
        Opened::File { path, bytes } => of_file(&path, &bytes, output)?,
        Opened::Layout { path, layout } => of_layout(&path.display().to_string(), layout)?,
        Opened::Remote(remote) => of_layout(source, remote.layout)?,
    };
    output.result(&inventory, || describe(&inventory));
    Ok(())
}

/// An object, or an executable with objects in it.
fn of_file(path: &Path, bytes: &[u8], output: &Output) -> Result<Inventory, Failure> {
    let shown = path.display();
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let is_object = embedded::is_object(bytes);
    let found = if is_object {
        Vec::new()
    } else {
        embedded::find_in(&name, bytes)
    };
    if found.is_empty() {
        let object = inventory::read(&name, bytes).map_err(|error| match is_object {
            true => refused(&error, &format!("{shown}: {error}")),
            false => refused(
                &error,
                &format!("{shown}: {error}, and no BPF object is inside it"),
            ),
        })?;
        return Ok(Inventory::of(vec![object]));
    }
    let mut objects = Vec::new();
    let mut first = None;
    let mut reader = inventory::Reader::default();
    for embedded::Embedded { name, range } in found {
        let start = range.start;
        match reader.read(&name, bytes.get(range).unwrap_or_default()) {
            Ok(object) => objects.push(object),
            Err(error) => {
                let message = format!("{shown}: the object at offset {start:#x}: {error}");
                output.note(&message);
                first.get_or_insert_with(|| refused(&error, &message));
            }
        }
    }
    match first {
        Some(failure) if objects.is_empty() => Err(failure),
        _ => Ok(Inventory::of(objects)),
    }
}

/// A bundle; what it records must be what its objects say.
fn of_layout(shown: &str, layout: Layout) -> Result<Inventory, Failure> {
    let failed = |error: &MalformedBundle| {
        let reason = match error {
            MalformedBundle::Digest { .. } => Reason::DigestMismatch,
            MalformedBundle::Inventory(_) => Reason::InventoryMismatch,
            MalformedBundle::Object { .. } => Reason::MalformedObject,
            MalformedBundle::Limit(_) => Reason::LimitExceeded,
            MalformedBundle::NotABundle(_) => Reason::NotABundle,
            _ => Reason::MalformedBundle,
        };
        Failure::refused(reason, format!("{shown}: {error}"))
    };
    let mut bundle: UnverifiedBundle = layout.bundle().map_err(|error| failed(&error))?;
    drop(layout);
    bundle.check_inventory().map_err(|error| failed(&error))?;
    Ok(bundle.recorded_inventory().clone())
}

fn refused(error: &MalformedObject, message: &str) -> Failure {
    let reason = if error.is_limit() {
        Reason::LimitExceeded
    } else {
        Reason::MalformedObject
    };
    Failure::refused(reason, message)
}

fn describe(inventory: &Inventory) -> String {
    let mut text = String::new();
    let package = [
        ("package", &inventory.name),
        ("version", &inventory.version),
        ("source", &inventory.source),
    ];
    for (label, value) in package {
        if let Some(value) = value {
            text += &format!("{label:<9} {}\n", printable(value));
        }
    }
    for object in &inventory.objects {
        if !text.is_empty() {
            text.push('\n');
        }
        text += &describe_object(object);
    }
    if !inventory.kernel_loaders.is_empty() {
        text.push('\n');
        let loaders = describe_loaders(&inventory.kernel_loaders);
        text += &crate::output::printable_lines(&loaders);
    }
    text
}

fn describe_object(object: &Object) -> String {
    let mut text = format!("{}\n", printable(&object.name));
    let mut line = |label: &str, value: String| {
        if !value.is_empty() {
            text += &format!("  {label:<10} {}\n", printable(&value));
        }
    };
    line("digest", object.digest.to_string());
    line("size", format!("{} bytes, {}", object.size, order(object)));
    line(
        "licence",
        object.license.clone().unwrap_or_else(|| "none".to_owned()),
    );
    line("needs", needs(object));
    line("helpers", union(object, |program| &program.helpers));
    line("kfuncs", union(object, |program| &program.kfuncs));
    let externs = object.externs.iter().map(|found| found.name.as_str());
    line("externs", listed(externs));
    let subprograms = object.subprograms.iter().map(|found| found.name.as_str());
    line("functions", listed(subprograms));
    let tables = [programs(object), maps(object), data(object)];
    for table in tables.into_iter().flatten() {
        text.push('\n');
        text += &table;
    }
    text
}

fn order(object: &Object) -> &'static str {
    match object.endianness {
        inventory::Endianness::Little => "little-endian",
        inventory::Endianness::Big => "big-endian",
    }
}

fn needs(object: &Object) -> String {
    let needs = &object.needs;
    let Some(release) = &needs.oldest_kernel else {
        return "any kernel with BPF".to_owned();
    };
    let newest = needs.features.iter().filter(|(_, since)| *since == release);
    let why = listed(newest.map(|(feature, _)| feature.as_str()));
    let btf = if needs.kernel_btf { ", kernel BTF" } else { "" };
    format!("Linux {release} ({why}){btf}")
}

fn union<'a>(object: &'a Object, of: impl Fn(&'a Program) -> &'a Vec<String>) -> String {
    let mut names: Vec<&str> = Vec::new();
    for program in object.programs.iter().take(MAX_ROWS) {
        names.extend(of(program).iter().take(MAX_NAMES + 1).map(String::as_str));
    }
    names.sort_unstable();
    names.dedup();
    listed(names.into_iter())
}

/// A few names, and how many more there are.
fn listed<'a>(mut names: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for name in names.by_ref().take(MAX_NAMES) {
        if !text.is_empty() {
            text += ", ";
        }
        text += &short(name);
    }
    match names.count() {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

fn programs(object: &Object) -> Option<String> {
    let rows = object.programs.iter().map(|program| {
        let length = match program.total_insns - program.insns.min(program.total_insns) {
            0 => program.insns.to_string(),
            more => format!("{} + {more}", program.insns),
        };
        let flags = [
            (program.sleepable, "sleepable"),
            (program.optional, "optional"),
            (program.loops, "loops"),
        ];
        let flags: Vec<_> = flags
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, flag)| *flag)
            .collect();
        vec![
            short(&program.name),
            short(&program.section),
            program.kind.clone(),
            program.attach_type.clone().unwrap_or_default(),
            length,
            program.core_relocations.to_string(),
            flags.join(" "),
        ]
    });
    let header = ["PROGRAM", "SECTION", "TYPE", "ATTACH", "INSNS", "CO-RE", ""];
    table(&header, rows)
}

fn maps(object: &Object) -> Option<String> {
    let rows = object.maps.iter().map(|map| {
        let kind = match &map.inner {
            Some(inner) => format!("{} of {}", map.kind, inner.kind),
            None => map.kind.clone(),
        };
        let mut notes = Vec::new();
        if map.flags != 0 {
            notes.push(format!("flags {:#x}", map.flags));
        }
        if map.pinning != "none" {
            notes.push(format!("pinned {}", map.pinning));
        }
        if map.legacy {
            notes.push("legacy".to_owned());
        }
        if map.optional {
            notes.push("optional".to_owned());
        }
        vec![
            short(&map.name),
            kind,
            map.key_size.to_string(),
            map.value_size.to_string(),
            map.max_entries.to_string(),
            notes.join(" "),
        ]
    });
    table(&["MAP", "TYPE", "KEY", "VALUE", "ENTRIES", ""], rows)
}

fn data(object: &Object) -> Option<String> {
    let rows = object.data.iter().map(|section| {
        vec![
            short(&section.section),
            section.size.to_string(),
            if section.readonly {
                "read-only"
            } else {
                "writable"
            }
            .to_owned(),
            variables(section),
        ]
    });
    table(&["DATA", "BYTES", "", "VARIABLES"], rows)
}

fn variables(section: &DataSection) -> String {
    let names: Vec<String> = section
        .variables
        .iter()
        .take(MAX_NAMES)
        .map(|variable| {
            let note = match (variable.tunable, variable.volatile) {
                (true, _) => " (tunable)",
                (false, true) => " (volatile)",
                (false, false) => "",
            };
            short(&variable.name) + note
        })
        .collect();
    match section.variables.len() - names.len() {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

fn table(header: &[&str], rows: impl ExactSizeIterator<Item = Vec<String>>) -> Option<String> {
    let count = rows.len();
    if count == 0 {
        return None;
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    for row in rows.take(MAX_ROWS) {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    let mut text = String::new();
    for line in table.lines() {
        text += &format!(" {}\n", line.trim_end());
    }
    if count > MAX_ROWS {
        text += &format!("  and {} more; `--json` has them all\n", count - MAX_ROWS);
    }
    Some(text)
}

/// A name that fits a table; `--json` has it whole.
fn short(name: &str) -> String {
    match name.char_indices().nth(MAX_WIDTH) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// Rows of a table: more are no help to a person.
const MAX_ROWS: usize = 200;

/// Names in a list.
const MAX_NAMES: usize = 32;

/// Characters of a name.
const MAX_WIDTH: usize = 60;
