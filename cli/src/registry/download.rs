//! Getting manifests and blobs. A broken download goes on where it stopped.

use bundle::Digest;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT, ACCEPT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, RANGE},
};
use reqwest::Response;

use super::{
    Error, Progress,
    content::{Content, Partial},
    exchange::{Call, Registry},
    node::MANIFEST_TYPES,
    token::Scope,
};
use crate::reference::Repository;

/// A manifest as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its media type: the answer's, since a manifest need not say its own.
    pub media_type: String,
    /// Of the bytes; computed here.
    pub digest: Digest,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Registry {
    /// A manifest by tag or digest; none where the registry answers 404.
    ///
    /// By digest the bytes must have it; by tag they must have the digest that the
    /// registry's header claims, if it claims one.
    pub async fn manifest(
        &self,
        repository: &Repository,
        wanted: &str,
        progress: &Progress,
    ) -> Result<Option<Fetched>, Error> {
        let call = self.read(repository, &format!("manifests/{wanted}"), Method::GET);
        let (response, bytes) = {
            let mut tries = 1;
            loop {
                let mut response = self.send(&call, progress).await?;
                match response.status() {
                    StatusCode::OK => {}
                    StatusCode::NOT_FOUND => return Ok(None),
                    _ => return Err(self.failed(response, &call.what).await),
                }
                match self
                    .short_body(&mut response, LARGEST_MANIFEST, &call.what)
                    .await
                {
                    Err(Error::Unreachable { .. }) if tries < self.pace.tries => {
                        self.wait(tries, None).await;
                        tries += 1;
                    }
                    bytes => break (response, bytes?),
                }
            }
        };
        let digest = Digest::of(&bytes);
        let claimed = match wanted.parse::<Digest>() {
            Ok(digest) => Some(digest),
            Err(_) => header(response.headers(), "docker-content-digest")
                .and_then(|claimed| claimed.parse().ok()),
        };
        if let Some(want) = claimed.filter(|want| *want != digest) {
            return Err(Error::Digest {
                host: self.host.to_string(),
                want,
                got: digest,
            });
        }
        let media_type = header(response.headers(), CONTENT_TYPE.as_str())
            .map(|value| {
                value
                    .split(';')
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_owned()
            })
            .unwrap_or_default();
        Ok(Some(Fetched {
            media_type,
            digest,
            bytes,
        }))
    }

    /// The digest of a tag or digest, asked once; none where the registry answers 404.
    pub async fn resolve(
        &self,
        repository: &Repository,
        wanted: &str,
        progress: &Progress,
    ) -> Result<Option<Digest>, Error> {
        let call = self.read(repository, &format!("manifests/{wanted}"), Method::HEAD);
        let response = self.send(&call, progress).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.failed(response, &call.what).await),
        }
        match header(response.headers(), "docker-content-digest").map(str::parse) {
            Some(Ok(digest)) => Ok(Some(digest)),
            // The header is optional: then the bytes tell.
            _ => {
                let fetched = self.manifest(repository, wanted, progress).await?;
                Ok(fetched.map(|fetched| fetched.digest))
            }
        }
    }

    /// A blob of known size, whole and checked.
    pub async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        partial: Partial,
        progress: &Progress,
    ) -> Result<Content, Error> {
        let mut partial = partial;
        let mut resumed = partial.size() > 0;
        progress.expect(size);
        if partial.size() > size {
            partial.restart()?;
        }
        progress.advance(partial.size());
        loop {
            if let Err(error) = self
                .stream(repository, digest, size, &mut partial, progress)
                .await
            {
                if matches!(error, Error::Length { .. }) {
                    partial.discard();
                }
                return Err(error);
            }
            let (mut left, got) = match partial.check(digest) {
                Ok(content) => return Ok(content),
                Err(refused) => *refused,
            };
            if !resumed {
                left.discard();
                return Err(Error::Digest {
                    host: self.host.to_string(),
                    want: *digest,
                    got,
                });
            }
            // What an earlier process left may be what is wrong: once more from the start.
            resumed = false;
            progress.retreat(size);
            left.restart()?;
            partial = left;
        }
    }

    /// Appends until there are `size` bytes, over as many connections as it takes.
    async fn stream(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        partial: &mut Partial,
        progress: &Progress,
    ) -> Result<(), Error> {
        let mut tries = 1;
        while partial.size() < size {
            let before = partial.size();
            match self
                .stretch(repository, digest, size, partial, progress)
                .await
            {
                Ok(()) => {}
                Err(error @ Error::Unreachable { .. }) => {
                    if partial.size() > before {
                        tries = 1;
                    } else if tries >= self.pace.tries {
                        return Err(error);
                    }
                    self.wait(tries, None).await;
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Appends what one answer holds.
    async fn stretch(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        partial: &mut Partial,
        progress: &Progress,
    ) -> Result<(), Error> {
        let mut call = self.read(repository, &format!("blobs/{digest}"), Method::GET);
        call.headers.remove(ACCEPT);
        let have = partial.size();
        if have > 0 {
            let range = HeaderValue::from_str(&format!("bytes={have}-"));
            call.headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        let mut response = self.send(&call, progress).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if continues(response.headers(), have) => {}
            StatusCode::OK if have == 0 => {}
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
                if have > 0 =>
            {
                // The server cannot continue, so we start again.
                progress.retreat(have);
                partial.restart()?;
                if response.status() != StatusCode::OK {
                    return Ok(());
                }
            }
            StatusCode::NOT_FOUND => {
                return Err(Error::NotFound {
                    what: format!("blob {digest}"),
                    place: repository.to_string(),
                });
            }
            _ => return Err(self.failed(response, &call.what).await),
        }
        let wrong = |got: u64| Error::Length {
            host: self.host.to_string(),
            digest: *digest,
            want: size,
            got,
        };
        let announced = response.content_length();
        if let Some(whole) = announced
            .map(|rest| partial.size() + rest)
            .filter(|got| *got != size)
        {
            return Err(wrong(whole));
        }
        let url = response.url().clone();
        loop {
            match tokio::time::timeout(self.pace.silence, response.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    let got = partial.size() + chunk.len() as u64;
                    if got > size {
                        return Err(wrong(got));
                    }
                    partial.append(&chunk)?;
                    progress.advance(chunk.len() as u64);
                }
                Ok(Ok(None)) if partial.size() == size => return Ok(()),
                // No length was announced, so a cut connection looks like the end.
                Ok(Ok(None)) if partial.size() > have => {
                    return Err(self.silent(&url));
                }
                Ok(Ok(None)) => return Err(wrong(partial.size())),
                Ok(Err(error)) => return Err(self.broken(&url, &error)),
                Err(_) => return Err(self.silent(&url)),
            }
        }
    }

    /// A whole body of at most `limit` bytes.
    pub async fn short_body(
        &self,
        response: &mut Response,
        limit: u64,
        what: &str,
    ) -> Result<Vec<u8>, Error> {
        let too_long = || Error::Limit {
            what: format!("the length of {what}"),
            limit,
        };
        if response
            .content_length()
            .is_some_and(|length| length > limit)
        {
            return Err(too_long());
        }
        let url = response.url().clone();
        let mut bytes = Vec::new();
        loop {
            match tokio::time::timeout(self.pace.silence, response.chunk()).await {
                Ok(Ok(Some(chunk))) if (bytes.len() + chunk.len()) as u64 > limit => {
                    return Err(too_long());
                }
                Ok(Ok(Some(chunk))) => bytes.extend_from_slice(&chunk),
                Ok(Ok(None)) => return Ok(bytes),
                Ok(Err(error)) => return Err(self.broken(&url, &error)),
                Err(_) => return Err(self.silent(&url)),
            }
        }
    }

    /// A request that only reads.
    pub fn read(&self, repository: &Repository, rest: &str, method: Method) -> Call {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(MANIFEST_TYPES));
        // A proxy that compresses would change the bytes that the digest is of.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Call {
            method,
            url: self.url(repository, rest),
            headers,
            body: None,
            scope: Scope::pull(repository),
            repeatable: true,
            what: format!("{} of {repository}", rest.replacen("s/", " ", 1)),
        }
    }
}

/// Does the answer go on at `have`?
fn continues(headers: &HeaderMap, have: u64) -> bool {
    header(headers, CONTENT_RANGE.as_str())
        .and_then(|range| range.strip_prefix("bytes "))
        .and_then(|range| range.split('-').next())
        .and_then(|start| start.trim().parse::<u64>().ok())
        == Some(have)
}

/// A header as text.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// What registries must take at least (distribution-spec 1.1, "Pushing Manifests").
pub const LARGEST_MANIFEST: u64 = 4 << 20;
