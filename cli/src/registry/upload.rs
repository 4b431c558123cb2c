//! Putting blobs and manifests. A broken upload goes on where the registry says it stopped.

use bundle::Digest;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{CONTENT_RANGE, CONTENT_TYPE, RANGE},
};
use reqwest::{Response, Url};

use super::{
    Error, Progress,
    content::Content,
    download::header,
    exchange::{Call, Registry},
    session::Sessions,
    token::Scope,
};
use crate::reference::Repository;

/// How a blob got there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It was there.
    Present,
    /// From another repository of the same registry, without sending it.
    Mounted,
    /// Sent.
    Sent,
}

/// A manifest that the registry took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its digest.
    pub digest: Digest,
    /// Did the registry list it among the referrers of its subject?
    pub listed: bool,
}

impl Registry {
    /// Is the blob there?
    pub async fn has_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        progress: &Progress,
    ) -> Result<bool, Error> {
        let mut call = self.read(repository, &format!("blobs/{digest}"), Method::HEAD);
        call.scope = Scope::push(repository);
        let response = self.send(&call, progress).await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.failed(response, &call.what).await),
        }
    }

    /// Asks the registry to take a blob from another of its repositories: true if it did.
    pub async fn mount(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: &Repository,
        progress: &Progress,
    ) -> Result<bool, Error> {
        let mut call = self.write(repository, Method::POST, self.uploads(repository));
        call.url
            .query_pairs_mut()
            .append_pair("mount", &digest.to_string())
            .append_pair("from", &from.name);
        call.scope = call.scope.and_pull(from);
        let response = self.send(&call, progress).await?;
        let status = response.status();
        if status == StatusCode::ACCEPTED {
            // It opened an upload instead. It is closed so that it does not stay around;
            // a registry that cannot close it will forget it.
            if let Ok(url) = self.locate(response.url(), response.headers()) {
                let _ = self
                    .send(&self.write(repository, Method::DELETE, url), progress)
                    .await;
            }
        }
        Ok(status == StatusCode::CREATED)
    }

    /// Sends a blob that is not there: at once if it is small, else in chunks.
    pub async fn send_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        content: &Content,
        sessions: &Sessions,
        progress: &Progress,
    ) -> Result<(), Error> {
        progress.expect(content.size());
        let mut tries = 1;
        loop {
            let done = if content.size() <= CHUNK {
                self.send_whole(repository, digest, content, progress).await
            } else {
                self.send_chunks(repository, digest, content, sessions, progress)
                    .await
            };
            let error = match done {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if tries >= self.pace.tries || !is_passing(&error) {
                return Err(error);
            }
            self.wait(tries, None).await;
            tries += 1;
            // The answer may have been lost, not the blob.
            if self.has_blob(repository, digest, progress).await? {
                return Ok(());
            }
        }
    }

    /// Puts a manifest under a tag or its digest.
    pub async fn put_manifest(
        &self,
        repository: &Repository,
        name: &str,
        media_type: &str,
        bytes: Bytes,
        progress: &Progress,
    ) -> Result<Accepted, Error> {
        let digest = Digest::of(&bytes);
        let url = self.url(repository, &format!("manifests/{name}"));
        let mut call = self.write(repository, Method::PUT, url);
        call.what = format!("manifest {name} of {repository}");
        let media_type = HeaderValue::from_str(media_type).map_err(|_| Error::Manifest {
            what: digest.to_string(),
            cause: "its media type is no header value".to_owned(),
        })?;
        call.headers.insert(CONTENT_TYPE, media_type);
        progress.expect(bytes.len() as u64);
        call.body = Some(bytes);
        let response = self.send(&call, progress).await?;
        if !response.status().is_success() {
            return Err(self.failed(response, &call.what).await);
        }
        let claimed = header(response.headers(), "docker-content-digest")
            .and_then(|claimed| claimed.parse::<Digest>().ok());
        if let Some(got) = claimed.filter(|claimed| *claimed != digest) {
            return Err(Error::Digest {
                host: self.host.to_string(),
                want: digest,
                got,
            });
        }
        Ok(Accepted {
            digest,
            listed: response.headers().contains_key("oci-subject"),
        })
    }

    async fn send_whole(
        &self,
        repository: &Repository,
        digest: &Digest,
        content: &Content,
        progress: &Progress,
    ) -> Result<(), Error> {
        let url = self.open_upload(repository, progress).await?.0;
        let bytes = content.read(0, CHUNK)?;
        self.close_upload(repository, digest, url, bytes, progress)
            .await
    }

    async fn send_chunks(
        &self,
        repository: &Repository,
        digest: &Digest,
        content: &Content,
        sessions: &Sessions,
        progress: &Progress,
    ) -> Result<(), Error> {
        let size = content.size();
        let saved = sessions.load(repository, digest);
        let mut upload = match self.continue_upload(repository, saved, progress).await? {
            Some((url, offset)) if offset <= size => Chunked {
                url,
                offset,
                chunk: CHUNK,
            },
            _ => self.start_chunks(repository, progress).await?,
        };
        progress.advance(upload.offset);
        let before = upload.offset;
        let mut sent = before;
        let done = async {
            let mut tries = 1;
            while upload.offset < size {
                sessions.save(repository, digest, &upload.url);
                let bytes = content.read(upload.offset, upload.chunk)?;
                match self.send_chunk(repository, &upload, bytes, progress).await {
                    Ok((url, offset)) => {
                        upload.url = url;
                        upload.offset = offset;
                        tries = 1;
                    }
                    Err(error) if tries < self.pace.tries && is_passing(&error) => {
                        self.wait(tries, None).await;
                        tries += 1;
                        let url = Some(upload.url.clone());
                        match self.continue_upload(repository, url, progress).await? {
                            Some((url, offset)) if offset <= size => {
                                progress.advance(offset.saturating_sub(upload.offset));
                                progress.retreat(upload.offset.saturating_sub(offset));
                                upload.url = url;
                                upload.offset = offset;
                            }
                            _ => return Err(error),
                        }
                    }
                    Err(error) => return Err(error),
                }
                sent = upload.offset;
            }
            self.close_upload(repository, digest, upload.url, Bytes::new(), progress)
                .await
        }
        .await;
        match &done {
            Ok(()) => sessions.forget(repository, digest),
            Err(error) => {
                progress.retreat(sent);
                // Only a broken connection leaves something to continue.
                if !matches!(error, Error::Unreachable { .. }) {
                    sessions.forget(repository, digest);
                }
            }
        }
        done
    }

    /// Sends one chunk and says where the next one goes.
    async fn send_chunk(
        &self,
        repository: &Repository,
        upload: &Chunked,
        bytes: Bytes,
        progress: &Progress,
    ) -> Result<(Url, u64), Error> {
        let end = upload.offset + bytes.len() as u64;
        let mut call = self.write(repository, Method::PATCH, upload.url.clone());
        call.repeatable = false;
        let range = format!("{}-{}", upload.offset, end - 1);
        let range = HeaderValue::from_str(&range).ok();
        call.headers
            .extend(range.map(|range| (CONTENT_RANGE, range)));
        call.headers.insert(CONTENT_TYPE, OCTETS);
        call.body = Some(bytes);
        let response = self.send(&call, progress).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(self.failed(response, &call.what).await);
        }
        let url = self.locate(response.url(), response.headers())?;
        match received(&response) {
            Some(got) if got > end => {
                Err(self.protocol(format!("says that it has {got} bytes when we sent {end}")))
            }
            Some(got) => {
                progress.retreat(end - got);
                Ok((url, got))
            }
            None => Ok((url, end)),
        }
    }

    /// Opens an upload: where to send, and the smallest chunk that the registry takes.
    async fn open_upload(
        &self,
        repository: &Repository,
        progress: &Progress,
    ) -> Result<(Url, u64), Error> {
        let call = self.write(repository, Method::POST, self.uploads(repository));
        let response = self.send(&call, progress).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(self.failed(response, &call.what).await);
        }
        let least = header(response.headers(), "oci-chunk-min-length")
            .and_then(|least| least.parse().ok())
            .unwrap_or(0);
        let url = self.locate(response.url(), response.headers())?;
        Ok((url, least))
    }

    async fn start_chunks(
        &self,
        repository: &Repository,
        progress: &Progress,
    ) -> Result<Chunked, Error> {
        let (url, least) = self.open_upload(repository, progress).await?;
        if least > LARGEST_CHUNK {
            return Err(self.protocol(format!("wants chunks of at least {least} bytes")));
        }
        Ok(Chunked {
            url,
            offset: 0,
            chunk: CHUNK.max(least),
        })
    }

    /// Asks how far an upload is; none if the registry has forgotten it.
    async fn continue_upload(
        &self,
        repository: &Repository,
        url: Option<Url>,
        progress: &Progress,
    ) -> Result<Option<(Url, u64)>, Error> {
        let Some(url) = url else { return Ok(None) };
        let call = self.write(repository, Method::GET, url);
        let response = self.send(&call, progress).await?;
        if response.status() != StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let offset = received(&response).unwrap_or(0);
        let url = if response.headers().contains_key(http::header::LOCATION) {
            self.locate(response.url(), response.headers())?
        } else {
            call.url
        };
        Ok(Some((url, offset)))
    }

    /// Sends the last bytes and the digest.
    async fn close_upload(
        &self,
        repository: &Repository,
        digest: &Digest,
        mut url: Url,
        bytes: Bytes,
        progress: &Progress,
    ) -> Result<(), Error> {
        url.query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let mut call = self.write(repository, Method::PUT, url);
        call.repeatable = false;
        call.what = format!("blob {digest} of {repository}");
        call.headers.insert(CONTENT_TYPE, OCTETS);
        call.body = Some(bytes);
        let response = self.send(&call, progress).await?;
        if response.status() != StatusCode::CREATED {
            return Err(self.failed(response, &call.what).await);
        }
        Ok(())
    }

    fn uploads(&self, repository: &Repository) -> Url {
        self.url(repository, "blobs/uploads/")
    }

    fn write(&self, repository: &Repository, method: Method, url: Url) -> Call {
        let body = (method == Method::POST).then(Bytes::new);
        Call {
            method,
            url,
            headers: HeaderMap::new(),
            body,
            scope: Scope::push(repository),
            repeatable: true,
            what: format!("an upload to {repository}"),
        }
    }
}

/// An upload in chunks, so far.
struct Chunked {
    url: Url,
    offset: u64,
    chunk: u64,
}

/// How many bytes the registry has: `Range: 0-LAST`. Registries write an empty range as
/// `0-0` too; one byte is never sent alone here.
fn received(response: &Response) -> Option<u64> {
    let range = header(response.headers(), RANGE.as_str())?;
    let last = range.trim_start_matches("bytes=").strip_prefix("0-")?;
    match last.parse().ok()? {
        0 => Some(0),
        last => Some(last + 1_u64),
    }
}

/// May it be otherwise in a moment, or in another upload?
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } => true,
        Error::Server { status, .. } => {
            status.is_server_error()
                || matches!(
                    *status,
                    StatusCode::NOT_FOUND
                        | StatusCode::REQUEST_TIMEOUT
                        | StatusCode::TOO_MANY_REQUESTS
                        | StatusCode::RANGE_NOT_SATISFIABLE
                )
        }
        _ => false,
    }
}

/// Small enough to be sent again without regret, large enough that chunks cost nothing.
const CHUNK: u64 = 8 << 20;

/// A registry that wants more than this at once wants our memory.
const LARGEST_CHUNK: u64 = 256 << 20;

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
