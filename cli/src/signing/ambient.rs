//! The identity that the CI system gives to whatever runs in it.

use std::{env, path::Path, process::Command};

use reqwest::{Method, Url};

use super::{
    http::Http,
    token::{self, Token},
};
use crate::{Failure, Output};

/// Asks the system that runs this for a token with the audience `sigstore`; `None` where no
/// system offers an identity.
pub fn token(http: &Http, output: &Output) -> Result<Option<Token>, Failure> {
    let found = [github as Source, gitlab, buildkite, kubernetes]
        .into_iter()
        .find_map(|source| source(http).transpose());
    match found {
        Some(Ok((system, text))) => {
            let token = token::parse(text.trim())?;
            output.note(&format!("signing as {} ({system})", token.subject));
            Ok(Some(token))
        }
        Some(Err(failure)) => Err(failure),
        None => Ok(None),
    }
}

/// Nobody signs.
pub fn nobody() -> Failure {
    Failure::usage(
        "neither a key nor an identity token is given, and no CI system offers an identity",
    )
    .with_remedy(
        "Give --key or --identity-token, or log in with --browser; on GitHub set `permissions: \
         id-token: write`, on GitLab `id_tokens: SIGSTORE_ID_TOKEN: aud: sigstore`.",
    )
}

type Found = Result<Option<(&'static str, String)>, Failure>;
type Source = fn(&Http) -> Found;

/// GitHub Actions: a URL and a token for it, if the workflow may write id-tokens.
fn github(http: &Http) -> Found {
    let (Ok(url), Ok(bearer)) = (
        env::var("ACTIONS_ID_TOKEN_REQUEST_URL"),
        env::var("ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
    ) else {
        return Ok(None);
    };
    let mut url = Url::parse(&url)
        .map_err(|error| Failure::usage(format!("ACTIONS_ID_TOKEN_REQUEST_URL: {error}")))?;
    url.query_pairs_mut().append_pair("audience", AUDIENCE);
    let (reply, answer) = http.json(
        "GitHub's token service",
        Method::GET,
        url.as_str(),
        None,
        Some(&bearer),
    )?;
    match reply["value"].as_str() {
        Some(token) if answer.status == 200 => Ok(Some(("GitHub Actions", token.to_owned()))),
        _ => Err(answer.failure("GitHub's token service", url.host_str().unwrap_or_default())),
    }
}

/// GitLab, and whoever follows its name for the variable.
fn gitlab(_: &Http) -> Found {
    let token = env::var("SIGSTORE_ID_TOKEN").ok();
    Ok(token
        .filter(|token| !token.is_empty())
        .map(|token| ("SIGSTORE_ID_TOKEN", token)))
}

/// Buildkite's agent makes one.
fn buildkite(_: &Http) -> Found {
    if env::var_os("BUILDKITE").is_none() {
        return Ok(None);
    }
    let output = Command::new("buildkite-agent")
        .args(["oidc", "request-token", "--audience", AUDIENCE])
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let token = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Ok(Some(("Buildkite", token)))
        }
        Ok(output) => Err(Failure::network(format!(
            "buildkite-agent oidc request-token ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
        Err(error) => Err(Failure::usage(format!("buildkite-agent: {error}"))),
    }
}

/// A service account's token, projected into the pod.
fn kubernetes(_: &Http) -> Found {
    let named = env::var("SIGSTORE_ID_TOKEN_FILE").ok();
    for path in named.iter().map(String::as_str).chain(PROJECTED) {
        let path = Path::new(path);
        if path.is_file() {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::io("cannot read the identity token", path, error))?;
            return Ok(Some(("Kubernetes", text)));
        }
    }
    Ok(None)
}

const AUDIENCE: &str = "sigstore";
/// Where cosign's documentation has the volume projected.
const PROJECTED: [&str; 2] = [
    "/var/run/sigstore/cosign/oidc-token",
    "/var/run/secrets/tokens/sigstore",
];
