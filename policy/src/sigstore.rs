//! Sigstore's evidence, checked offline against a trusted root: certificates that Fulcio
//! issued, the transparency log, trusted time.
//!
//! This is the one module that knows `sigstore-verify` (`docs/decisions/0002`). What it
//! returns is a fact about a signature; who may sign is decided by the caller.

use std::sync::{Arc, OnceLock};

use bundle::Digest;
use jiff::Timestamp;
use serde::Serialize;
pub use sigstore_types::Bundle;
use sigstore_types::{Artifact, Sha256Hash, bundle::VerificationMaterialContent};
use sigstore_verify::{
    Error, PublicKeyVerificationPolicy, VerificationPolicy, VerificationResult, Verifier,
    crypto::parse_certificate_info,
    trust_root::{
        self, SIGSTORE_PRODUCTION_SIGNING_CONFIG, SIGSTORE_PRODUCTION_TRUSTED_ROOT,
        ServiceConfiguration, ServiceSelector, TrustedRoot,
    },
};

use crate::{
    Reason, Refusal,
    key::{Algorithm, PublicKey},
};

mod form;

/// Certificate authorities, logs and time-stamp authorities that are believed
/// (`trusted_root.json` of sigstore's protobuf-specs).
pub struct TrustRoot {
    digest: Digest,
    verifier: Verifier,
    counts: Counts,
    /// Ids of the transparency logs.
    logs: Vec<Vec<u8>>,
}

/// How much a trusted root holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Certificate authorities (Fulcio).
    pub certificate_authorities: usize,
    /// Transparency logs (Rekor).
    pub transparency_logs: usize,
    /// Certificate transparency logs.
    pub certificate_logs: usize,
    /// Time-stamp authorities (RFC 3161).
    pub timestamp_authorities: usize,
}

impl TrustRoot {
    /// The public-good instance's root as this version of bpfseal carries it, see
    /// [`EMBEDDED_SINCE`]. It is parsed when it is first needed.
    ///
    /// # Errors
    /// [`Reason::BadTrustRoot`]: never, as a test shows.
    pub fn embedded() -> Result<Arc<Self>, Refusal> {
        static ROOT: OnceLock<Result<Arc<TrustRoot>, Refusal>> = OnceLock::new();
        ROOT.get_or_init(|| {
            Self::from_json(SIGSTORE_PRODUCTION_TRUSTED_ROOT.as_bytes()).map(Arc::new)
        })
        .clone()
    }

    /// The file that [`TrustRoot::embedded`] reads.
    pub const fn embedded_json() -> &'static str {
        SIGSTORE_PRODUCTION_TRUSTED_ROOT
    }

    /// Reads a `trusted_root.json`.
    ///
    /// # Errors
    /// [`Reason::BadTrustRoot`], with what is wrong with it.
    pub fn from_json(json: &[u8]) -> Result<Self, Refusal> {
        let refuse = |error: String| Refusal::new(Reason::BadTrustRoot, error);
        let text = std::str::from_utf8(json).map_err(|_| refuse("it is not UTF-8".to_owned()))?;
        let root = TrustedRoot::from_json(text).map_err(|error| refuse(error.to_string()))?;
        let verifier = Verifier::new(&root).map_err(|error| refuse(error.to_string()))?;
        Ok(Self {
            digest: Digest::of(json),
            verifier,
            counts: Counts {
                certificate_authorities: root.certificate_authorities.len(),
                transparency_logs: root.tlogs.len(),
                certificate_logs: root.ctlogs.len(),
                timestamp_authorities: root.timestamp_authorities.len(),
            },
            logs: root
                .tlogs
                .iter()
                .map(|log| log.log_id.key_id.as_bytes().to_vec())
                .collect(),
        })
    }

    /// SHA-256 of its file: by which trust something was believed.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// How much it holds.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Is each entry of a log that is believed? A checkpoint of version 2 is looked up by its
    /// signatures alone, whatever log the entry names.
    fn check_logs(&self, bundle: &Bundle) -> Result<(), Refusal> {
        for entry in &bundle.verification_material.tlog_entries {
            let id = entry.log_id.key_id.as_bytes();
            if !self.logs.iter().any(|known| known == id) {
                return Err(Refusal::new(
                    Reason::BadLogEntry,
                    format!(
                        "it names the log {}, which the trusted root does not have",
                        hex::encode(id)
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// As its digest.
impl std::fmt::Debug for TrustRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "trusted root {}", self.digest)
    }
}

/// Who a certificate says it is for: the workload or person, and who vouched for that.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Identity {
    /// The subject's alternative name: a URI or an e-mail address.
    pub identity: String,
    /// The OIDC issuer.
    pub issuer: String,
}

/// `IDENTITY (by ISSUER)`.
impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (by {})", self.identity, self.issuer)
    }
}

/// What Sigstore's evidence proves about one signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// The certificate's claims, which its authority vouches for; `None`: a key signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// By which kind of key; `None`: one that could not sign here.
    #[serde(skip)]
    pub algorithm: Option<Algorithm>,
    /// Times at which the signature existed, by the log or a time-stamp authority.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub times: Vec<Timestamp>,
    /// Was it proved to be in a transparency log?
    pub logged: bool,
    /// SHA-256 of the trusted root by which that is known; `None`: none was needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted_root: Option<Digest>,
}

/// What a signature is about: its bytes, or their SHA-256 where nobody has the bytes.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// The bytes.
    Bytes(&'a [u8]),
    /// Their SHA-256.
    Digest(Digest),
}

impl<'a> Subject<'a> {
    fn artifact(self) -> Artifact<'a> {
        match self {
            Self::Bytes(bytes) => Artifact::Blob(bytes),
            Self::Digest(digest) => Artifact::from_digest(Sha256Hash::from(*digest.as_bytes())),
        }
    }
}

/// Whom a certificate (DER) names, if Fulcio made it. Nothing is checked.
pub fn identity_of(certificate: &[u8]) -> Option<Identity> {
    let certificate = sigstore_types::DerCertificate::new(certificate.to_vec());
    let said = parse_certificate_info(&certificate).ok()?;
    Some(Identity {
        identity: said.identity?.as_str().to_owned(),
        issuer: said.issuer?,
    })
}

/// Which services vouch for a keyless signature (`signing_config.json` of sigstore's
/// protobuf-specs).
#[derive(Clone, Debug)]
pub struct SigningConfig(trust_root::SigningConfig);

impl SigningConfig {
    /// The public-good instance's, as this version of bpfseal carries it.
    ///
    /// # Errors
    /// Never, as a test shows.
    pub fn embedded() -> Result<Self, Refusal> {
        Self::from_json(SIGSTORE_PRODUCTION_SIGNING_CONFIG.as_bytes())
    }

    /// Reads a `signing_config.json`.
    ///
    /// # Errors
    /// [`Reason::BadTrustRoot`], with what is wrong with it.
    pub fn from_json(json: &[u8]) -> Result<Self, Refusal> {
        let refuse = |error: String| Refusal::new(Reason::BadTrustRoot, error);
        let text = std::str::from_utf8(json).map_err(|_| refuse("it is not UTF-8".to_owned()))?;
        trust_root::SigningConfig::from_json(text)
            .map(Self)
            .map_err(|error| refuse(error.to_string()))
    }

    /// The certificate authority.
    pub fn fulcio(&self) -> Option<&str> {
        self.0.fulcio_url().map(|service| service.url.as_str())
    }

    /// Who vouches for people.
    pub fn issuer(&self) -> Option<&str> {
        self.0.oidc_url().map(|service| service.url.as_str())
    }

    /// The time-stamp authorities, as many as the config wants.
    pub fn stamps(&self) -> Vec<String> {
        let services = self.0.eligible_tsa_urls();
        let most = wanted(&self.0.tsa_config, services.len());
        let urls = services.into_iter().map(|service| service.url.clone());
        urls.take(most).collect()
    }

    /// The transparency logs with their API's version, as many as the config wants.
    pub fn logs(&self) -> Vec<(String, u32)> {
        let services = self.0.eligible_rekor_urls(None);
        let most = wanted(&self.0.rekor_tlog_config, services.len());
        let logs = services
            .into_iter()
            .map(|service| (service.url.clone(), service.major_api_version));
        logs.take(most).collect()
    }
}

fn wanted(config: &ServiceConfiguration, all: usize) -> usize {
    match config.selector {
        ServiceSelector::All => all,
        ServiceSelector::Exact => config.count.map_or(1, |count| count as usize),
        _ => 1,
    }
}

/// Reads a Sigstore bundle of any version. One that could be read in two ways is refused: with
/// two contents, two kinds of key material, a key that stands twice, a proof whose numbers
/// differ from its checkpoint's.
///
/// # Errors
/// [`Reason::MalformedSignature`].
pub fn parse(json: &[u8]) -> Result<Bundle, Refusal> {
    if json.len() > MAX_BUNDLE {
        return Err(Refusal::new(
            Reason::MalformedSignature,
            format!("it has {} bytes, over {MAX_BUNDLE}", json.len()),
        ));
    }
    let malformed = |error: String| {
        Refusal::new(
            Reason::MalformedSignature,
            format!("the Sigstore bundle cannot be parsed: {error}"),
        )
    };
    form::check(json).map_err(malformed)?;
    let bundle = serde_json::from_slice(json).map_err(|error| malformed(error.to_string()))?;
    form::check_log(&bundle).map_err(malformed)?;
    Ok(bundle)
}

/// Does it carry a certificate, so that an identity signed and not a key?
pub const fn is_keyless(bundle: &Bundle) -> bool {
    !matches!(
        bundle.verification_material.content,
        VerificationMaterialContent::PublicKey(_)
    )
}

/// Proves who signed `subject` with a certificate: chain, log, time and signature.
///
/// # Errors
/// What does not hold. Whether the identity may sign is not asked here.
pub fn prove_identity(
    bundle: &Bundle,
    subject: Subject<'_>,
    root: &TrustRoot,
) -> Result<Proof, Refusal> {
    let result = root
        .verifier
        .verify(
            subject.artifact(),
            bundle,
            &VerificationPolicy::any_identity(),
        )
        .map_err(|error| refusal(&error))?;
    root.check_logs(bundle)?;
    let (Some(identity), Some(issuer)) = (result.identity(), result.issuer()) else {
        return Err(Refusal::new(
            Reason::BadCertificate,
            "the certificate names no identity or no issuer",
        ));
    };
    let identity = Identity {
        identity: identity.as_str().to_owned(),
        issuer: issuer.to_owned(),
    };
    Ok(proof(bundle, Some(identity), &result, root))
}

/// Does it claim anything that only a trusted root can confirm?
pub fn needs_root(bundle: &Bundle) -> bool {
    is_keyless(bundle) || is_logged(bundle) || is_stamped(bundle)
}

/// Proves that `key` signed `subject`, and whatever else the bundle claims: entries in a
/// log and time stamps must hold by `root` if they are there.
///
/// # Errors
/// What does not hold; [`Reason::BadTrustRoot`] where a root is needed and there is none.
pub fn prove_key(
    bundle: &Bundle,
    subject: Subject<'_>,
    key: &PublicKey,
    root: Option<&TrustRoot>,
) -> Result<Proof, Refusal> {
    if is_keyless(bundle) {
        return Err(Refusal::new(
            Reason::UntrustedSigner,
            "it was signed with a certificate, not with a key",
        ));
    }
    if !needs_root(bundle) {
        plain::check(bundle, subject, key)?;
        return Ok(Proof {
            identity: None,
            algorithm: Some(key.algorithm()),
            times: Vec::new(),
            logged: false,
            trusted_root: None,
        });
    }
    let root = root.ok_or_else(|| {
        Refusal::new(
            Reason::BadTrustRoot,
            "it claims a log entry or a time stamp, and no trusted root is given",
        )
    })?;
    let spki = sigstore_types::DerPublicKey::new(key.spki().to_vec());
    let mut policy = PublicKeyVerificationPolicy::new(spki);
    if !is_logged(bundle) {
        policy = policy.skip_tlog_unsafe();
    }
    let result = root
        .verifier
        .verify(subject.artifact(), bundle, &policy)
        .map_err(|error| refusal(&error))?;
    root.check_logs(bundle)?;
    Ok(proof(bundle, None, &result, root))
}

fn is_logged(bundle: &Bundle) -> bool {
    !bundle.verification_material.tlog_entries.is_empty()
}

fn is_stamped(bundle: &Bundle) -> bool {
    let stamps = &bundle.verification_material.timestamp_verification_data;
    !stamps.rfc3161_timestamps.is_empty()
}

fn proof(
    bundle: &Bundle,
    identity: Option<Identity>,
    result: &VerificationResult,
    root: &TrustRoot,
) -> Proof {
    let mut times: Vec<Timestamp> = result.verified_timestamps().to_vec();
    times.extend(result.integrated_time());
    times.sort_unstable();
    times.dedup();
    let certificate = result.certificate();
    let key = certificate.map(|held| PublicKey::from_spki(held.public_key.as_bytes()));
    Proof {
        identity,
        algorithm: key.and_then(Result::ok).map(|key| key.algorithm()),
        times,
        logged: result.tlog_verified() && is_logged(bundle),
        trusted_root: Some(root.digest()),
    }
}

/// The numbered reason for what `sigstore-verify` says.
fn refusal(error: &Error) -> Refusal {
    let reason = match error {
        Error::SignatureInvalid(_) => Reason::BadSignature,
        Error::ArtifactMismatch(_) => Reason::WrongSubject,
        Error::IdentityMismatch { .. } | Error::IssuerMismatch { .. } => Reason::WrongIdentity,
        Error::Certificate(_) => Reason::BadCertificate,
        Error::TransparencyLog(_) => Reason::BadLogEntry,
        Error::Timestamp(_) => Reason::NoTrustedTime,
        Error::InvalidTrustRoot(_) | Error::TrustRoot(_) | Error::TrustedCertificate(_) => {
            Reason::BadTrustRoot
        }
        Error::UnsupportedArtifact(_) | Error::UnsupportedBundle(_) => Reason::Unsupported,
        _ => Reason::MalformedSignature,
    };
    Refusal::new(reason, error.to_string())
}

/// Signatures by a key alone, without log and time: what most organisations make.
mod plain {
    use sigstore_types::{Bundle, HashAlgorithm, SignatureContent, bundle::MessageSignature};
    use sigstore_verify::crypto::{SigningScheme, verify_signature_prehashed};

    use super::Subject;
    use crate::{
        Reason, Refusal,
        key::{Algorithm, PublicKey},
        statement::{self, Statement},
    };
    use bundle::{Digest, media};

    pub(super) fn check(
        bundle: &Bundle,
        subject: Subject<'_>,
        key: &PublicKey,
    ) -> Result<(), Refusal> {
        match &bundle.content {
            SignatureContent::MessageSignature(message) => check_message(message, subject, key),
            SignatureContent::DsseEnvelope(envelope) => {
                if envelope.payload_type != media::IN_TOTO {
                    return Err(Refusal::new(
                        Reason::MalformedSignature,
                        format!(
                            "the payload is of type {:?}, not {:?}",
                            envelope.payload_type,
                            media::IN_TOTO
                        ),
                    ));
                }
                let payload = envelope.payload.as_bytes();
                key.verify(
                    &statement::envelope(payload),
                    envelope.signature.sig.as_bytes(),
                )
                .map_err(|_| does_not_fit(key))?;
                let statement = Statement::parse(payload)
                    .map_err(|error| Refusal::new(Reason::MalformedSignature, error))?;
                let digest = digest_of(subject);
                if statement.is_about(digest) {
                    return Ok(());
                }
                Err(Refusal::new(
                    Reason::WrongSubject,
                    format!("it is about {:?}, not {digest}", statement.subjects),
                ))
            }
            _ => Err(Refusal::new(
                Reason::Unsupported,
                "its signature is of an unknown form",
            )),
        }
    }

    fn check_message(
        message: &MessageSignature,
        subject: Subject<'_>,
        key: &PublicKey,
    ) -> Result<(), Refusal> {
        if let Some(said) = &message.message_digest
            && said.algorithm == HashAlgorithm::Sha2256
            && said.digest.as_bytes() != digest_of(subject).as_bytes()
        {
            return Err(Refusal::new(
                Reason::WrongSubject,
                format!(
                    "it is about sha256:{}, not {}",
                    said.digest.to_hex(),
                    digest_of(subject)
                ),
            ));
        }
        let signature = &message.signature;
        match subject {
            Subject::Bytes(bytes) => key
                .verify(bytes, signature.as_bytes())
                .map_err(|_| does_not_fit(key)),
            Subject::Digest(digest) => {
                let schemes: &[SigningScheme] = match key.algorithm() {
                    Algorithm::EcdsaP256 => &[SigningScheme::EcdsaP256Sha256],
                    Algorithm::EcdsaP384 => &[SigningScheme::EcdsaP384Sha256],
                    Algorithm::Rsa => &[SigningScheme::RsaPkcs1Sha256, SigningScheme::RsaPssSha256],
                    Algorithm::Ed25519 => {
                        return Err(Refusal::new(
                            Reason::Unsupported,
                            "Ed25519 signs the bytes themselves: give the file, not its digest",
                        ));
                    }
                };
                let spki = sigstore_types::DerPublicKey::new(key.spki().to_vec());
                schemes
                    .iter()
                    .find_map(|&scheme| {
                        verify_signature_prehashed(&spki, digest.as_bytes(), signature, scheme).ok()
                    })
                    .ok_or_else(|| match message.message_digest.as_ref() {
                        Some(said) if said.algorithm != HashAlgorithm::Sha2256 => Refusal::new(
                            Reason::Unsupported,
                            "it signs another hash than SHA-256: give the file, not its digest",
                        ),
                        _ => does_not_fit(key),
                    })
            }
        }
    }

    fn digest_of(subject: Subject<'_>) -> Digest {
        match subject {
            Subject::Bytes(bytes) => Digest::of(bytes),
            Subject::Digest(digest) => digest,
        }
    }

    fn does_not_fit(key: &PublicKey) -> Refusal {
        Refusal::new(
            Reason::BadSignature,
            format!("the signature was not made by {} over this", key.id()),
        )
    }
}

/// Day on which the embedded root of the public-good instance was compared with the one
/// that the instance publishes by TUF: the release of `sigstore-trust-root` 0.15.1.
pub const EMBEDDED_SINCE: &str = "2026-10-23";

/// A Sigstore bundle has some kilobytes; one with a long log proof some tens.
const MAX_BUNDLE: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_embedded_can_be_used() {
        let root = TrustRoot::embedded().unwrap();
        assert_eq!(
            root.counts(),
            Counts {
                certificate_authorities: 2,
                transparency_logs: 2,
                certificate_logs: 2,
                timestamp_authorities: 1,
            }
        );
        let config = SigningConfig::embedded().unwrap();
        assert_eq!(config.fulcio(), Some("https://fulcio.sigstore.dev"));
        assert_eq!(
            config.logs(),
            [("https://rekor.sigstore.dev".to_owned(), 1)]
        );
        assert_eq!(config.stamps().len(), 1);
    }

    #[test]
    fn a_config_says_how_many_services_it_wants() {
        let service = |url: &str, version: u32| {
            serde_json::json!({
                "url": url, "majorApiVersion": version,
                "validFor": { "start": "2020-01-01T00:00:00Z" }, "operator": "test",
            })
        };
        let config = |selector: serde_json::Value| {
            let json = serde_json::json!({
                "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "rekorTlogUrls": [service("http://one", 1), service("http://two", 2),
                    service("http://nine", 9)],
                "rekorTlogConfig": selector,
            });
            let config = SigningConfig::from_json(json.to_string().as_bytes()).unwrap();
            let logs = config.logs();
            logs.into_iter()
                .map(|(_, version)| version)
                .collect::<Vec<_>>()
        };
        assert_eq!(config(serde_json::json!({ "selector": "ANY" })), [2]);
        assert_eq!(config(serde_json::json!({ "selector": "ALL" })), [2, 1]);
        assert_eq!(
            config(serde_json::json!({ "selector": "EXACT", "count": 1 })),
            [2]
        );
    }
}
