//! A policy as it is really read: TOML again, every default written out and marked.

use std::{collections::BTreeSet, fmt::Write as _};

use bundle::image::Allowed;

use crate::{
    Policy,
    language::TrustedKey,
    rule::{Entries, Rule, Values},
    shape::Shape,
};

/// The policy as TOML that means the same, with `# default` beside what its file leaves out.
pub fn to_toml(policy: &Policy) -> String {
    let mut text = format!("# policy {}\n", policy.digest());
    let defaults = policy.defaults();
    line(
        &mut text,
        "version",
        &policy.version().to_string(),
        defaults,
    );
    line(&mut text, "mode", &quote(policy.mode().as_str()), defaults);
    for key in policy.keys().values() {
        write_key(&mut text, key);
    }
    for rule in policy.rules() {
        write_rule(&mut text, rule);
    }
    for shape in policy.shapes() {
        write_shape(&mut text, shape);
    }
    text
}

fn write_key(text: &mut String, trusted: &TrustedKey) {
    let id = trusted.key.id();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "\n[keys.{}] # line {}, {id}",
        quote(&trusted.name),
        trusted.line
    );
    match &trusted.file {
        Some(file) => line(text, "file", &quote(file), &BTreeSet::new()),
        None => {
            let pem = trusted.key.to_pem();
            let _ = writeln!(text, "pem = \"\"\"\n{pem}\"\"\"");
        }
    }
}

fn write_rule(text: &mut String, rule: &Rule) {
    let signed_by = format!(
        "{{ at_least = {}, of = {} }}",
        rule.signed_by.at_least,
        list(&rule.signed_by.of)
    );
    let defaults = &rule.defaults;
    let _ = writeln!(text, "\n[[rule]] # line {}", rule.line);
    line(text, "name", &quote(&rule.name), defaults);
    line(text, "scope", &quote(rule.scope.as_str()), defaults);
    line(text, "signed_by", &signed_by, defaults);
    line(text, "program_types", &list(&rule.program_types), defaults);
    let targets = rule.load_targets.iter().map(ToString::to_string);
    line(text, "load_targets", &list(targets), defaults);
    let attach = rule.attach.iter().map(ToString::to_string);
    line(text, "attach", &list(attach), defaults);
    line(text, "forbid_calls", &list(&rule.forbid_calls), defaults);
    let tunables = named(&rule.tunables, rule.other_tunables.as_ref(), values);
    line(text, "tunables", &tunables, defaults);
    let sizes = named(&rule.map_sizes, rule.other_map_sizes.as_ref(), entries);
    line(text, "map_sizes", &sizes, defaults);
    match &rule.min_version {
        Some(version) => line(text, "min_version", &quote(&version.to_string()), defaults),
        None => text.push_str("# min_version: none # default\n"),
    }
}

fn write_shape(text: &mut String, shape: &Shape) {
    let defaults = &shape.defaults;
    let _ = writeln!(text, "\n[[shape]] # line {}", shape.line);
    line(text, "name", &quote(&shape.name), defaults);
    line(text, "program_types", &list(&shape.program_types), defaults);
    line(text, "calls", &list(&shape.calls), defaults);
    line(text, "maps", &shape.maps.to_string(), defaults);
    line(text, "max_insns", &shape.max_insns.to_string(), defaults);
}

fn line(text: &mut String, key: &str, value: &str, defaults: &BTreeSet<&'static str>) {
    let mark = if defaults.contains(key) {
        " # default"
    } else {
        ""
    };
    let _ = writeln!(text, "{key} = {value}{mark}");
}

fn named<'a, T: 'a>(
    named: impl IntoIterator<Item = (&'a String, &'a T)>,
    others: Option<&'a T>,
    write: fn(&T) -> String,
) -> String {
    let mut items: Vec<String> = named
        .into_iter()
        .map(|(name, limit)| format!("{} = {}", quote(name), write(limit)))
        .collect();
    items.extend(others.map(|limit| format!("\"*\" = {}", write(limit))));
    if items.is_empty() {
        return "{}".to_owned();
    }
    format!("{{ {} }}", items.join(", "))
}

fn values(values: &Values) -> String {
    match &values.0 {
        Allowed::Any => quote("any"),
        Allowed::Range(min, max) => format!("{{ min = {min}, max = {max} }}"),
        Allowed::OneOf(values) => {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            format!("{{ one_of = [{}] }}", values.join(", "))
        }
    }
}

fn entries(entries: &Entries) -> String {
    if *entries == Entries::ANY {
        return quote("any");
    }
    format!(
        "{{ max_entries = {{ min = {}, max = {} }} }}",
        entries.min, entries.max
    )
}

fn list(items: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| quote(item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

/// A TOML basic string.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
