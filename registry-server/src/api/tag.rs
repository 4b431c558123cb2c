//! `/v2/<name>/tags/list` (distribution-spec 1.1, "Listing Tags").

use http::{Response, StatusCode, header};
use serde_json::json;

use super::{name_unknown, next, reply};
use crate::{body::Body, error::OciError, name::Repository, registry::Registry, route::Page};

pub async fn list(
    registry: &Registry,
    name: &Repository,
    page: &Page,
) -> Result<Response<Body>, OciError> {
    let tags = registry.metadata.tags(name, page).await?;
    let (tags, more) = tags.ok_or_else(name_unknown)?;
    let limit = page.limit.to_string();
    let path = format!("/v2/{name}/tags/list");
    let last = tags.last().filter(|_| more);
    let link = last.map(|last| next(&path, &[("n", &limit), ("last", last)]));
    Ok(reply(StatusCode::OK)
        .with_optional(header::LINK, link)
        .json(
            "application/json",
            json!({ "name": name.as_str(), "tags": tags }).to_string(),
        ))
}
