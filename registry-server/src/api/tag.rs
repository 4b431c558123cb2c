//! `/v2/<name>/tags/list` (distribution-spec 1.1, "Listing Tags").

use bytes::Bytes;
use http::{Response, StatusCode, header};

use super::{Call, name_unknown, next, reply};
use crate::{
    admission,
    body::Body,
    error::OciError,
    lists::List,
    name::Repository,
    registry::Registry,
    route::{MAX_PAGE, Page, Reference},
};

pub async fn list(
    registry: &Registry,
    call: &Call,
    name: &Repository,
    page: &Page,
) -> Result<Response<Body>, OciError> {
    let all = page.after.is_none() && page.limit == MAX_PAGE;
    let whole =
        all && (call.site.policy(name).is_none() || admission::sees_all(&call.caller, name));
    let list = List::Tags(name.clone());
    if whole && let Some(document) = registry.lists.find(&list) {
        return Ok(reply(StatusCode::OK).json("application/json", document));
    }
    let seen = registry.lists.seen(name);
    let tags = registry
        .metadata
        .tags(name, page)
        .await?
        .ok_or_else(name_unknown)?;
    let json = readable(registry, call, name, tags.json).await?;
    let limit = page.limit.to_string();
    let path = format!("/v2/{name}/tags/list");
    let link = tags
        .next
        .map(|last| next(&path, &[("n", &limit), ("last", &last)]));
    // A repository's name has no character that JSON escapes.
    let document = Bytes::from(format!(r#"{{"name":"{name}","tags":{json}}}"#));
    if whole && link.is_none() {
        registry.lists.keep(list, document.clone(), seen);
    }
    Ok(reply(StatusCode::OK)
        .with_optional(header::LINK, link)
        .json("application/json", document))
}

/// Without the tags that the caller may not see. A page may hold fewer than were asked for.
async fn readable(
    registry: &Registry,
    call: &Call,
    name: &Repository,
    json: String,
) -> Result<String, OciError> {
    if call.site.policy(name).is_none() || admission::sees_all(&call.caller, name) {
        return Ok(json);
    }
    let all: Vec<String> = serde_json::from_str(&json).map_err(OciError::internal)?;
    let mut seen = Vec::new();
    for tag in all {
        let Ok(reference) = tag.parse().map(Reference::Tag) else {
            continue;
        };
        if let Some(found) = registry.metadata.manifest(name, &reference).await?
            && admission::is_released(registry, &call.site, name, &reference, &found).await?
        {
            seen.push(tag);
        }
    }
    Ok(serde_json::json!(seen).to_string())
}
