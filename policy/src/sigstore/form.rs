//! The form of a Sigstore bundle, before anything in it is read: what two readers could
//! understand in two ways is refused.
//!
//! A bundle is a protobuf message as JSON. There, of a `oneof` one member may be set, no field
//! may stand twice, and `lowerCamelCase` and `snake_case` name the same field. `serde` takes
//! the first member that it knows and drops the rest, so that a bundle could show one
//! signature here and another one to the next reader.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use sigstore_types::{Bundle, bundle::KindVersion};

/// Checks the JSON text of a bundle.
///
/// # Errors
/// One clause: which fields exclude each other, are missing, or stand twice.
pub(super) fn check(json: &[u8]) -> Result<(), String> {
    let Unique(value) = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let bundle = object(&value, "the bundle")?;
    if !bundle.get("mediaType").is_some_and(Value::is_string) {
        return Err("it has no `mediaType`".to_owned());
    }
    one_of(bundle, &CONTENTS, "content")?;
    let material = bundle.get("verificationMaterial").unwrap_or(&Value::Null);
    let material = object(material, "`verificationMaterial`")?;
    one_of(material, &MATERIALS, "kind of key material")?;
    distinct(material.get("tlogEntries"), "log entry")?;
    let stamps = material.get("timestampVerificationData");
    distinct(
        stamps.and_then(|stamps| stamps.get("rfc3161Timestamps")),
        "time stamp",
    )
}

/// Checks that what each log entry says twice is the same: its numbers, the root of its tree, its
/// log. Only the checkpoint is signed, and readers differ in which of the two they take.
///
/// # Errors
/// One clause with both numbers.
pub(super) fn check_log(bundle: &Bundle) -> Result<(), String> {
    for entry in &bundle.verification_material.tlog_entries {
        let Some(proof) = &entry.inclusion_proof else {
            continue;
        };
        if let Some(checkpoint) = proof.checkpoint.checkpoint()
            && checkpoint.tree_size() != proof.tree_size
        {
            return Err(format!(
                "the inclusion proof is for {} entries, its checkpoint for {}",
                proof.tree_size,
                checkpoint.tree_size()
            ));
        }
        // A log of version 1 may be one of several trees, whose entries are counted together.
        if entry.kind_version != KindVersion::HashedRekordV002 {
            continue;
        }
        if proof.log_index != entry.log_index {
            return Err(format!(
                "the log entry has index {}, its proof {}",
                entry.log_index.get(),
                proof.log_index.get()
            ));
        }
        let Some(checkpoint) = proof.checkpoint.checkpoint() else {
            continue;
        };
        if *checkpoint.root_hash() != proof.root_hash {
            return Err(format!(
                "the inclusion proof leads to {}, its checkpoint is of {}",
                proof.root_hash.to_hex(),
                checkpoint.root_hash().to_hex()
            ));
        }
        // A signature in a checkpoint begins with the first bytes of its log's id.
        let log = entry.log_id.key_id.as_bytes();
        let mut signatures = checkpoint.signatures().iter();
        if !signatures.any(|signature| log.starts_with(signature.key_id.as_bytes())) {
            return Err("the log entry names another log than its checkpoint".to_owned());
        }
    }
    Ok(())
}

fn object<'v>(value: &'v Value, what: &str) -> Result<&'v Map<String, Value>, String> {
    value
        .as_object()
        .ok_or_else(|| format!("{what} is no object"))
}

/// Of these fields, in either spelling, exactly one is there and not null.
fn one_of(of: &Map<String, Value>, names: &[(&str, &str)], what: &str) -> Result<(), String> {
    let is_set = |name: &str| of.get(name).is_some_and(|value| !value.is_null());
    let set: Vec<&str> = names
        .iter()
        .flat_map(|&(camel, snake)| [camel, snake])
        .filter(|name| is_set(name))
        .collect();
    match set.as_slice() {
        [_] => Ok(()),
        [] => Err(format!("it has no {what}")),
        several => Err(format!(
            "it has more than one {what}: `{}`",
            several.join("` and `")
        )),
    }
}

fn distinct(list: Option<&Value>, what: &str) -> Result<(), String> {
    let list = list
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let again = |(at, item): (usize, &Value)| list[..at].contains(item);
    match list.iter().enumerate().any(again) {
        true => Err(format!("it has the same {what} twice")),
        false => Ok(()),
    }
}

/// Any JSON whose objects have each key once, which `serde_json::Value` does not ask for.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any).map(Self)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Unique(value))) = fields.next_entry::<String, _>()? {
            if object.contains_key(&key) {
                return Err(de::Error::custom(format!("`{key}` stands twice")));
            }
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

/// `oneof content` of `sigstore_bundle.proto`.
const CONTENTS: [(&str, &str); 2] = [
    ("messageSignature", "message_signature"),
    ("dsseEnvelope", "dsse_envelope"),
];
/// `oneof content` of its `VerificationMaterial`.
const MATERIALS: [(&str, &str); 3] = [
    ("publicKey", "public_key"),
    ("x509CertificateChain", "x509_certificate_chain"),
    ("certificate", ""),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MEDIA: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

    fn said(bundle: &Value) -> Result<(), String> {
        check(bundle.to_string().as_bytes())
    }

    #[test]
    fn one_content_and_one_material_are_a_bundle() {
        let good = json!({
            "mediaType": MEDIA,
            "verificationMaterial": {
                "publicKey": { "hint": "" }, "certificate": null, "tlogEntries": [],
            },
            "messageSignature": { "signature": "AA==" },
            "dsseEnvelope": null,
            "of a later version": 1.5,
        });
        assert_eq!(said(&good), Ok(()));
        for (path, value, want) in [
            (
                "dsseEnvelope",
                json!({}),
                "it has more than one content: `messageSignature` and `dsseEnvelope`",
            ),
            (
                "dsse_envelope",
                json!({}),
                "it has more than one content: `messageSignature` and `dsse_envelope`",
            ),
            (
                "message_signature",
                json!({}),
                "it has more than one content: `messageSignature` and `message_signature`",
            ),
            ("messageSignature", Value::Null, "it has no content"),
            ("mediaType", Value::Null, "it has no `mediaType`"),
            (
                "verificationMaterial",
                json!([]),
                "`verificationMaterial` is no object",
            ),
        ] {
            let mut changed = good.clone();
            changed[path] = value;
            assert_eq!(said(&changed), Err(want.to_owned()), "{path}");
        }
        let entry = json!({ "logIndex": "1" });
        for (path, value, want) in [
            (
                "certificate",
                json!({}),
                "it has more than one kind of key material: `publicKey` and `certificate`",
            ),
            (
                "x509_certificate_chain",
                json!({}),
                "it has more than one kind of key material: `publicKey` and `x509_certificate_chain`",
            ),
            ("publicKey", Value::Null, "it has no kind of key material"),
            (
                "tlogEntries",
                json!([entry, entry]),
                "it has the same log entry twice",
            ),
            (
                "timestampVerificationData",
                json!({ "rfc3161Timestamps": [entry, {}, entry] }),
                "it has the same time stamp twice",
            ),
        ] {
            let mut changed = good.clone();
            changed["verificationMaterial"][path] = value;
            assert_eq!(said(&changed), Err(want.to_owned()), "{path}");
        }
    }

    #[test]
    fn no_key_stands_twice_at_any_depth() {
        for (text, want) in [
            (
                r#"{"mediaType":"a","mediaType":"a"}"#,
                "`mediaType` stands twice",
            ),
            (r#"{"a":[{"b":{"c":1,"c":2}}]}"#, "`c` stands twice"),
        ] {
            let said = check(text.as_bytes()).unwrap_err();
            assert!(said.starts_with(want), "{text}: {said}");
        }
    }
}
