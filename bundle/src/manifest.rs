//! OCI descriptors, manifests and indexes (image-spec 1.1), as far as bundles need them.
//!
//! `oci-spec` keeps annotations in hash maps, so it writes the same manifest in another
//! order each time; a format whose promise is "same input, same digest" cannot use that.
//! Unknown fields are ignored when reading, as image-spec demands: what was signed is
//! the digest of the bytes, and only known fields are acted on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, media};

/// Annotations, sorted by key so that they serialise in one order.
pub type Annotations = BTreeMap<String, String>;

/// Points to bytes by type, digest and size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the bytes.
    pub media_type: String,
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// Of a manifest: what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Annotations.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub annotations: Annotations,
}

impl Descriptor {
    /// Describes `bytes`.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            artifact_type: None,
            annotations: Annotations::new(),
        }
    }

    /// The same with one more annotation.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }
}

/// An image manifest; a bundle is one, and so is a signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`media::MANIFEST`], where it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What the artifact is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The config blob.
    pub config: Descriptor,
    /// The layers, in order.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Annotations.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub annotations: Annotations,
}

impl Manifest {
    /// An OCI 1.1 artifact of a type with a config and layers.
    pub fn artifact(artifact_type: &str, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media::MANIFEST.to_owned()),
            artifact_type: Some(artifact_type.to_owned()),
            config,
            layers,
            subject: None,
            annotations: Annotations::new(),
        }
    }

    /// Parses a manifest and checks that it says it is one.
    ///
    /// # Errors
    /// One clause that says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if manifest.schema_version != 2 {
            return Err(format!(
                "schemaVersion is {}, not 2",
                manifest.schema_version
            ));
        }
        match manifest.media_type.as_deref() {
            None | Some(media::MANIFEST) => Ok(manifest),
            Some(other) => Err(format!("mediaType is {other:?}, not an image manifest's")),
        }
    }

    /// What the artifact is: `artifactType`, or else the config's media type
    /// (image-spec 1.1, "Guidelines for Artifact Usage").
    pub fn kind(&self) -> &str {
        self.artifact_type
            .as_deref()
            .filter(|kind| !kind.is_empty())
            .unwrap_or(&self.config.media_type)
    }

    /// The bytes to store; the same for equal values.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_json(self)
    }
}

/// An image index: a layout's `index.json`, or a referrers response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// [`media::INDEX`], where it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests, in order.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub manifests: Vec<Descriptor>,
    /// Annotations.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub annotations: Annotations,
}

impl Index {
    /// An index of manifests.
    pub fn of(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media::INDEX.to_owned()),
            manifests,
            annotations: Annotations::new(),
        }
    }

    /// Parses an index and checks that it says it is one.
    ///
    /// # Errors
    /// One clause that says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let index: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if index.schema_version != 2 {
            return Err(format!("schemaVersion is {}, not 2", index.schema_version));
        }
        match index.media_type.as_deref() {
            None | Some(media::INDEX) => Ok(index),
            Some(other) => Err(format!("mediaType is {other:?}, not an index's")),
        }
    }

    /// The bytes to store; the same for equal values.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_json(self)
    }
}

/// Compact JSON of a value that always can be JSON: string keys, no floats.
pub(crate) fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "string keys and no floats: serde_json cannot fail"
    )]
    serde_json::to_vec(value).expect("plain data is always JSON")
}

/// Go tools write an empty list or map as `null`.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_fields_and_annotations_in_one_order() {
        let mut manifest = Manifest::artifact(
            media::BUNDLE,
            Descriptor::of(media::EMPTY, media::EMPTY_JSON),
            vec![],
        );
        for key in ["b", "a"] {
            manifest.annotations.insert(key.to_owned(), "x".to_owned());
        }
        assert_eq!(
            String::from_utf8(manifest.to_bytes()).unwrap(),
            concat!(
                r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
                r#""artifactType":"application/vnd.bpfseal.bundle.v1","#,
                r#""config":{"mediaType":"application/vnd.oci.empty.v1+json","#,
                r#""digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","#,
                r#""size":2},"layers":[],"annotations":{"a":"x","b":"x"}}"#
            )
        );
        assert_eq!(Manifest::parse(&manifest.to_bytes()), Ok(manifest));
    }

    #[test]
    fn refuses_other_documents() {
        for (text, want) in [
            (
                r#"{"schemaVersion":1,"config":{"mediaType":"","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}}"#,
                "schemaVersion is 1, not 2",
            ),
            (
                r#"{"schemaVersion":2,"mediaType":"x","config":{"mediaType":"","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}}"#,
                "mediaType is \"x\", not an image manifest's",
            ),
        ] {
            assert_eq!(Manifest::parse(text.as_bytes()), Err(want.to_owned()));
        }
        assert_eq!(
            Index::parse(br#"{"schemaVersion":2,"manifests":null}"#).map(|i| i.manifests),
            Ok(vec![])
        );
    }
}
