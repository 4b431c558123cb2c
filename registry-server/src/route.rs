//! From method, path and query to one value that says what is asked.
//!
//! Everything a client can put into a URL is checked here, once: what comes out holds
//! only names, tags, digests and numbers that match the specification's grammar.

use std::borrow::Cow;

use http::{Method, StatusCode, header};

use crate::{
    access::{Action, Need},
    digest::{Algorithm, Digest},
    error::{Code, OciError},
    name::{Repository, Tag},
};

/// Longest path and query together: room for a name, a digest and some tags.
pub const MAX_TARGET: usize = 8 * 1024;

/// Most `tag` parameters on one manifest push (the specification asks for at least 10).
pub const MAX_TAG_PARAMETERS: usize = 32;

/// Most entries on one page of tags or repositories; the rest follows by `Link`.
pub const MAX_PAGE: u32 = 10_000;

/// A request that is well formed.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    /// `GET /v2/`: does this server speak the protocol?
    Version,
    /// `GET /v2/_catalog`: which repositories are there?
    Catalog(Page),
    /// `GET /v2/<name>/tags/list`
    Tags(Repository, Page),
    /// `GET|HEAD /v2/<name>/blobs/<digest>`
    ReadBlob(Repository, Digest),
    /// `DELETE /v2/<name>/blobs/<digest>`
    DeleteBlob(Repository, Digest),
    /// `POST /v2/<name>/blobs/uploads/`
    StartUpload(Repository, Start),
    /// `GET <upload>`: how much arrived?
    UploadStatus(Repository, UploadId),
    /// `PATCH <upload>`: the next bytes.
    Append(Repository, UploadId),
    /// `PUT <upload>?digest=`: perhaps the last bytes, and what they all should be.
    FinishUpload(Repository, UploadId, Digest),
    /// `DELETE <upload>`
    CancelUpload(Repository, UploadId),
    /// `GET|HEAD /v2/<name>/manifests/<tag-or-digest>`
    ReadManifest(Repository, Reference),
    /// `PUT /v2/<name>/manifests/<tag-or-digest>`, and further tags when pushed by digest.
    WriteManifest(Repository, Reference, Vec<Tag>),
    /// `DELETE /v2/<name>/manifests/<tag-or-digest>`
    DeleteManifest(Repository, Reference),
    /// `GET /v2/<name>/referrers/<digest>`
    Referrers(Repository, Digest, ReferrerQuery),
    /// `GET|POST /token`: a bearer token, for what the query's scopes say.
    Token(TokenQuery),
    /// `GET /admission/<name>@<digest>` or `:<tag>`: what a policy says of it.
    Admission(Repository, Reference),
    /// `GET /metrics`
    Metrics,
    /// `GET /healthz`: the process answers.
    Health,
    /// `GET /readyz`: it can serve.
    Ready,
    /// `GET /openapi.json`
    OpenApi,
    /// `GET /`: the page of all repositories.
    Home,
    /// `GET /packages/<name>`: the page of a repository.
    PackagePage(Repository),
    /// `GET /packages/<name>@<digest>` or `:<tag>`: the page of a version.
    VersionPage(Repository, Reference),
}

/// What is asked at the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TokenQuery {
    /// `scope` parameters, each `type:name:actions`, perhaps several between spaces.
    pub scopes: Vec<String>,
    /// Whether the body holds a form (`POST`).
    pub form: bool,
}

/// How `POST /v2/<name>/blobs/uploads/` wants to begin.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// A session; bytes follow. The algorithm is what the client expects to finish with.
    Session(Algorithm),
    /// The whole blob is in this request.
    Monolithic(Digest),
    /// The blob is already in another repository, in any one if none is named.
    Mount(Digest, Option<Repository>),
}

/// A tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// A name that can move.
    Tag(Tag),
    /// The content itself.
    Digest(Digest),
}

/// Part of an ordered list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Page {
    /// At most this many, at most [`MAX_PAGE`].
    pub limit: u32,
    /// Only what sorts after this.
    pub after: Option<String>,
}

/// Which referrers are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReferrerQuery {
    /// Only those of this artifact type.
    pub artifact_type: Option<String>,
    /// At most this many.
    pub limit: u32,
    /// Only those whose digest sorts after this.
    pub after: Option<Digest>,
}

/// The random name of an upload session: 128 bits, written as a version 4 UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UploadId(u128);

impl UploadId {
    /// Makes an id of 16 random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        let version_4 = (u128::from_be_bytes(bytes) & !(0xf << 76)) | (0x4 << 76);
        Self((version_4 & !(0x3 << 62)) | (0x2 << 62))
    }

    /// Reads the 36 characters of a UUID.
    pub fn parse(text: &str) -> Option<Self> {
        let groups: Vec<&str> = text.split('-').collect();
        let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if lengths != [8, 4, 4, 4, 12] || !text.bytes().all(|b| b == b'-' || hex(b)) {
            return None;
        }
        u128::from_str_radix(&groups.concat(), 16).ok().map(Self)
    }
}

impl std::fmt::Display for UploadId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hex = format!("{:032x}", self.0);
        let (a, b, c, d, e) = (
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        );
        write!(f, "{a}-{b}-{c}-{d}-{e}")
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl Route {
    /// Reads a request line. Pure: the same request always means the same thing.
    pub fn parse(method: &Method, path: &str, query: Option<&str>) -> Result<Self, OciError> {
        if path.len() + query.map_or(0, str::len) > MAX_TARGET {
            return Err(OciError::new(Code::Unsupported, "the URL is too long")
                .status(StatusCode::URI_TOO_LONG));
        }
        let path = decode(path, false)
            .ok_or_else(|| bad_request("the path is not percent-encoded UTF-8"))?;
        let query = Query::parse(query.unwrap_or(""))
            .ok_or_else(|| bad_request("the query is not percent-encoded UTF-8"))?;
        let path = match path.strip_prefix("/v2") {
            Some("" | "/") => return only(method, &[Method::GET, Method::HEAD], Self::Version),
            Some(rest) => rest.strip_prefix('/').ok_or_else(not_an_endpoint)?,
            None => return beside(method, &path, &query),
        };
        if path == "_catalog" {
            return only(method, READ, Self::Catalog(page(&query)?));
        }
        let segments: Vec<&str> = path.split('/').collect();
        match segments.as_slice() {
            [name @ .., "tags", "list"] => {
                only(method, READ, Self::Tags(repository(name)?, page(&query)?))
            }
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
                let name = repository(name)?;
                only(
                    method,
                    &[Method::POST],
                    Self::StartUpload(name, start(&query)?),
                )
            }
            [name @ .., "blobs", "uploads", id] => upload(method, repository(name)?, id, &query),
            [name @ .., "blobs", digest] => blob(method, repository(name)?, digest),
            [name @ .., "manifests", reference] => {
                manifest(method, repository(name)?, reference, &query)
            }
            [name @ .., "referrers", digest] => {
                let (name, digest) = (repository(name)?, digest.parse()?);
                only(
                    method,
                    READ,
                    Self::Referrers(name, digest, referrer_query(&query)?),
                )
            }
            _ => Err(not_an_endpoint()),
        }
    }
}

/// What the specification does not know.
fn beside(method: &Method, path: &str, query: &Query<'_>) -> Result<Route, OciError> {
    let route = match path {
        "/" => Route::Home,
        "/metrics" => Route::Metrics,
        "/healthz" => Route::Health,
        "/readyz" => Route::Ready,
        "/openapi.json" => Route::OpenApi,
        "/token" => {
            let token = Route::Token(TokenQuery {
                scopes: query.all("scope").map(str::to_owned).collect(),
                form: *method == Method::POST,
            });
            return only(method, &[Method::GET, Method::POST], token);
        }
        path if path.starts_with("/admission/") => {
            match package_page(&path["/admission/".len()..])? {
                Route::VersionPage(name, reference) => Route::Admission(name, reference),
                _ => return Err(not_an_endpoint()),
            }
        }
        path => match path.strip_prefix("/packages/") {
            Some(package) => package_page(package)?,
            None => return Err(not_an_endpoint()),
        },
    };
    only(method, READ, route)
}

fn package_page(package: &str) -> Result<Route, OciError> {
    if let Some((name, digest)) = package.split_once('@') {
        return Ok(Route::VersionPage(
            name.parse()?,
            Reference::Digest(digest.parse()?),
        ));
    }
    match package.split_once(':') {
        Some((name, tag)) => Ok(Route::VersionPage(name.parse()?, stored(tag)?)),
        None => Ok(Route::PackagePage(package.parse()?)),
    }
}

/// The parameters of a form body, decoded.
pub fn form(text: &str) -> Option<Vec<(String, String)>> {
    let query = Query::parse(text)?;
    let pairs = query.0.into_iter();
    Some(
        pairs
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect(),
    )
}

impl Route {
    /// What a caller needs for it.
    pub fn need(&self) -> Need {
        const WRITE: &[Action] = &[Action::Push, Action::Create, Action::Sign];
        match self {
            Self::Version => Need::Login,
            Self::Catalog(_) => Need::Catalog,
            Self::Tags(name, _)
            | Self::ReadBlob(name, _)
            | Self::ReadManifest(name, _)
            | Self::Referrers(name, ..)
            | Self::PackagePage(name)
            | Self::VersionPage(name, _)
            | Self::Admission(name, _) => Need::Any(name.clone(), &[Action::Pull]),
            Self::StartUpload(name, _)
            | Self::UploadStatus(name, _)
            | Self::Append(name, _)
            | Self::FinishUpload(name, ..)
            | Self::CancelUpload(name, _)
            | Self::WriteManifest(name, ..) => Need::Any(name.clone(), WRITE),
            Self::DeleteBlob(name, _) | Self::DeleteManifest(name, _) => {
                Need::Any(name.clone(), &[Action::Delete])
            }
            Self::Metrics => Need::Operator,
            Self::Token(_) | Self::Health | Self::Ready | Self::OpenApi | Self::Home => {
                Need::Nothing
            }
        }
    }

    /// Its place in [`crate::metrics::KINDS`].
    pub fn kind(&self) -> usize {
        match self {
            Self::Version => 0,
            Self::Catalog(_) => 1,
            Self::Tags(..) => 2,
            Self::ReadBlob(..) | Self::DeleteBlob(..) => 3,
            Self::StartUpload(..)
            | Self::UploadStatus(..)
            | Self::Append(..)
            | Self::FinishUpload(..)
            | Self::CancelUpload(..) => 4,
            Self::ReadManifest(..) | Self::WriteManifest(..) | Self::DeleteManifest(..) => 5,
            Self::Referrers(..) => 6,
            _ => 7,
        }
    }
}

fn upload(
    method: &Method,
    name: Repository,
    id: &str,
    query: &Query<'_>,
) -> Result<Route, OciError> {
    let id = UploadId::parse(id)
        .ok_or_else(|| OciError::new(Code::BlobUploadUnknown, "no such upload"))?;
    match *method {
        Method::GET => Ok(Route::UploadStatus(name, id)),
        Method::PATCH => Ok(Route::Append(name, id)),
        Method::DELETE => Ok(Route::CancelUpload(name, id)),
        Method::PUT => {
            let digest = query.one("digest").ok_or_else(|| {
                OciError::new(Code::DigestInvalid, "the digest parameter is missing")
            })?;
            Ok(Route::FinishUpload(name, id, digest.parse()?))
        }
        _ => Err(not_allowed("GET, PATCH, PUT, DELETE")),
    }
}

fn blob(method: &Method, name: Repository, digest: &str) -> Result<Route, OciError> {
    let digest = digest.parse()?;
    match *method {
        Method::GET | Method::HEAD => Ok(Route::ReadBlob(name, digest)),
        Method::DELETE => Ok(Route::DeleteBlob(name, digest)),
        _ => Err(not_allowed("GET, HEAD, DELETE")),
    }
}

fn manifest(
    method: &Method,
    name: Repository,
    reference: &str,
    query: &Query<'_>,
) -> Result<Route, OciError> {
    match *method {
        Method::GET | Method::HEAD => Ok(Route::ReadManifest(name, stored(reference)?)),
        Method::DELETE => Ok(Route::DeleteManifest(name, stored(reference)?)),
        Method::PUT => {
            let reference = parse_reference(reference)?;
            let tags = match reference {
                Reference::Digest(_) => tag_parameters(query)?,
                Reference::Tag(_) => Vec::new(),
            };
            Ok(Route::WriteManifest(name, reference, tags))
        }
        _ => Err(not_allowed("GET, HEAD, PUT, DELETE")),
    }
}

/// A reference to something that may exist: what cannot be a tag cannot be here.
fn stored(text: &str) -> Result<Reference, OciError> {
    if text.contains(':') {
        return Ok(Reference::Digest(text.parse()?));
    }
    let unknown = |_| OciError::new(Code::ManifestUnknown, "no manifest can have this name");
    text.parse().map(Reference::Tag).map_err(unknown)
}

fn parse_reference(text: &str) -> Result<Reference, OciError> {
    if text.contains(':') {
        Ok(Reference::Digest(text.parse()?))
    } else {
        Ok(Reference::Tag(text.parse()?))
    }
}

fn tag_parameters(query: &Query<'_>) -> Result<Vec<Tag>, OciError> {
    let tags: Vec<&str> = query.all("tag").collect();
    if tags.len() > MAX_TAG_PARAMETERS {
        let message = format!("at most {MAX_TAG_PARAMETERS} tags can be set in one request");
        return Err(OciError::new(Code::Unsupported, message).status(StatusCode::URI_TOO_LONG));
    }
    tags.into_iter().map(|tag| Ok(tag.parse()?)).collect()
}

fn start(query: &Query<'_>) -> Result<Start, OciError> {
    if let Some(digest) = query.one("mount") {
        let from = query.one("from").filter(|from| !from.is_empty());
        let from = from.map(str::parse).transpose()?;
        return Ok(Start::Mount(digest.parse()?, from));
    }
    if let Some(digest) = query.one("digest") {
        return Ok(Start::Monolithic(digest.parse()?));
    }
    let algorithm = query
        .one("digest-algorithm")
        .map_or(Ok(Algorithm::Sha256), str::parse)?;
    Ok(Start::Session(algorithm))
}

fn page(query: &Query<'_>) -> Result<Page, OciError> {
    let limit = limit(query)?;
    let after = query
        .one("last")
        .filter(|last| !last.is_empty())
        .map(str::to_owned);
    Ok(Page { limit, after })
}

fn referrer_query(query: &Query<'_>) -> Result<ReferrerQuery, OciError> {
    let wanted = query
        .one("artifactType")
        .filter(|wanted| !wanted.is_empty());
    let after = query.one("last").filter(|last| !last.is_empty());
    Ok(ReferrerQuery {
        artifact_type: wanted.map(str::to_owned),
        limit: limit(query)?,
        after: after.map(str::parse).transpose()?,
    })
}

/// `n`: digits only. More than a page holds is a page; the client follows `Link`.
fn limit(query: &Query<'_>) -> Result<u32, OciError> {
    let Some(text) = query.one("n") else {
        return Ok(MAX_PAGE);
    };
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad_request("n is not a number of entries"));
    }
    Ok(text.parse().map_or(MAX_PAGE, |n: u32| n.min(MAX_PAGE)))
}

fn repository(segments: &[&str]) -> Result<Repository, OciError> {
    Ok(segments.join("/").parse()?)
}

fn only(method: &Method, allowed: &[Method], route: Route) -> Result<Route, OciError> {
    if allowed.contains(method) {
        return Ok(route);
    }
    let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
    Err(not_allowed(&names.join(", ")))
}

fn not_allowed(allowed: &str) -> OciError {
    OciError::new(Code::Unsupported, "this endpoint does not know that method")
        .header(header::ALLOW, allowed)
}

fn bad_request(message: &str) -> OciError {
    OciError::new(Code::Unsupported, message).status(StatusCode::BAD_REQUEST)
}

fn not_an_endpoint() -> OciError {
    OciError::new(Code::NameUnknown, "this is no endpoint of the registry")
}

/// A decoded query string. Pairs beyond the hundredth are not kept.
struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).take(100);
        let decoded = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(key, true)?, decode(value, true)?))
        });
        decoded.collect::<Option<_>>().map(Self)
    }

    fn one(&self, key: &str) -> Option<&str> {
        self.all(key).next()
    }

    fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        let matching = self.0.iter().filter(move |(name, _)| name == key);
        matching.map(|(_, value)| value.as_ref())
    }
}

/// Undoes percent-encoding; `plus` says whether `+` means a space, as it does in a query
/// and does not in a path. A media type's `+json` is often sent unescaped, so a `+`
/// between two letters stays what it is.
fn decode(text: &str, plus: bool) -> Option<Cow<'_, str>> {
    let encoded = text.contains('%') || (plus && text.contains('+'));
    if !encoded {
        return Some(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let digits = std::str::from_utf8(bytes.get(at + 1..at + 3)?).ok()?;
                let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
                out.push(hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten()?);
                at += 2;
            }
            b'+' if plus && !between_letters(bytes, at) => out.push(b' '),
            other => out.push(*other),
        }
        at += 1;
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

fn between_letters(bytes: &[u8], at: usize) -> bool {
    let letter = |at: Option<usize>| {
        at.and_then(|at| bytes.get(at))
            .is_some_and(u8::is_ascii_alphanumeric)
    };
    letter(at.checked_sub(1)) && letter(at.checked_add(1))
}

const READ: &[Method] = &[Method::GET, Method::HEAD];

#[cfg(test)]
mod tests;
