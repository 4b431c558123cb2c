//! One signature: made as cosign makes it, and checked against keys.
//!
//! Two forms are read. cosign v3 attaches a Sigstore bundle with an in-toto statement as an
//! OCI 1.1 referrer (cosign `BUNDLE_SPEC.md`); that is what is written here too. Older
//! versions tag a manifest `sha256-<hex>.sig` whose layers are "simple signing" payloads
//! (cosign `SIGNATURE_SPEC.md`). Nothing that was not authenticated is acted on: the
//! signature is checked first, then what it says.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bundle::{
    Digest,
    manifest::{Descriptor, Manifest},
    media,
    unverified::Referrer,
};
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};
use sigstore_types::bundle::{Bundle, SignatureContent, VerificationMaterialContent};

use crate::{
    Reason,
    key::{Algorithm, PublicKey},
    signer::{BadPrivateKey, Signer},
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
    let signature = signer.sign(&statement::envelope(&payload), random)?;
    let sigstore = statement::sigstore_bundle(&signer.public_key().hint(), &payload, &signature);
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
    annotate(media::PREDICATE_TYPE_ANNOTATION, media::SIGN_PREDICATE);
    if let Some(created) = created {
        annotate(media::CREATED, created);
    }
    Ok(Attached {
        manifest: manifest.to_bytes(),
        blobs: [media::EMPTY_JSON.to_vec(), sigstore],
    })
}

/// In which form a signature is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A Sigstore bundle, attached by its subject.
    SigstoreBundle,
    /// A simple-signing payload, attached by a tag or by its subject.
    SimpleSigning,
}

/// A signature that fits: who, how, where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Valid {
    /// SHA-256 of the key's SPKI.
    pub key: Digest,
    /// In which form.
    pub form: Form,
    /// By which kind of key.
    #[serde(serialize_with = "as_name")]
    pub algorithm: Algorithm,
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
    fn spend(&mut self) -> Result<(), Rejected> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| {
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
    keys: &[&PublicKey],
    budget: &mut Budget,
) -> Vec<Finding> {
    let manifest = &referrer.manifest;
    let mut findings = Vec::new();
    for (layer, (descriptor, bytes)) in manifest.layers.iter().zip(&referrer.layers).enumerate() {
        let Some(form) = form_of(&descriptor.media_type) else {
            continue;
        };
        let outcome = match bytes {
            Err(missing) => Err(rejected(Reason::MalformedSignature, missing.clone())),
            Ok(bytes) => match form {
                Form::SigstoreBundle => check_bundle(bytes, subject, keys, budget),
                Form::SimpleSigning => check_simple(descriptor, bytes, subject, keys, budget),
            },
        };
        findings.push(Finding {
            referrer: referrer.digest,
            layer,
            outcome: match outcome {
                Ok(key) => Outcome::Valid(Valid {
                    key: key.id(),
                    form,
                    algorithm: key.algorithm(),
                }),
                Err(rejected) => Outcome::Rejected(rejected),
            },
        });
    }
    findings
}

fn form_of(media_type: &str) -> Option<Form> {
    match media_type {
        media::SIMPLE_SIGNING => Some(Form::SimpleSigning),
        other if other.starts_with(media::SIGSTORE_BUNDLE_PREFIX) => Some(Form::SigstoreBundle),
        _ => None,
    }
}

fn check_bundle<'k>(
    bytes: &[u8],
    subject: Digest,
    keys: &[&'k PublicKey],
    budget: &mut Budget,
) -> Result<&'k PublicKey, Rejected> {
    check_size(bytes)?;
    let bundle: Bundle = serde_json::from_slice(bytes).map_err(|error| {
        rejected(
            Reason::MalformedSignature,
            format!("the Sigstore bundle cannot be parsed: {error}"),
        )
    })?;
    let VerificationMaterialContent::PublicKey(identifier) = &bundle.verification_material.content
    else {
        return Err(keyless());
    };
    let SignatureContent::DsseEnvelope(envelope) = &bundle.content else {
        return Err(rejected(
            Reason::MalformedSignature,
            "the Sigstore bundle signs bare bytes, not a statement",
        ));
    };
    if envelope.payload_type != media::IN_TOTO {
        return Err(rejected(
            Reason::MalformedSignature,
            format!(
                "the payload is of type {:?}, not {:?}",
                envelope.payload_type,
                media::IN_TOTO
            ),
        ));
    }
    let payload = envelope.payload.as_bytes();
    let signed = statement::envelope(payload);
    let key = find_key(
        &signed,
        envelope.signature.sig.as_bytes(),
        &identifier.hint,
        keys,
        budget,
    )?;
    let statement =
        Statement::parse(payload).map_err(|error| rejected(Reason::MalformedSignature, error))?;
    if !statement.is_about(subject) {
        return Err(wrong_subject(&statement.subjects.join(", "), subject));
    }
    if statement.predicate_type != media::SIGN_PREDICATE {
        return Err(rejected(
            Reason::WrongPredicate,
            format!(
                "the statement's predicate is {:?}, not {:?}",
                statement.predicate_type,
                media::SIGN_PREDICATE
            ),
        ));
    }
    Ok(key)
}

fn check_simple<'k>(
    descriptor: &Descriptor,
    payload: &[u8],
    subject: Digest,
    keys: &[&'k PublicKey],
    budget: &mut Budget,
) -> Result<&'k PublicKey, Rejected> {
    check_size(payload)?;
    if descriptor
        .annotations
        .contains_key(media::COSIGN_CERTIFICATE_ANNOTATION)
    {
        return Err(keyless());
    }
    let signature = descriptor
        .annotations
        .get(media::COSIGN_SIGNATURE_ANNOTATION)
        .ok_or_else(|| {
            rejected(
                Reason::MalformedSignature,
                format!(
                    "the layer has no annotation {}",
                    media::COSIGN_SIGNATURE_ANNOTATION
                ),
            )
        })?;
    let signature = BASE64.decode(signature).map_err(|_| {
        rejected(
            Reason::MalformedSignature,
            "the signature annotation is not base64",
        )
    })?;
    let key = find_key(payload, &signature, "", keys, budget)?;
    let payload: SimpleSigning = serde_json::from_slice(payload).map_err(|error| {
        rejected(
            Reason::MalformedSignature,
            format!("the signed payload cannot be parsed: {error}"),
        )
    })?;
    let about = &payload.critical.image.digest;
    if *about != subject.to_string() {
        return Err(wrong_subject(about, subject));
    }
    if payload.critical.kind != SIMPLE_SIGNING_TYPE {
        return Err(rejected(
            Reason::WrongPredicate,
            format!(
                "the payload is of type {:?}, not {SIMPLE_SIGNING_TYPE:?}",
                payload.critical.kind
            ),
        ));
    }
    Ok(key)
}

/// The key whose signature it is. The hint is not authenticated: it only says where to
/// begin, and chooses the words.
fn find_key<'k>(
    message: &[u8],
    signature: &[u8],
    hint: &str,
    keys: &[&'k PublicKey],
    budget: &mut Budget,
) -> Result<&'k PublicKey, Rejected> {
    let hinted = keys.iter().copied().find(|key| key.hint() == hint);
    let others = keys.iter().copied().filter(|key| Some(*key) != hinted);
    for key in hinted.into_iter().chain(others) {
        budget.spend()?;
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

fn keyless() -> Rejected {
    rejected(
        Reason::Unsupported,
        "it is keyless (it carries a certificate), which this version cannot check",
    )
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

#[derive(Deserialize)]
struct SimpleSigning {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

const SIMPLE_SIGNING_TYPE: &str = "cosign container image signature";
/// A Sigstore bundle has some kilobytes; one with a long log proof some tens.
const MAX_SIGNATURE: usize = 4 << 20;
