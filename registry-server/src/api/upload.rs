//! `/v2/<name>/blobs/uploads/` (distribution-spec 1.1, "Pushing blobs").

use std::sync::Arc;

use http::{HeaderName, Response, StatusCode, header};

use super::{CONTENT_DIGEST, Call, reply};
use crate::{
    access::Action,
    admission,
    body::Body,
    digest::{Algorithm, Digest},
    error::{Code, OciError},
    name::Repository,
    range,
    registry::Registry,
    route::{Start, UploadId},
    upload::Upload,
};

/// Docker clients show it in their logs.
const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

pub async fn start(
    registry: &Arc<Registry>,
    call: &mut Call,
    name: Repository,
    start: Start,
) -> Result<Response<Body>, OciError> {
    match start {
        Start::Session(algorithm) => begin(registry, &name, algorithm).await,
        Start::Monolithic(digest) => {
            let (id, upload) = registry.uploads.whole(&name, digest.algorithm()).await?;
            let (upload, received) = upload.receive(&mut call.intake).await;
            let result = match received {
                Ok(()) => finished(registry, call, upload, name, digest, None).await,
                Err(error) => upload.cancel().await.and(Err(error)),
            };
            registry.uploads.forget(id);
            result
        }
        Start::Mount(digest, from) => {
            let forget = forget(registry, &name, digest);
            let from = readable(registry, call, &digest, from).await?;
            if from.is_some()
                && registry
                    .metadata
                    .mount_blob(
                        &name,
                        &digest,
                        from.as_ref(),
                        call.site.quota(&name),
                        forget,
                    )
                    .await?
            {
                return Ok(created(&name, &digest));
            }
            begin(registry, &name, digest.algorithm()).await
        }
    }
}

/// A repository that shows the blob and that the caller may pull from: nobody comes by a
/// blob that they may not read because they know its digest.
async fn readable(
    registry: &Registry,
    call: &Call,
    digest: &Digest,
    from: Option<Repository>,
) -> Result<Option<Repository>, OciError> {
    let names = match from {
        Some(from) => vec![from.to_string()],
        None => registry.metadata.showing(digest).await?,
    };
    for name in names.iter().filter_map(|name| name.parse().ok()) {
        let may = call.caller.may(&name, Action::Pull);
        if may && admission::sees_blob(registry, &call.site, &call.caller, &name, digest).await? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

pub async fn status(
    registry: &Registry,
    name: &Repository,
    id: UploadId,
) -> Result<Response<Body>, OciError> {
    let upload = registry.uploads.take(name, id).await?;
    let location = location(name, id);
    Ok(reply(StatusCode::NO_CONTENT)
        .with(header::LOCATION, location)
        .with(header::RANGE, received(upload.len()))
        .with(UPLOAD_UUID, id.to_string())
        .body(bytes::Bytes::new()))
}

pub async fn append(
    registry: &Registry,
    call: &mut Call,
    name: &Repository,
    id: UploadId,
) -> Result<Response<Body>, OciError> {
    let upload = registry.uploads.take(name, id).await?;
    in_order(call, name, id, &upload)?;
    let (upload, came) = upload.receive(&mut call.intake).await;
    let (upload, written) = upload.flush().await;
    let length = upload.len();
    // Also when the body broke off: the client can go on from what came.
    upload.note(name).await?;
    came.and(written)?;
    Ok(reply(StatusCode::ACCEPTED)
        .with(header::LOCATION, location(name, id))
        .with(header::RANGE, received(length))
        .with(UPLOAD_UUID, id.to_string())
        .empty())
}

pub async fn finish(
    registry: &Arc<Registry>,
    call: &mut Call,
    name: Repository,
    id: UploadId,
    digest: Digest,
) -> Result<Response<Body>, OciError> {
    let upload = registry.uploads.take(&name, id).await?;
    let upload = upload.expect(digest.algorithm());
    in_order(call, &name, id, &upload)?;
    let (upload, came) = upload.receive(&mut call.intake).await;
    if let Err(error) = came {
        let (upload, written) = upload.flush().await;
        let noted = upload.note(&name).await;
        return written.and(noted).and(Err(error));
    }
    let result = finished(registry, call, upload, name, digest, Some(id)).await;
    match &result {
        Ok(_) => registry.uploads.forget(id),
        Err(_) => registry.uploads.end(id).await?,
    }
    result
}

pub async fn cancel(
    registry: &Registry,
    name: &Repository,
    id: UploadId,
) -> Result<Response<Body>, OciError> {
    let upload = registry.uploads.take(name, id).await?;
    registry.uploads.end(id).await?;
    upload.cancel().await?;
    Ok(reply(StatusCode::NO_CONTENT).body(bytes::Bytes::new()))
}

async fn begin(
    registry: &Registry,
    name: &Repository,
    algorithm: Algorithm,
) -> Result<Response<Body>, OciError> {
    let id = registry.uploads.start(name, algorithm).await?;
    Ok(reply(StatusCode::ACCEPTED)
        .with(header::LOCATION, location(name, id))
        .with(header::RANGE, received(0))
        .with(UPLOAD_UUID, id.to_string())
        .empty())
}

/// All bytes are here: makes them a blob and shows it in the repository. 201 is only
/// said when both would survive a power cut.
async fn finished(
    registry: &Arc<Registry>,
    call: &Call,
    upload: Upload,
    name: Repository,
    digest: Digest,
    ended: Option<UploadId>,
) -> Result<Response<Body>, OciError> {
    let _shelf = registry.shelve(&digest).await;
    let (object, size) = upload.finish(digest).await?;
    let forget = forget(registry, &name, digest);
    let quota = call.site.quota(&name);
    let linked = registry
        .metadata
        .link_blob(&name, &object, size, quota, ended, forget)
        .await?;
    if !linked {
        registry.remove(object).await?;
    }
    Ok(created(&name, &digest))
}

/// Chunks come in order and are as long as they say.
fn in_order(call: &Call, name: &Repository, id: UploadId, upload: &Upload) -> Result<(), OciError> {
    let Some(header) = call.header(header::CONTENT_RANGE) else {
        return Ok(());
    };
    let chunk = range::chunk(header).ok_or_else(|| {
        OciError::new(
            Code::BlobUploadInvalid,
            "Content-Range is not first-last in bytes",
        )
    })?;
    if chunk.start != upload.len() {
        let message = format!("the next byte is {}, not {}", upload.len(), chunk.start);
        return Err(OciError::new(Code::BlobUploadInvalid, message)
            .status(StatusCode::RANGE_NOT_SATISFIABLE)
            .header(header::LOCATION, location(name, id))
            .header(header::RANGE, received(upload.len())));
    }
    let length = call
        .header(header::CONTENT_LENGTH)
        .and_then(|text| text.parse::<u64>().ok());
    if length.is_some_and(|length| length != chunk.end - chunk.start) {
        let message = "Content-Length and Content-Range disagree";
        return Err(OciError::new(Code::SizeInvalid, message));
    }
    Ok(())
}

fn created(name: &Repository, digest: &Digest) -> Response<Body> {
    reply(StatusCode::CREATED)
        .with(header::LOCATION, format!("/v2/{name}/blobs/{digest}"))
        .with(CONTENT_DIGEST, digest.to_string())
        .empty()
}

fn forget(
    registry: &Arc<Registry>,
    name: &Repository,
    digest: Digest,
) -> impl FnOnce() + Send + 'static {
    let (registry, key) = (Arc::clone(registry), (name.clone(), digest));
    move || registry.shown.forget(&key)
}

fn location(name: &Repository, id: UploadId) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

/// `0-<end>`, inclusive. Nothing yet is written like one byte: the grammar has no other
/// way, and clients of every registry know it.
fn received(length: u64) -> String {
    format!("0-{}", length.saturating_sub(1))
}
