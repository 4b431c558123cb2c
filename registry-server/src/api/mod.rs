//! The HTTP interface: one file per noun of the specification.

mod blob;
mod catalog;
mod conditional;
mod manifest;
mod operate;
mod page;
mod referrer;
mod tag;
mod token;
mod upload;
mod version;

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

pub use blob::small as small_blob;
pub use conditional::condition;

use crate::{
    access::{Caller, Credentials, Denial, ISSUED_FOR, Need, Principal},
    audit::Line,
    body::{Body, Intake},
    error::{Code, OciError},
    metrics::{Gauge, KINDS},
    registry::Registry,
    route::Route,
    site::Site,
};

/// `Docker-Content-Digest`, on every answer that holds or names content.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// The other side of a connection.
pub struct Peer {
    address: IpAddr,
    certificate: Option<String>,
}

impl Peer {
    /// Its address, and the name in its certificate if it showed one.
    pub fn new(address: IpAddr, certificate: Option<String>) -> Self {
        Self {
            address,
            certificate,
        }
    }
}

/// What a handler gets of a request beside its [`Route`].
pub struct Call {
    /// `HEAD` asks for the headers of a `GET` alone.
    head: bool,
    /// The request's headers.
    headers: http::HeaderMap,
    /// The request's body.
    intake: Intake,
    /// Who asks.
    caller: Caller,
    /// The rules in force when the request came.
    site: Arc<Site>,
    /// The name in the client's certificate.
    certificate: Option<String>,
}

impl Call {
    /// A header as text; one that is not text is as good as absent.
    fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The beginning of every URL that is handed out.
    fn origin(&self) -> String {
        self.site.origin(self.header(header::HOST))
    }
}

/// Answers a request. A client's mistakes and ours alike become the specification's
/// error document.
pub async fn answer(
    registry: Arc<Registry>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Response<Body> {
    let started = Instant::now();
    let _in_flight = Gauge::up(&registry.metrics.in_flight);
    let (parts, body) = request.into_parts();
    let (method, path) = (parts.method, parts.uri.path().to_owned());
    let route = Route::parse(&method, &path, parts.uri.query());
    let kind = route.as_ref().map_or(KINDS.len() - 1, Route::kind);
    let site = registry.current.site();
    let access = Arc::clone(&site.access);
    let mut call = Call {
        head: method == Method::HEAD,
        headers: parts.headers,
        intake: Intake::new(body, registry.settings.idle),
        site,
        caller: Caller {
            principal: Principal::Anonymous,
            granted: None,
            peer: peer.address,
            access,
        },
        certificate: peer.certificate.clone(),
    };
    let result = match route {
        Ok(route) => match admit(&registry, &route, &mut call).await {
            Ok(()) => handle(&registry, route, &mut call).await,
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    let response = match &result {
        Ok(_) => None,
        Err(error) => Some(refuse(error, call.head)),
    };
    note(&registry, &call, &method, &path, &result);
    let response = match (result, response) {
        (Ok(response), _) | (Err(_), Some(response)) => response,
        // Made above from every error.
        (Err(error), None) => refuse(&error, call.head),
    };
    registry
        .metrics
        .answered(kind, response.status().as_u16(), started.elapsed());
    log(&method, &path, &response);
    response
}

/// Finds out who asks, and whether they may.
async fn admit(registry: &Registry, route: &Route, call: &mut Call) -> Result<(), OciError> {
    let peer = call.caller.peer;
    let rates = &call.site.rates;
    let health = matches!(route, Route::Health | Route::Ready);
    if !health && let Err(seconds) = rates.request(peer) {
        registry.metrics.limited.fetch_add(1, Relaxed);
        return Err(slow_down(
            "more requests than one address may make",
            seconds,
        ));
    }
    // The token endpoint reads credentials for itself.
    if let Route::Token(_) = route {
        return Ok(());
    }
    let credentials = Credentials::parse(call.header(header::AUTHORIZATION));
    let access = Arc::clone(&call.site.access);
    if credentials != Credentials::None && access.is_closed() {
        rates
            .login(peer)
            .map_err(|seconds| slow_down("too many wrong passwords", seconds))?;
    }
    let certificate = call.certificate.as_deref();
    let caller = match access.identify(credentials, certificate, peer).await {
        Ok(caller) => caller,
        Err(denial) => {
            rates.failed_login(peer);
            registry.metrics.failed_logins.fetch_add(1, Relaxed);
            return Err(denied(call, denial, None));
        }
    };
    call.caller = caller;
    let need = route.need();
    access.permit(&call.caller, &need).map_err(|denial| {
        registry.metrics.denied.fetch_add(1, Relaxed);
        denied(call, denial, Some(&need))
    })
}

/// 401 with Docker's challenge, or 403.
fn denied(call: &Call, denial: Denial, need: Option<&Need>) -> OciError {
    let realm = format!(
        "Bearer realm=\"{}/token\",service=\"{ISSUED_FOR}\"",
        call.origin()
    );
    let challenge = |challenge: String, message: &str| {
        OciError::new(Code::Unauthorized, message).header(header::WWW_AUTHENTICATE, challenge)
    };
    match denial {
        Denial::Challenge(None) if matches!(need, Some(Need::Operator)) => challenge(
            format!("Basic realm=\"{ISSUED_FOR}\""),
            "this is the operator's",
        ),
        Denial::Challenge(None) => challenge(realm, "log in first"),
        Denial::Challenge(Some(scope)) => {
            let anonymous = call.caller.principal == Principal::Anonymous;
            let (why, message) = match call.caller.granted.is_some() && !anonymous {
                true => (",error=\"insufficient_scope\"", "the token is not for this"),
                false => ("", "log in first"),
            };
            challenge(format!("{realm},scope=\"{scope}\"{why}"), message)
        }
        Denial::Wrong(message) => challenge(realm, &message),
        Denial::Forbidden => {
            let message = format!("{} may not do this", call.caller.principal.name());
            OciError::new(Code::Denied, message)
        }
    }
}

fn slow_down(message: &str, seconds: u64) -> OciError {
    OciError::new(Code::TooManyRequests, message).header(header::RETRY_AFTER, seconds.to_string())
}

/// Writes and refusals go to the audit log.
fn note(
    registry: &Registry,
    call: &Call,
    method: &Method,
    path: &str,
    result: &Result<Response<Body>, OciError>,
) {
    let Some(audit) = &registry.audit else {
        return;
    };
    let writes = !matches!(*method, Method::GET | Method::HEAD);
    let (status, error) = match result {
        Ok(response) => (response.status(), None),
        Err(error) => (error.status, Some(error)),
    };
    let event = match status.as_u16() {
        // 202 to a POST or PATCH is a step on the way to a write.
        201 if writes => "write",
        202 | 204 if *method == Method::DELETE => "write",
        401 | 403 | 412 | 429 => "refusal",
        400..=499 if writes => "refusal",
        _ => return,
    };
    let digest = result.as_ref().ok().and_then(|response| {
        let digest = response.headers().get(CONTENT_DIGEST)?;
        digest.to_str().ok()
    });
    audit.write(&Line {
        time: jiff::Timestamp::now().to_string(),
        event,
        who: call.caller.principal.to_string(),
        peer: call.caller.peer.to_string(),
        method: method.as_str(),
        path,
        status: status.as_u16(),
        digest,
        code: error.map(|error| error.code.as_str()),
        reason: error
            .and_then(|error| error.reason)
            .map(policy::Reason::code),
        message: error.map(|error| error.message.as_str()),
    });
}

async fn handle(
    registry: &Arc<Registry>,
    route: Route,
    call: &mut Call,
) -> Result<Response<Body>, OciError> {
    match route {
        Route::Version => Ok(version::read()),
        Route::Catalog(page) => catalog::list(registry, call, &page).await,
        Route::Tags(name, page) => tag::list(registry, call, &name, &page).await,
        Route::ReadBlob(name, digest) => blob::read(registry, call, name, digest).await,
        Route::Admission(name, reference) => {
            manifest::admission(registry, call, name, reference).await
        }
        Route::Token(query) => token::issue(registry, call, query).await,
        Route::Metrics => operate::metrics(registry, call).await,
        Route::Health => Ok(operate::health()),
        Route::Ready => operate::ready(registry).await,
        Route::OpenApi => Ok(operate::openapi(call)),
        Route::Home => page::home(registry, call).await,
        Route::PackagePage(name) => page::package(registry, call, name).await,
        Route::VersionPage(name, reference) => page::version(registry, call, name, reference).await,
        Route::DeleteBlob(name, digest) => blob::delete(registry, call, name, digest).await,
        Route::StartUpload(name, start) => upload::start(registry, call, name, start).await,
        Route::UploadStatus(name, id) => upload::status(registry, &name, id).await,
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
            referrer::list(registry, call, &name, &digest, &query).await
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
    fn json(self, media_type: &str, document: impl Into<Bytes>) -> Response<Body> {
        let document = document.into();
        self.with(header::CONTENT_TYPE, media_type)
            .with(header::CONTENT_LENGTH, document.len().to_string())
            .body(document)
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
