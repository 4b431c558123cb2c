//! `/token`: bearer tokens, as Docker's clients ask for them (distribution's "Token
//! Authentication Specification" and "OAuth2 Token Authentication"), and the exchange of an
//! OIDC identity token for one (RFC 8693).

use std::sync::atomic::Ordering::Relaxed;

use http::{Response, StatusCode, header};

use super::{Call, reply, slow_down};
use crate::{
    access::{Credentials, Granted, ISSUED_FOR},
    body::Body,
    error::{Code, OciError},
    registry::Registry,
    route::{TokenQuery, form},
};

/// Largest form: an identity token of some KiB, and scopes.
const LARGEST_FORM: usize = 64 * 1024;

/// Most scopes in one token: its size is limited by that of a header.
const MOST_SCOPES: usize = 32;

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

pub async fn issue(
    registry: &Registry,
    call: &mut Call,
    query: TokenQuery,
) -> Result<Response<Body>, OciError> {
    let site = std::sync::Arc::clone(&call.site);
    if !site.access.is_closed() {
        let message = "this registry needs no token";
        return Err(OciError::new(Code::Unsupported, message).status(StatusCode::NOT_FOUND));
    }
    let mut credentials = Credentials::parse(call.header(header::AUTHORIZATION));
    let mut texts = query.scopes;
    if query.form {
        credentials = read_form(call, credentials, &mut texts).await?;
    }
    let scopes = scopes(&texts)?;
    let peer = call.caller.peer;
    if credentials != Credentials::None {
        let login = site.rates.login(peer);
        login.map_err(|seconds| slow_down("too many wrong passwords", seconds))?;
    }
    let asked = site
        .access
        .ask(credentials, call.certificate.as_deref(), scopes);
    let asked = match asked.await {
        Ok(asked) => asked,
        Err(message) => {
            site.rates.failed_login(peer);
            registry.metrics.failed_logins.fetch_add(1, Relaxed);
            let challenge = format!("Basic realm=\"{ISSUED_FOR}\"");
            return Err(OciError::new(Code::Unauthorized, message)
                .header(header::WWW_AUTHENTICATE, challenge));
        }
    };
    call.caller.principal = asked.principal.clone();
    let issued = site.access.issue(asked);
    let (token, seconds) = issued.ok_or_else(|| OciError::internal("no issuer"))?;
    let document = serde_json::json!({
        "token": token,
        "access_token": token,
        "token_type": "Bearer",
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "expires_in": seconds,
        "issued_at": jiff::Timestamp::now().to_string(),
    });
    Ok(reply(StatusCode::OK)
        .with(header::CACHE_CONTROL, "no-store")
        .json("application/json", document.to_string()))
}

async fn read_form(
    call: &mut Call,
    given: Credentials,
    scopes: &mut Vec<String>,
) -> Result<Credentials, OciError> {
    let mut body = Vec::new();
    while let Some(bytes) = call.intake.next().await? {
        if body.len() + bytes.len() > LARGEST_FORM {
            return Err(bad("the form is too large").status(StatusCode::PAYLOAD_TOO_LARGE));
        }
        body.extend_from_slice(&bytes);
    }
    let pairs = std::str::from_utf8(&body).ok().and_then(form);
    let pairs = pairs.ok_or_else(|| bad("the body is no form"))?;
    let one = |name: &str| {
        let pair = pairs.iter().find(|(key, _)| key == name);
        pair.map(|(_, value)| value.clone())
    };
    scopes.extend(
        pairs
            .iter()
            .filter(|(key, _)| key == "scope")
            .map(|(_, v)| v.clone()),
    );
    match one("grant_type").as_deref() {
        None => Ok(given),
        Some("password") => match (one("username"), one("password")) {
            (Some(name), Some(password)) => Ok(Credentials::Basic(name, password)),
            _ => Err(bad("username and password are missing")),
        },
        Some(EXCHANGE) => {
            let token = one("subject_token").ok_or_else(|| bad("subject_token is missing"))?;
            Ok(Credentials::Bearer(token))
        }
        Some(other) => Err(bad(&format!("the grant type {other:?} is not known"))),
    }
}

fn scopes(texts: &[String]) -> Result<Option<Vec<Granted>>, OciError> {
    let words: Vec<&str> = texts.iter().flat_map(|text| text.split(' ')).collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    if words.len() > MOST_SCOPES {
        return Err(bad("too many scopes"));
    }
    let scopes = words
        .iter()
        .map(|word| Granted::parse(word).ok_or_else(|| bad("a scope is type:name:actions")));
    let scopes = scopes.collect::<Result<Vec<_>, _>>()?;
    Ok((!scopes.is_empty()).then_some(scopes))
}

fn bad(message: &str) -> OciError {
    OciError::new(Code::Unsupported, message).status(StatusCode::BAD_REQUEST)
}
