//! What a trusted root holds, for people: each authority and log with its key and its time.
//! Nothing is decided by it.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bundle::Digest;
use serde::{Deserialize, Serialize};

use crate::{Reason, Refusal};

/// An authority or a log that a trusted root names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Anchor {
    /// What it vouches for.
    pub kind: Kind,
    /// Its address.
    pub url: String,
    /// SHA-256 of a log's key (SPKI), or of an authority's last certificate.
    pub id: Digest,
    /// A log's key: kind, curve and hash, as sigstore names them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whom an authority's certificate names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// From when it is believed (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Until when it is believed; none: until further notice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// What an anchor vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Identities (Fulcio).
    CertificateAuthority,
    /// Signatures (Rekor).
    TransparencyLog,
    /// Certificates.
    CertificateLog,
    /// Times (RFC 3161).
    TimestampAuthority,
}

/// As `--json` writes it, in words.
impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::CertificateAuthority => "certificate authority",
            Self::TransparencyLog => "transparency log",
            Self::CertificateLog => "certificate log",
            Self::TimestampAuthority => "time-stamp authority",
        })
    }
}

/// Reads a `trusted_root.json`.
///
/// # Errors
/// [`Reason::BadTrustRoot`], with what is wrong with it.
pub fn anchors(trusted_root: &[u8]) -> Result<Vec<Anchor>, Refusal> {
    let refuse = |error: String| Refusal::new(Reason::BadTrustRoot, error);
    let root: Root =
        serde_json::from_slice(trusted_root).map_err(|error| refuse(error.to_string()))?;
    let authorities = [
        (Kind::CertificateAuthority, root.certificate_authorities),
        (Kind::TimestampAuthority, root.timestamp_authorities),
    ];
    let logs = [
        (Kind::TransparencyLog, root.tlogs),
        (Kind::CertificateLog, root.ctlogs),
    ];
    let mut found = Vec::new();
    for (kind, authorities) in authorities {
        for authority in authorities {
            found.push(authority.anchor(kind).map_err(refuse)?);
        }
    }
    for (kind, logs) in logs {
        for log in logs {
            found.push(log.anchor(kind).map_err(refuse)?);
        }
    }
    Ok(found)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Root {
    certificate_authorities: Vec<Authority>,
    timestamp_authorities: Vec<Authority>,
    tlogs: Vec<Log>,
    ctlogs: Vec<Log>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authority {
    #[serde(default)]
    subject: Subject,
    #[serde(default)]
    uri: String,
    cert_chain: Chain,
    #[serde(default)]
    valid_for: Period,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Subject {
    organization: Option<String>,
    common_name: Option<String>,
}

#[derive(Deserialize)]
struct Chain {
    certificates: Vec<Raw>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    raw_bytes: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Log {
    base_url: String,
    public_key: Key,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    raw_bytes: String,
    key_details: String,
    #[serde(default)]
    valid_for: Period,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Period {
    start: Option<String>,
    end: Option<String>,
}

impl Authority {
    fn anchor(self, kind: Kind) -> Result<Anchor, String> {
        let last = self.cert_chain.certificates.last();
        let last = last.ok_or("an authority has no certificate")?;
        let said = [self.subject.organization, self.subject.common_name];
        let said: Vec<String> = said
            .into_iter()
            .flatten()
            .filter(|s| !s.is_empty())
            .collect();
        Ok(Anchor {
            kind,
            url: self.uri,
            id: hash(&last.raw_bytes)?,
            key: None,
            subject: (!said.is_empty()).then(|| said.join(", ")),
            from: self.valid_for.start,
            until: self.valid_for.end,
        })
    }
}

impl Log {
    fn anchor(self, kind: Kind) -> Result<Anchor, String> {
        Ok(Anchor {
            kind,
            url: self.base_url,
            id: hash(&self.public_key.raw_bytes)?,
            key: Some(self.public_key.key_details),
            subject: None,
            from: self.public_key.valid_for.start,
            until: self.public_key.valid_for.end,
        })
    }
}

fn hash(base64: &str) -> Result<Digest, String> {
    let bytes = BASE64
        .decode(base64)
        .map_err(|error| format!("a key or certificate: {error}"))?;
    Ok(Digest::of(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sigstore::TrustRoot;

    #[test]
    fn the_embedded_root_is_listed_with_its_keys_and_times() {
        let all = anchors(TrustRoot::embedded_json().as_bytes()).unwrap();
        let of = |kind| all.iter().filter(|anchor| anchor.kind == kind).count();
        let counts = TrustRoot::embedded().unwrap().counts();
        assert_eq!(
            [
                of(Kind::CertificateAuthority),
                of(Kind::TransparencyLog),
                of(Kind::CertificateLog),
                of(Kind::TimestampAuthority)
            ],
            [
                counts.certificate_authorities,
                counts.transparency_logs,
                counts.certificate_logs,
                counts.timestamp_authorities
            ]
        );
        let rekor = all
            .iter()
            .find(|anchor| anchor.url == "https://rekor.sigstore.dev")
            .unwrap();
        // Rekor's key ID, which every entry of its log carries.
        assert_eq!(
            rekor.id.to_hex(),
            "c0d23d6ad406973f9559f3ba2d1ca01f84147d8ffc5b8445c224f98b9591801d"
        );
        assert_eq!(rekor.key.as_deref(), Some("PKIX_ECDSA_P256_SHA_256"));
        assert_eq!(rekor.from.as_deref(), Some("2021-01-12T11:53:27Z"));
    }

    #[test]
    fn what_is_no_root_is_said() {
        for (json, want) in [
            ("[", "EOF while parsing a list at line 1 column 1"),
            (
                r#"{"certificateAuthorities":[{"certChain":{"certificates":[]}}]}"#,
                "an authority has no certificate",
            ),
            (
                r#"{"tlogs":[{"baseUrl":"u","publicKey":{"rawBytes":"!","keyDetails":"k"}}]}"#,
                "a key or certificate: Invalid symbol 33, offset 0.",
            ),
        ] {
            let refusal = anchors(json.as_bytes()).unwrap_err();
            assert_eq!(
                (refusal.reason, refusal.detail.as_str()),
                (Reason::BadTrustRoot, want)
            );
        }
    }
}
