//! `/v2/<name>/manifests/<tag-or-digest>` (distribution-spec 1.1, "Pulling manifests",
//! "Pushing Manifests", "Deleting tags", "Deleting Manifests").

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, Response, StatusCode, header};
use tokio::sync::OwnedSemaphorePermit;

use super::{CONTENT_DIGEST, Call, conditional, manifest_unknown, reply};
use crate::{
    access::Action,
    admission,
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

/// Whether the repository's policy releases it.
const ADMISSION: HeaderName = HeaderName::from_static("bpfseal-admission");

/// Who of the policy's signers signed it.
const SIGNED_BY: HeaderName = HeaderName::from_static("bpfseal-signed-by");

/// The manifest that `reference` names, if the caller may see it.
pub async fn seen(
    registry: &Registry,
    call: &Call,
    name: Repository,
    reference: Reference,
) -> Result<Arc<StoredManifest>, OciError> {
    let found = find(registry, name.clone(), reference.clone()).await?;
    let (site, caller) = (&call.site, &call.caller);
    match admission::sees(registry, site, caller, &name, &reference, &found).await? {
        true => Ok(found),
        false => Err(manifest_unknown()),
    }
}

/// What the repository's policy says of it.
pub async fn admission(
    registry: &Registry,
    call: &Call,
    name: Repository,
    reference: Reference,
) -> Result<Response<Body>, OciError> {
    let found = seen(registry, call, name.clone(), reference).await?;
    let verdict = admission::verdict(registry, &call.site, &name, &found).await?;
    let document = match verdict {
        Some(verdict) => verdict.document(&found.digest),
        None => serde_json::json!({ "digest": found.digest.to_string(), "state": "open" }),
    };
    Ok(reply(StatusCode::OK).json("application/json", document.to_string()))
}

pub async fn read(
    registry: &Registry,
    call: &Call,
    name: Repository,
    reference: Reference,
) -> Result<Response<Body>, OciError> {
    let found = seen(registry, call, name.clone(), reference).await?;
    let verdict = admission::verdict(registry, &call.site, &name, &found).await?;
    let verdict = verdict.as_deref();
    let head = |status| {
        reply(status)
            .with_optional(ADMISSION, verdict.map(|verdict| verdict.state.as_str()))
            .with_optional(SIGNED_BY, verdict.map(|verdict| verdict.signers.join(", ")))
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
    rights(call, &name, &reference, &tags, subject.is_some())?;
    let set: Vec<String> = tags.iter().map(Tag::to_string).collect();
    if let Reference::Tag(tag) = &reference {
        tags.push(tag.clone());
    }
    admission::check_push(registry, &call.site, &name, &content, &tags).await?;
    let fixed = fixed(call, &name, &tags);
    let forget = forget(registry, &name, digest, &tags);
    let (repository, sparse) = (name.clone(), registry.settings.sparse);
    let new = NewManifest {
        repository,
        digest,
        manifest,
        content,
        tags,
        condition,
        fixed,
        sparse,
        quota: call.site.quota(&name),
    };
    registry.metadata.put_manifest(new, forget).await?;
    admission::changed(registry, &call.site, &name);
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
                cache.lists.changed(&repository);
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
            let (site, repository) = (Arc::clone(&call.site), name.clone());
            let keeps = move |tag: &str| {
                let tag: Tag = tag.parse().ok()?;
                let keeps = site.is_immutable(&repository, &tag);
                keeps.then(|| immutable(&tag))
            };
            registry
                .metadata
                .delete_manifest(&name, &digest, keeps, forget)
                .await?
                .is_some()
        }
        Reference::Tag(tag) => {
            if call.site.is_immutable(&name, &tag) {
                return Err(immutable(&tag));
            }
            let condition = conditional::condition(&call.headers)?;
            let key = (name.clone(), Reference::Tag(tag.clone()));
            let cache = Arc::clone(registry);
            let forget = move || {
                cache.lists.changed(&key.0);
                cache.manifests.forget(&key);
            };
            registry
                .metadata
                .delete_tag(&name, &tag, condition, forget)
                .await?
        }
    };
    admission::changed(registry, &call.site, &name);
    if deleted {
        Ok(reply(StatusCode::ACCEPTED).empty())
    } else {
        Err(manifest_unknown())
    }
}

/// Who may only create moves no tag; who may only sign pushes nothing but what is about
/// something else.
fn rights(
    call: &Call,
    name: &Repository,
    reference: &Reference,
    tags: &[Tag],
    has_subject: bool,
) -> Result<(), OciError> {
    if call.caller.may(name, Action::Push) || call.caller.may(name, Action::Create) {
        return Ok(());
    }
    let mut names = tags.iter();
    let about = |tag: &Tag| about_another(tag.as_str());
    let signs = match reference {
        Reference::Digest(_) => has_subject && names.len() == 0,
        Reference::Tag(tag) => about(tag) && names.all(about),
    };
    if signs && call.caller.may(name, Action::Sign) {
        return Ok(());
    }
    let who = call.caller.principal.name();
    let message = format!("{who} may only attach signatures here");
    Err(OciError::new(Code::Denied, message))
}

/// Tags of the older schemes that signers use: `sha256-<hex>`, perhaps with `.sig`.
pub fn about_another(tag: &str) -> bool {
    let Some((algorithm, rest)) = tag.split_once('-') else {
        return false;
    };
    let hex = rest.split('.').next().unwrap_or("");
    let length = match algorithm {
        "sha256" => 64,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == length && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The tags that may not move, with the refusal if one would.
fn fixed(call: &Call, name: &Repository, tags: &[Tag]) -> Vec<(Tag, OciError)> {
    let may_move = call.caller.may(name, Action::Push);
    let refusal = |tag: &Tag| {
        if call.site.is_immutable(name, tag) {
            return Some(immutable(tag));
        }
        // Signers add to the lists that the older schemes keep in tags.
        if may_move || about_another(tag.as_str()) {
            return None;
        }
        let who = call.caller.principal.name();
        let message = format!("{who} may create tags here but not move the tag {tag}");
        Some(OciError::new(Code::Denied, message))
    };
    let refusals = tags
        .iter()
        .filter_map(|tag| Some((tag.clone(), refusal(tag)?)));
    refusals.collect()
}

fn immutable(tag: &Tag) -> OciError {
    OciError::new(Code::Denied, format!("the tag {tag} is immutable"))
}

/// The manifest that `reference` names.
pub async fn find(
    registry: &Registry,
    name: Repository,
    reference: Reference,
) -> Result<Arc<StoredManifest>, OciError> {
    let mut key = (name, reference);
    let mut media_type = None;
    if registry.metadata.is_shared() {
        // Another instance may have moved the tag or deleted the manifest.
        let now = registry.metadata.resolve(&key.0, &key.1).await?;
        let now = now.ok_or_else(manifest_unknown)?;
        key.1 = Reference::Digest(now.0);
        media_type = Some(now.1);
    }
    let known = registry.manifests.find(&key);
    if let Some(found) = known.filter(|found| media_type.is_none_or(|now| now == found.media_type))
    {
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
    let (cache, repository) = (Arc::clone(registry), name.clone());
    let tags = tags.iter().cloned().map(Reference::Tag);
    let references = tags.chain([Reference::Digest(digest)]);
    let keys: Vec<_> = references
        .map(|reference| (name.clone(), reference))
        .collect();
    move || {
        cache.lists.changed(&repository);
        keys.iter().for_each(|key| cache.manifests.forget(key));
    }
}

impl From<Malformed> for OciError {
    fn from(error: Malformed) -> Self {
        Self::new(Code::ManifestInvalid, error.to_string())
    }
}
