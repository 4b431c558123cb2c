//! What a signature says: an in-toto statement in a DSSE envelope in a Sigstore bundle.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bundle::{Digest, media};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The statement of a cosign v3 signature, byte for byte as cosign writes it: "I signed
/// this", with an empty predicate.
pub fn signed(subject: Digest) -> Vec<u8> {
    let written = Written {
        kind: STATEMENT_V1,
        subject: [WrittenSubject {
            digest: WrittenDigest {
                sha256: subject.to_hex(),
            },
            annotations: Empty {},
        }],
        predicate_type: media::SIGN_PREDICATE,
        predicate: Empty {},
    };
    json(&written)
}

/// An in-toto statement v1 about `subject` with any predicate.
pub fn attested(
    subject: Digest,
    name: Option<&str>,
    predicate_type: &str,
    predicate: &Value,
) -> Vec<u8> {
    let mut about = serde_json::json!({ "digest": { "sha256": subject.to_hex() } });
    if let (Some(name), Some(about)) = (name, about.as_object_mut()) {
        about.insert("name".to_owned(), Value::from(name));
    }
    json(&serde_json::json!({
        "_type": STATEMENT_V1,
        "subject": [about],
        "predicateType": predicate_type,
        "predicate": predicate,
    }))
}

/// What DSSE signs: the payload with its type and both lengths, so that bytes signed as
/// one type can never be read as another (DSSE protocol, "PAE").
pub fn envelope(payload: &[u8]) -> Vec<u8> {
    sigstore_types::dsse::pae(media::IN_TOTO, payload)
}

/// A Sigstore bundle v0.3 with a public-key hint, byte for byte as cosign writes it.
pub fn sigstore_bundle(hint: &str, payload: &[u8], signature: &[u8]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Bundle<'a> {
        media_type: &'a str,
        verification_material: Material<'a>,
        dsse_envelope: Envelope<'a>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Material<'a> {
        public_key: Hint<'a>,
    }
    #[derive(Serialize)]
    struct Hint<'a> {
        hint: &'a str,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Envelope<'a> {
        payload: String,
        payload_type: &'a str,
        signatures: [Signature; 1],
    }
    #[derive(Serialize)]
    struct Signature {
        sig: String,
    }
    json(&Bundle {
        media_type: media::SIGSTORE_BUNDLE,
        verification_material: Material {
            public_key: Hint { hint },
        },
        dsse_envelope: Envelope {
            payload: BASE64.encode(payload),
            payload_type: media::IN_TOTO,
            signatures: [Signature {
                sig: BASE64.encode(signature),
            }],
        },
    })
}

/// The same with any verification material: certificates, log entries, time stamps.
pub fn dsse_bundle(material: &Value, payload: &[u8], signature: &[u8]) -> Vec<u8> {
    json(&serde_json::json!({
        "mediaType": media::SIGSTORE_BUNDLE,
        "verificationMaterial": material,
        "dsseEnvelope": {
            "payload": BASE64.encode(payload),
            "payloadType": media::IN_TOTO,
            "signatures": [{ "sig": BASE64.encode(signature) }],
        },
    }))
}

/// Verification material: a key, by its hint.
pub fn hint(hint: &str) -> Value {
    serde_json::json!({ "publicKey": { "hint": hint } })
}

/// Verification material: a certificate (DER), or several up to the root.
pub fn chain(certificates: &[Vec<u8>]) -> Value {
    let raw = |der: &Vec<u8>| serde_json::json!({ "rawBytes": BASE64.encode(der) });
    match certificates {
        [one] => serde_json::json!({ "certificate": raw(one) }),
        chain => {
            let certificates: Vec<Value> = chain.iter().map(raw).collect();
            serde_json::json!({ "x509CertificateChain": { "certificates": certificates } })
        }
    }
}

/// A Sigstore bundle v0.3 with a signature over a file's bytes, as `cosign sign-blob` writes
/// it.
pub fn blob_bundle(material: &Value, digest: Digest, signature: &[u8]) -> Vec<u8> {
    json(&serde_json::json!({
        "mediaType": media::SIGSTORE_BUNDLE,
        "verificationMaterial": material,
        "messageSignature": {
            "messageDigest": {
                "algorithm": "SHA2_256",
                "digest": BASE64.encode(digest.as_bytes()),
            },
            "signature": BASE64.encode(signature),
        },
    }))
}

/// An in-toto statement as somebody signed it.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement {
    /// What it says about its subjects.
    pub predicate_type: String,
    /// SHA-256 digests of what it is about, as hex digits.
    pub subjects: Vec<String>,
}

impl Statement {
    /// Reads a statement, version 1 or 0.1.
    ///
    /// # Errors
    /// One clause that says what is wrong.
    pub fn parse(payload: &[u8]) -> Result<Self, String> {
        let read: Read = serde_json::from_slice(payload)
            .map_err(|error| format!("the statement cannot be parsed: {error}"))?;
        if ![STATEMENT_V1, STATEMENT_V01].contains(&read.kind.as_str()) {
            return Err(format!(
                "{:?} is not a type of in-toto statements",
                read.kind
            ));
        }
        Ok(Self {
            predicate_type: read.predicate_type,
            subjects: read
                .subject
                .into_iter()
                .filter_map(|mut subject| subject.digest.remove("sha256"))
                .collect(),
        })
    }

    /// Is `digest` one of the subjects?
    pub fn is_about(&self, digest: Digest) -> bool {
        self.subjects.contains(&digest.to_hex())
    }
}

#[derive(Serialize)]
struct Written {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: [WrittenSubject; 1],
    #[serde(rename = "predicateType")]
    predicate_type: &'static str,
    predicate: Empty,
}

#[derive(Serialize)]
struct WrittenSubject {
    digest: WrittenDigest,
    annotations: Empty,
}

#[derive(Serialize)]
struct WrittenDigest {
    sha256: String,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Deserialize)]
struct Read {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<ReadSubject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
}

#[derive(Deserialize)]
struct ReadSubject {
    digest: BTreeMap<String, String>,
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "strings alone: serde_json cannot fail")]
    serde_json::to_vec(value).expect("strings are always JSON")
}

const STATEMENT_V1: &str = "https://in-toto.io/Statement/v1";
const STATEMENT_V01: &str = "https://in-toto.io/Statement/v0.1";

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by cosign 3.1.1.
    const COSIGN: &str = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"6ade85537d8dd255156c02cbe8f5d004682e0ac9e7763541df1b993e493786b5"},"annotations":{}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}"#;
    const SUBJECT: &str = "sha256:6ade85537d8dd255156c02cbe8f5d004682e0ac9e7763541df1b993e493786b5";

    #[test]
    fn the_statement_is_cosigns() {
        let subject = SUBJECT.parse().unwrap();
        assert_eq!(String::from_utf8(signed(subject)).unwrap(), COSIGN);
        let statement = Statement::parse(COSIGN.as_bytes()).unwrap();
        assert_eq!(statement.predicate_type, media::SIGN_PREDICATE);
        assert!(statement.is_about(subject));
        assert!(!statement.is_about(Digest::of(b"")));
    }

    #[test]
    fn a_bundle_is_cosigns_and_parses() {
        let bytes = sigstore_bundle("aGludA==", b"{}", b"sig");
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            concat!(
                r#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","#,
                r#""verificationMaterial":{"publicKey":{"hint":"aGludA=="}},"#,
                r#""dsseEnvelope":{"payload":"e30=","payloadType":"application/vnd.in-toto+json","#,
                r#""signatures":[{"sig":"c2ln"}]}}"#
            )
        );
        serde_json::from_slice::<sigstore_types::Bundle>(&bytes).unwrap();
    }

    #[test]
    fn one_key_must_not_be_said_twice() {
        let twice = COSIGN.replace(r#""predicate":{}"#, r#""predicateType":"x","predicate":{}"#);
        assert_eq!(
            Statement::parse(twice.as_bytes()).map_err(|e| e.contains("duplicate field")),
            Err(true)
        );
    }
}
