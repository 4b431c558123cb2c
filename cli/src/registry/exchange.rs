//! One request and its answer: credentials, redirects, patience.
//!
//! Credentials go to the registry itself and to the token service it names, never to
//! where a redirect leads. A request is sent again after 408, 429, 5xx or a broken
//! connection, slower each time, and as late as `Retry-After` asks.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use reqwest::{Response, Url};

use super::{
    Error, Progress,
    challenge::{self, Challenge},
    connection::{Clients, Connection, Pace},
    credential::{Secret, Store},
    progress::Sent,
    token::{self, Scope},
};
use crate::reference::{Host, Repository};

/// One registry, as this process knows it.
pub struct Registry {
    /// Its name in references.
    pub host: Host,
    /// How patient to be with it.
    pub pace: Pace,
    origin: Url,
    clients: Clients,
    store: Store,
    /// What it accepted: a Basic header for everything, or one token for each scope.
    basic: RefCell<Option<Secret>>,
    tokens: RefCell<BTreeMap<Scope, Secret>>,
}

/// One request.
pub struct Call {
    /// Method.
    pub method: Method,
    /// Address, on the registry or wherever it sent us.
    pub url: Url,
    /// Headers beside credentials.
    pub headers: HeaderMap,
    /// Body, for methods that have one.
    pub body: Option<Bytes>,
    /// What right it needs.
    pub scope: Scope,
    /// May it be sent again without asking what became of the first?
    pub repeatable: bool,
    /// What it is about, for errors.
    pub what: String,
}

impl Registry {
    /// Knows the address; sends nothing yet.
    pub fn new(
        host: Host,
        connection: &Connection,
        store: Store,
        pace: Pace,
    ) -> Result<Self, Error> {
        Ok(Self {
            origin: connection.origin(&host)?,
            host,
            pace,
            clients: Clients::new(connection.clone()),
            store,
            basic: RefCell::default(),
            tokens: RefCell::default(),
        })
    }

    /// `/v2/NAME/REST` on this registry.
    pub fn url(&self, repository: &Repository, rest: &str) -> Url {
        let mut url = self.origin.clone();
        url.set_path(&format!("/v2/{}/{rest}", repository.name));
        url
    }

    /// `/v2/`, which says whether we may come in.
    pub fn root(&self) -> Url {
        let mut url = self.origin.clone();
        url.set_path("/v2/");
        url
    }

    /// Sends a request until it is answered with something other than "later", "who are
    /// you" or "elsewhere". The caller judges the status.
    pub async fn send(&self, call: &Call, progress: &Progress) -> Result<Response, Error> {
        let mut url = call.url.clone();
        let (mut tries, mut hops, mut answers) = (1, 0, 0);
        loop {
            let shown = self.authorization(&url, &call.scope);
            let (answer, sent) = self.send_once(call, &url, shown.clone(), progress).await;
            if !answer
                .as_ref()
                .is_ok_and(|answer| answer.status().is_success())
            {
                sent.undo();
            }
            let again = call.repeatable && tries < self.pace.tries;
            let response = match answer {
                Ok(response) => response,
                Err(_) if again => {
                    self.wait(tries, None).await;
                    tries += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match response.status() {
                StatusCode::UNAUTHORIZED if self.owns(&url) && answers < 2 => {
                    answers += 1;
                    // Another request may have been let in meanwhile.
                    let known = self.authorization(&url, &call.scope);
                    if known == shown && !self.authorize(&response, call).await? {
                        return Ok(response);
                    }
                }
                status if status.is_redirection() && is_read(&call.method) => {
                    hops += 1;
                    url = self.follow(&response, &url, hops)?;
                }
                status if again && is_transient(status) => {
                    let wait = retry_after(response.headers());
                    if wait.is_some_and(|wait| wait > self.pace.longest_wait) {
                        return Ok(response);
                    }
                    self.wait(tries, wait).await;
                    tries += 1;
                }
                _ => return Ok(response),
            }
        }
    }

    /// Waits before try number `tries + 1`.
    pub async fn wait(&self, tries: u32, asked: Option<Duration>) {
        let doubled = self.pace.first_wait * 2_u32.saturating_pow(tries.saturating_sub(1).min(8));
        // Up to half as long again, so that many clients do not come back at once.
        let jitter = doubled.mul_f64(f64::from(random_byte()) / 512.0);
        tokio::time::sleep(asked.unwrap_or(doubled + jitter)).await;
    }

    /// Where a `Location` of an upload leads.
    pub fn locate(&self, base: &Url, headers: &HeaderMap) -> Result<Url, Error> {
        let location = headers
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| self.protocol("gives no Location"))?;
        let mut url = base
            .join(location)
            .map_err(|error| self.protocol(format!("gives a Location that is no URL: {error}")))?;
        // Behind a proxy that ends TLS many registries think that they speak HTTP.
        let same_host = url.host_str() == self.origin.host_str();
        if same_host && self.origin.scheme() == "https" && url.scheme() == "http" {
            let _ = url.set_scheme("https");
            let _ = url.set_port(self.origin.port());
        }
        self.refuse_downgrade(&url)?;
        Ok(url)
    }

    /// An error about this registry's behaviour.
    pub fn protocol(&self, what: impl Into<String>) -> Error {
        Error::Protocol {
            host: self.host.to_string(),
            what: what.into(),
        }
    }

    /// The error that an unexpected answer means.
    pub async fn failed(&self, response: Response, what: &str) -> Error {
        let status = response.status();
        let host = response
            .url()
            .host_str()
            .filter(|_| !self.owns(response.url()))
            .map_or_else(|| self.host.to_string(), str::to_owned);
        let said = words(response, self.pace.silence).await;
        let what = what.to_owned();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Error::Denied {
                host,
                what,
                status,
                said,
            };
        }
        Error::Server {
            host,
            what,
            status,
            said,
        }
    }

    /// The error that a broken connection means.
    pub fn broken(&self, url: &Url, error: &reqwest::Error) -> Error {
        self.unreachable(url, causes(error))
    }

    /// The error that silence means.
    pub fn silent(&self, url: &Url) -> Error {
        self.unreachable(url, "it fell silent".to_owned())
    }

    fn unreachable(&self, url: &Url, cause: String) -> Error {
        let host = if self.owns(url) {
            self.host.to_string()
        } else {
            url.host_str().unwrap_or_default().to_owned()
        };
        Error::Unreachable {
            host,
            cause,
            secure: url.scheme() == "https",
        }
    }

    async fn send_once(
        &self,
        call: &Call,
        url: &Url,
        shown: Option<HeaderValue>,
        progress: &Progress,
    ) -> (Result<Response, Error>, Sent) {
        let nothing = Bytes::new();
        let (body, sent) = progress.counted(call.body.as_ref().unwrap_or(&nothing));
        let client = match self.clients.of(url) {
            Ok(client) => client,
            Err(error) => return (Err(error), sent),
        };
        let mut request = client
            .request(call.method.clone(), url.clone())
            .headers(call.headers.clone());
        if let Some(value) = shown {
            request = request.header(AUTHORIZATION, value);
        }
        let mut patience = ANSWER_TIMEOUT;
        if let Some(bytes) = &call.body {
            patience += Duration::from_secs(bytes.len() as u64 / SLOWEST_UPLOAD);
            request = request.header(CONTENT_LENGTH, bytes.len()).body(body);
        }
        let answer = match tokio::time::timeout(patience, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.broken(url, &error)),
            Err(_) => Err(self.silent(url)),
        };
        (answer, sent)
    }

    /// The header for this address, if it is the registry's own.
    fn authorization(&self, url: &Url, scope: &Scope) -> Option<HeaderValue> {
        if !self.owns(url) {
            return None;
        }
        let tokens = self.tokens.borrow();
        let basic = self.basic.borrow();
        let secret = match tokens.get(scope) {
            Some(token) => format!("Bearer {}", token.expose()),
            None => basic.as_ref()?.expose().to_owned(),
        };
        let mut value = HeaderValue::from_str(&secret).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Gets what the registry asks for; false when we have nothing (new) to show.
    async fn authorize(&self, response: &Response, call: &Call) -> Result<bool, Error> {
        let lines = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let challenges = challenge::parse(lines);
        let repository = call.scope.repository();
        let credential = self.store.find(&self.host, repository)?;
        for challenge in challenges {
            match challenge {
                Challenge::Basic => {
                    let basic = credential.as_ref().and_then(|known| known.basic());
                    if basic.is_none() || *self.basic.borrow() == basic {
                        continue;
                    }
                    self.basic.replace(basic);
                    return Ok(true);
                }
                Challenge::Bearer {
                    realm,
                    service,
                    scope,
                } => {
                    let realm = self.realm(&realm)?;
                    let client = self.clients.of(&realm)?;
                    let request = token::Request {
                        realm,
                        service,
                        scopes: call.scope.with(scope.as_deref()),
                    };
                    let token = request.ask(self, client, credential.as_ref()).await?;
                    self.tokens.borrow_mut().insert(call.scope.clone(), token);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Where tokens come from; as safe as the registry itself.
    fn realm(&self, realm: &str) -> Result<Url, Error> {
        let url = Url::parse(realm).map_err(|error| {
            self.protocol(format!("names a token service that is no URL: {error}"))
        })?;
        self.refuse_downgrade(&url)?;
        Ok(url)
    }

    fn follow(&self, response: &Response, from: &Url, hops: u32) -> Result<Url, Error> {
        if hops > MOST_REDIRECTS {
            return Err(self.protocol("redirects in circles"));
        }
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| self.protocol("redirects to nowhere"))?;
        let url = from.join(location).map_err(|error| {
            self.protocol(format!("redirects to something that is no URL: {error}"))
        })?;
        self.refuse_downgrade(&url)?;
        Ok(url)
    }

    fn refuse_downgrade(&self, url: &Url) -> Result<(), Error> {
        match (self.origin.scheme(), url.scheme()) {
            ("https", "http") => Err(self.protocol(format!(
                "leads from HTTPS to plain HTTP on {}",
                url.host_str().unwrap_or_default()
            ))),
            (_, "http" | "https") => Ok(()),
            (_, other) => Err(self.protocol(format!("leads to a {other} address"))),
        }
    }

    fn owns(&self, url: &Url) -> bool {
        url.origin() == self.origin.origin()
    }
}

/// The error and its causes as one clause, without addresses: they may hold tokens.
pub fn causes(error: &reqwest::Error) -> String {
    let mut clauses = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        clauses.push(cause.to_string());
        source = cause.source();
    }
    // The innermost says it best; the outer ones say "client error".
    match clauses.pop() {
        Some(clause) => clause,
        None if error.is_timeout() => "it took too long".to_owned(),
        None => "the exchange failed".to_owned(),
    }
}

/// The registry's own words about an error (distribution-spec, "Error Codes"), after a
/// colon, if it has any.
async fn words(response: Response, patience: Duration) -> String {
    let text = async {
        let mut response = response;
        let mut bytes = Vec::new();
        while bytes.len() < LONGEST_WORDS {
            match response.chunk().await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                _ => break,
            }
        }
        bytes
    };
    let Ok(bytes) = tokio::time::timeout(patience, text).await else {
        return String::new();
    };
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(serde::Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(errors) = serde_json::from_slice::<Errors>(&bytes) else {
        return String::new();
    };
    errors
        .errors
        .into_iter()
        .map(|one| {
            format!(": {} {}", one.code, one.message)
                .trim_end()
                .to_owned()
        })
        .collect()
}

fn is_read(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// `Retry-After` in seconds; the form with a date is answered with the usual wait.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
        .map(Duration::from_secs)
}

fn random_byte() -> u8 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The standard library seeds its hash maps at random: enough for spreading waits.
    std::hash::RandomState::new().build_hasher().finish() as u8
}

/// A server that syncs a gigabyte to disk before it answers still makes it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes per second: an upload slower than a modem is dead.
const SLOWEST_UPLOAD: u64 = 4 << 10;

/// Registries redirect once, to their object store; object stores once more.
const MOST_REDIRECTS: u32 = 5;

/// An error document longer than this is not for people.
const LONGEST_WORDS: usize = 16 << 10;
