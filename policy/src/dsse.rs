//! The Dead Simple Signing Envelope (DSSE v1.0.2), of which we sign policies and permits.
//!
//! What is signed is the pre-authentication encoding: type and payload with their lengths,
//! so that a signature for one purpose never fits another.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};

use crate::{Reason, Refusal, key::PublicKey};

/// `PAE(type, payload)` of the DSSE protocol: the bytes that are signed.
pub fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    );
    [head.as_bytes(), payload].concat()
}

/// An envelope as its JSON has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// Base64 of the payload.
    payload: String,
    /// What the payload is.
    payload_type: String,
    /// Signatures over [`pre_authentication`].
    signatures: Vec<Signature>,
}

/// One signature of an envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Signature {
    /// [`PublicKey::id`] of the signer; a hint that nothing relies on.
    #[serde(default)]
    keyid: String,
    /// Base64 of the signature.
    sig: String,
}

impl Envelope {
    /// Seals `payload`; `sign` returns the signature over the bytes it is given, by `key`.
    ///
    /// # Errors
    /// Those of `sign`.
    pub fn seal<E>(
        payload_type: &str,
        payload: &[u8],
        key: &PublicKey,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let signature = sign(&pre_authentication(payload_type, payload))?;
        Ok(Self {
            payload: BASE64.encode(payload),
            payload_type: payload_type.to_owned(),
            signatures: vec![Signature {
                keyid: key.id().to_string(),
                sig: BASE64.encode(signature),
            }],
        })
    }

    /// Reads the JSON.
    ///
    /// # Errors
    /// A clause that says what is wrong with it.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(json).map_err(|error| format!("not a signature file: {error}"))
    }

    /// The JSON, on one line that ends in a newline.
    pub fn to_json(&self) -> String {
        // Strings and vectors of strings always serialise.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// Does it say that `key` signed it? A hint, with which refusals can say more.
    pub fn names(&self, key: &PublicKey) -> bool {
        let id = key.id().to_string();
        let signatures = self.signatures.iter().take(MOST_SIGNATURES);
        signatures
            .into_iter()
            .any(|signature| signature.keyid == id)
    }

    /// The payload, if it is of this type and `key` signed it.
    ///
    /// # Errors
    /// [`Reason::BadAuthority`], with what differs.
    pub fn open(&self, payload_type: &str, key: &PublicKey) -> Result<Vec<u8>, Refusal> {
        let refuse = |detail: String| Refusal::new(Reason::BadAuthority, detail);
        if self.payload_type != payload_type {
            return Err(refuse(format!(
                "the signature is for {:?}, want {payload_type:?}",
                self.payload_type
            )));
        }
        let payload = BASE64
            .decode(&self.payload)
            .map_err(|_| refuse("the signed payload is not base64".to_owned()))?;
        let message = pre_authentication(payload_type, &payload);
        let is_good = |signature: &Signature| {
            let signature = BASE64.decode(&signature.sig);
            signature.is_ok_and(|signature| key.verify(&message, &signature).is_ok())
        };
        if self.signatures.iter().take(MOST_SIGNATURES).any(is_good) {
            return Ok(payload);
        }
        let by: Vec<&str> = self
            .signatures
            .iter()
            .take(3)
            .map(|s| s.keyid.as_str())
            .collect();
        Err(refuse(format!(
            "no signature by the authority {}; it names as signer: {}",
            key.id(),
            if by.is_empty() {
                "nobody".to_owned()
            } else {
                by.join(", ")
            }
        )))
    }
}

/// More signatures than that nobody makes; it bounds the work on a hostile file.
const MOST_SIGNATURES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_as_the_protocol_s_example() {
        assert_eq!(
            pre_authentication("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }
}
