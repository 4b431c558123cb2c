//! Requests to Sigstore's services and to time-stamp authorities.

use std::{cell::OnceCell, time::Duration};

use reqwest::{Client, Method, Url, header};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{Failure, registry::causes};

/// A client, made when it is first used: local signing needs none.
pub struct Http {
    parts: OnceCell<(Runtime, Client)>,
}

/// An answer.
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// Where it says that something is.
    pub location: Option<String>,
    /// Its body.
    pub body: Vec<u8>,
}

/// What is asked.
pub struct Request<'r> {
    /// The service, for messages.
    pub service: &'r str,
    pub method: Method,
    pub url: &'r str,
    pub content_type: &'r str,
    pub accept: &'r str,
    pub bearer: Option<&'r str>,
    pub body: Vec<u8>,
}

impl Http {
    pub const fn new() -> Self {
        Self {
            parts: OnceCell::new(),
        }
    }

    /// Sends it; tries again twice where a service says that it is busy.
    pub fn send(&self, request: &Request<'_>) -> Result<Answer, Failure> {
        let (runtime, client) = self.parts()?;
        let failed = |error: String| {
            Failure::network(format!("{} {}: {error}", request.service, request.url))
                .with_remedy("Is the service up? Nothing was signed; try again.")
        };
        let url = Url::parse(request.url).map_err(|error| {
            Failure::usage(format!("{} {:?}: {error}", request.service, request.url))
        })?;
        runtime.block_on(async {
            let mut last = String::new();
            for wait in WAITS {
                tokio::time::sleep(wait).await;
                let mut builder = client
                    .request(request.method.clone(), url.clone())
                    .header(header::ACCEPT, request.accept)
                    .body(request.body.clone());
                if !request.content_type.is_empty() {
                    builder = builder.header(header::CONTENT_TYPE, request.content_type);
                }
                if let Some(token) = request.bearer {
                    builder = builder.bearer_auth(token);
                }
                match exchange(builder).await {
                    Ok(answer) if BUSY.contains(&answer.status) => {
                        last = format!("it answered {}", answer.status);
                    }
                    Ok(answer) => return Ok(answer),
                    Err(error) => last = error,
                }
            }
            Err(failed(last))
        })
    }

    /// Sends JSON and expects JSON with a status of success.
    pub fn json(
        &self,
        service: &str,
        method: Method,
        url: &str,
        body: Option<&Value>,
        bearer: Option<&str>,
    ) -> Result<(Value, Answer), Failure> {
        let answer = self.send(&Request {
            service,
            method,
            url,
            content_type: if body.is_some() {
                "application/json"
            } else {
                ""
            },
            accept: "application/json",
            bearer,
            body: body
                .map(|body| body.to_string().into_bytes())
                .unwrap_or_default(),
        })?;
        let value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        Ok((value, answer))
    }

    /// The event loop and the client, for who speaks differently.
    pub fn parts(&self) -> Result<&(Runtime, Client), Failure> {
        if let Some(parts) = self.parts.get() {
            return Ok(parts);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::internal(format!("no event loop: {error}")))?;
        let client = Client::builder()
            .user_agent(concat!("bpfseal/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(60))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Failure::network(format!("no HTTP client: {}", causes(&error))))?;
        Ok(self.parts.get_or_init(|| (runtime, client)))
    }
}

async fn exchange(builder: reqwest::RequestBuilder) -> Result<Answer, String> {
    let mut response = builder.send().await.map_err(|error| causes(&error))?;
    let status = response.status().as_u16();
    let location = response.headers().get(header::LOCATION);
    let location = location.and_then(|l| l.to_str().ok()).map(str::to_owned);
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| causes(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() > LARGEST_ANSWER {
            return Err(format!("its answer has over {LARGEST_ANSWER} bytes"));
        }
    }
    Ok(Answer {
        status,
        location,
        body,
    })
}

impl Answer {
    /// The service did something else than it was asked for.
    pub fn failure(&self, service: &str, url: &str) -> Failure {
        let text = String::from_utf8_lossy(&self.body);
        let text: String = text.trim().chars().take(300).collect();
        let message = format!("{service} {url} answered {}: {text}", self.status);
        match self.status {
            400..=499 => Failure::network(message)
                .with_remedy("Is the token for this service, and still valid? Nothing was signed."),
            _ => Failure::network(message)
                .with_remedy("Is the service up? Nothing was signed; try again."),
        }
    }
}

/// Before each try.
const WAITS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_secs(2),
];
/// Too many requests, and the ways to be down for a moment.
const BUSY: [u16; 4] = [429, 502, 503, 504];
/// Certificates and proofs have some kilobytes.
const LARGEST_ANSWER: usize = 4 << 20;
