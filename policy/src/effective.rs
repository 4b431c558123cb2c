//! A policy as it is really read: TOML again, every default written out and marked.

use std::{collections::BTreeSet, fmt::Write as _};

use bundle::image::Allowed;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    Policy,
    exception::Exception,
    generator::{Generator, PinnedFile},
    language::{Root, TrustedAuthority, TrustedIdentity, TrustedKey},
    protect::Switch,
    rule::{Entries, Required, Rule, Values},
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
    let strict = if policy.is_strict() { "true" } else { "false" };
    line(&mut text, "strict", strict, defaults);
    if policy.shapes().is_empty() {
        line(&mut text, "shape", "[]", defaults);
    }
    let _ = writeln!(text, "\n[protect]");
    for &switch in Switch::ALL {
        let on = policy.protect().is_on(switch).to_string();
        line(&mut text, switch.word(), &on, policy.protect_defaults());
    }
    for key in policy.keys().values() {
        write_key(&mut text, key);
    }
    for identity in policy.keyless().values() {
        write_identity(&mut text, identity);
    }
    for authority in policy.x509().values() {
        write_authority(&mut text, authority);
    }
    for trusted in policy.kernel_keyrings() {
        let name = quote(&trusted.name);
        let _ = writeln!(text, "\n[kernel_keyring.{name}] # line {}", trusted.line);
        let word = quote(trusted.keyring.word());
        line(&mut text, "keyring", &word, &BTreeSet::new());
    }
    if !policy.probe_signers().is_empty() {
        let names = policy.probe_signers().iter().map(|name| quote(name));
        let names = names.collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "\n[probes]");
        line(
            &mut text,
            "signed_by",
            &format!("[{names}]"),
            &BTreeSet::new(),
        );
    }
    if !policy.daemons().is_empty() {
        let sums: BTreeSet<String> = policy.daemons().iter().map(|sum| sum.to_hex()).collect();
        let _ = writeln!(text, "\n[daemon]");
        line(&mut text, "sha256", &list(&sums), &BTreeSet::new());
    }
    for rule in policy.rules() {
        write_rule(&mut text, rule);
    }
    for shape in policy.shapes() {
        write_shape(&mut text, shape);
    }
    for generator in policy.generators() {
        write_generator(&mut text, generator);
    }
    for exception in policy.exceptions() {
        write_exception(&mut text, exception);
    }
    text
}

/// The policy as JSON: the same content as [`to_toml`], with positions and key identities.
pub fn to_json(policy: &Policy) -> Value {
    let keys: Map<String, Value> = policy
        .keys()
        .values()
        .map(|trusted| {
            let key = json!({
                "id": trusted.key.id(),
                "algorithm": trusted.key.algorithm().name(),
                "file": trusted.file,
                "line": trusted.line,
            });
            (trusted.name.clone(), key)
        })
        .collect();
    let keyless: Map<String, Value> = policy
        .keyless()
        .values()
        .map(|trusted| {
            let identity = json!({
                "identity": trusted.identity,
                "issuer": trusted.issuer,
                "trusted_root": root_of(trusted),
                "file": trusted.file,
                "line": trusted.line,
            });
            (trusted.name.clone(), identity)
        })
        .collect();
    let x509: Map<String, Value> = policy
        .x509()
        .values()
        .map(|trusted| {
            let authority = json!({
                "names": trusted.authority.names(),
                "id": trusted.authority.id(),
                "file": trusted.files.get("roots"),
                "line": trusted.line,
            });
            (trusted.name.clone(), authority)
        })
        .collect();
    json!({
        "digest": policy.digest(),
        "version": policy.version(),
        "mode": policy.mode(),
        "strict": policy.is_strict(),
        "protect": policy.protect(),
        "defaults": policy.defaults(),
        "keys": keys,
        "keyless": keyless,
        "x509": x509,
        "rules": policy.rules(),
        "shapes": policy.shapes(),
        "generators": policy.generators(),
        "kernel_keyrings": policy.kernel_keyrings(),
        "probes": policy.probe_signers(),
        "daemons": policy.daemons(),
        "exceptions": policy.exceptions(),
        "notes": policy.notes(),
    })
}

/// One difference in meaning between two policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What differs: `rule "tools" program_types`.
    pub what: String,
    /// Its value in the old policy, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// Its value in the new policy, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

/// What the new policy changes, in the order mode, keys, rules, shapes, generators, exceptions.
pub fn changes(old: &Policy, new: &Policy) -> Vec<Change> {
    let (old, new) = (to_json(old), to_json(new));
    let mut changes = Vec::new();
    for key in ["version", "mode", "strict", "protect", "probes", "daemons"] {
        compare(key.to_owned(), old.get(key), new.get(key), &mut changes);
    }
    for (section, what) in [("keys", "key"), ("keyless", "keyless"), ("x509", "x509")] {
        let (old, new) = (signers_of(&old, section), signers_of(&new, section));
        compare_named(what, &old, &new, &mut changes);
    }
    let sections = [
        ("rules", "rule"),
        ("shapes", "shape"),
        ("generators", "generator"),
    ];
    for (section, what) in sections {
        let (old, new) = (entries_of(&old, section), entries_of(&new, section));
        compare_named(what, &old, &new, &mut changes);
        let order = |entries: &[(String, Map<String, Value>)], others: &[(String, _)]| {
            let common = entries
                .iter()
                .map(|(name, _)| name.clone())
                .filter(|name| others.iter().any(|(other, _)| other == name));
            Value::from(common.collect::<Vec<String>>())
        };
        let what = format!("order of {section}");
        compare(
            what,
            Some(&order(&old, &new)),
            Some(&order(&new, &old)),
            &mut changes,
        );
    }
    // Their order means nothing.
    let keyrings = |policy| entries_of(policy, "kernel_keyrings");
    let (before, after) = (keyrings(&old), keyrings(&new));
    compare_named("kernel_keyring", &before, &after, &mut changes);
    let (old, new) = (exceptions_of(&old), exceptions_of(&new));
    compare_named("exception", &old, &new, &mut changes);
    changes
}

/// The identity of each signer; where it was read from makes no difference.
fn signers_of(policy: &Value, section: &str) -> Vec<(String, Map<String, Value>)> {
    let signers = policy[section].as_object();
    signers
        .into_iter()
        .flatten()
        .map(|(name, signer)| {
            let mut signer = signer.as_object().cloned().unwrap_or_default();
            for place in ["file", "line", "algorithm"] {
                signer.remove(place);
            }
            (name.clone(), signer)
        })
        .collect()
}

fn entries_of(policy: &Value, section: &str) -> Vec<(String, Map<String, Value>)> {
    let entries = policy[section].as_array();
    entries
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let mut entry = entry.as_object()?.clone();
            entry.remove("line");
            entry.remove("defaults");
            let name = entry.remove("name")?.as_str()?.to_owned();
            Some((name, entry))
        })
        .collect()
}

/// Each exception by the bundle that it names.
fn exceptions_of(policy: &Value) -> Vec<(String, Map<String, Value>)> {
    let exceptions = policy["exceptions"].as_array();
    exceptions
        .into_iter()
        .flatten()
        .filter_map(|exception| {
            let mut exception = exception.as_object()?.clone();
            exception.remove("line");
            let bundle = exception.remove("bundle")?.as_str()?.to_owned();
            Some((bundle, exception))
        })
        .collect()
}

fn compare_named(
    what: &str,
    old: &[(String, Map<String, Value>)],
    new: &[(String, Map<String, Value>)],
    changes: &mut Vec<Change>,
) {
    let find = |entries: &'_ [(String, Map<String, Value>)], name: &str| {
        entries
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, entry)| entry.clone())
    };
    for (name, before) in old {
        let what = format!("{what} {name:?}");
        let Some(after) = find(new, name) else {
            let before = Value::from(before.clone());
            compare(what, Some(&before), None, changes);
            continue;
        };
        for (field, value) in before {
            compare(
                format!("{what} {field}"),
                Some(value),
                after.get(field),
                changes,
            );
        }
    }
    for (name, after) in new {
        if find(old, name).is_none() {
            let after = Value::from(after.clone());
            compare(format!("{what} {name:?}"), None, Some(&after), changes);
        }
    }
}

fn compare(what: String, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Change>) {
    if old != new {
        changes.push(Change {
            what,
            old: old.cloned(),
            new: new.cloned(),
        });
    }
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

fn write_identity(text: &mut String, trusted: &TrustedIdentity) {
    let _ = writeln!(
        text,
        "\n[keyless.{}] # line {}",
        quote(&trusted.name),
        trusted.line
    );
    let none = BTreeSet::new();
    line(text, "identity", &quote(trusted.identity.as_str()), &none);
    line(text, "issuer", &quote(&trusted.issuer), &none);
    match &trusted.file {
        Some(file) => line(text, "trusted_root", &quote(file), &none),
        None => {
            let _ = writeln!(text, "# trusted_root: {}", root_of(trusted));
        }
    }
}

/// The digest of a trusted root, or that it is the embedded one.
fn root_of(trusted: &TrustedIdentity) -> String {
    match &trusted.root {
        Root::Embedded => "public-good instance, embedded".to_owned(),
        Root::Given(root) => root.digest().to_string(),
    }
}

fn write_authority(text: &mut String, trusted: &TrustedAuthority) {
    let _ = writeln!(
        text,
        "\n[x509.{}] # line {}, {}",
        quote(&trusted.name),
        trusted.line,
        trusted.authority.id()
    );
    let none = BTreeSet::new();
    let names = trusted.authority.names().iter().map(|name| name.as_str());
    line(text, "names", &list(names), &none);
    for (key, file) in &trusted.files {
        line(text, key, &quote(file), &none);
    }
    let mut defaults = BTreeSet::new();
    if trusted.authority.usage().is_none() {
        defaults.insert("usage");
    }
    let usage = trusted.authority.usage().unwrap_or("code-signing");
    line(text, "usage", &quote(usage), &defaults);
    if let Some(length) = trusted.authority.max_path_length() {
        line(text, "max_path_length", &length.to_string(), &none);
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
    let require: Vec<String> = rule.require.iter().map(required).collect();
    line(
        text,
        "require",
        &format!("[{}]", require.join(", ")),
        defaults,
    );
    match &rule.when {
        Some(when) => line(text, "when", &quote(when.as_str()), defaults),
        None => text.push_str("# when: always # default\n"),
    }
    match &rule.max_age {
        Some(age) => line(text, "max_age", &quote(&age.to_string()), defaults),
        None => text.push_str("# max_age: any # default\n"),
    }
}

fn required(required: &Required) -> String {
    let predicate_type = quote(&required.predicate_type);
    match &required.when {
        None => predicate_type,
        Some(when) => format!(
            "{{ type = {predicate_type}, when = {} }}",
            quote(when.as_str())
        ),
    }
}

fn write_shape(text: &mut String, shape: &Shape) {
    let defaults = &shape.defaults;
    let place = match shape.line {
        0 => "default".to_owned(),
        line => format!("line {line}"),
    };
    let _ = writeln!(text, "\n[[shape]] # {place}");
    line(text, "name", &quote(&shape.name), defaults);
    line(text, "program_types", &list(&shape.program_types), defaults);
    line(text, "calls", &list(&shape.calls), defaults);
    line(text, "maps", &shape.maps.to_string(), defaults);
    line(text, "max_insns", &shape.max_insns.to_string(), defaults);
}

fn write_generator(text: &mut String, generator: &Generator) {
    let defaults = &generator.defaults;
    let pinned = |file: &PinnedFile| {
        let mut text = format!("{{ path = {}", quote(&file.path));
        for (key, sums) in [
            ("sha256", &file.sha256),
            ("fsverity", &file.fsverity),
            ("dmverity", &file.dmverity),
        ] {
            if !sums.is_empty() {
                let sums: BTreeSet<String> = sums.iter().map(|sum| sum.to_hex()).collect();
                let _ = write!(text, ", {key} = {}", list(sums));
            }
        }
        text + " }"
    };
    let _ = writeln!(text, "\n[[generator]] # line {}", generator.line);
    line(text, "name", &quote(&generator.name), defaults);
    line(text, "exe", &pinned(&generator.exe), defaults);
    let libraries: Vec<String> = generator.libraries.iter().map(pinned).collect();
    line(
        text,
        "libraries",
        &format!("[{}]", libraries.join(", ")),
        defaults,
    );
    line(
        text,
        "program_types",
        &list(&generator.program_types),
        defaults,
    );
    line(
        text,
        "forbid_calls",
        &list(&generator.forbid_calls),
        defaults,
    );
    line(text, "map_types", &list(&generator.map_types), defaults);
    line(text, "maps", &generator.maps.to_string(), defaults);
    line(
        text,
        "max_insns",
        &generator.max_insns.to_string(),
        defaults,
    );
    match &generator.cgroup {
        Some(cgroup) => line(text, "cgroup", &quote(cgroup), defaults),
        None => text.push_str("# cgroup: any # default\n"),
    }
    match generator.uid {
        Some(uid) => line(text, "uid", &uid.to_string(), defaults),
        None => text.push_str("# uid: any # default\n"),
    }
    line(text, "permit", &generator.permit.to_string(), defaults);
}

fn write_exception(text: &mut String, exception: &Exception) {
    let none = BTreeSet::new();
    let _ = writeln!(text, "\n[[exception]] # line {}", exception.line);
    line(text, "bundle", &quote(&exception.bundle.to_string()), &none);
    line(text, "reason", &quote(&exception.reason), &none);
    line(text, "until", &exception.until.to_string(), &none);
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
