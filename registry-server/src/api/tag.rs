//! `/v2/<name>/tags/list` (distribution-spec 1.1, "Listing Tags").

use http::{Response, StatusCode, header};

use super::{name_unknown, next, reply};
use crate::{body::Body, error::OciError, name::Repository, registry::Registry, route::Page};

pub async fn list(
    registry: &Registry,
    name: &Repository,
    page: &Page,
) -> Result<Response<Body>, OciError> {
    let tags = registry
        .metadata
        .tags(name, page)
        .await?
        .ok_or_else(name_unknown)?;
    let limit = page.limit.to_string();
    let path = format!("/v2/{name}/tags/list");
    let link = tags
        .next
        .map(|last| next(&path, &[("n", &limit), ("last", &last)]));
    // A repository's name has no character that JSON escapes.
    let document = format!(r#"{{"name":"{name}","tags":{}}}"#, tags.json);
    Ok(reply(StatusCode::OK)
        .with_optional(header::LINK, link)
        .json("application/json", document))
}
