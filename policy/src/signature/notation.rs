//! Notary Project signatures in their JWS form (`signature-envelope-jws.md`,
//! `signature-specification.md`).

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64_URL},
};
use bundle::Digest;
use jiff::Timestamp;
use serde::Deserialize;

use super::{Budget, Form, Rejected, Trusted, Valid, rejected};
use crate::{Reason, key::Jws};

/// Who signed with this envelope over the manifest `subject`.
pub(super) fn check(
    bytes: &[u8],
    subject: Digest,
    trusted: &Trusted<'_>,
    budget: &mut Budget,
) -> Result<Valid, Rejected> {
    let envelope: Envelope = parse(bytes, "the JWS envelope")?;
    let protected = decode(&envelope.protected, "the protected header")?;
    let head: Protected = parse(&protected, "the protected header")?;
    check_head(&head, trusted.now)?;
    let signature = decode(&envelope.signature, "the signature")?;
    let chain = envelope
        .header
        .x5c
        .iter()
        .map(|der| {
            BASE64
                .decode(der)
                .map_err(|_| malformed("a certificate is not base64"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let stamp = match &envelope.header.stamp {
        None => Vec::new(),
        Some(stamp) => vec![
            BASE64
                .decode(stamp)
                .map_err(|_| malformed("the time stamp is not base64"))?,
        ],
    };
    let holder = trusted.holder(&chain, &signature, &stamp, budget)?;
    let message = format!("{}.{}", envelope.protected, envelope.payload);
    let algorithm =
        Jws::parse(&head.alg).map_err(|error| rejected(Reason::WeakAlgorithm, error))?;
    holder
        .holder
        .key
        .verify_jws(algorithm, message.as_bytes(), &signature)
        .map_err(|_| {
            rejected(
                Reason::BadSignature,
                format!("the signature was not made by {:?}", holder.holder.subject),
            )
        })?;
    let payload = decode(&envelope.payload, "the payload")?;
    let payload: Payload = parse(&payload, "the payload")?;
    if payload.target.digest != subject.to_string() {
        return Err(super::wrong_subject(&payload.target.digest, subject));
    }
    Ok(holder.valid(Form::Notation, None))
}

/// Everything that the header says must be understood, and hold.
fn check_head(head: &Protected, now: Timestamp) -> Result<(), Rejected> {
    if head.cty != PAYLOAD_TYPE {
        return Err(rejected(
            Reason::WrongPredicate,
            format!(
                "the payload is of type {:?}, not {PAYLOAD_TYPE:?}",
                head.cty
            ),
        ));
    }
    if let Some(name) = head
        .crit
        .iter()
        .find(|name| !KNOWN.contains(&name.as_str()))
    {
        return Err(rejected(
            Reason::Unsupported,
            format!("its critical attribute {name:?} is not known here"),
        ));
    }
    if !head.crit.iter().any(|name| name == SCHEME) {
        return Err(malformed("its signing scheme is not marked critical"));
    }
    if head.scheme != "notary.x509" {
        return Err(rejected(
            Reason::Unsupported,
            format!(
                "its signing scheme is {:?}; notary.x509 is checked",
                head.scheme
            ),
        ));
    }
    match &head.expiry {
        Some(expiry) if *expiry <= now => Err(rejected(
            Reason::TooOld,
            format!("its signer let it expire at {expiry}"),
        )),
        _ => Ok(()),
    }
}

fn parse<'b, T: Deserialize<'b>>(bytes: &'b [u8], what: &str) -> Result<T, Rejected> {
    serde_json::from_slice(bytes)
        .map_err(|error| malformed(&format!("{what} cannot be parsed: {error}")))
}

fn decode(text: &str, what: &str) -> Result<Vec<u8>, Rejected> {
    BASE64_URL
        .decode(text)
        .map_err(|_| malformed(&format!("{what} is not base64url")))
}

fn malformed(what: &str) -> Rejected {
    rejected(Reason::MalformedSignature, what)
}

#[derive(Deserialize)]
struct Envelope {
    payload: String,
    protected: String,
    header: Header,
    signature: String,
}

#[derive(Deserialize)]
struct Header {
    x5c: Vec<String>,
    #[serde(rename = "io.cncf.notary.timestampSignature")]
    stamp: Option<String>,
}

#[derive(Deserialize)]
struct Protected {
    alg: String,
    cty: String,
    crit: Vec<String>,
    #[serde(rename = "io.cncf.notary.signingScheme")]
    scheme: String,
    #[serde(rename = "io.cncf.notary.expiry")]
    expiry: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Payload {
    #[serde(rename = "targetArtifact")]
    target: Target,
}

#[derive(Deserialize)]
struct Target {
    digest: String,
}

const PAYLOAD_TYPE: &str = "application/vnd.cncf.notary.payload.v1+json";
const SCHEME: &str = "io.cncf.notary.signingScheme";
/// Attributes that may be critical because they are looked at.
const KNOWN: [&str; 2] = [SCHEME, "io.cncf.notary.expiry"];
