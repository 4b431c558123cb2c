//! Rekor: an entry in a transparency log, by its first and its second API.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bundle::{Digest, media};
use policy::{key::pem, sigstore::SigningConfig};
use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::http::Http;
use crate::Failure;

/// What is to be logged.
pub struct Entry<'e> {
    /// The bytes that were signed.
    pub message: &'e [u8],
    /// The DSSE payload; `None`: a file's bytes were signed.
    pub payload: Option<&'e [u8]>,
    pub signature: &'e [u8],
    /// The signer's certificate (DER).
    pub certificate: &'e [u8],
}

/// Has it logged, and adds the proof to a bundle's verification material.
pub fn add(
    http: &Http,
    config: &SigningConfig,
    entry: &Entry<'_>,
    material: &mut Value,
) -> Result<(), Failure> {
    let logs = config.logs();
    if logs.is_empty() {
        return Err(Failure::usage(
            "the signing config names no transparency log that is in use",
        ));
    }
    let mut entries = Vec::new();
    for (url, version) in logs {
        entries.push(match version {
            2 => second(http, &url, entry)?,
            _ => first(http, &url, entry)?,
        });
    }
    material["tlogEntries"] = Value::from(entries);
    Ok(())
}

/// Version 2 answers with the entry as a bundle holds it. A DSSE envelope is logged as what
/// it signs.
fn second(http: &Http, base: &str, entry: &Entry<'_>) -> Result<Value, Failure> {
    let request = json!({ "hashedRekordRequestV002": {
        "digest": BASE64.encode(Digest::of(entry.message).as_bytes()),
        "signature": {
            "content": BASE64.encode(entry.signature),
            "verifier": {
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "x509Certificate": { "rawBytes": BASE64.encode(entry.certificate) },
            },
        },
    }});
    let url = format!("{}/api/v2/log/entries", base.trim_end_matches('/'));
    let (reply, answer) = http.json(SERVICE, Method::POST, &url, Some(&request), None)?;
    if !(200..300).contains(&answer.status) || !reply["inclusionProof"].is_object() {
        return Err(answer.failure(SERVICE, &url));
    }
    Ok(reply)
}

/// Version 1 answers in a form of its own.
fn first(http: &Http, base: &str, entry: &Entry<'_>) -> Result<Value, Failure> {
    let base = base.trim_end_matches('/');
    let url = format!("{base}/api/v1/log/entries");
    let certificate = BASE64.encode(pem("CERTIFICATE", entry.certificate));
    let request = match entry.payload {
        None => json!({
            "apiVersion": "0.0.1",
            "kind": "hashedrekord",
            "spec": {
                "data": { "hash": {
                    "algorithm": "sha256",
                    "value": Digest::of(entry.message).to_hex(),
                }},
                "signature": {
                    "content": BASE64.encode(entry.signature),
                    "publicKey": { "content": certificate },
                },
            },
        }),
        Some(payload) => {
            let envelope = json!({
                "payload": BASE64.encode(payload),
                "payloadType": media::IN_TOTO,
                "signatures": [{ "sig": BASE64.encode(entry.signature) }],
            });
            json!({
                "apiVersion": "0.0.1",
                "kind": "dsse",
                "spec": { "proposedContent": {
                    "envelope": envelope.to_string(),
                    "verifiers": [certificate],
                }},
            })
        }
    };
    let (mut reply, mut answer) = http.json(SERVICE, Method::POST, &url, Some(&request), None)?;
    if answer.status == 409 {
        // The same entry is there already, perhaps from a try whose answer was lost.
        let there = answer
            .location
            .as_deref()
            .and_then(|location| Url::parse(&url).ok()?.join(location).ok())
            .ok_or_else(|| answer.failure(SERVICE, &url))?;
        (reply, answer) = http.json(SERVICE, Method::GET, there.as_str(), None, None)?;
    }
    if !(200..300).contains(&answer.status) {
        return Err(answer.failure(SERVICE, &url));
    }
    let logged = reply
        .as_object()
        .and_then(|entries| entries.values().next());
    logged
        .and_then(|logged| converted(logged, &request))
        .ok_or_else(|| Failure::network(format!("{SERVICE} {url} answered with no entry")))
}

fn converted(logged: &Value, request: &Value) -> Option<Value> {
    let number = |value: &Value| value.as_i64().map(|number| number.to_string());
    let base64_of_hex = |value: &Value| {
        let bytes = hex::decode(value.as_str()?).ok()?;
        Some(BASE64.encode(bytes))
    };
    let verification = &logged["verification"];
    let mut entry = json!({
        "logIndex": number(&logged["logIndex"])?,
        "logId": { "keyId": base64_of_hex(&logged["logID"])? },
        "kindVersion": { "kind": request["kind"], "version": request["apiVersion"] },
        "integratedTime": number(&logged["integratedTime"])?,
        "canonicalizedBody": logged["body"].as_str()?,
    });
    if let Some(promise) = verification["signedEntryTimestamp"].as_str() {
        entry["inclusionPromise"] = json!({ "signedEntryTimestamp": promise });
    }
    let proof = &verification["inclusionProof"];
    if proof.is_object() {
        let hashes: Option<Vec<String>> = proof["hashes"]
            .as_array()?
            .iter()
            .map(base64_of_hex)
            .collect();
        entry["inclusionProof"] = json!({
            "logIndex": number(&proof["logIndex"])?,
            "rootHash": base64_of_hex(&proof["rootHash"])?,
            "treeSize": number(&proof["treeSize"])?,
            "hashes": hashes?,
            "checkpoint": { "envelope": proof["checkpoint"].as_str()? },
        });
    }
    Some(entry)
}

const SERVICE: &str = "the transparency log";
