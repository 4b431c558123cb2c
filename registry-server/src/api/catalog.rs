//! `/v2/_catalog`: every repository.

use http::{Response, StatusCode, header};

use super::{next, reply};
use crate::{body::Body, error::OciError, registry::Registry, route::Page};

pub async fn list(registry: &Registry, page: &Page) -> Result<Response<Body>, OciError> {
    let names = registry.metadata.repositories(page).await?;
    let limit = page.limit.to_string();
    let link = names
        .next
        .map(|last| next("/v2/_catalog", &[("n", &limit), ("last", &last)]));
    Ok(reply(StatusCode::OK)
        .with_optional(header::LINK, link)
        .json(
            "application/json",
            format!(r#"{{"repositories":{}}}"#, names.json),
        ))
}
