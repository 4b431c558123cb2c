//! `/v2/<name>/manifests/<tag-or-digest>` (distribution-spec 1.1, "Pulling manifests",
//! "Pushing Manifests", "Deleting tags", "Deleting Manifests").

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, Response, StatusCode, header};
use tokio::sync::OwnedSemaphorePermit;

use super::{CONTENT_DIGEST, Call, conditional, manifest_unknown, reply};
use crate::{
    body::Body,
    digest::{Algorithm, Digest},
    error::{Code, OciError},
    manifest::{MAX_BYTES, Malformed, Manifest},
    metadata::{NewManifest, StoredManifest},
    name::{Repository, Tag},
    registry::{ROOM_UNIT, Registry},
    route::Reference,
};

/// Says that the push's subject was noted, so the client need not keep the tag schema.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// Names the tags that a push by digest set.
const TAG: HeaderName = HeaderName::from_static("oci-tag");

pub async fn read(
    registry: &Registry,
    call: &Call,
    name: Repository,
    reference: Reference,
) -> Result<Response<Body>, OciError> {
    let found = find(registry, name, reference).await?;
    let head = |status| {
        reply(status)
            .with(CONTENT_DIGEST, found.digest.to_string())
            .with(header::ETAG, conditional::etag(&found.digest))
    };
    if conditional::has(&call.headers, &found.digest) {
        return Ok(head(StatusCode::NOT_MODIFIED).body(Bytes::new()));
    }
    let content = if call.head {
        Bytes::new()
    } else {
        found.content.clone()
    };
    Ok(head(StatusCode::OK)
        .with(header::CONTENT_TYPE, &found.media_type)
        .with(header::CONTENT_LENGTH, found.content.len().to_string())
        .body(content))
}

pub async fn write(
    registry: &Arc<Registry>,
    call: &mut Call,
    name: Repository,
    reference: Reference,
    mut tags: Vec<Tag>,
) -> Result<Response<Body>, OciError> {
    let condition = conditional::condition(&call.headers)?;
    let (content, _room) = receive(registry, call).await?;
    let digest = match &reference {
        Reference::Digest(digest) => matching(*digest, &content)?,
        Reference::Tag(_) => Digest::of(Algorithm::Sha256, &content),
    };
    let content_type = call.header(header::CONTENT_TYPE);
    let manifest = Manifest::read(content_type, &content)?;
    let subject = manifest.subject;
    let set: Vec<String> = tags.iter().map(Tag::to_string).collect();
    if let Reference::Tag(tag) = &reference {
        tags.push(tag.clone());
    }
    let forget = forget(registry, &name, digest, &tags);
    let (repository, sparse) = (name.clone(), registry.settings.sparse);
    let new = NewManifest {
        repository,
        digest,
        manifest,
        content,
        tags,
        condition,
        sparse,
    };
    registry.metadata.put_manifest(new, forget).await?;
    Ok(reply(StatusCode::CREATED)
        .with(header::LOCATION, format!("/v2/{name}/manifests/{digest}"))
        .with(CONTENT_DIGEST, digest.to_string())
        .with(header::ETAG, conditional::etag(&digest))
        .with_optional(SUBJECT, subject.map(|subject| subject.to_string()))
        .with_optional(TAG, (!set.is_empty()).then(|| set.join(", ")))
        .empty())
}

pub async fn delete(
    registry: &Arc<Registry>,
    call: &Call,
    name: Repository,
    reference: Reference,
) -> Result<Response<Body>, OciError> {
    let deleted = match reference {
        Reference::Digest(digest) => {
            let (cache, repository) = (Arc::clone(registry), name.clone());
            let forget = move |removed: &Option<crate::metadata::Removed>| {
                cache
                    .manifests
                    .forget(&(repository.clone(), Reference::Digest(digest)));
                for tag in removed.iter().flat_map(|removed| &removed.tags) {
                    if let Ok(tag) = tag.parse() {
                        cache
                            .manifests
                            .forget(&(repository.clone(), Reference::Tag(tag)));
                    }
                }
            };
            registry
                .metadata
                .delete_manifest(&name, &digest, forget)
                .await?
                .is_some()
        }
        Reference::Tag(tag) => {
            let condition = conditional::condition(&call.headers)?;
            let key = (name.clone(), Reference::Tag(tag.clone()));
            let cache = Arc::clone(registry);
            let forget = move || cache.manifests.forget(&key);
            registry
                .metadata
                .delete_tag(&name, &tag, condition, forget)
                .await?
        }
    };
    if deleted {
        Ok(reply(StatusCode::ACCEPTED).empty())
    } else {
        Err(manifest_unknown())
    }
}

async fn find(
    registry: &Registry,
    name: Repository,
    reference: Reference,
) -> Result<Arc<StoredManifest>, OciError> {
    let key = (name, reference);
    if let Some(found) = registry.manifests.find(&key) {
        return Ok(found);
    }
    let ticket = registry.manifests.ticket(&key);
    let found = registry.metadata.manifest(&key.0, &key.1).await?;
    let found = Arc::new(found.ok_or_else(manifest_unknown)?);
    let bytes = found.content.len();
    registry
        .manifests
        .keep(key, Arc::clone(&found), bytes, ticket);
    Ok(found)
}

/// Takes the body into memory. Room among the manifests in flight is taken as bytes
/// arrive, so that a slow client holds no more than it sent.
async fn receive(
    registry: &Arc<Registry>,
    call: &mut Call,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), OciError> {
    let mut content = BytesMut::new();
    let mut room: Option<OwnedSemaphorePermit> = None;
    while let Some(bytes) = call.intake.next().await? {
        let length = content.len() + bytes.len();
        if length > MAX_BYTES {
            drop((content, room));
            call.intake.drain().await?;
            let message = format!("a manifest has at most {MAX_BYTES} bytes");
            let error = OciError::new(Code::SizeInvalid, message);
            return Err(error.status(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let held = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = length.div_ceil(ROOM_UNIT).saturating_sub(held) as u32;
        let taken = Arc::clone(&registry.manifest_room).try_acquire_many_owned(more);
        let taken = taken.map_err(|_| OciError::busy("too many manifests are being pushed"))?;
        match &mut room {
            Some(room) => room.merge(taken),
            None => room = Some(taken),
        }
        content.extend_from_slice(&bytes);
    }
    Ok((content.freeze(), room))
}

fn matching(digest: Digest, content: &[u8]) -> Result<Digest, OciError> {
    let got = Digest::of(digest.algorithm(), content);
    if got == digest {
        return Ok(digest);
    }
    Err(OciError::new(
        Code::DigestInvalid,
        format!("the manifest has the digest {got}"),
    ))
}

fn forget(
    registry: &Arc<Registry>,
    name: &Repository,
    digest: Digest,
    tags: &[Tag],
) -> impl FnOnce() + Send + 'static {
    let cache = Arc::clone(registry);
    let tags = tags.iter().cloned().map(Reference::Tag);
    let references = tags.chain([Reference::Digest(digest)]);
    let keys: Vec<_> = references
        .map(|reference| (name.clone(), reference))
        .collect();
    move || keys.iter().for_each(|key| cache.manifests.forget(key))
}

impl From<Malformed> for OciError {
    fn from(error: Malformed) -> Self {
        Self::new(Code::ManifestInvalid, error.to_string())
    }
}
