//! `/v2/<name>/tags/list` (distribution-spec 1.1, "Listing Tags").

use http::{Response, StatusCode, header};

use super::{Call, name_unknown, next, reply};
use crate::{
    admission,
    body::Body,
    error::OciError,
    lists::{Document, List},
    name::Repository,
    registry::Registry,
    route::{Page, Reference},
};

pub async fn list(
    registry: &Registry,
    call: &Call,
    name: &Repository,
    page: &Page,
) -> Result<Response<Body>, OciError> {
    let sees_all = call.site.policy(name).is_none() || admission::sees_all(&call.caller, name);
    let list = List::Tags(name.clone(), page.clone());
    if sees_all && let Some(document) = registry.lists.find(&list) {
        return Ok(answer(document));
    }
    let seen = registry.lists.seen(name);
    let tags = registry
        .metadata
        .tags(name, page)
        .await?
        .ok_or_else(name_unknown)?;
    let json = match sees_all {
        true => tags.json,
        false => readable(registry, call, name, &tags.json).await?,
    };
    let limit = page.limit.to_string();
    let path = format!("/v2/{name}/tags/list");
    let document = Document {
        // A repository's name has no character that JSON escapes.
        json: format!(r#"{{"name":"{name}","tags":{json}}}"#).into(),
        link: tags
            .next
            .map(|last| next(&path, &[("n", &limit), ("last", &last)])),
    };
    if sees_all {
        registry.lists.keep(list, document.clone(), seen);
    }
    Ok(answer(document))
}

fn answer(document: Document) -> Response<Body> {
    reply(StatusCode::OK)
        .with_optional(header::LINK, document.link)
        .json("application/json", document.json)
}

/// Without the tags that the caller may not see. A page may hold fewer than were asked for.
async fn readable(
    registry: &Registry,
    call: &Call,
    name: &Repository,
    json: &str,
) -> Result<String, OciError> {
    let all: Vec<String> = serde_json::from_str(json).map_err(OciError::internal)?;
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
