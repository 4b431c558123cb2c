//! RFC 3161: a time-stamp authority says that a signature existed now.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use reqwest::Method;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::http::{Http, Request};
use crate::Failure;

/// Asks each authority, and adds what they say to a bundle's verification material.
pub fn add(
    http: &Http,
    authorities: &[String],
    signature: &[u8],
    material: &mut Value,
) -> Result<(), Failure> {
    let mut stamps = Vec::new();
    for url in authorities {
        let stamp = ask(http, url, signature)?;
        stamps.push(json!({ "signedTimestamp": BASE64.encode(stamp) }));
    }
    if !stamps.is_empty() {
        material["timestampVerificationData"] = json!({ "rfc3161Timestamps": stamps });
    }
    Ok(())
}

fn ask(http: &Http, url: &str, signature: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut nonce = [0; 8];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| Failure::internal("the system gives no randomness"))?;
    let answer = http.send(&Request {
        service: SERVICE,
        method: Method::POST,
        url,
        content_type: "application/timestamp-query",
        accept: "application/timestamp-reply",
        bearer: None,
        body: query(&Sha256::digest(signature), nonce),
    })?;
    if !(200..300).contains(&answer.status) {
        return Err(answer.failure(SERVICE, url));
    }
    if !is_granted(&answer.body) {
        return Err(Failure::network(format!(
            "{SERVICE} {url} did not grant a time stamp"
        )));
    }
    Ok(answer.body)
}

/// `TimeStampReq` (RFC 3161, section 2.4.1) with the authority's certificate asked for.
fn query(digest: &[u8], nonce: [u8; 8]) -> Vec<u8> {
    let mut imprint = vec![0x30, 0x31];
    imprint.extend_from_slice(SHA256);
    imprint.extend_from_slice(&[0x04, 0x20]);
    imprint.extend_from_slice(digest);
    // A leading 01 keeps the number positive and its length fixed.
    let mut body = vec![0x02, 0x01, 0x01];
    body.extend_from_slice(&imprint);
    body.extend_from_slice(&[0x02, 0x09, 0x01]);
    body.extend_from_slice(&nonce);
    body.extend_from_slice(&[0x01, 0x01, 0xff]);
    let mut request = vec![0x30, body.len() as u8];
    request.extend_from_slice(&body);
    request
}

/// `PKIStatus` granted (0) or granted with changes (1); the rest is checked by whoever
/// verifies.
fn is_granted(reply: &[u8]) -> bool {
    let (_, content) = match reply {
        [0x30, length, rest @ ..] if *length < 0x80 => (length, rest),
        [0x30, 0x81, length, rest @ ..] => (length, rest),
        [0x30, 0x82, length, _, rest @ ..] => (length, rest),
        [0x30, 0x83, length, _, _, rest @ ..] => (length, rest),
        _ => return false,
    };
    matches!(content, [0x30, _, 0x02, 0x01, 0 | 1, ..])
}

/// `AlgorithmIdentifier` of SHA-256 with NULL parameters.
const SHA256: &[u8] = &[
    0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
];
const SERVICE: &str = "the time-stamp authority";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_der() {
        let der = query(&[7; 32], [0xff; 8]);
        assert_eq!(der.len(), usize::from(der[1]) + 2);
        // version, imprint, nonce, certReq: lengths add up.
        assert_eq!(der[1], 3 + 51 + 11 + 3);
    }

    #[test]
    fn a_rejection_is_known() {
        assert!(is_granted(&[0x30, 5, 0x30, 3, 2, 1, 0]));
        assert!(!is_granted(&[0x30, 5, 0x30, 3, 2, 1, 2]));
        assert!(!is_granted(b"<html>"));
    }
}
