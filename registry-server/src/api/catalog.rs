//! `/v2/_catalog`: every repository that the caller may pull from.

use http::{Response, StatusCode, header};

use super::{Call, next, reply};
use crate::{
    access::Action,
    body::Body,
    error::OciError,
    metadata::Names,
    name::Repository,
    registry::Registry,
    route::{MAX_PAGE, Page},
};

pub async fn list(
    registry: &Registry,
    call: &Call,
    page: &Page,
) -> Result<Response<Body>, OciError> {
    let names = readable(registry, call, page).await?;
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

/// A page of names that the caller may know.
pub async fn readable(registry: &Registry, call: &Call, page: &Page) -> Result<Names, OciError> {
    let access = &call.site.access;
    let granted = call.caller.granted.as_ref();
    if !access.is_closed() || (access.is_operator(&call.caller.principal) && granted.is_none()) {
        return registry.metadata.repositories(page).await;
    }
    let mut found: Vec<String> = Vec::new();
    let mut from = Page {
        limit: MAX_PAGE,
        after: page.after.clone(),
    };
    loop {
        let names = registry.metadata.repositories(&from).await?;
        let all: Vec<String> = serde_json::from_str(&names.json).map_err(OciError::internal)?;
        for name in all {
            let Ok(repository) = name.parse::<Repository>() else {
                continue;
            };
            // A token for the catalogue names no repository: rights alone decide.
            let name_is_known =
                access.allows(&call.caller.principal, repository.as_str(), Action::Pull);
            if !name_is_known {
                continue;
            }
            if found.len() == page.limit as usize {
                let json = serde_json::json!(found).to_string();
                return Ok(Names {
                    json,
                    next: found.pop(),
                });
            }
            found.push(name);
        }
        match names.next {
            Some(last) => from.after = Some(last),
            None => {
                let json = serde_json::json!(found).to_string();
                return Ok(Names { json, next: None });
            }
        }
    }
}
