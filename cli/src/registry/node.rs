//! A manifest of any kind as a node of a graph: what it points to.

use bundle::{Digest, manifest::Descriptor, media};
use serde::Deserialize;

use super::Error;

/// What one manifest points to. Types are not judged here: copying takes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// What it says it is; the config's type where it says nothing (image-spec 1.1,
    /// "Guidelines for Artifact Usage").
    pub artifact_type: Option<String>,
    /// Manifests, of an index.
    pub manifests: Vec<Descriptor>,
    /// Config and layers, of a manifest.
    pub blobs: Vec<Descriptor>,
    /// The manifest that it is about.
    pub subject: Option<Digest>,
    /// Its annotations, which a referrers index repeats.
    pub annotations: bundle::manifest::Annotations,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    media_type: Option<String>,
    artifact_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<bundle::manifest::Annotations>,
}

impl Node {
    /// Reads a manifest or index; `what` names it in errors.
    pub fn parse(bytes: &[u8], what: &str) -> Result<Self, Error> {
        let refuse = |cause: String| Error::Manifest {
            what: what.to_owned(),
            cause,
        };
        let document: Document =
            serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))?;
        if document.manifests.is_some() && (document.config.is_some() || document.layers.is_some())
        {
            // Read as an index by some and as an image by others (CVE-2021-41190).
            return Err(refuse("it is an index and an image in one".to_owned()));
        }
        if document.manifests.is_none() && document.config.is_none() {
            let kind = document
                .media_type
                .unwrap_or_else(|| "nothing known".to_owned());
            return Err(refuse(format!("it is neither image nor index, but {kind}")));
        }
        let artifact_type = document
            .artifact_type
            .filter(|kind| !kind.is_empty())
            .or_else(|| {
                document
                    .config
                    .as_ref()
                    .map(|config| config.media_type.clone())
            });
        let config = document.config.into_iter();
        Ok(Self {
            artifact_type,
            manifests: document.manifests.unwrap_or_default(),
            blobs: config.chain(document.layers.unwrap_or_default()).collect(),
            subject: document.subject.map(|subject| subject.digest),
            annotations: document.annotations.unwrap_or_default(),
        })
    }
}

/// The media type to send with a manifest: its own word, else what its fields make it.
pub fn media_type(bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    match serde_json::from_slice::<Typed>(bytes) {
        Ok(Typed {
            media_type: Some(said),
            ..
        }) => said,
        Ok(Typed {
            manifests: Some(_), ..
        }) => media::INDEX.to_owned(),
        _ => media::MANIFEST.to_owned(),
    }
}

/// Every kind of manifest that we take, for `Accept`.
pub const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = r#"{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#;

    #[test]
    fn reads_images_and_indexes() {
        let empty: Descriptor = serde_json::from_str(EMPTY).unwrap();
        for (text, want) in [
            (
                format!(r#"{{"config":{EMPTY},"layers":[{EMPTY}],"subject":{EMPTY}}}"#),
                Node {
                    artifact_type: Some(media::EMPTY.to_owned()),
                    blobs: vec![empty.clone(), empty.clone()],
                    subject: Some(empty.digest),
                    ..Node::default()
                },
            ),
            (
                format!(
                    r#"{{"artifactType":"a/b","manifests":[{EMPTY}],"annotations":{{"k":"v"}}}}"#
                ),
                Node {
                    artifact_type: Some("a/b".to_owned()),
                    manifests: vec![empty.clone()],
                    annotations: [("k".to_owned(), "v".to_owned())].into(),
                    ..Node::default()
                },
            ),
            (
                format!(r#"{{"artifactType":"","config":{EMPTY},"layers":null}}"#),
                Node {
                    artifact_type: Some(media::EMPTY.to_owned()),
                    blobs: vec![empty.clone()],
                    ..Node::default()
                },
            ),
        ] {
            assert_eq!(Node::parse(text.as_bytes(), "it").unwrap(), want, "{text}");
        }
    }

    #[test]
    fn refuses_what_has_two_readings_or_none() {
        for (text, want) in [
            (
                format!(r#"{{"config":{EMPTY},"manifests":[]}}"#),
                "it is not a manifest: it is an index and an image in one",
            ),
            (
                r#"{"mediaType":"x/y"}"#.to_owned(),
                "it is not a manifest: it is neither image nor index, but x/y",
            ),
            (
                "[]".to_owned(),
                "it is not a manifest: invalid length 0, expected struct Document with 7 elements at line 1 column 2",
            ),
        ] {
            let error = Node::parse(text.as_bytes(), "it").unwrap_err();
            assert_eq!(error.to_string(), want);
        }
    }
}
