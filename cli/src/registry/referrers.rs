//! What refers to a manifest: by the API, or by the tag that stands in for it
//! (distribution-spec 1.1, "Listing Referrers", "Referrers Tag Schema").

use bundle::{Digest, manifest::Descriptor, media};
use http::{
    Method, StatusCode,
    header::{CONTENT_TYPE, LINK},
};
use reqwest::Url;
use serde_json::{Value, json};

use super::{
    Error, Progress,
    download::{LARGEST_MANIFEST, header},
    exchange::Registry,
    node::Node,
};
use crate::reference::Repository;

impl Registry {
    /// Every manifest whose subject is `digest`. The descriptors' own artifact types are
    /// hints that some registries get wrong: the manifest tells.
    pub async fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
        progress: &Progress,
    ) -> Result<Vec<Descriptor>, Error> {
        match self.listed_referrers(repository, digest, progress).await? {
            Some(found) => Ok(found),
            None => {
                let tag = fallback_tag(digest);
                let index = self.manifest(repository, &tag, progress).await?;
                match index {
                    Some(index) => Ok(Node::parse(&index.bytes, &tag)?.manifests),
                    None => Ok(Vec::new()),
                }
            }
        }
    }

    /// Lists a referrer in the fallback index, for a registry without the API.
    ///
    /// Two writers can lose each other's entry, since such registries know no conditions;
    /// so it is read again, and written again if it is gone.
    pub async fn list_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        referrer: &Descriptor,
        progress: &Progress,
    ) -> Result<(), Error> {
        let tag = fallback_tag(subject);
        for _ in 0..FALLBACK_TRIES {
            let found = self.manifest(repository, &tag, progress).await?;
            let bytes = found.as_ref().map(|found| found.bytes.as_slice());
            let Some(fresh) = with_entry(bytes, referrer, &tag)? else {
                return Ok(());
            };
            self.put_manifest(repository, &tag, media::INDEX, fresh.into(), progress)
                .await?;
        }
        Err(self.protocol(format!(
            "loses what is written to {tag}; do others write there?"
        )))
    }

    /// By the API; none where there is no such API.
    async fn listed_referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
        progress: &Progress,
    ) -> Result<Option<Vec<Descriptor>>, Error> {
        let mut call = self.read(repository, &format!("referrers/{digest}"), Method::GET);
        call.what = format!("referrers of {digest}");
        let mut found: Vec<Descriptor> = Vec::new();
        loop {
            let mut response = self.send(&call, progress).await?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::TOO_MANY_REQUESTS => {
                    return Err(self.failed(response, &call.what).await);
                }
                status if status.is_client_error() && found.is_empty() => return Ok(None),
                _ => return Err(self.failed(response, &call.what).await),
            }
            let kind = header(response.headers(), CONTENT_TYPE.as_str()).unwrap_or_default();
            if !kind.starts_with(media::INDEX) {
                // A web page for people, behind a redirect.
                return Ok(None);
            }
            let next = next_page(header(response.headers(), LINK.as_str()), response.url());
            let bytes = self
                .short_body(&mut response, LARGEST_MANIFEST, &call.what)
                .await?;
            found.extend(Node::parse(&bytes, &call.what)?.manifests);
            if found.len() > MOST_REFERRERS {
                return Err(Error::Limit {
                    what: format!("the number of {}", call.what),
                    limit: MOST_REFERRERS as u64,
                });
            }
            match next {
                Some(next) if next != call.url => call.url = next,
                _ => return Ok(Some(found)),
            }
        }
    }
}

/// The tag under which referrers are listed where there is no API; with a suffix also
/// the tags of cosign's older scheme.
pub fn fallback_tag(digest: &Digest) -> String {
    format!("sha256-{}", digest.to_hex())
}

/// The index with one more entry; none if it has it. Fields that we do not know stay.
fn with_entry(
    index: Option<&[u8]>,
    entry: &Descriptor,
    tag: &str,
) -> Result<Option<Vec<u8>>, Error> {
    let refuse = |cause: &str| Error::Manifest {
        what: tag.to_owned(),
        cause: cause.to_owned(),
    };
    let mut index: Value = match index {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|error| refuse(&error.to_string()))?,
        None => json!({ "schemaVersion": 2, "mediaType": media::INDEX, "manifests": [] }),
    };
    let entries = index
        .get_mut("manifests")
        .and_then(Value::as_array_mut)
        .ok_or_else(|| refuse("it is not an index, so it is not the list of referrers"))?;
    let digest = entry.digest.to_string();
    let same = |known: &Value| known.get("digest").and_then(Value::as_str) == Some(&digest);
    if entries.iter().any(same) {
        return Ok(None);
    }
    entries.push(serde_json::to_value(entry).map_err(|error| refuse(&error.to_string()))?);
    serde_json::to_vec(&index)
        .map(Some)
        .map_err(|error| refuse(&error.to_string()))
}

/// The address in `Link: <...>; rel="next"`.
fn next_page(link: Option<&str>, base: &Url) -> Option<Url> {
    let link = link?;
    let (address, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    let next = rest.replace([' ', '"'], "").contains("rel=next");
    let url = base.join(address).ok().filter(|_| next)?;
    // Another host is not asked: it would decide what nobody refers to.
    (url.origin() == base.origin()).then_some(url)
}

/// Each try loses only to a writer in the same few milliseconds.
const FALLBACK_TRIES: u32 = 8;

/// Nobody signs anything this often; more would be an attack on our time.
const MOST_REFERRERS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fallback_index_grows_and_keeps_what_it_has() {
        let entry = Descriptor::of(media::MANIFEST, b"x");
        let tag = "sha256-00";
        let first = with_entry(None, &entry, tag).unwrap().unwrap();
        assert_eq!(with_entry(Some(&first), &entry, tag).unwrap(), None);
        let old = json!({
            "schemaVersion": 2, "mediaType": media::INDEX, "x": 1,
            "manifests": [{"digest": "sha512:00", "y": 2}],
        });
        let grown = with_entry(Some(old.to_string().as_bytes()), &entry, tag).unwrap();
        let grown: Value = serde_json::from_slice(&grown.unwrap()).unwrap();
        assert_eq!(
            grown,
            json!({
                "schemaVersion": 2, "mediaType": media::INDEX, "x": 1,
                "manifests": [
                    {"digest": "sha512:00", "y": 2},
                    {"mediaType": media::MANIFEST, "digest": entry.digest, "size": 1},
                ],
            })
        );
        assert_eq!(
            with_entry(Some(b"{}"), &entry, tag)
                .unwrap_err()
                .to_string(),
            "sha256-00 is not a manifest: it is not an index, so it is not the list of referrers"
        );
    }

    #[test]
    fn follows_pages_on_the_same_host_only() {
        let base = Url::parse("http://r.io/v2/a/referrers/x").unwrap();
        for (link, want) in [
            (None, None),
            (
                Some(r#"</v2/a/referrers/x?last=1>; rel="next""#),
                Some("http://r.io/v2/a/referrers/x?last=1"),
            ),
            (
                Some("<?n=2>;rel=next"),
                Some("http://r.io/v2/a/referrers/x?n=2"),
            ),
            (Some(r#"</v2/>; rel="prev""#), None),
            (Some(r#"<http://evil.io/>; rel="next""#), None),
            (Some("nonsense"), None),
        ] {
            let next = next_page(link, &base);
            assert_eq!(next.as_ref().map(Url::as_str), want, "{link:?}");
        }
    }
}
