//! One signature: made as cosign makes it, and checked against keys.
//!
//! cosign v3 attaches a Sigstore bundle with an in-toto statement as an OCI 1.1 referrer
//! (cosign `BUNDLE_SPEC.md`); that is what is written here too. Its older versions' forms
//! and Notary Project signatures are read ([`older`], [`notation`]). Nothing that was not
//! authenticated is acted on: the signature is checked first, then what it says.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bundle::{
    Digest,
    manifest::{Descriptor, Manifest},
    media,
    unverified::Referrer,
};
use jiff::Timestamp;
use ring::rand::SecureRandom;
use serde::Serialize;
use sigstore_types::bundle::{SignatureContent, VerificationMaterialContent};

mod notation;
mod older;
mod trusted;

pub use trusted::Trusted;

use crate::{
    Reason, Refusal,
    key::{Algorithm, PublicKey},
    signer::{BadPrivateKey, Signer},
    sigstore::{self, Identity, Subject},
    statement::{self, Statement},
};

/// A signature ready to be stored beside what it signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The referrer manifest.
    pub manifest: Vec<u8>,
    /// Its blobs: the empty config and the Sigstore bundle.
    pub blobs: [Vec<u8>; 2],
}

/// Signs the manifest or index that `subject` describes.
///
/// `created` (RFC 3339) is written only if given: without it, an Ed25519 key gives the same
/// bytes each time.
///
/// # Errors
/// When there is no randomness.
pub fn sign(
    subject: &Descriptor,
    signer: &Signer,
    created: Option<&str>,
    random: &dyn SecureRandom,
) -> Result<Attached, BadPrivateKey> {
    let payload = statement::signed(subject.digest);
    attest(
        subject,
        &payload,
        media::SIGN_PREDICATE,
        signer,
        created,
        random,
    )
}

/// Signs the statement `payload`, whose predicate is of this type, about `subject`.
///
/// # Errors
/// When the signer fails.
pub fn attest(
    subject: &Descriptor,
    payload: &[u8],
    predicate_type: &str,
    signer: &Signer,
    created: Option<&str>,
    random: &dyn SecureRandom,
) -> Result<Attached, BadPrivateKey> {
    let signature = signer.sign(&statement::envelope(payload), random)?;
    let sigstore = match signer.certificates() {
        [] => statement::sigstore_bundle(&signer.public_key().hint(), payload, &signature),
        chain => statement::dsse_bundle(&statement::chain(chain), payload, &signature),
    };
    Ok(attached(subject, sigstore, predicate_type, created))
}

/// The referrer manifest by which a Sigstore bundle is attached to `subject`.
pub fn attached(
    subject: &Descriptor,
    sigstore: Vec<u8>,
    predicate_type: &str,
    created: Option<&str>,
) -> Attached {
    let mut manifest = Manifest::artifact(
        media::SIGSTORE_BUNDLE,
        Descriptor::of(media::EMPTY, media::EMPTY_JSON),
        vec![Descriptor::of(media::SIGSTORE_BUNDLE, &sigstore)],
    );
    manifest.subject = Some(Descriptor {
        artifact_type: None,
        annotations: Default::default(),
        ..subject.clone()
    });
    let mut annotate = |key: &str, value: &str| {
        manifest
            .annotations
            .insert(key.to_owned(), value.to_owned());
    };
    annotate(media::BUNDLE_CONTENT_ANNOTATION, "dsse-envelope");
    annotate(media::PREDICATE_TYPE_ANNOTATION, predicate_type);
    if let Some(created) = created {
        annotate(media::CREATED, created);
    }
    Attached {
        manifest: manifest.to_bytes(),
        blobs: [media::EMPTY_JSON.to_vec(), sigstore],
    }
}

/// In which form a signature is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A Sigstore bundle, attached by its subject.
    SigstoreBundle,
    /// A simple-signing payload, attached by a tag or by its subject.
    SimpleSigning,
    /// A bare DSSE envelope, attached by a tag.
    DsseEnvelope,
    /// A Notary Project signature as JWS.
    Notation,
}

/// A signature that fits: who, when, how, by which trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Valid {
    /// Who it is: SHA-256 of a key's SPKI, or of what a certificate says about its holder.
    pub key: Digest,
    /// The certificate's identity or subject; `None`: a key.
    #[serde(flatten)]
    pub identity: Option<Identity>,
    /// The entries of the policy that trust the signer.
    pub trusted_as: Vec<String>,
    /// In which form.
    pub form: Form,
    /// By which kind of key.
    #[serde(serialize_with = "as_name")]
    pub algorithm: Algorithm,
    /// Times at which it existed, by a trusted log or time-stamp authority.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub times: Vec<Timestamp>,
    /// Was it proved to be in a transparency log?
    pub logged: bool,
    /// SHA-256 of the trusted root by which that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted_root: Option<Digest>,
    /// What an attestation is about; `None`: a signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicate_type: Option<String>,
    /// The attestation's statement, as it was signed.
    #[serde(skip)]
    statement: Option<Arc<[u8]>>,
}

/// A signature that does not count, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// The numbered reason.
    pub reason: Reason,
    /// One lower-case clause.
    pub detail: String,
}

/// What one layer of one referrer came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// SHA-256 of the referrer's manifest.
    pub referrer: Digest,
    /// Index of the layer.
    pub layer: usize,
    /// Does it count?
    pub outcome: Outcome,
}

/// Does a signature count?
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Yes.
    Valid(Valid),
    /// As an attestation, which says something but admits nothing.
    Attested(Valid),
    /// No.
    Rejected(Rejected),
}

/// How many signatures may still be checked against a key: anybody may attach any number
/// of them to a bundle in a registry.
#[derive(Debug)]
pub struct Budget(u32);

impl Default for Budget {
    /// 2,000 checks of ECDSA P-256 take about 0.2 s.
    fn default() -> Self {
        Self(2_000)
    }
}

impl Budget {
    /// Takes the work of so many checks of a key.
    fn spend(&mut self, checks: u32) -> Result<(), Rejected> {
        self.0 = self.0.checked_sub(checks).ok_or_else(|| {
            rejected(
                Reason::LimitExceeded,
                "it was not checked: too many signatures are attached",
            )
        })?;
        Ok(())
    }
}

/// Checks every signature in `referrer` over the manifest `subject`. A referrer that is no
/// signature at all (an SBOM, say) gives no finding.
pub fn check(
    referrer: &Referrer,
    subject: Digest,
    trusted: &Trusted<'_>,
    budget: &mut Budget,
) -> Vec<Finding> {
    let manifest = &referrer.manifest;
    let mut findings = Vec::new();
    for (layer, (descriptor, bytes)) in manifest.layers.iter().zip(&referrer.layers).enumerate() {
        let Some(form) = form_of(&descriptor.media_type) else {
            continue;
        };
        let outcome = bytes
            .as_ref()
            .map_err(|missing| rejected(Reason::MalformedSignature, missing.clone()))
            .and_then(|bytes| check_layer(form, descriptor, bytes, subject, trusted, budget));
        findings.push(Finding {
            referrer: referrer.digest,
            layer,
            outcome: match outcome {
                Ok(valid) if valid.predicate_type.is_some() => Outcome::Attested(valid),
                Ok(valid) => Outcome::Valid(valid),
                Err(rejected) => Outcome::Rejected(rejected),
            },
        });
    }
    findings
}

fn check_layer(
    form: Option<Form>,
    descriptor: &Descriptor,
    bytes: &[u8],
    subject: Digest,
    trusted: &Trusted<'_>,
    budget: &mut Budget,
) -> Result<Valid, Rejected> {
    check_size(bytes)?;
    let (mut valid, said) = match form {
        Some(Form::SigstoreBundle) => check_bundle(bytes, subject, trusted, budget)?,
        Some(Form::DsseEnvelope) => {
            older::check_envelope(descriptor, bytes, subject, trusted, budget)?
        }
        Some(Form::SimpleSigning) => {
            return older::check_simple(descriptor, bytes, subject, trusted, budget);
        }
        Some(Form::Notation) => return notation::check(bytes, subject, trusted, budget),
        None => {
            return Err(rejected(
                Reason::Unsupported,
                "it is a Notary Project signature as COSE; sign with `notation sign \
                 --signature-format jws`",
            ));
        }
    };
    if said.predicate_type != media::SIGN_PREDICATE {
        valid.predicate_type = Some(said.predicate_type);
        valid.statement = Some(said.statement);
    }
    Ok(valid)
}

/// `None`: no signature; `Some(None)`: one that is not read.
fn form_of(media_type: &str) -> Option<Option<Form>> {
    match media_type {
        media::SIMPLE_SIGNING => Some(Some(Form::SimpleSigning)),
        media::DSSE_ENVELOPE => Some(Some(Form::DsseEnvelope)),
        media::NOTATION_JWS => Some(Some(Form::Notation)),
        media::NOTATION_COSE => Some(None),
        other if other.starts_with(media::SIGSTORE_BUNDLE_PREFIX) => {
            Some(Some(Form::SigstoreBundle))
        }
        _ => None,
    }
}

/// What was signed, where the signature fits.
struct Said {
    predicate_type: String,
    statement: Arc<[u8]>,
}

/// Who signed, and what.
fn check_bundle(
    bytes: &[u8],
    subject: Digest,
    trusted: &Trusted<'_>,
    budget: &mut Budget,
) -> Result<(Valid, Said), Rejected> {
    let bundle = sigstore::parse(bytes)?;
    let SignatureContent::DsseEnvelope(envelope) = &bundle.content else {
        return Err(rejected(
            Reason::MalformedSignature,
            "the Sigstore bundle signs bare bytes, not a statement",
        ));
    };
    check_payload_type(&envelope.payload_type)?;
    let payload = envelope.payload.as_bytes();
    let signature = envelope.signature.sig.as_bytes();
    let signed = statement::envelope(payload);
    let valid = match &bundle.verification_material.content {
        VerificationMaterialContent::PublicKey(identifier) => {
            let key = find_key(&signed, signature, &identifier.hint, trusted, budget)?;
            Valid::by_key(key, Form::SigstoreBundle, trusted)
        }
        _ if trusted.is_own_certificate(&bundle) => {
            let holder = trusted.holder_of(&bundle, signature, budget)?;
            holder.holder.key.verify(&signed, signature).map_err(|_| {
                rejected(
                    Reason::BadSignature,
                    format!("the signature was not made by {:?}", holder.holder.subject),
                )
            })?;
            holder.valid(Form::SigstoreBundle, None)
        }
        _ => trusted.identity(
            &bundle,
            Subject::Digest(subject),
            Form::SigstoreBundle,
            budget,
        )?,
    };
    let said = check_statement(payload, subject)?;
    Ok((valid, said))
}

fn check_payload_type(payload_type: &str) -> Result<(), Rejected> {
    if payload_type == media::IN_TOTO {
        return Ok(());
    }
    Err(rejected(
        Reason::MalformedSignature,
        format!(
            "the payload is of type {payload_type:?}, not {:?}",
            media::IN_TOTO
        ),
    ))
}

/// What a signed statement says, if it is about `subject`.
fn check_statement(payload: &[u8], subject: Digest) -> Result<Said, Rejected> {
    let statement =
        Statement::parse(payload).map_err(|error| rejected(Reason::MalformedSignature, error))?;
    if !statement.is_about(subject) {
        return Err(wrong_subject(&statement.subjects.join(", "), subject));
    }
    Ok(Said {
        predicate_type: statement.predicate_type,
        statement: payload.into(),
    })
}

impl Valid {
    /// What an attestation says about its subject; `None`: it is a signature.
    pub fn predicate(&self) -> Option<serde_json::Value> {
        #[derive(serde::Deserialize)]
        struct Statement {
            #[serde(default)]
            predicate: serde_json::Value,
        }
        let statement = self.statement.as_deref()?;
        let read: Statement = serde_json::from_slice(statement).ok()?;
        Some(read.predicate)
    }

    fn by_key(key: &PublicKey, form: Form, trusted: &Trusted<'_>) -> Self {
        Self {
            key: key.id(),
            identity: None,
            trusted_as: trusted.names_of(key),
            form,
            algorithm: key.algorithm(),
            times: Vec::new(),
            logged: false,
            trusted_root: None,
            predicate_type: None,
            statement: None,
        }
    }
}

impl From<Refusal> for Rejected {
    fn from(refusal: Refusal) -> Self {
        rejected(refusal.reason, refusal.detail)
    }
}

/// The key whose signature it is. The hint is not authenticated: it only says where to
/// begin, and chooses the words.
fn find_key<'k>(
    message: &[u8],
    signature: &[u8],
    hint: &str,
    trusted: &Trusted<'k>,
    budget: &mut Budget,
) -> Result<&'k PublicKey, Rejected> {
    let keys = || trusted.keys.iter().map(|(_, key)| *key);
    let hinted = keys().find(|key| key.hint() == hint);
    let others = keys().filter(|key| Some(*key) != hinted);
    for key in hinted.into_iter().chain(others) {
        budget.spend(1)?;
        if key.verify(message, signature).is_ok() {
            return Ok(key);
        }
    }
    match hinted {
        Some(key) => Err(rejected(
            Reason::BadSignature,
            format!(
                "it names the trusted key {}, whose signature it is not",
                key.id()
            ),
        )),
        None if hint.is_empty() => Err(rejected(
            Reason::UntrustedSigner,
            "no trusted key made this signature, or it was changed",
        )),
        None => Err(rejected(
            Reason::UntrustedSigner,
            format!("it names the key {}, which is not trusted", name_of(hint)),
        )),
    }
}

/// A hint as the key's SHA-256, if it is one.
fn name_of(hint: &str) -> String {
    let digest = BASE64
        .decode(hint)
        .ok()
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    match digest {
        Some(bytes) => Digest::from_bytes(bytes).to_string(),
        None => format!("{:?}", hint.chars().take(80).collect::<String>()),
    }
}

fn check_size(bytes: &[u8]) -> Result<(), Rejected> {
    if bytes.len() > MAX_SIGNATURE {
        return Err(rejected(
            Reason::MalformedSignature,
            format!("it has {} bytes, over {MAX_SIGNATURE}", bytes.len()),
        ));
    }
    Ok(())
}

fn wrong_subject(about: &str, subject: Digest) -> Rejected {
    let about: String = about.chars().take(200).collect();
    rejected(
        Reason::WrongSubject,
        format!("it is about {about:?}, not {subject}"),
    )
}

fn rejected(reason: Reason, detail: impl Into<String>) -> Rejected {
    Rejected {
        reason,
        detail: detail.into(),
    }
}

fn as_name<S: serde::Serializer>(algorithm: &Algorithm, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(algorithm.name())
}

/// A Sigstore bundle has some kilobytes; one with a long log proof some tens.
const MAX_SIGNATURE: usize = 4 << 20;
