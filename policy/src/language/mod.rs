//! The policy language: TOML in, a [`Policy`] that cannot be wrong out.
//!
//! Every key is known, or refused with its line and column; a key that only a later
//! version understands is refused by name, because a check that is not made must not look
//! as if it were. `docs/policy.md` explains the language to its users.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
};

use bundle::Digest;
use serde::Serialize;
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

mod daemon;
mod demands;
mod exceptions;
mod fault;
mod generators;
mod keyrings;
mod notes;
mod probe_keys;
mod reader;
mod rules;
mod shapes;
mod trust;

pub use fault::{Fault, PolicyError};
use fault::{Faults, position};
pub use notes::Note;
use reader::{At, Keys, Table, integer, wrong_type};
pub use trust::{Root, TrustedAuthority, TrustedIdentity};

use crate::{
    exception::Exception,
    generator::Generator,
    kernel_keyring::TrustedKeyring,
    key::PublicKey,
    protect::{Switch, Switches},
    rule::Rule,
    shape::Shape,
    spelling::did_you_mean,
};

/// Longest policy file: a thousand rules of a thousand bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// Most keys, and most rules: a person has to be able to read them.
pub const MAX_ENTRIES: usize = 1000;

/// A policy: who is trusted, with what.
#[derive(Clone, Debug)]
pub struct Policy {
    digest: Digest,
    version: u64,
    defaults: BTreeSet<&'static str>,
    mode: Mode,
    strict: bool,
    protect: Switches,
    protect_defaults: BTreeSet<&'static str>,
    keys: BTreeMap<String, TrustedKey>,
    keyless: BTreeMap<String, TrustedIdentity>,
    x509: BTreeMap<String, TrustedAuthority>,
    files: BTreeMap<String, String>,
    rules: Vec<Rule>,
    shapes: Vec<Shape>,
    generators: Vec<Generator>,
    kernel_keyrings: Vec<TrustedKeyring>,
    probe_signers: Vec<String>,
    daemons: BTreeSet<Digest>,
    exceptions: Vec<Exception>,
    notes: Vec<Note>,
}

/// What the gate does with what the policy refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Refuse it.
    #[default]
    Enforce,
    /// Let it pass and report it.
    Audit,
}

impl Mode {
    /// As written in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
        }
    }
}

/// A key that the policy names.
#[derive(Clone, Debug)]
pub struct TrustedKey {
    /// Its name in the policy.
    pub name: String,
    /// Line on which it is named, from 1.
    pub line: usize,
    /// File that it was read from, as written; `None`: it stands in the policy itself.
    pub file: Option<String>,
    /// The key.
    pub key: PublicKey,
}

impl Policy {
    /// Reads a policy. `load_key` returns the bytes of a key file named in it, by the name
    /// as written; this crate itself opens no files.
    pub fn parse(
        text: &str,
        load_key: &dyn Fn(&str) -> io::Result<Vec<u8>>,
    ) -> Result<Self, PolicyError> {
        let mut faults = Faults::new(text);
        let policy = read(text, load_key, &mut faults);
        match policy {
            Some(policy) if faults.is_empty() => Ok(policy),
            _ => Err(PolicyError {
                faults: faults.into_faults(),
            }),
        }
    }

    /// SHA-256 of the file's bytes.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Rises with each change of the policy.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Does the file itself say its version? Without, it cannot be signed.
    pub fn has_explicit_version(&self) -> bool {
        !self.defaults.contains("version")
    }

    /// Keys at the top that the file leaves out, so that their values are defaults.
    pub const fn defaults(&self) -> &BTreeSet<&'static str> {
        &self.defaults
    }

    /// Enforce or audit.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Does it want nothing in the kernel that nobody judged?
    pub const fn is_strict(&self) -> bool {
        self.strict
    }

    /// Which ways into kernel memory it closes.
    pub const fn protect(&self) -> Switches {
        self.protect
    }

    /// Keys of `[protect]` that the file leaves out.
    pub const fn protect_defaults(&self) -> &BTreeSet<&'static str> {
        &self.protect_defaults
    }

    /// The trusted keys, by name.
    pub const fn keys(&self) -> &BTreeMap<String, TrustedKey> {
        &self.keys
    }

    /// The trusted identities, by name.
    pub const fn keyless(&self) -> &BTreeMap<String, TrustedIdentity> {
        &self.keyless
    }

    /// The trusted certificate authorities, by name.
    pub const fn x509(&self) -> &BTreeMap<String, TrustedAuthority> {
        &self.x509
    }

    /// Files other than keys that it was read with, by the name that it gives them.
    pub const fn files(&self) -> &BTreeMap<String, String> {
        &self.files
    }

    /// Everybody whom a rule may name, with the line on which they are.
    pub fn trusted(&self) -> impl Iterator<Item = (&str, usize)> {
        let keys = self.keys.values().map(|key| (key.name.as_str(), key.line));
        let keyless = self.keyless.values();
        let x509 = self.x509.values();
        keys.chain(keyless.map(|identity| (identity.name.as_str(), identity.line)))
            .chain(x509.map(|authority| (authority.name.as_str(), authority.line)))
    }

    /// The rules, in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The shapes, in order.
    pub fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    /// Keyrings by which the kernel may verify loaders itself.
    pub fn kernel_keyrings(&self) -> &[TrustedKeyring] {
        &self.kernel_keyrings
    }

    /// Names of the keys by which lists of probe programs are taken.
    pub fn probe_signers(&self) -> &[String] {
        &self.probe_signers
    }

    /// SHA-256 of the files that may take the place of the enforcer's own.
    pub const fn daemons(&self) -> &BTreeSet<Digest> {
        &self.daemons
    }

    /// Those keys.
    pub fn probe_keys(&self) -> impl Iterator<Item = &TrustedKey> {
        let names = self.probe_signers.iter();
        names.filter_map(|name| self.keys.get(name))
    }

    /// The generators, in order.
    pub fn generators(&self) -> &[Generator] {
        &self.generators
    }

    /// The exceptions, in order.
    pub fn exceptions(&self) -> &[Exception] {
        &self.exceptions
    }

    /// The exception for this bundle, whether its time is over or not.
    pub fn exception_for(&self, bundle: Digest) -> Option<&Exception> {
        self.exceptions
            .iter()
            .find(|exception| exception.bundle == bundle)
    }

    /// What is allowed but may not be meant: a rule that is never reached, a key that no
    /// rule uses.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The rule that decides about `scope`: the first that covers it.
    pub fn rule_for(&self, scope: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.scope.covers(scope))
    }
}

const FILE: Keys = Keys {
    known: &[
        "daemon",
        "exception",
        "generator",
        "kernel_keyring",
        "keyless",
        "keys",
        "mode",
        "probes",
        "protect",
        "rule",
        "shape",
        "strict",
        "version",
        "x509",
    ],
    later: &[(
        "revocation",
        "remove it; to revoke a key now, remove it from [keys] and raise `version`",
    )],
};

fn read(
    text: &str,
    load_key: &dyn Fn(&str) -> io::Result<Vec<u8>>,
    faults: &mut Faults<'_>,
) -> Option<Policy> {
    if text.len() > MAX_BYTES {
        let message = format!(
            "the file has {} bytes; at most {MAX_BYTES} are read",
            text.len()
        );
        faults.add(0..0, message);
        return None;
    }
    let (file, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        faults.add(error.span().unwrap_or(0..0), message);
    }
    if !errors.is_empty() {
        return None;
    }
    let file = Table::of("the policy", 0..0, file.get_ref(), &FILE, faults);
    let version = file.integer("version", 1..=i64::MAX, faults);
    let mode = read_mode(&file, faults);
    let strict = file.flag("strict", faults);
    let (protect, protect_defaults) = read_protect(&file, faults);
    let keys = read_keys(text, &file, load_key, faults);
    let mut files = trust::Files::new(load_key);
    let keyless = trust::read_keyless(text, &file, &mut files, faults);
    let x509 = trust::read_x509(text, &file, &mut files, faults);
    let owners = owners(&keys, &keyless, &x509);
    check_names(&file, faults);
    let names = names_of_signers(&file);
    let rules = rules::read(text, &file, &owners, &names, faults);
    let shapes = shapes::read(text, &file, faults);
    let generators = generators::read(text, &file, faults);
    let kernel_keyrings = keyrings::read(text, &file, faults);
    let probe_signers = probe_keys::read(&file, &keys, faults);
    let daemons = daemon::read(&file, faults);
    let exceptions = exceptions::read(text, &file, faults);
    let mut policy = Policy {
        digest: Digest::of(text.as_bytes()),
        version: version.as_ref().map_or(1, |at| at.value.unsigned_abs()),
        defaults: file.lacking(FILE.known),
        mode,
        strict,
        protect,
        protect_defaults,
        keys,
        keyless,
        x509,
        files: files.read,
        rules,
        shapes,
        generators,
        kernel_keyrings,
        probe_signers,
        daemons,
        exceptions,
        notes: Vec::new(),
    };
    policy.notes = notes::of(&policy);
    Some(policy)
}

fn read_mode(file: &Table<'_, '_>, faults: &mut Faults<'_>) -> Mode {
    match file.string("mode", faults) {
        None => Mode::default(),
        Some(At {
            value: "enforce", ..
        }) => Mode::Enforce,
        Some(At { value: "audit", .. }) => Mode::Audit,
        Some(At { span, value }) => {
            let hint = did_you_mean(value, ["enforce", "audit"]);
            let message = format!("`mode` must be \"enforce\" or \"audit\"; got {value:?}{hint}");
            faults.add(span, message);
            Mode::default()
        }
    }
}

/// The keys are [`Switch::word`]s; a test holds the two together.
const PROTECT: Keys = Keys {
    known: &[
        "acpi_tables",
        "debugger",
        "dev_mem",
        "hardware_parameters",
        "hibernation",
        "io_ports",
        "kcore",
        "kexec",
        "msr",
        "pci",
        "unsigned_modules",
    ],
    later: &[],
};

fn read_protect(
    file: &Table<'_, '_>,
    faults: &mut Faults<'_>,
) -> (Switches, BTreeSet<&'static str>) {
    let default = (Switches::default(), PROTECT.known.iter().copied().collect());
    let Some(table) = file.section("protect", &PROTECT, faults) else {
        return default;
    };
    let lacking = table.lacking(PROTECT.known);
    let switches = Switch::ALL
        .iter()
        .filter(|switch| !lacking.contains(switch.word()))
        .fold(Switches::default(), |switches, &switch| {
            switches.with(switch, table.flag(switch.word(), faults))
        });
    (switches, lacking)
}

const KEY: Keys = Keys {
    known: &["file", "pem"],
    later: &[
        ("kms", "use `file` or `pem`"),
        (
            "not_after",
            "remove the key from the policy when its time is over",
        ),
        ("pkcs11", "use `file` or `pem`"),
    ],
};

fn read_keys(
    text: &str,
    file: &Table<'_, '_>,
    load_key: &dyn Fn(&str) -> io::Result<Vec<u8>>,
    faults: &mut Faults<'_>,
) -> BTreeMap<String, TrustedKey> {
    let mut keys = BTreeMap::new();
    let Some(value) = file.value("keys") else {
        return keys;
    };
    let Some(table) = value.get_ref().as_table() else {
        let message = wrong_type("keys", "a table, as in [keys.release]", value.get_ref());
        faults.add(value.span(), message);
        return keys;
    };
    if table.len() > MAX_ENTRIES {
        let message = format!("{} keys; at most {MAX_ENTRIES} are allowed", table.len());
        faults.add(value.span(), message);
        return keys;
    }
    for (name, value) in table {
        let line = position(text, name.span().start).0;
        let name: &str = check_name("key", name.span(), name.get_ref(), faults);
        if let Some((file, key)) = read_key(value, load_key, faults) {
            let name = name.to_owned();
            keys.insert(
                name.clone(),
                TrustedKey {
                    name,
                    line,
                    file,
                    key,
                },
            );
        }
    }
    keys
}

fn read_key(
    value: &Spanned<DeValue<'_>>,
    load_key: &dyn Fn(&str) -> io::Result<Vec<u8>>,
    faults: &mut Faults<'_>,
) -> Option<(Option<String>, PublicKey)> {
    let table = Table::open("key", value, &KEY, faults)?;
    let path = table.string("file", faults);
    let pem = table.string("pem", faults);
    let (span, file, bytes) = match (path, pem) {
        (Some(path), None) => match load_key(path.value) {
            Ok(bytes) => (path.span, Some(path.value.to_owned()), bytes),
            Err(error) => {
                let message = format!("cannot read the key file {:?}: {error}", path.value);
                faults.add(path.span, message);
                return None;
            }
        },
        (None, Some(pem)) => (pem.span, None, pem.value.as_bytes().to_vec()),
        (None, None) => {
            if table.value("file").is_none() && table.value("pem").is_none() {
                faults.add(table.span(), "a key needs `file` or `pem`");
            }
            return None;
        }
        (Some(_), Some(pem)) => {
            faults.add(pem.span, "a key has either `file` or `pem`, not both");
            return None;
        }
    };
    match PublicKey::from_pem(&bytes) {
        Ok(key) => Some((file, key)),
        Err(error) => {
            faults.add(span, format!("not a usable public key: {error}"));
            None
        }
    }
}

/// Names that `of` may use although this version refuses what they name; that refusal is
/// enough, and "unknown key" beside it would only confuse.
fn names_of_signers(file: &Table<'_, '_>) -> Vec<String> {
    ["keys", "keyless", "x509"]
        .into_iter()
        .filter_map(|section| file.value(section)?.get_ref().as_table())
        .flat_map(|table| table.iter().map(|(name, _)| name.get_ref().to_string()))
        .collect()
}

/// Who stands behind each name: entries of one owner count once in a threshold.
fn owners(
    keys: &BTreeMap<String, TrustedKey>,
    keyless: &BTreeMap<String, TrustedIdentity>,
    x509: &BTreeMap<String, TrustedAuthority>,
) -> BTreeMap<String, String> {
    let keys = keys
        .values()
        .map(|trusted| (trusted.name.clone(), trusted.key.id().to_string()));
    let keyless = keyless.values().map(|trusted| {
        let root = match &trusted.root {
            Root::Embedded => String::new(),
            Root::Given(root) => root.digest().to_string(),
        };
        let identity = trusted.identity.as_str();
        let owner = format!("keyless {root} {} {identity}", trusted.issuer);
        (trusted.name.clone(), owner)
    });
    let x509 = x509
        .keys()
        .map(|name| (name.clone(), format!("x509 {name}")));
    keys.chain(keyless).chain(x509).collect()
}

/// A name in two sections would make a rule ambiguous.
fn check_names(file: &Table<'_, '_>, faults: &mut Faults<'_>) {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for section in ["keys", "keyless", "x509"] {
        let table = file
            .value(section)
            .and_then(|value| value.get_ref().as_table());
        for (name, _) in table.into_iter().flatten() {
            let text: &str = name.get_ref();
            if let Some(first) = seen.insert(text.to_owned(), section)
                && first != section
            {
                let message = format!("[{first}.{text}] has this name already");
                faults.add(name.span(), message);
            }
        }
    }
}

/// A name is printed in events and typed on command lines, so it has no odd characters.
fn check_name<'n>(
    what: &str,
    span: std::ops::Range<usize>,
    name: &'n str,
    faults: &mut Faults<'_>,
) -> &'n str {
    if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
        let message = format!(
            "a {what}'s name has 1 to 100 characters and no control characters; got {name:?}"
        );
        faults.add(span, message);
    }
    name
}

/// A fault for each name that stands twice.
fn check_unique(
    what: &str,
    text: &str,
    name: &At<&str>,
    seen: &mut HashMap<String, usize>,
    faults: &mut Faults<'_>,
) {
    let line = position(text, name.span.start).0;
    if let Some(first) = seen.insert(name.value.to_owned(), line) {
        let message = format!("another {what} on line {first} is named {:?}", name.value);
        faults.add(name.span.clone(), message);
    }
}

#[cfg(test)]
mod tests;
