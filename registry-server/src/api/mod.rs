//! The HTTP interface: one file per noun of the specification.

mod blob;
mod catalog;
mod conditional;
mod manifest;
mod referrer;
mod tag;
mod upload;
mod version;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::{
    body::{Body, Intake},
    error::{Code, OciError},
    registry::Registry,
    route::Route,
};

/// `Docker-Content-Digest`, on every answer that holds or names content.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What a handler gets of a request beside its [`Route`].
pub struct Call {
    /// `HEAD` asks for the headers of a `GET` alone.
    head: bool,
    /// The request's headers.
    headers: http::HeaderMap,
    /// The request's body.
    intake: Intake,
}

impl Call {
    /// A header as text; one that is not text is as good as absent.
    fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Answers a request. A client's mistakes and ours alike become the specification's
/// error document.
pub async fn answer(registry: Arc<Registry>, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let (method, path) = (parts.method, parts.uri.path().to_owned());
    let route = Route::parse(&method, &path, parts.uri.query());
    let mut call = Call {
        head: method == Method::HEAD,
        headers: parts.headers,
        intake: Intake::new(body, registry.settings.idle),
    };
    let result = match route {
        Ok(route) => handle(&registry, route, &mut call).await,
        Err(error) => Err(error),
    };
    let response = result.unwrap_or_else(|error| refuse(&error, call.head));
    log(&method, &path, &response);
    response
}

async fn handle(
    registry: &Arc<Registry>,
    route: Route,
    call: &mut Call,
) -> Result<Response<Body>, OciError> {
    match route {
        Route::Version => Ok(version::read()),
        Route::Catalog(page) => catalog::list(registry, &page).await,
        Route::Tags(name, page) => tag::list(registry, &name, &page).await,
        Route::ReadBlob(name, digest) => blob::read(registry, call, name, digest).await,
        Route::DeleteBlob(name, digest) => blob::delete(registry, name, digest).await,
        Route::StartUpload(name, start) => upload::start(registry, call, name, start).await,
        Route::UploadStatus(name, id) => upload::status(registry, &name, id),
        Route::Append(name, id) => upload::append(registry, call, &name, id).await,
        Route::FinishUpload(name, id, digest) => {
            upload::finish(registry, call, name, id, digest).await
        }
        Route::CancelUpload(name, id) => upload::cancel(registry, &name, id).await,
        Route::ReadManifest(name, reference) => {
            manifest::read(registry, call, name, reference).await
        }
        Route::WriteManifest(name, reference, tags) => {
            manifest::write(registry, call, name, reference, tags).await
        }
        Route::DeleteManifest(name, reference) => {
            manifest::delete(registry, call, name, reference).await
        }
        Route::Referrers(name, digest, query) => {
            referrer::list(registry, &name, &digest, &query).await
        }
    }
}

/// The answer to a request that was refused.
pub fn refuse(error: &OciError, head: bool) -> Response<Body> {
    let body = error.body();
    let mut response = reply(error.status)
        .with(header::CONTENT_TYPE, "application/json")
        .with(header::CONTENT_LENGTH, body.len().to_string())
        .body(if head { Bytes::new() } else { body.into() });
    response.headers_mut().extend(error.headers.clone());
    response
}

/// Changes are worth a line; the rest only when somebody looks for something.
fn log(method: &Method, path: &str, response: &Response<Body>) {
    let status = response.status();
    let changed =
        status == StatusCode::CREATED || (method == Method::DELETE && status.is_success());
    let status = status.as_u16();
    if changed || response.status().is_server_error() {
        tracing::info!(%method, path, status, "request");
    } else {
        tracing::debug!(%method, path, status, "request");
    }
}

/// A response being put together.
struct Reply(http::response::Builder);

fn reply(status: StatusCode) -> Reply {
    Reply(Response::builder().status(status))
}

impl Reply {
    fn with(self, name: HeaderName, value: impl AsRef<str>) -> Self {
        match HeaderValue::from_str(value.as_ref()) {
            Ok(value) => Self(self.0.header(name, value)),
            Err(_) => self,
        }
    }

    fn with_optional(self, name: HeaderName, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    fn empty(self) -> Response<Body> {
        self.with(header::CONTENT_LENGTH, "0").body(Bytes::new())
    }

    /// A JSON document; its headers alone for a `HEAD`.
    fn json(self, media_type: &str, document: String) -> Response<Body> {
        self.with(header::CONTENT_TYPE, media_type)
            .with(header::CONTENT_LENGTH, document.len().to_string())
            .body(document.into())
    }

    fn body(self, bytes: Bytes) -> Response<Body> {
        self.stream(Body::Full(bytes))
    }

    fn stream(self, body: Body) -> Response<Body> {
        // Every header above was checked, so this cannot fail; if it did, the client
        // would get an answer without headers.
        self.0
            .body(body)
            .unwrap_or_else(|_| Response::new(Body::Full(Bytes::new())))
    }
}

/// `Link: <…>; rel="next"` (RFC 5988).
fn next(path: &str, parameters: &[(&str, &str)]) -> String {
    let encode = |text: &str| -> String {
        let bytes = text.bytes();
        bytes
            .map(|b| match b {
                b'a'..=b'z'
                | b'A'..=b'Z'
                | b'0'..=b'9'
                | b'-'
                | b'.'
                | b'_'
                | b'~'
                | b'/'
                | b':' => char::from(b).to_string(),
                other => format!("%{other:02X}"),
            })
            .collect()
    };
    let query = parameters
        .iter()
        .map(|(key, value)| format!("{key}={}", encode(value)));
    format!(
        "<{path}?{}>; rel=\"next\"",
        query.collect::<Vec<_>>().join("&")
    )
}

fn blob_unknown() -> OciError {
    OciError::new(Code::BlobUnknown, "the repository does not have this blob")
}

fn manifest_unknown() -> OciError {
    OciError::new(
        Code::ManifestUnknown,
        "the repository does not have this manifest",
    )
}

fn name_unknown() -> OciError {
    OciError::new(
        Code::NameUnknown,
        "nothing was ever pushed to this repository",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_encoded() {
        assert_eq!(
            next("/v2/a/tags/list", &[("n", "2"), ("last", "a+b\">")]),
            r#"</v2/a/tags/list?n=2&last=a%2Bb%22%3E>; rel="next""#
        );
    }
}
