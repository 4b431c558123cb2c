//! Revocation lists: the authority's word that what was good is not good any more.
//!
//! A list is TOML, complete in itself, with a version that rises: each list replaces the one
//! before. It travels as one file, a DSSE envelope whose payload is the TOML text:
//!
//! ```toml
//! version = 7
//! issued = "2026-11-22T08:00:00Z"
//! next = "2026-11-29T08:00:00Z"      # optional: an alarm where no newer list came by then
//! [[revoke]]
//! package = "opensnoop"
//! versions = ">=1.0, <1.4.2"         # optional: all versions
//! reason = "CVE-2026-0001"
//! ```
//!
//! Each `[[revoke]]` names one thing: `bundle`, `object` or `program` by digest, `key` by the
//! digest of its SPKI, `identity` by subject (and `issuer`), or `package`.

use std::fmt;

use bundle::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Reason, Refusal,
    dsse::Envelope,
    key::PublicKey,
    signed_list::{self, List, Signed, bad},
    signers::{SignedBy, pairs},
    version::Version,
};

/// Largest list: some ten thousand entries.
pub const MAX_BYTES: usize = 2 << 20;

/// A list that the authority signed. Only [`SignedRevocations::verify`] makes one.
pub type SignedRevocations = Signed<Revocations>;

/// What a list says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Revocations {
    /// Rises with each list.
    pub version: u64,
    /// When it was made.
    pub issued: Timestamp,
    /// When the next one is due at the latest.
    pub next: Option<Timestamp>,
    /// What is revoked, in order.
    pub entries: Vec<Entry>,
}

/// One thing that is revoked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// What.
    pub what: What,
    /// Why, for people.
    pub reason: String,
}

/// What an entry names.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A bundle, by the digest of its manifest.
    Bundle(Digest),
    /// Every bundle that holds this object, by the digest of its ELF bytes.
    Object(Digest),
    /// One program, by the digest of its instructions as measured on one kernel.
    Program(Digest),
    /// A signer's key, by the digest of its SPKI: its signatures count no more.
    Key(Digest),
    /// A keyless signer: its signatures count no more.
    Identity {
        /// Subject, as the certificate says it.
        subject: String,
        /// Who vouched for it; `None`: whoever.
        issuer: Option<String>,
    },
    /// A package's versions.
    Package {
        /// Its name.
        name: String,
        /// Which.
        versions: Range,
    },
}

/// Versions between bounds: `>=1.0, <1.4.2`. Empty: all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Range(Vec<(Comparison, Version)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    AtLeast,
    Above,
    AtMost,
    Below,
    Equal,
}

/// The two-letter signs first, so that `<=` is not read as `<`.
const COMPARISONS: [(&str, Comparison); 5] = [
    (">=", Comparison::AtLeast),
    ("<=", Comparison::AtMost),
    (">", Comparison::Above),
    ("<", Comparison::Below),
    ("=", Comparison::Equal),
];

/// What is known about a bundle; the list is asked about it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Digest of its manifest.
    pub bundle: Digest,
    /// Digests of its objects.
    pub objects: &'a [Digest],
    /// Package name.
    pub name: Option<&'a str>,
    /// Package version.
    pub version: Option<&'a str>,
    /// Those of the rule's signers that signed, each once.
    pub signers: &'a [Signer],
    /// How many of them the rule asks for.
    pub at_least: usize,
}

/// One who signed, with the entries of the rule that trust him.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// Who.
    pub who: Signatory,
    /// Names of entries.
    pub entries: Vec<String>,
}

impl From<&SignedBy> for Signer {
    fn from(signed: &SignedBy) -> Self {
        let who = match &signed.identity {
            None => Signatory::Key(signed.key),
            Some(holder) => Signatory::Identity {
                subject: holder.identity.clone(),
                issuer: holder.issuer.clone(),
            },
        };
        Self {
            who,
            entries: signed.names.clone(),
        }
    }
}

/// Who signed: a key, or an identity that a certificate names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signatory {
    /// Digest of the key's SPKI.
    Key(Digest),
    /// A keyless signer.
    Identity {
        /// Subject, as the certificate says it.
        subject: String,
        /// Who vouched for it.
        issuer: String,
    },
}

impl SignedRevocations {
    /// Verifies that `authority` signed the file, then reads the list in it.
    ///
    /// # Errors
    /// [`Reason::BadAuthority`] where it did not, [`Reason::BadPolicy`] where the list, though
    /// signed, cannot be used.
    pub fn verify(file: &str, authority: &PublicKey) -> Result<Self, Refusal> {
        let refuse = |detail: String| Refusal::new(Reason::BadAuthority, detail);
        let envelope = Envelope::parse(file.as_bytes()).map_err(refuse)?;
        let payload = envelope.open(Revocations::PAYLOAD_TYPE, authority)?;
        Self::read(&payload, authority.id().to_string())
    }
}

impl List for Revocations {
    const PAYLOAD_TYPE: &'static str = "application/vnd.bpfseal.revocation.v1+toml";
    const OLDER: Reason = Reason::OlderRevocation;

    fn parse(text: &str) -> Result<Self, Refusal> {
        let file: File = signed_list::read_toml(text, MAX_BYTES)?;
        signed_list::check_version(file.version)?;
        let entries = file.revoke.into_iter().enumerate().map(|(index, row)| {
            let reason = row.reason.clone();
            row.read()
                .map(|what| Entry { what, reason })
                .map_err(|why| bad(format!("[[revoke]] number {}: {why}", index + 1)))
        });
        let list = Self {
            version: file.version,
            issued: file.issued,
            next: file.next,
            entries: entries.collect::<Result<_, _>>()?,
        };
        if list.next.is_some_and(|next| next <= list.issued) {
            return Err(bad("`next` is not after `issued`".to_owned()));
        }
        Ok(list)
    }

    fn version(&self) -> u64 {
        self.version
    }
}

impl Revocations {
    /// The entry by which a bundle may load no more, if there is one.
    ///
    /// A revoked signer does not count; the bundle falls where fewer than the rule asks for
    /// are left, counted as at the decision: nobody for two entries, no entry for two of them.
    pub fn find(&self, subject: &Subject<'_>) -> Option<&Entry> {
        let direct = self.entries.iter().find(|entry| match &entry.what {
            What::Bundle(digest) => *digest == subject.bundle,
            What::Object(digest) => subject.objects.contains(digest),
            What::Package { name, versions } => {
                Some(name.as_str()) == subject.name && versions.contains(subject.version)
            }
            What::Program(_) | What::Key(_) | What::Identity { .. } => false,
        });
        if direct.is_some() {
            return direct;
        }
        let by = |signer: &Signer| {
            let names = |entry: &&Entry| entry.what.names(&signer.who);
            self.entries.iter().find(names)
        };
        let left = subject.signers.iter().filter(|s| by(s).is_none());
        let left: Vec<&[String]> = left.map(|signer| &signer.entries[..]).collect();
        if pairs(&left) >= subject.at_least {
            return None;
        }
        subject.signers.iter().find_map(by)
    }

    /// The entry that names a key, if there is one.
    pub fn find_key(&self, key: Digest) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.what == What::Key(key))
    }

    /// The entry that names a program's digest, if there is one.
    pub fn find_program(&self, digest: Digest) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.what == What::Program(digest))
    }

    /// Does it name programs? Otherwise nobody needs to compute their digests.
    pub fn names_programs(&self) -> bool {
        let is_program = |entry: &Entry| matches!(entry.what, What::Program(_));
        self.entries.iter().any(is_program)
    }
}

impl What {
    fn names(&self, signer: &Signatory) -> bool {
        match (self, signer) {
            (Self::Key(revoked), Signatory::Key(key)) => revoked == key,
            (
                Self::Identity { subject, issuer },
                Signatory::Identity {
                    subject: signed,
                    issuer: by,
                },
            ) => subject == signed && issuer.as_ref().is_none_or(|issuer| issuer == by),
            _ => false,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundle(digest) => write!(f, "bundle {digest}"),
            Self::Object(digest) => write!(f, "object {digest}"),
            Self::Program(digest) => write!(f, "program {digest}"),
            Self::Key(digest) => write!(f, "key {digest}"),
            Self::Identity { subject, .. } => write!(f, "identity {subject:?}"),
            Self::Package { name, versions } => match versions.0.is_empty() {
                true => write!(f, "package {name:?}, all versions"),
                false => write!(f, "package {name:?}, versions {versions}"),
            },
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.reason)
    }
}

impl Range {
    /// Reads `>=1.0, <1.4.2`.
    fn parse(text: &str) -> Result<Self, String> {
        let bounds = text.split(',').map(str::trim).map(|bound| {
            let wrong = || {
                format!(
                    "`versions` wants bounds as in \">=1.0, <1.4.2\"; got {bound:?} in {text:?}"
                )
            };
            let (rest, comparison) = COMPARISONS
                .iter()
                .find_map(|&(sign, comparison)| Some((bound.strip_prefix(sign)?, comparison)))
                .ok_or_else(wrong)?;
            let version = Version::parse(rest.trim()).ok_or_else(wrong)?;
            Ok((comparison, version))
        });
        bounds.collect::<Result<_, _>>().map(Self)
    }

    /// Is this version inside? What has no order is: a name without a readable version is no
    /// way around a list.
    pub fn contains(&self, version: Option<&str>) -> bool {
        let Some(version) = version.and_then(Version::parse) else {
            return true;
        };
        self.0.iter().all(|(comparison, bound)| match comparison {
            Comparison::AtLeast => version >= *bound,
            Comparison::Above => version > *bound,
            Comparison::AtMost => version <= *bound,
            Comparison::Below => version < *bound,
            Comparison::Equal => version == *bound,
        })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (comparison, version)) in self.0.iter().enumerate() {
            let sign = COMPARISONS
                .iter()
                .find_map(|(sign, known)| (known == comparison).then_some(*sign));
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}{version}", sign.unwrap_or_default())?;
        }
        Ok(())
    }
}

impl Serialize for Range {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u64,
    issued: Timestamp,
    next: Option<Timestamp>,
    #[serde(default)]
    revoke: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    bundle: Option<Digest>,
    object: Option<Digest>,
    program: Option<Digest>,
    key: Option<Digest>,
    identity: Option<String>,
    issuer: Option<String>,
    package: Option<String>,
    versions: Option<String>,
    reason: String,
}

impl Row {
    fn read(self) -> Result<What, String> {
        let (has_issuer, has_versions) = (self.issuer.is_some(), self.versions.is_some());
        let versions = self.versions.as_deref().map(Range::parse).transpose()?;
        let issuer = self.issuer;
        let named: Vec<What> = [
            self.bundle.map(What::Bundle),
            self.object.map(What::Object),
            self.program.map(What::Program),
            self.key.map(What::Key),
            self.identity
                .map(|subject| What::Identity { subject, issuer }),
            self.package.map(|name| What::Package {
                name,
                versions: versions.unwrap_or_default(),
            }),
        ]
        .into_iter()
        .flatten()
        .collect();
        let [what] = <[What; 1]>::try_from(named).map_err(|named| {
            format!(
                "it names {} things; want one of bundle, object, program, key, identity, package",
                named.len()
            )
        })?;
        if has_issuer && !matches!(what, What::Identity { .. }) {
            return Err("`issuer` belongs to `identity`".to_owned());
        }
        if has_versions && !matches!(what, What::Package { .. }) {
            return Err("`versions` belongs to `package`".to_owned());
        }
        Ok(what)
    }
}

#[cfg(test)]
mod tests;
