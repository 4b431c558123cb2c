//! What the registry reads in a manifest: its type, what it refers to, its subject.
//!
//! The bytes are stored and served as they came (image-spec 1.1); this reading only
//! decides whether to accept them and what to index.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess},
};

use crate::digest::Digest;

/// Largest manifest: the size that the specification asks every registry to take.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Most descriptors in one manifest. Linux images have at most 127 layers and indexes
/// tens of platforms; a thousandfold bounds what a hostile one makes the server do.
pub const MAX_DESCRIPTORS: usize = 10_000;

/// Most annotations on one manifest, for the same reason.
pub const MAX_ANNOTATIONS: usize = 10_000;

/// Media types that this registry stores.
pub mod media {
    /// OCI image manifest.
    pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// Docker image manifest, version 2, schema 2.
    pub const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Artifact manifest of the release candidates of image-spec 1.1; older oras wrote it.
    pub const ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
}

/// A manifest that was accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Its media type, without parameters.
    pub media_type: &'static str,
    /// What it is, if it says so: `artifactType`, or of an image the config's media type.
    pub artifact_type: Option<String>,
    /// What it is about, if anything.
    pub subject: Option<Digest>,
    /// Blobs that must be in the same repository.
    pub blobs: Vec<Part>,
    /// Manifests that must be in the same repository.
    pub children: Vec<Part>,
    /// Shown in a list of referrers.
    pub annotations: BTreeMap<String, String>,
}

/// Content that a manifest refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which bytes.
    pub digest: Digest,
    /// How many the manifest says there are.
    pub size: u64,
}

/// Why bytes are not a manifest that this registry stores.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// Not JSON, or a field has the wrong form.
    #[error("the manifest is malformed: {0}")]
    Json(#[from] serde_json::Error),
    /// `schemaVersion` is not 2.
    #[error("the manifest's schemaVersion is not 2")]
    Schema,
    /// The `Content-Type` and the manifest's own `mediaType` differ.
    #[error("the Content-Type is {header}, the manifest's mediaType is {field}")]
    MediaType {
        /// What the request says.
        header: String,
        /// What the manifest says.
        field: String,
    },
    /// A type that this registry does not store.
    #[error("manifests of the media type {0:?} are not stored here")]
    Unsupported(String),
    /// An image without a config.
    #[error("the manifest has no config")]
    NoConfig,
}

impl Manifest {
    /// Reads `bytes`, sent with `content_type`.
    pub fn read(content_type: Option<&str>, bytes: &[u8]) -> Result<Self, Malformed> {
        let raw: Raw = serde_json::from_slice(bytes)?;
        let media_type = media_type(content_type, &raw)?;
        if media_type != media::ARTIFACT && raw.schema_version != Some(2) {
            return Err(Malformed::Schema);
        }
        let mut blobs = Vec::new();
        let mut children = Vec::new();
        let mut artifact_type = raw.artifact_type.filter(|text| !text.is_empty());
        match media_type {
            media::INDEX | media::DOCKER_LIST => {
                children.extend(raw.manifests.0.iter().map(Descriptor::part));
            }
            media::ARTIFACT => blobs.extend(raw.blobs.0.iter().map(Descriptor::part)),
            _ => {
                let config = raw.config.ok_or(Malformed::NoConfig)?;
                let stored = raw.layers.0.iter().filter(|layer| !layer.is_foreign());
                blobs.push(config.part());
                blobs.extend(stored.map(Descriptor::part));
                artifact_type = artifact_type.or(Some(config.media_type));
            }
        }
        Ok(Self {
            media_type,
            artifact_type,
            subject: raw.subject.map(|subject| subject.digest),
            blobs,
            children,
            annotations: raw.annotations.0,
        })
    }

    /// The entry in a list of referrers (distribution-spec 1.1, "Listing Referrers").
    pub fn descriptor(&self, digest: &Digest, size: usize) -> String {
        let mut entry = serde_json::Map::new();
        entry.insert("mediaType".into(), self.media_type.into());
        entry.insert("digest".into(), digest.to_string().into());
        entry.insert("size".into(), size.into());
        if let Some(artifact_type) = &self.artifact_type {
            entry.insert("artifactType".into(), artifact_type.as_str().into());
        }
        if !self.annotations.is_empty() {
            let annotations = self.annotations.iter();
            let annotations = annotations.map(|(key, value)| (key.clone(), value.as_str().into()));
            entry.insert(
                "annotations".into(),
                serde_json::Value::Object(annotations.collect()),
            );
        }
        serde_json::Value::Object(entry).to_string()
    }
}

fn media_type(content_type: Option<&str>, raw: &Raw) -> Result<&'static str, Malformed> {
    let header = content_type.map(|text| text.split(';').next().unwrap_or(text).trim());
    let header = header.filter(|text| !text.is_empty());
    let field = raw.media_type.as_deref().filter(|text| !text.is_empty());
    let named = match (header, field) {
        (Some(header), Some(field)) if !header.eq_ignore_ascii_case(field) => {
            let (header, field) = (header.to_owned(), field.to_owned());
            return Err(Malformed::MediaType { header, field });
        }
        (Some(header), _) => header,
        (None, Some(field)) => field,
        (None, None) if raw.config.is_some() => media::IMAGE,
        (None, None) => media::INDEX,
    };
    STORED
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(named))
        .ok_or_else(|| Malformed::Unsupported(named.chars().take(255).collect()))
}

const STORED: [&str; 5] = [
    media::IMAGE,
    media::INDEX,
    media::DOCKER_IMAGE,
    media::DOCKER_LIST,
    media::ARTIFACT,
];

/// Layers that are fetched elsewhere and need not be in a registry (image-spec 1.1,
/// "Non-Distributable Layers", and Docker's older name for them).
const FOREIGN: [&str; 2] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Descriptors,
    #[serde(default)]
    manifests: Descriptors,
    #[serde(default)]
    blobs: Descriptors,
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Digest,
    size: u64,
}

impl Descriptor {
    fn part(&self) -> Part {
        Part {
            digest: self.digest,
            size: self.size,
        }
    }

    fn is_foreign(&self) -> bool {
        FOREIGN
            .iter()
            .any(|prefix| self.media_type.starts_with(prefix))
    }
}

/// A list with an upper bound, so that four megabytes cannot become four hundred.
#[derive(Default)]
struct Descriptors(Vec<Descriptor>);

impl<'de> Deserialize<'de> for Descriptors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;
        impl<'de> de::Visitor<'de> for Bounded {
            type Value = Descriptors;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_DESCRIPTORS} descriptors")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Descriptors, E> {
                Ok(Descriptors::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Descriptors, A::Error> {
                let mut descriptors = Vec::new();
                while let Some(descriptor) = list.next_element()? {
                    if descriptors.len() == MAX_DESCRIPTORS {
                        return Err(de::Error::invalid_length(MAX_DESCRIPTORS + 1, &self));
                    }
                    descriptors.push(descriptor);
                }
                Ok(Descriptors(descriptors))
            }
        }
        deserializer.deserialize_any(Bounded)
    }
}

/// A map with an upper bound.
#[derive(Default)]
struct Annotations(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;
        impl<'de> de::Visitor<'de> for Bounded {
            type Value = Annotations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_ANNOTATIONS} annotations, each a text")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Annotations, E> {
                Ok(Annotations::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
                let mut annotations = BTreeMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    if annotations.len() == MAX_ANNOTATIONS {
                        return Err(de::Error::invalid_length(MAX_ANNOTATIONS + 1, &self));
                    }
                    annotations.insert(key, value);
                }
                Ok(Annotations(annotations))
            }
        }
        deserializer.deserialize_any(Bounded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    fn descriptor(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{D}","size":2}}"#)
    }

    fn part() -> Part {
        Part {
            digest: D.parse().unwrap(),
            size: 2,
        }
    }

    #[test]
    fn an_image_with_a_subject() {
        let json = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{},{}],"subject":{},
                "annotations":{{"a":"b"}},"unknown":[1,{{}}]}}"#,
            descriptor("application/vnd.oci.empty.v1+json"),
            descriptor("text/plain"),
            descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
            descriptor(media::IMAGE),
        );
        let manifest = Manifest::read(
            Some("application/vnd.oci.image.manifest.v1+json; q=1"),
            json.as_bytes(),
        );
        let manifest = manifest.unwrap();
        assert_eq!(
            manifest,
            Manifest {
                media_type: media::IMAGE,
                artifact_type: Some("application/vnd.oci.empty.v1+json".into()),
                subject: Some(D.parse().unwrap()),
                blobs: vec![part(), part()],
                children: vec![],
                annotations: BTreeMap::from([("a".into(), "b".into())]),
            }
        );
        assert_eq!(
            manifest.descriptor(&D.parse().unwrap(), 10),
            format!(
                r#"{{"annotations":{{"a":"b"}},"artifactType":"application/vnd.oci.empty.v1+json","digest":"{D}","mediaType":"{}","size":10}}"#,
                media::IMAGE
            )
        );
    }

    #[test]
    fn an_index_without_an_artifact_type_has_none() {
        let json = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#,
            media::INDEX,
            descriptor(media::IMAGE)
        );
        assert_eq!(
            Manifest::read(None, json.as_bytes()).unwrap(),
            Manifest {
                media_type: media::INDEX,
                artifact_type: None,
                subject: None,
                blobs: vec![],
                children: vec![part()],
                annotations: BTreeMap::new(),
            }
        );
    }

    #[test]
    fn what_is_no_manifest_is_refused_with_its_reason() {
        let config = descriptor("text/plain");
        let many = format!("[{}]", vec![config.as_str(); MAX_DESCRIPTORS + 1].join(","));
        let notes: Vec<String> = (0..=MAX_ANNOTATIONS)
            .map(|n| format!(r#""{n}":"""#))
            .collect();
        let deep = "[".repeat(200);
        for (content_type, json, want) in [
            (None, String::new(), "the manifest is malformed: EOF"),
            (None, "[]".into(), "the manifest is malformed: "),
            (None, deep, "the manifest is malformed: "),
            (None, "{}".into(), "the manifest's schemaVersion is not 2"),
            (
                None,
                r#"{"schemaVersion":1,"manifests":[]}"#.into(),
                "the manifest's schemaVersion",
            ),
            (
                Some(media::IMAGE),
                r#"{"schemaVersion":2}"#.into(),
                "the manifest has no config",
            ),
            (
                Some("text/html"),
                r#"{"schemaVersion":2}"#.into(),
                "manifests of the media type \"text/html\"",
            ),
            (
                Some(media::IMAGE),
                format!(r#"{{"schemaVersion":2,"mediaType":"{}"}}"#, media::INDEX),
                "the Content-Type is application/vnd.oci.image.manifest.v1+json",
            ),
            (
                None,
                r#"{"schemaVersion":2,"config":{"mediaType":"a","digest":"sha256:x","size":1}}"#
                    .into(),
                "the manifest is malformed: digest is not the right number",
            ),
            (
                None,
                format!(
                    r#"{{"schemaVersion":2,"config":{{"mediaType":"a","digest":"{D}","size":-1}}}}"#
                ),
                "the manifest is malformed: invalid value: integer `-1`",
            ),
            (
                None,
                format!(r#"{{"schemaVersion":2,"config":{config},"layers":{many}}}"#),
                "the manifest is malformed: invalid length 10001",
            ),
            (
                None,
                format!(
                    r#"{{"schemaVersion":2,"config":{config},"annotations":{{{}}}}}"#,
                    notes.join(",")
                ),
                "the manifest is malformed: invalid length 10001",
            ),
        ] {
            let got = Manifest::read(content_type, json.as_bytes())
                .unwrap_err()
                .to_string();
            assert!(got.starts_with(want), "want {want:?}, got {got:?}");
        }
    }
}
