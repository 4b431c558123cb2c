//! cosign's older forms (versions 1 and 2): a payload as layer, all else in annotations.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bundle::{Digest, manifest::Descriptor, media};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Budget, Form, Rejected, Trusted, Valid, find_key, rejected, wrong_subject};
use crate::{
    Reason,
    sigstore::{self, Subject},
    statement,
};

/// A "simple signing" payload (cosign `SIGNATURE_SPEC.md`).
pub(super) fn check_simple(
    descriptor: &Descriptor,
    payload: &[u8],
    subject: Digest,
    trusted: &Trusted<'_>,
    budget: &mut Budget,
) -> Result<Valid, Rejected> {
    let signature = descriptor
        .annotations
        .get(media::COSIGN_SIGNATURE_ANNOTATION)
        .ok_or_else(|| {
            malformed(&format!(
                "the layer has no annotation {}",
                media::COSIGN_SIGNATURE_ANNOTATION
            ))
        })?;
    let signature = BASE64
        .decode(signature)
        .map_err(|_| malformed("the signature annotation is not base64"))?;
    let valid = match certificate(&descriptor.annotations)? {
        None => {
            let key = find_key(payload, &signature, "", trusted, budget)?;
            Valid::by_key(key, Form::SimpleSigning, trusted)
        }
        Some(certificate) => {
            let content = json!({"messageSignature": {
                "messageDigest": {
                    "algorithm": "SHA2_256",
                    "digest": BASE64.encode(Digest::of(payload).as_bytes()),
                },
                "signature": BASE64.encode(&signature),
            }});
            let bundle = as_bundle(&descriptor.annotations, &certificate, content)?;
            trusted.identity(
                &bundle,
                Subject::Bytes(payload),
                Form::SimpleSigning,
                budget,
            )?
        }
    };
    check_payload(payload, subject)?;
    Ok(valid)
}

/// A bare DSSE envelope, as `cosign attest` stored it; says who and which predicate.
pub(super) fn check_envelope(
    descriptor: &Descriptor,
    bytes: &[u8],
    subject: Digest,
    trusted: &Trusted<'_>,
    budget: &mut Budget,
) -> Result<(Valid, super::Said), Rejected> {
    let envelope: Envelope = serde_json::from_slice(bytes)
        .map_err(|error| malformed(&format!("the DSSE envelope cannot be parsed: {error}")))?;
    super::check_payload_type(&envelope.payload_type)?;
    let payload = BASE64
        .decode(&envelope.payload)
        .map_err(|_| malformed("the payload is not base64"))?;
    let [signature] = envelope.signatures.as_slice() else {
        return Err(malformed("the DSSE envelope has not one signature"));
    };
    let valid = match certificate(&descriptor.annotations)? {
        None => {
            let signature = BASE64
                .decode(&signature.sig)
                .map_err(|_| malformed("the signature is not base64"))?;
            let signed = statement::envelope(&payload);
            let key = find_key(&signed, &signature, "", trusted, budget)?;
            Valid::by_key(key, Form::DsseEnvelope, trusted)
        }
        Some(certificate) => {
            let content = json!({"dsseEnvelope": {
                "payload": envelope.payload,
                "payloadType": envelope.payload_type,
                "signatures": [{ "sig": signature.sig }],
            }});
            let bundle = as_bundle(&descriptor.annotations, &certificate, content)?;
            trusted.identity(
                &bundle,
                Subject::Digest(subject),
                Form::DsseEnvelope,
                budget,
            )?
        }
    };
    let said = super::check_statement(&payload, subject)?;
    Ok((valid, said))
}

/// The DER of the signer's certificate, base64; `None`: a key signed.
fn certificate(annotations: &BTreeMap<String, String>) -> Result<Option<String>, Rejected> {
    let Some(pem) = annotations.get(media::COSIGN_CERTIFICATE_ANNOTATION) else {
        return Ok(None);
    };
    if pem.is_empty() {
        return Ok(None);
    }
    let chain = crate::x509::certificates(pem.as_bytes())
        .map_err(|error| malformed(&format!("the certificate annotation: {error}")))?;
    Ok(chain.first().map(|der| BASE64.encode(der)))
}

/// The same evidence as a Sigstore bundle of version 0.1, which asks for no more than the
/// log's promise: that is all that these forms carry.
fn as_bundle(
    annotations: &BTreeMap<String, String>,
    certificate: &str,
    content: Value,
) -> Result<sigstore::Bundle, Rejected> {
    let mut material = json!({
        "x509CertificateChain": { "certificates": [{ "rawBytes": certificate }] },
    });
    if let Some(log) = annotations.get(media::COSIGN_BUNDLE_ANNOTATION) {
        let log: LogBundle = serde_json::from_str(log)
            .map_err(|error| malformed(&format!("the log entry cannot be parsed: {error}")))?;
        let body = BASE64
            .decode(&log.payload.body)
            .map_err(|_| malformed("the log entry's body is not base64"))?;
        let kind: Kind = serde_json::from_slice(&body)
            .map_err(|error| malformed(&format!("the log entry's body: {error}")))?;
        let id = hex::decode(&log.payload.log_id)
            .map_err(|_| malformed("the log's identity is not in hex digits"))?;
        material["tlogEntries"] = json!([{
            "logIndex": log.payload.log_index.to_string(),
            "logId": { "keyId": BASE64.encode(id) },
            "kindVersion": { "kind": kind.kind, "version": kind.version },
            "integratedTime": log.payload.integrated_time.to_string(),
            "inclusionPromise": { "signedEntryTimestamp": log.promise },
            "canonicalizedBody": log.payload.body,
        }]);
    }
    if let Some(stamp) = annotations.get(media::COSIGN_TIMESTAMP_ANNOTATION) {
        let stamp: Stamp = serde_json::from_str(stamp)
            .map_err(|error| malformed(&format!("the time stamp cannot be parsed: {error}")))?;
        material["timestampVerificationData"] =
            json!({ "rfc3161Timestamps": [{ "signedTimestamp": stamp.stamp }] });
    }
    let mut bundle = json!({
        "mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.1",
        "verificationMaterial": material,
    });
    if let (Some(bundle), Value::Object(content)) = (bundle.as_object_mut(), content) {
        bundle.extend(content);
    }
    sigstore::parse(bundle.to_string().as_bytes()).map_err(Rejected::from)
}

fn check_payload(payload: &[u8], subject: Digest) -> Result<(), Rejected> {
    let payload: SimpleSigning = serde_json::from_slice(payload)
        .map_err(|error| malformed(&format!("the signed payload cannot be parsed: {error}")))?;
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
    Ok(())
}

fn malformed(what: &str) -> Rejected {
    rejected(Reason::MalformedSignature, what)
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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
struct LogBundle {
    #[serde(rename = "SignedEntryTimestamp")]
    promise: String,
    #[serde(rename = "Payload")]
    payload: LogPayload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogPayload {
    body: String,
    integrated_time: i64,
    log_index: i64,
    #[serde(rename = "logID")]
    log_id: String,
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
    #[serde(rename = "apiVersion")]
    version: String,
}

#[derive(Deserialize)]
struct Stamp {
    #[serde(rename = "SignedRFC3161Timestamp")]
    stamp: String,
}

const SIMPLE_SIGNING_TYPE: &str = "cosign container image signature";
