//! `/v2/<name>/referrers/<digest>` (distribution-spec 1.1, "Listing Referrers").

use http::{HeaderName, Response, StatusCode, header};

use super::{Call, next, reply};
use crate::{
    admission,
    body::Body,
    digest::Digest,
    error::OciError,
    lists::{Document, List},
    manifest::media,
    metadata::Referrers,
    name::Repository,
    registry::Registry,
    route::{Reference, ReferrerQuery},
};

/// Says which of the asked filters were applied.
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Never 404: a subject that nobody refers to, or in a repository that does not exist,
/// has an empty list, so that clients do not fall back to the tag schema.
pub async fn list(
    registry: &Registry,
    call: &Call,
    name: &Repository,
    subject: &Digest,
    query: &ReferrerQuery,
) -> Result<Response<Body>, OciError> {
    let reference = Reference::Digest(*subject);
    let above = match call.site.policy(name) {
        Some(_) => registry.metadata.manifest(name, &reference).await?,
        None => None,
    };
    let seen = match (&above, call.site.policy(name)) {
        (_, None) => true,
        (None, Some(_)) => admission::sees_all(&call.caller, name),
        (Some(above), Some(_)) => {
            let (site, caller) = (&call.site, &call.caller);
            admission::sees(registry, site, caller, name, &reference, above).await?
        }
    };
    let list = List::Referrers(name.clone(), *subject, query.clone());
    if seen && let Some(document) = registry.lists.find(&list) {
        return Ok(answer(document, query));
    }
    let before = registry.lists.seen(name);
    let found = match seen {
        true => registry.metadata.referrers(name, subject, query).await?,
        false => Referrers::default(),
    };
    let limit = query.limit.to_string();
    let link = found.next.map(|last| {
        let mut parameters = vec![("n", limit.as_str()), ("last", last.as_str())];
        let filter = query.artifact_type.as_deref();
        parameters.extend(filter.map(|filter| ("artifactType", filter)));
        next(&format!("/v2/{name}/referrers/{subject}"), &parameters)
    });
    let json = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#,
        media::INDEX,
        found.descriptors.join(",")
    );
    let document = Document {
        json: json.into(),
        link,
    };
    if seen {
        registry.lists.keep(list, document.clone(), before);
    }
    Ok(answer(document, query))
}

fn answer(document: Document, query: &ReferrerQuery) -> Response<Body> {
    let filter = query.artifact_type.as_ref();
    reply(StatusCode::OK)
        .with_optional(FILTERS_APPLIED, filter.map(|_| "artifactType"))
        .with_optional(header::LINK, document.link)
        .json(media::INDEX, document.json)
}
