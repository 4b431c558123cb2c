//! The transparency log, by both of its APIs.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bundle::Digest;
use serde_json::{Value, json};

use super::{Inner, hash, now, sign};

impl Inner {
    pub(super) fn log_first(&self, request: &Value) -> Value {
        let body = match request["kind"].as_str() {
            Some("dsse") => {
                let content = &request["spec"]["proposedContent"];
                let text = content["envelope"].as_str().unwrap_or_default();
                let envelope: Value = serde_json::from_str(text).unwrap_or_default();
                let payload = BASE64
                    .decode(envelope["payload"].as_str().unwrap_or_default())
                    .unwrap_or_default();
                json!({ "apiVersion": "0.0.1", "kind": "dsse", "spec": {
                    "envelopeHash": hash(text.as_bytes()),
                    "payloadHash": hash(&payload),
                    "signatures": [{
                        "signature": envelope["signatures"][0]["sig"],
                        "verifier": content["verifiers"][0],
                    }],
                }})
            }
            _ => request.clone(),
        }
        .to_string();
        let encoded = BASE64.encode(&body);
        let id = self.log.public_key().id().to_hex();
        let time = now();
        let promised = json!({
            "body": encoded, "integratedTime": time, "logID": id, "logIndex": 1,
        });
        let promise = sign(&self.log, promised.to_string().as_bytes());
        let (first, root, checkpoint) = self.tree(FIRST_ORIGIN, body.as_bytes());
        json!({ "24296fb24b8ad77a": {
            "body": encoded,
            "integratedTime": time,
            "logID": id,
            "logIndex": 1,
            "verification": {
                "inclusionProof": {
                    "checkpoint": checkpoint,
                    "hashes": [first.to_hex()],
                    "logIndex": 1,
                    "rootHash": root.to_hex(),
                    "treeSize": 2,
                },
                "signedEntryTimestamp": BASE64.encode(promise),
            },
        }})
    }

    pub(super) fn log_second(&self, request: &Value) -> Value {
        let request = &request["hashedRekordRequestV002"];
        let body = json!({ "apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {
            "hashedRekordV002": {
                "data": { "algorithm": "SHA2_256", "digest": request["digest"] },
                "signature": request["signature"],
            },
        }})
        .to_string();
        let (first, root, checkpoint) = self.tree("log.test", body.as_bytes());
        json!({
            "logIndex": "1",
            "logId": { "keyId": BASE64.encode(self.log.public_key().id().as_bytes()) },
            "kindVersion": { "kind": "hashedrekord", "version": "0.0.2" },
            "inclusionProof": {
                "logIndex": "1",
                "rootHash": BASE64.encode(root.as_bytes()),
                "treeSize": "2",
                "hashes": [BASE64.encode(first.as_bytes())],
                "checkpoint": { "envelope": checkpoint },
            },
            "canonicalizedBody": BASE64.encode(body),
        })
    }

    /// A tree of something first (sigstore-python refuses an index 0) and this leaf: the
    /// first leaf, the root, and the checkpoint (a signed note) that says so.
    fn tree(&self, origin: &str, body: &[u8]) -> (Digest, Digest, String) {
        let first = Digest::of(b"\0the first entry");
        let leaf = Digest::of(&[&[0][..], body].concat());
        let root = Digest::of(&[&[1][..], first.as_bytes(), leaf.as_bytes()].concat());
        let text = format!("{origin}\n2\n{}\n", BASE64.encode(root.as_bytes()));
        let signature = sign(&self.log, text.as_bytes());
        let hint = self.log.public_key().id();
        let note = [&hint.as_bytes()[..4], &signature].concat();
        let checkpoint = format!("{text}\n\u{2014} log.test {}\n", BASE64.encode(note));
        (first, root, checkpoint)
    }
}

/// How a log of the first version names itself: cosign knows it by the number of its tree.
const FIRST_ORIGIN: &str = "log.test - 1";
