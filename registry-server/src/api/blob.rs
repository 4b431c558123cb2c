//! `/v2/<name>/blobs/<digest>` (distribution-spec 1.1, "Pulling blobs", "Deleting Blobs").

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use tokio::task::spawn_blocking;

use super::{CONTENT_DIGEST, Call, blob_unknown, conditional, reply};
use crate::{
    admission,
    body::{Body, Download},
    digest::Digest,
    error::{Code, OciError},
    metadata,
    name::Repository,
    range::{self, Asked, Span},
    registry::{Registry, Shown},
    store::{Content, Object},
};

/// Largest blob kept in memory: signatures, configs and most BPF objects.
const SMALL: u64 = 512 * 1024;

pub async fn read(
    registry: &Registry,
    call: &Call,
    name: Repository,
    digest: Digest,
) -> Result<Response<Body>, OciError> {
    let site = &call.site;
    if !admission::sees_blob(registry, site, &call.caller, &name, &digest).await? {
        return Err(blob_unknown());
    }
    let shown = shown(registry, call.head, name, digest).await?;
    let size = shown.size;
    let response = |status| {
        reply(status)
            .with(CONTENT_DIGEST, digest.to_string())
            .with(header::ETAG, conditional::etag(&digest))
            .with(header::ACCEPT_RANGES, "bytes")
            .with(header::CACHE_CONTROL, "max-age=31536000, immutable")
    };
    if conditional::has(&call.headers, &digest) {
        return Ok(response(StatusCode::NOT_MODIFIED).body(Bytes::new()));
    }
    let (status, span) = match range::asked(wanted_range(call, &digest), size) {
        Asked::Whole => (
            StatusCode::OK,
            Span {
                start: 0,
                end: size,
            },
        ),
        Asked::Part(span) => (StatusCode::PARTIAL_CONTENT, span),
        Asked::Unsatisfiable => {
            let error = OciError::new(Code::SizeInvalid, format!("the blob has {size} bytes"));
            return Err(error
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{size}")));
        }
    };
    let part = format!("bytes {}-{}/{size}", span.start, span.end.saturating_sub(1));
    let part = (status == StatusCode::PARTIAL_CONTENT).then_some(part);
    let head = response(status)
        .with(header::CONTENT_TYPE, "application/octet-stream")
        .with(header::CONTENT_LENGTH, (span.end - span.start).to_string())
        .with_optional(header::CONTENT_RANGE, part);
    if call.head {
        return Ok(head.body(Bytes::new()));
    }
    Ok(head.stream(content(registry, digest, &shown, span).await?))
}

pub async fn delete(
    registry: &Arc<Registry>,
    call: &Call,
    name: Repository,
    digest: Digest,
) -> Result<Response<Body>, OciError> {
    let key = (name.clone(), digest);
    let cache = Arc::clone(registry);
    let forget = move || cache.shown.forget(&key);
    if registry
        .metadata
        .unlink_blob(&name, &digest, forget)
        .await?
    {
        admission::changed(registry, &call.site, &name);
        Ok(reply(StatusCode::ACCEPTED).empty())
    } else {
        Err(blob_unknown())
    }
}

/// A range that was meant for another version of the blob does not count.
fn wanted_range<'a>(call: &'a Call, digest: &Digest) -> Option<&'a str> {
    let same = call
        .header(header::IF_RANGE)
        .is_none_or(|tag| tag == conditional::etag(digest));
    call.header(header::RANGE).filter(|_| same)
}

/// A blob that the repository shows.
async fn shown(
    registry: &Registry,
    head: bool,
    name: Repository,
    digest: Digest,
) -> Result<Arc<Shown>, OciError> {
    let key = (name, digest);
    let shown = match registry.shown.find(&key) {
        Some(shown) => shown,
        None => {
            let ticket = registry.shown.ticket(&key);
            let found = registry.metadata.shown_blob(&key.0, &digest).await?;
            let found = found.ok_or_else(blob_unknown)?;
            let shown = Arc::new(Shown {
                size: found.size,
                copy: found.copy,
                touched: found.linked_at.into(),
            });
            registry
                .shown
                .keep(key.clone(), Arc::clone(&shown), 0, ticket);
            shown
        }
    };
    if head {
        touch(registry, &key.0, &digest, &shown).await;
    }
    Ok(shown)
}

/// A client that asks whether a blob is there is about to push a manifest and counts on
/// it: the collector must know. Once in half a grace is enough.
async fn touch(registry: &Registry, name: &Repository, digest: &Digest, shown: &Shown) {
    let now = metadata::now();
    let half = registry.settings.grace.as_secs() as i64 / 2;
    let before = shown.touched.load(Ordering::Relaxed);
    if now.saturating_sub(before) > half {
        shown.touched.store(now, Ordering::Relaxed);
        // Reading must go on when nothing can be written.
        if let Err(error) = registry.metadata.touch(name, digest).await {
            tracing::warn!(%error, "a blob that is asked for could not be marked");
        }
    }
}

async fn content(
    registry: &Registry,
    digest: Digest,
    shown: &Shown,
    span: Span,
) -> Result<Body, OciError> {
    if let Some(bytes) = registry.blobs.find(&digest) {
        return Ok(part(&bytes, span));
    }
    let ticket = registry.blobs.ticket(&digest);
    let store = Arc::clone(&registry.store);
    let size = shown.size;
    let copy = shown.copy.clone();
    let object = Object { digest, copy };
    let opened = spawn_blocking(move || -> Result<_, OciError> {
        let content = store.open(&object)?;
        let content =
            content.ok_or_else(|| OciError::internal(format_args!("{digest} is lost")))?;
        if content.size() != size {
            let got = content.size();
            let cause = format_args!("{digest} has {got} bytes on disk and had {size}");
            return Err(OciError::internal(cause));
        }
        let small = (size <= SMALL).then(|| whole(&*content)).transpose()?;
        Ok((content, small))
    });
    let (content, small) = opened.await.map_err(OciError::internal)??;
    let Some(bytes) = small else {
        return Ok(Body::Blob(Download::new(content, span)));
    };
    registry
        .blobs
        .keep(digest, bytes.clone(), bytes.len(), ticket);
    Ok(part(&bytes, span))
}

/// A blob of at most `most` bytes that the repository shows, for a page.
pub async fn small(
    registry: &Registry,
    name: &Repository,
    digest: Option<Digest>,
    most: u64,
) -> Result<Option<Bytes>, OciError> {
    let Some(digest) = digest else {
        return Ok(None);
    };
    let shown = registry.metadata.shown_blob(name, &digest).await?;
    let Some(shown) = shown.filter(|shown| shown.size <= most) else {
        return Ok(None);
    };
    let copy = shown.copy;
    let object = Object { digest, copy };
    let store = Arc::clone(&registry.store);
    let read = spawn_blocking(move || {
        let content = store.open(&object)?;
        content.as_deref().map(whole).transpose()
    });
    Ok(read.await.map_err(OciError::internal)??)
}

fn whole(content: &dyn Content) -> std::io::Result<Bytes> {
    let mut bytes = vec![0; content.size() as usize];
    content.read_at(&mut bytes, 0)?;
    Ok(bytes.into())
}

/// `span` lies within the blob's size, and `bytes` were checked to have that size.
fn part(bytes: &Bytes, span: Span) -> Body {
    Body::Full(bytes.slice(span.start as usize..span.end as usize))
}
