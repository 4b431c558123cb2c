//! What operators and their machines read: health, metrics, the interface's description.

use http::{Response, StatusCode};
use tokio::task::spawn_blocking;

use super::{Call, reply};
use crate::{
    body::Body,
    error::{Code, OciError},
    registry::Registry,
};

/// The process answers.
pub fn health() -> Response<Body> {
    reply(StatusCode::OK).json("application/json", r#"{"status":"ok"}"#.to_owned())
}

/// The metadata and the blobs' store answer too.
pub async fn ready(registry: &Registry) -> Result<Response<Body>, OciError> {
    let patience = std::time::Duration::from_secs(5);
    let store = std::sync::Arc::clone(&registry.store);
    let both = async {
        registry.metadata.ping().await?;
        spawn_blocking(move || store.ping())
            .await
            .map_err(OciError::internal)??;
        Ok::<_, OciError>(())
    };
    let state = tokio::time::timeout(patience, both).await;
    if let Ok(Ok(())) = state {
        return Ok(reply(StatusCode::OK).json("application/json", r#"{"status":"ready"}"#));
    }
    let message = "the metadata or the store of blobs does not answer";
    Err(OciError::new(Code::Unknown, message).status(StatusCode::SERVICE_UNAVAILABLE))
}

/// Prometheus' text format.
pub async fn metrics(registry: &Registry, call: &Call) -> Result<Response<Body>, OciError> {
    let uploads = registry.uploads.count().await?;
    let mut gauges = vec![("uploads", "Uploads under way.", uploads)];
    if let Some(list) = &call.site.revoked {
        let help = "Version of the revocation list in force.";
        gauges.push(("revocation_list_version", help, list.version()));
    }
    let text = registry.metrics.text(&gauges);
    Ok(reply(StatusCode::OK).json("text/plain; version=0.0.4; charset=utf-8", text))
}

/// OpenAPI 3.1.
pub fn openapi(call: &Call) -> Response<Body> {
    let document = include_str!("../openapi.json").replace("http://localhost:5000", &call.origin());
    reply(StatusCode::OK).json("application/json", document)
}
