//! `/v2/<name>/referrers/<digest>` (distribution-spec 1.1, "Listing Referrers").

use bytes::Bytes;
use http::{HeaderName, Response, StatusCode, header};

use super::{Call, next, reply};
use crate::{
    admission,
    body::Body,
    digest::Digest,
    error::OciError,
    lists::List,
    manifest::media,
    metadata::Referrers,
    name::Repository,
    registry::Registry,
    route::{MAX_PAGE, Reference, ReferrerQuery},
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
    let filtered = query.artifact_type.is_some() || query.after.is_some();
    let whole = seen && !filtered && query.limit == MAX_PAGE;
    let list = List::Referrers(name.clone(), *subject);
    if whole && let Some(document) = registry.lists.find(&list) {
        return Ok(reply(StatusCode::OK).json(media::INDEX, document));
    }
    let before = registry.lists.seen(name);
    let found = match seen {
        true => registry.metadata.referrers(name, subject, query).await?,
        false => Referrers::default(),
    };
    let filter = query.artifact_type.as_deref();
    let limit = query.limit.to_string();
    let link = found.next.map(|last| {
        let mut parameters = vec![("n", limit.as_str()), ("last", last.as_str())];
        parameters.extend(filter.map(|filter| ("artifactType", filter)));
        next(&format!("/v2/{name}/referrers/{subject}"), &parameters)
    });
    let document = Bytes::from(format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#,
        media::INDEX,
        found.descriptors.join(",")
    ));
    if whole && link.is_none() {
        registry.lists.keep(list, document.clone(), before);
    }
    Ok(reply(StatusCode::OK)
        .with_optional(FILTERS_APPLIED, filter.map(|_| "artifactType"))
        .with_optional(header::LINK, link)
        .json(media::INDEX, document))
}
