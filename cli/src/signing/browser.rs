//! A person's identity: they log in with a browser, and the answer comes back to a port of
//! this machine (OAuth 2.0 for native apps, RFC 8252, with PKCE, RFC 7636).
//!
//! The code that comes back is worth nothing without the verifier, which never leaves this
//! process but to the issuer; neither is ever printed.

use std::{env, io::IsTerminal as _, process, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bundle::Digest;
use reqwest::{Method, Url};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use zeroize::Zeroizing;

use super::{
    http::{Http, Request},
    token::{self, Token},
};
use crate::{Failure, Output};

/// How a person logs in.
#[derive(clap::Args)]
pub struct LoginArgs {
    /// Log in with a browser to sign by your own identity, also where this is no terminal.
    #[arg(long, conflicts_with_all = ["key", "identity_token"])]
    browser: bool,
    /// The same, but only print the address for a browser on this machine.
    #[arg(long, conflicts_with_all = ["key", "identity_token", "browser"])]
    no_browser: bool,
    /// Who vouches for you, instead of the signing config's issuer.
    #[arg(long, value_name = "URL", conflicts_with_all = ["key", "identity_token"])]
    oidc_issuer: Option<String>,
    /// As whom the issuer knows this program.
    #[arg(long, value_name = "ID", default_value = "sigstore")]
    oidc_client_id: String,
}

impl LoginArgs {
    /// Is it asked for, or is there a person to ask?
    pub fn is_wanted(&self) -> bool {
        self.browser || self.no_browser
    }

    /// Is there a person who could log in?
    pub fn is_possible() -> bool {
        std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }
}

/// Has the person at `issuer` log in.
pub fn token(
    http: &Http,
    args: &LoginArgs,
    issuer: Option<&str>,
    output: &Output,
) -> Result<Token, Failure> {
    let issuer = args.oidc_issuer.as_deref().or(issuer).ok_or_else(|| {
        Failure::usage("the signing config names nobody who vouches for people")
            .with_remedy("Give `--oidc-issuer URL`.")
    })?;
    let issuer = Issuer::discover(http, issuer)?;
    let secrets = Secrets::new()?;
    let (runtime, _) = http.parts()?;
    let unable = |error| Failure::internal(format!("no port to listen on: {error}"));
    let listener = runtime
        .block_on(TcpListener::bind("127.0.0.1:0"))
        .map_err(unable)?;
    let port = listener.local_addr().map_err(unable)?.port();
    let back = format!("http://localhost:{port}{CALLBACK}");
    let url = issuer.login(&args.oidc_client_id, &back, &secrets)?;
    invite(&url, args.no_browser, output);
    let code = runtime.block_on(answer(listener, &secrets.state))?;
    let text = issuer.redeem(http, &args.oidc_client_id, &back, &secrets, &code)?;
    check(&text, &issuer.name, &args.oidc_client_id, &secrets.nonce)?;
    let token = token::parse(&text)?;
    output.note(&format!("signing as {}", token.subject));
    Ok(token)
}

/// Opens the browser, or says where to go. It is standard error: `--json` stays JSON, and
/// without the address nothing would happen.
fn invite(url: &Url, only_print: bool, output: &Output) {
    if !only_print && open(url) {
        output.note("log in with the browser that opens; waiting for its answer");
        return;
    }
    anstream::eprintln!("log in with a browser on this machine:\n  {url}");
}

/// `$BROWSER`, or the desktop's own.
fn open(url: &Url) -> bool {
    let named = env::var("BROWSER").unwrap_or_default();
    let named = named.split(':').filter(|name| !name.is_empty());
    named.chain(["xdg-open"]).any(|program| {
        process::Command::new(program)
            .arg(url.as_str())
            .stdin(process::Stdio::null())
            .stdout(process::Stdio::null())
            .stderr(process::Stdio::null())
            .spawn()
            .is_ok()
    })
}

/// What ties the answer to this question, once.
struct Secrets {
    state: String,
    nonce: String,
    verifier: Zeroizing<String>,
}

impl Secrets {
    fn new() -> Result<Self, Failure> {
        let random = SystemRandom::new();
        let text = || -> Result<String, Failure> {
            let mut bytes = Zeroizing::new([0; 32]);
            random
                .fill(bytes.as_mut())
                .map_err(|_| Failure::internal("the system has no randomness"))?;
            Ok(URL_SAFE_NO_PAD.encode(bytes.as_ref()))
        };
        Ok(Self {
            state: text()?,
            nonce: text()?,
            verifier: Zeroizing::new(text()?),
        })
    }

    fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Digest::of(self.verifier.as_bytes()).as_bytes())
    }
}

/// Who vouches for people, and where (OpenID Connect Discovery 1.0).
struct Issuer {
    name: String,
    login: Url,
    token: String,
}

impl Issuer {
    fn discover(http: &Http, name: &str) -> Result<Self, Failure> {
        let name = name.trim_end_matches('/');
        safe(name)?;
        let url = format!("{name}/.well-known/openid-configuration");
        let (said, answer) = http.json(SERVICE, Method::GET, &url, None, None)?;
        let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
        if answer.status != 200 {
            return Err(answer.failure(SERVICE, &url));
        }
        // Else one issuer could send people, and their tokens, to another.
        if text("issuer").trim_end_matches('/') != name {
            return Err(Failure::network(format!(
                "{SERVICE} {name} says that it is {:?}",
                text("issuer")
            )));
        }
        let (login, token) = (text("authorization_endpoint"), text("token_endpoint"));
        safe(&token)?;
        Ok(Self {
            name: text("issuer"),
            login: safe(&login)?,
            token,
        })
    }

    /// Where the person logs in.
    fn login(&self, client: &str, back: &str, secrets: &Secrets) -> Result<Url, Failure> {
        let mut url = self.login.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", client)
            .append_pair("redirect_uri", back)
            .append_pair("scope", "openid email")
            .append_pair("state", &secrets.state)
            .append_pair("nonce", &secrets.nonce)
            .append_pair("code_challenge", &secrets.challenge())
            .append_pair("code_challenge_method", "S256");
        Ok(url)
    }

    /// The token for the code.
    fn redeem(
        &self,
        http: &Http,
        client: &str,
        back: &str,
        secrets: &Secrets,
        code: &str,
    ) -> Result<Zeroizing<String>, Failure> {
        let mut form = Url::parse("form:").map_err(|e| Failure::internal(e.to_string()))?;
        form.query_pairs_mut()
            .append_pair("grant_type", "authorization_code")
            .append_pair("client_id", client)
            .append_pair("redirect_uri", back)
            .append_pair("code", code)
            .append_pair("code_verifier", &secrets.verifier);
        let answer = http.send(&Request {
            service: SERVICE,
            method: Method::POST,
            url: &self.token,
            content_type: "application/x-www-form-urlencoded",
            accept: "application/json",
            bearer: None,
            body: form.query().unwrap_or_default().as_bytes().to_vec(),
        })?;
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match said["id_token"].as_str() {
            Some(token) if answer.status == 200 => Ok(Zeroizing::new(token.to_owned())),
            // The answer may repeat what it was asked, so its text is not shown.
            _ => Err(Failure::network(format!(
                "{SERVICE} {} answered {}: {}",
                self.token,
                answer.status,
                said["error"].as_str().unwrap_or("no identity token")
            ))
            .with_remedy("Log in again; nothing was signed.")),
        }
    }
}

/// Passwords and tokens go by TLS, or stay on this machine.
fn safe(url: &str) -> Result<Url, Failure> {
    let parsed =
        Url::parse(url).map_err(|error| Failure::usage(format!("{SERVICE} {url:?}: {error}")))?;
    let is_here = matches!(parsed.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
    match parsed.scheme() {
        "https" => Ok(parsed),
        "http" if is_here => Ok(parsed),
        scheme => Err(Failure::usage(format!(
            "{SERVICE} {url} is asked by {scheme}, and only https is safe"
        ))),
    }
}

/// Is the token for us, by them, now, and the answer to this question? That it is genuine
/// follows from TLS here (OpenID Connect Core 3.1.3.7), and Fulcio checks its signature.
fn check(text: &str, issuer: &str, client: &str, nonce: &str) -> Result<(), Failure> {
    let claims = text.split('.').nth(1).unwrap_or_default();
    let claims = URL_SAFE_NO_PAD.decode(claims).unwrap_or_default();
    let claims: Value = serde_json::from_slice(&claims).unwrap_or_default();
    let audience = match &claims["aud"] {
        Value::Array(all) => all.iter().any(|one| one == client),
        one => one == client,
    };
    let now = jiff::Timestamp::now().as_second();
    let wrong = [
        (claims["nonce"] != nonce, "answers another question (nonce)"),
        (claims["iss"] != issuer, "is by another issuer"),
        (!audience, "is for another program"),
        (claims["exp"].as_i64().unwrap_or(0) <= now, "is over"),
    ];
    match wrong.iter().find(|(is_wrong, _)| *is_wrong) {
        None => Ok(()),
        Some((_, why)) => Err(Failure::network(format!("the identity token {why}"))
            .with_remedy("Log in again; if it stays so, the issuer cannot be trusted.")),
    }
}

/// Waits for the browser to come back with the code.
async fn answer(listener: TcpListener, state: &str) -> Result<Zeroizing<String>, Failure> {
    let deadline = Instant::now() + PATIENCE;
    let (sender, mut receiver) = mpsc::channel(1);
    // Browsers open connections ahead and leave them idle: each has a task of its own.
    let state = state.to_owned();
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (sender, state) = (sender.clone(), state.clone());
            tokio::spawn(async move {
                if let Ok(Some(said)) = timeout(SLOWEST, serve(stream, &state)).await {
                    // Whoever comes second is too late.
                    let _ = sender.try_send(said);
                }
            });
        }
    });
    let said = timeout_at(deadline, receiver.recv()).await;
    server.abort();
    let nobody = || {
        Failure::usage(format!("nobody logged in within {} s", PATIENCE.as_secs()))
            .with_remedy("Try again, or give `--identity-token`.")
    };
    match said.map_err(|_| nobody())?.ok_or_else(nobody)? {
        Ok(code) => Ok(code),
        Err(error) => Err(Failure::usage(format!("the login was refused: {error}"))),
    }
}

type Said = Result<Zeroizing<String>, String>;

/// Answers one request; what it said, if it was the one that was waited for.
async fn serve(mut stream: TcpStream, state: &str) -> Option<Said> {
    let mut head = Zeroizing::new(Vec::new());
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut part = [0; 1024];
        let length = stream.read(&mut part).await.ok()?;
        head.extend_from_slice(&part[..length]);
        if length == 0 || head.len() > LARGEST_HEAD {
            return None;
        }
    }
    let said = understand(&head, state);
    let (status, text) = match &said {
        Some(Ok(_)) => ("200 OK", "You are logged in; this page can be closed."),
        Some(Err(_)) => ("200 OK", "The login was refused; the terminal says more."),
        None => ("404 Not Found", "Nothing is here."),
    };
    let page = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\nconnection: close\r\n\r\n{text}",
        text.len()
    );
    let _ = stream.write_all(page.as_bytes()).await;
    let _ = stream.shutdown().await;
    said
}

/// `None` for whatever does not know the state: it is not from the issuer that was asked.
fn understand(head: &[u8], state: &str) -> Option<Said> {
    let line = std::str::from_utf8(head).ok()?.lines().next()?;
    let target = line.strip_prefix("GET ")?.split(' ').next()?;
    let url = Url::parse("http://localhost").ok()?.join(target).ok()?;
    if url.path() != CALLBACK {
        return None;
    }
    let of = |name: &str| {
        let mut found = url.query_pairs().filter(|(key, _)| key == name);
        let (_, value) = found.next()?;
        // Twice the same name is two meanings.
        found.next().is_none().then(|| value.into_owned())
    };
    if of("state")? != state {
        return None;
    }
    match (of("error"), of("code")) {
        (Some(error), _) => Some(Err(crate::output::printable(&error))),
        (None, Some(code)) => Some(Ok(Zeroizing::new(code))),
        (None, None) => None,
    }
}

const SERVICE: &str = "the identity provider";
/// As cosign and sigstore-python have it; Sigstore's issuer knows no other.
const CALLBACK: &str = "/auth/callback";
/// A person looks for their second factor.
const PATIENCE: Duration = Duration::from_secs(180);
/// For one request of a browser on this machine.
const SLOWEST: Duration = Duration::from_secs(10);
/// Codes and states have some hundred bytes.
const LARGEST_HEAD: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_that_knows_the_state_counts() {
        for (line, want) in [
            ("GET /auth/callback?code=c&state=s HTTP/1.1", Some(Ok("c"))),
            (
                "GET /auth/callback?state=s&code=a%2Fb HTTP/1.1",
                Some(Ok("a/b")),
            ),
            (
                "GET /auth/callback?error=access_denied&state=s HTTP/1.1",
                Some(Err("access_denied")),
            ),
            ("GET /auth/callback?code=c&state=other HTTP/1.1", None),
            ("GET /auth/callback?code=c&state=s&state=s HTTP/1.1", None),
            ("GET /auth/callback?code=c&code=d&state=s HTTP/1.1", None),
            ("GET /auth/callback?code=c HTTP/1.1", None),
            ("GET /auth/callback?state=s HTTP/1.1", None),
            ("GET /favicon.ico?code=c&state=s HTTP/1.1", None),
            ("POST /auth/callback?code=c&state=s HTTP/1.1", None),
            ("", None),
        ] {
            let head = format!("{line}\r\nhost: localhost\r\n\r\n");
            let got = understand(head.as_bytes(), "s");
            let got = got.as_ref().map(|said| match said {
                Ok(code) => Ok(code.as_str()),
                Err(error) => Err(error.as_str()),
            });
            assert_eq!(got, want, "{line}");
        }
    }

    #[test]
    fn a_token_that_is_not_the_answer_is_refused_by_name() {
        let token = |claims: Value| {
            let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
            check(&format!("e30.{claims}.c2ln"), "https://i", "us", "n").map_err(|f| f.message)
        };
        let good = serde_json::json!({ "nonce": "n", "iss": "https://i", "aud": "us",
            "exp": 4_000_000_000_u64 });
        assert_eq!(token(good.clone()), Ok(()));
        for (name, value, want) in [
            ("aud", serde_json::json!(["other", "us"]), None),
            (
                "nonce",
                "m".into(),
                Some("answers another question (nonce)"),
            ),
            (
                "nonce",
                Value::Null,
                Some("answers another question (nonce)"),
            ),
            ("iss", "https://j".into(), Some("is by another issuer")),
            ("aud", "them".into(), Some("is for another program")),
            ("exp", 1.into(), Some("is over")),
            ("exp", Value::Null, Some("is over")),
        ] {
            let mut claims = good.clone();
            claims[name] = value;
            let want = want.map_or(Ok(()), |why| Err(format!("the identity token {why}")));
            assert_eq!(token(claims.clone()), want, "{claims}");
        }
    }

    #[test]
    fn an_issuer_is_asked_by_tls_or_on_this_machine() {
        for (url, want) in [
            ("https://oauth2.sigstore.dev/auth", true),
            ("http://127.0.0.1:1/", true),
            ("http://issuer.test", false),
            ("http://127.0.0.1.issuer.test", false),
            ("file:///etc", false),
            ("", false),
        ] {
            assert_eq!(safe(url).is_ok(), want, "{url}");
        }
    }
}
