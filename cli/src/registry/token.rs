//! Bearer tokens, as Docker's "Token Authentication" and its OAuth2 form define them.

use std::{collections::BTreeSet, time::Duration};

use http::{Method, header::AUTHORIZATION};
use reqwest::Url;
use serde::Deserialize;

use super::{
    Error,
    credential::{Credential, Secret},
    exchange::{Registry, causes},
};
use crate::reference::Repository;

/// The rights that a request needs: names of scopes, sorted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    repository: String,
    scopes: BTreeSet<String>,
}

impl Scope {
    /// To come in at all.
    pub const fn none() -> Self {
        Self {
            repository: String::new(),
            scopes: BTreeSet::new(),
        }
    }

    /// To read.
    pub fn pull(repository: &Repository) -> Self {
        Self::of(repository, "pull")
    }

    /// To read and write.
    pub fn push(repository: &Repository) -> Self {
        Self::of(repository, "pull,push")
    }

    /// And to read from another repository, so as to mount its blobs.
    pub fn and_pull(mut self, from: &Repository) -> Self {
        self.scopes.insert(format!("repository:{}:pull", from.name));
        self
    }

    fn of(repository: &Repository, actions: &str) -> Self {
        Self {
            repository: repository.name.clone(),
            scopes: [format!("repository:{}:{actions}", repository.name)].into(),
        }
    }

    /// The repository, for which credentials are looked up.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// These scopes and the challenge's own, if it names another kind.
    pub fn with(&self, challenged: Option<&str>) -> Vec<String> {
        let mut scopes: Vec<String> = self.scopes.iter().cloned().collect();
        for scope in challenged.into_iter().flat_map(str::split_whitespace) {
            let resource = scope
                .rsplit_once(':')
                .map_or(scope, |(resource, _)| resource);
            let covered = |ours: &String| ours.rsplit_once(':').map(|(r, _)| r) == Some(resource);
            if !scopes.iter().any(covered) {
                scopes.push(scope.to_owned());
            }
        }
        scopes
    }
}

/// A question to a token service.
pub struct Request {
    /// Its address.
    pub realm: Url,
    /// For which service.
    pub service: Option<String>,
    /// For which rights.
    pub scopes: Vec<String>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Request {
    /// Asks: with a refresh token by POST, with a password or nothing by GET.
    pub async fn ask(
        &self,
        registry: &Registry,
        client: &reqwest::Client,
        credential: Option<&Credential>,
    ) -> Result<Secret, Error> {
        let mut tries = 1;
        loop {
            let request = match credential {
                Some(Credential::Identity(token)) => self.refresh(client, token),
                other => self.get(client, other.and_then(|known| known.basic()).as_ref()),
            };
            let again = tries < registry.pace.tries;
            match tokio::time::timeout(ANSWER_TIMEOUT, request.send()).await {
                Ok(Ok(response)) if again && response.status().is_server_error() => {}
                Ok(Ok(response)) if response.status().is_success() => {
                    return read(registry, response).await;
                }
                Ok(Ok(response)) => {
                    let what = self.scopes.join(" ");
                    let what = format!(
                        "a token for {}",
                        if what.is_empty() { "login" } else { &what }
                    );
                    return Err(match registry.failed(response, &what).await {
                        // The remedy names the registry, not its token service.
                        Error::Denied {
                            what, status, said, ..
                        } => Error::Denied {
                            host: registry.host.to_string(),
                            what,
                            status,
                            said,
                        },
                        other => other,
                    });
                }
                _ if again => {}
                Ok(Err(error)) => return Err(registry.broken(&self.realm, &error)),
                Err(_) => return Err(registry.silent(&self.realm)),
            }
            registry.wait(tries, None).await;
            tries += 1;
        }
    }

    fn get(&self, client: &reqwest::Client, basic: Option<&Secret>) -> reqwest::RequestBuilder {
        let mut url = self.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &self.service {
                query.append_pair("service", service);
            }
            for scope in &self.scopes {
                query.append_pair("scope", scope);
            }
            query.append_pair("client_id", CLIENT);
        }
        let request = client.get(url);
        match basic {
            Some(basic) => request.header(AUTHORIZATION, basic.expose()),
            None => request,
        }
    }

    fn refresh(&self, client: &reqwest::Client, token: &Secret) -> reqwest::RequestBuilder {
        let mut form = Url::parse("form:").unwrap_or_else(|_| self.realm.clone());
        form.query_pairs_mut()
            .clear()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", self.service.as_deref().unwrap_or_default())
            .append_pair("scope", &self.scopes.join(" "))
            .append_pair("client_id", CLIENT)
            .append_pair("refresh_token", token.expose());
        client
            .request(Method::POST, self.realm.clone())
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form.query().unwrap_or_default().to_owned())
    }
}

async fn read(registry: &Registry, mut response: reqwest::Response) -> Result<Secret, Error> {
    let url = response.url().clone();
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    loop {
        match tokio::time::timeout(ANSWER_TIMEOUT, response.chunk()).await {
            Ok(Ok(Some(chunk))) if bytes.len() + chunk.len() <= LONGEST_ANSWER => {
                bytes.extend_from_slice(&chunk);
            }
            Ok(Ok(None)) => break,
            Ok(Ok(Some(_))) => return Err(registry.protocol("gives a token of absurd length")),
            Ok(Err(error)) => {
                return Err(Error::Unreachable {
                    host: registry.host.to_string(),
                    cause: causes(&error),
                    secure: url.scheme() == "https",
                });
            }
            Err(_) => return Err(registry.silent(&url)),
        }
    }
    let answer: Answer = serde_json::from_slice(&bytes)
        .map_err(|_| registry.protocol("has a token service that gives no token"))?;
    let token = if answer.token.is_empty() {
        answer.access_token
    } else {
        answer.token
    };
    if token.is_empty() {
        return Err(registry.protocol("has a token service that gives an empty token"));
    }
    Ok(Secret::new(token))
}

/// Who asks, in the token service's log.
const CLIENT: &str = "bpfseal";

/// Token services answer at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Tokens with many groups in them reach tens of kilobytes.
const LONGEST_ANSWER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_for_what_is_needed_and_what_was_challenged() {
        let a: Repository = "r.io/a/b".parse().unwrap();
        let c: Repository = "r.io/c".parse().unwrap();
        for (scope, challenged, want) in [
            (Scope::none(), None, vec![]),
            (
                Scope::none(),
                Some("registry:catalog:*"),
                vec!["registry:catalog:*"],
            ),
            (
                Scope::push(&a),
                Some("repository:a/b:pull"),
                vec!["repository:a/b:pull,push"],
            ),
            (
                Scope::push(&a).and_pull(&c),
                Some("repository:a/b:pull,push x:y:z"),
                vec!["repository:a/b:pull,push", "repository:c:pull", "x:y:z"],
            ),
        ] {
            assert_eq!(scope.with(challenged), want);
        }
    }
}
