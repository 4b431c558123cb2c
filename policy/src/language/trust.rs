//! Reads `[keyless.NAME]` and `[x509.NAME]`: identities that somebody else vouches for.

use std::{collections::BTreeMap, io, sync::Arc};

use serde_spanned::Spanned;
use toml::de::DeValue;

use super::{
    MAX_ENTRIES, check_name,
    fault::{Faults, position},
    reader::{At, Keys, Table, wrong_type},
};
use crate::{
    Refusal,
    pattern::Pattern,
    sigstore::{Identity, TrustRoot},
    x509::{Authority, Parts},
};

/// An identity whose keyless signatures are believed.
#[derive(Clone, Debug)]
pub struct TrustedIdentity {
    /// Its name in the policy.
    pub name: String,
    /// Line on which it is named, from 1.
    pub line: usize,
    /// Which identities: a URI or e-mail address, `*` within a segment.
    pub identity: Pattern,
    /// Who vouched for the identity, byte for byte.
    pub issuer: String,
    /// The file of the trusted root, as written.
    pub file: Option<String>,
    /// What its signatures are checked against.
    pub root: Root,
}

/// A trusted root that a policy names.
#[derive(Clone, Debug)]
pub enum Root {
    /// The public-good instance's, which this program carries.
    Embedded,
    /// One of the policy's.
    Given(Arc<TrustRoot>),
}

impl Root {
    /// The root; the embedded one is parsed when it is first needed.
    ///
    /// # Errors
    /// See [`TrustRoot::embedded`].
    pub fn get(&self) -> Result<Arc<TrustRoot>, Refusal> {
        match self {
            Self::Embedded => TrustRoot::embedded(),
            Self::Given(root) => Ok(Arc::clone(root)),
        }
    }
}

impl TrustedIdentity {
    /// Is this the identity?
    pub fn trusts(&self, identity: &Identity) -> bool {
        self.issuer == identity.issuer && self.identity.covers(&identity.identity)
    }
}

/// An organisation's certificate authority, within limits.
#[derive(Clone, Debug)]
pub struct TrustedAuthority {
    /// Its name in the policy.
    pub name: String,
    /// Line on which it is named, from 1.
    pub line: usize,
    /// The files that it names, as written: `roots`, `crls` and `timestamps`.
    pub files: BTreeMap<&'static str, String>,
    /// Roots and constraints.
    pub authority: Authority,
}

pub(super) const KEYLESS: Keys = Keys {
    known: &["identity", "issuer", "trusted_root", "trusted_root_json"],
    later: &[],
};

pub(super) const X509: Keys = Keys {
    known: &[
        "crls",
        "max_path_length",
        "names",
        "roots",
        "roots_pem",
        "timestamps",
        "usage",
    ],
    later: &[],
};

/// Reads the files that a policy names, and remembers them: a signature over the policy
/// covers them too.
pub(super) struct Files<'f> {
    load: &'f dyn Fn(&str) -> io::Result<Vec<u8>>,
    /// Texts by the name that the policy gives them.
    pub(super) read: BTreeMap<String, String>,
}

impl<'f> Files<'f> {
    pub(super) fn new(load: &'f dyn Fn(&str) -> io::Result<Vec<u8>>) -> Self {
        Self {
            load,
            read: BTreeMap::new(),
        }
    }

    fn text(&mut self, key: &str, path: &At<&str>, faults: &mut Faults<'_>) -> Option<String> {
        let bytes = (self.load)(path.value).map_err(|error| error.to_string());
        let text = bytes.and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| "it is not a text file".to_owned())
        });
        match text {
            Ok(text) => {
                self.read.insert(path.value.to_owned(), text.clone());
                Some(text)
            }
            Err(error) => {
                let message = format!("cannot read `{key}` {:?}: {error}", path.value);
                faults.add(path.span.clone(), message);
                None
            }
        }
    }
}

pub(super) fn read_keyless(
    text: &str,
    file: &Table<'_, '_>,
    files: &mut Files<'_>,
    faults: &mut Faults<'_>,
) -> BTreeMap<String, TrustedIdentity> {
    let mut identities = BTreeMap::new();
    for (name, line, value) in entries(text, file, "keyless", faults) {
        let Some(table) = Table::open("keyless", value, &KEYLESS, faults) else {
            continue;
        };
        let identity = table.required_string("identity", faults).and_then(|at| {
            Pattern::parse(at.value)
                .map_err(|message| faults.add(at.span, message))
                .ok()
        });
        let issuer = table.required_string("issuer", faults);
        if let Some(issuer) = issuer.as_ref().filter(|issuer| issuer.value.contains('*')) {
            let message = "an issuer has no pattern: whoever vouches is one and the same";
            faults.add(issuer.span.clone(), message);
        }
        let root = read_root(&table, files, faults);
        if let (Some(identity), Some(issuer), Some((file, root))) = (identity, issuer, root) {
            identities.insert(
                name.clone(),
                TrustedIdentity {
                    name,
                    line,
                    identity,
                    issuer: issuer.value.to_owned(),
                    file,
                    root,
                },
            );
        }
    }
    identities
}

fn read_root(
    table: &Table<'_, '_>,
    files: &mut Files<'_>,
    faults: &mut Faults<'_>,
) -> Option<(Option<String>, Root)> {
    let path = table.string("trusted_root", faults);
    let inline = table.string("trusted_root_json", faults);
    let (span, file, json) = match (path, inline) {
        (None, None) => {
            let given = ["trusted_root", "trusted_root_json"];
            let is_absent = given.iter().all(|key| table.value(key).is_none());
            return is_absent.then_some((None, Root::Embedded));
        }
        (Some(_), Some(inline)) => {
            let message = "either `trusted_root` or `trusted_root_json`, not both";
            faults.add(inline.span, message);
            return None;
        }
        (Some(path), None) => {
            let json = files.text("trusted_root", &path, faults)?;
            (path.span, Some(path.value.to_owned()), json)
        }
        (None, Some(inline)) => (inline.span, None, inline.value.to_owned()),
    };
    match TrustRoot::from_json(json.as_bytes()) {
        Ok(root) => Some((file, Root::Given(Arc::new(root)))),
        Err(refusal) => {
            faults.add(span, format!("not a usable trusted root: {refusal}"));
            None
        }
    }
}

pub(super) fn read_x509(
    text: &str,
    file: &Table<'_, '_>,
    files: &mut Files<'_>,
    faults: &mut Faults<'_>,
) -> BTreeMap<String, TrustedAuthority> {
    let mut authorities = BTreeMap::new();
    for (name, line, value) in entries(text, file, "x509", faults) {
        let Some(table) = Table::open("x509", value, &X509, faults) else {
            continue;
        };
        if let Some(authority) = read_authority(&table, files, faults) {
            let named = ["roots", "crls", "timestamps"]
                .into_iter()
                .filter_map(|key| {
                    let value = table.value(key)?.get_ref().as_str()?;
                    Some((key, value.to_owned()))
                });
            authorities.insert(
                name.clone(),
                TrustedAuthority {
                    name,
                    line,
                    files: named.collect(),
                    authority,
                },
            );
        }
    }
    authorities
}

fn read_authority(
    table: &Table<'_, '_>,
    files: &mut Files<'_>,
    faults: &mut Faults<'_>,
) -> Option<Authority> {
    let names = read_names(table, faults);
    let usage = table.string("usage", faults);
    let usage = match usage {
        None => None,
        Some(At {
            value: "code-signing",
            ..
        }) => None,
        Some(At { span, value }) => {
            let is_oid =
                value.contains('.') && value.split('.').all(|arc| arc.parse::<u64>().is_ok());
            if !is_oid {
                let message = format!(
                    "want \"code-signing\" or an OID as in \"1.3.6.1.4.1.1\"; got {value:?}"
                );
                faults.add(span, message);
                return None;
            }
            Some(value.to_owned())
        }
    };
    let max_path_length = table.integer("max_path_length", 0..=8, faults);
    let path = table.string("roots", faults);
    let inline = table.string("roots_pem", faults);
    let (span, roots) = match (path, inline) {
        (Some(path), None) => {
            let roots = files.text("roots", &path, faults)?;
            (path.span, roots)
        }
        (None, Some(inline)) => (inline.span, inline.value.to_owned()),
        _ => {
            faults.add(
                table.span(),
                "an authority needs either `roots` or `roots_pem`",
            );
            return None;
        }
    };
    let mut optional = |key: &'static str, faults: &mut Faults<'_>| match table.string(key, faults)
    {
        None => Some(None),
        Some(path) => files.text(key, &path, faults).map(Some),
    };
    let crls = optional("crls", faults)?;
    let stamps = optional("timestamps", faults)?;
    let authority = Authority::new(Parts {
        roots: roots.as_bytes(),
        names: names?,
        usage,
        max_path_length: max_path_length.and_then(|at| usize::try_from(at.value).ok()),
        crls: crls.as_deref().map(str::as_bytes),
        stamps: stamps.as_deref().map(str::as_bytes),
    });
    match authority {
        Ok(authority) => Some(authority),
        Err(message) => {
            faults.add(span, format!("not a usable authority: {message}"));
            None
        }
    }
}

/// Who may sign: an authority that may name anybody is no limit.
fn read_names(table: &Table<'_, '_>, faults: &mut Faults<'_>) -> Option<Vec<Pattern>> {
    table.require("names", faults);
    let names = table.strings("names", faults)?;
    if names.value.is_empty() {
        faults.add(names.span, "`names` is empty, so nobody could ever sign");
        return None;
    }
    let mut patterns = Vec::new();
    for At { span, value } in names.value {
        match Pattern::parse(value) {
            Ok(pattern) => patterns.push(pattern),
            Err(message) => faults.add(span, message),
        }
    }
    Some(patterns)
}

/// Name, line and value of each entry of a table of tables.
pub(super) fn entries<'a, 'i>(
    text: &str,
    file: &Table<'a, 'i>,
    section: &'static str,
    faults: &mut Faults<'_>,
) -> Vec<(String, usize, &'a Spanned<DeValue<'i>>)> {
    let Some(value) = file.value(section) else {
        return Vec::new();
    };
    let Some(table) = value.get_ref().as_table() else {
        let want = format!("a table, as in [{section}.release]");
        faults.add(value.span(), wrong_type(section, &want, value.get_ref()));
        return Vec::new();
    };
    if table.len() > MAX_ENTRIES {
        let message = format!("{} entries; at most {MAX_ENTRIES} are allowed", table.len());
        faults.add(value.span(), message);
        return Vec::new();
    }
    let mut entries = Vec::new();
    for (name, value) in table {
        let line = position(text, name.span().start).0;
        let name = check_name("signer", name.span(), name.get_ref(), faults).to_owned();
        entries.push((name, line, value));
    }
    entries
}
