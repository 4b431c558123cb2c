//! Trusted publishing: a CI job shows its OpenID Connect identity token, and no secret is
//! stored anywhere. (OpenID Connect Core 1.0, section 3.1.3.7; RFC 7515, 7517, 7519.)

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::signature::{
    self, ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::{config, metadata};

/// For how long an issuer's keys are not asked for again.
const KEYS_LAST: Duration = Duration::from_secs(300);

/// How often keys may be asked for because a token names an unknown one.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// Clocks of issuers and ours may differ by this many seconds.
const LEEWAY: u64 = 60;

/// Largest token, largest answer of an issuer.
const MOST_TOKEN: usize = 16 * 1024;
const MOST_ANSWER: usize = 1 << 20;

/// The publishers of a configuration, and the keys of their issuers.
pub struct Publishers {
    rules: Vec<config::Publisher>,
    client: reqwest::Client,
    keys: Mutex<HashMap<String, Arc<Keys>>>,
}

struct Keys {
    asked: Instant,
    keys: Vec<Key>,
}

/// A key of a JSON Web Key Set, of which only signing keys are used.
#[derive(Deserialize)]
struct Key {
    #[serde(default)]
    kid: String,
    kty: String,
    #[serde(default, rename = "use")]
    purpose: Option<String>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

impl Publishers {
    /// Those of a configuration. An issuer is asked over TLS, or on this machine.
    pub fn new(rules: &[config::Publisher]) -> Result<Self, config::ConfigError> {
        for rule in rules {
            if !secure(&rule.issuer) {
                return Err(config::ConfigError::Unusable(format!(
                    "publisher {}: the issuer {} is not https (http only on loopback addresses)",
                    rule.name, rule.issuer
                )));
            }
        }
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| config::ConfigError::Unusable(error.to_string()))?;
        Ok(Self {
            rules: rules.to_vec(),
            client,
            keys: Mutex::new(HashMap::new()),
        })
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a publisher of this name is configured.
    pub fn knows(&self, name: &str) -> bool {
        self.rules.iter().any(|rule| rule.name == name)
    }

    /// The publisher that an identity token is from: its name and its subject. Otherwise
    /// why not.
    pub async fn identify(&self, token: &str) -> Result<(String, String), String> {
        let (claims, signed) = read(token).ok_or("the identity token is malformed")?;
        let issuer = claims["iss"].as_str().unwrap_or_default();
        let rules: Vec<_> = self.rules.iter().filter(|r| r.issuer == issuer).collect();
        if rules.is_empty() {
            return Err(format!("no publisher has the issuer {issuer:?}"));
        }
        let keys = self.keys(issuer, &signed.header.kid).await?;
        let fits = |key: &&Key| signed.header.kid.is_empty() || key.kid == signed.header.kid;
        let valid = keys
            .keys
            .iter()
            .filter(fits)
            .any(|key| key.verifies(&signed));
        if !valid {
            return Err("no key of the issuer signed the identity token".to_owned());
        }
        in_time(&claims)?;
        let subject = claims["sub"].as_str().unwrap_or_default().to_owned();
        let rule = rules.iter().find(|rule| matches(rule, &claims, &subject));
        rule.map(|rule| (rule.name.clone(), subject.clone()))
            .ok_or_else(|| {
                format!("no publisher has this audience, subject {subject:?} and claims")
            })
    }

    async fn keys(&self, issuer: &str, wanted: &str) -> Result<Arc<Keys>, String> {
        let mut known = self.keys.lock().await;
        if let Some(keys) = known.get(issuer) {
            let age = keys.asked.elapsed();
            let has = wanted.is_empty() || keys.keys.iter().any(|key| key.kid == wanted);
            if age < if has { KEYS_LAST } else { ASK_AGAIN } {
                return Ok(Arc::clone(keys));
            }
        }
        let fetched = self.fetch(issuer).await;
        match (fetched, known.get(issuer)) {
            (Ok(keys), _) => {
                let keys = Arc::new(keys);
                known.insert(issuer.to_owned(), Arc::clone(&keys));
                Ok(keys)
            }
            // An issuer that is away does not stop those whose keys are known.
            (Err(error), Some(keys)) => {
                tracing::warn!(%issuer, %error, "the issuer's keys could not be read anew");
                Ok(Arc::clone(keys))
            }
            (Err(error), None) => Err(format!("the issuer's keys cannot be read: {error}")),
        }
    }

    async fn fetch(&self, issuer: &str) -> Result<Keys, String> {
        let place = format!(
            "{}/.well-known/openid-configuration",
            issuer.trim_end_matches('/')
        );
        let discovery: Discovery = self.json(&place).await?;
        if discovery.issuer != issuer {
            return Err(format!("it says that it is {}", discovery.issuer));
        }
        if !secure(&discovery.jwks_uri) {
            return Err(format!("{} is not https", discovery.jwks_uri));
        }
        let set: KeySet = self.json(&discovery.jwks_uri).await?;
        let keys = set.keys.into_iter();
        // A key of a kind that is unknown here spoils only itself.
        let keys = keys.filter_map(|key| serde_json::from_value::<Key>(key).ok());
        Ok(Keys {
            asked: Instant::now(),
            keys: keys
                .filter(|key| {
                    key.purpose
                        .as_deref()
                        .is_none_or(|purpose| purpose == "sig")
                })
                .collect(),
        })
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, place: &str) -> Result<T, String> {
        let say = |error: reqwest::Error| error.without_url().to_string();
        let mut answer = self.client.get(place).send().await.map_err(say)?;
        if !answer.status().is_success() {
            return Err(format!("{place} answers {}", answer.status()));
        }
        let mut body = Vec::new();
        while let Some(bytes) = answer.chunk().await.map_err(say)? {
            if body.len() + bytes.len() > MOST_ANSWER {
                return Err(format!("{place} answers too much"));
            }
            body.extend_from_slice(&bytes);
        }
        serde_json::from_slice(&body).map_err(|error| format!("{place}: {error}"))
    }
}

/// What a token's issuer must have signed.
pub struct Signed<'a> {
    header: Header,
    bytes: &'a [u8],
    signature: Vec<u8>,
}

impl Key {
    fn verifies(&self, signed: &Signed<'_>) -> bool {
        let decode = |part: &Option<String>| BASE64.decode(part.as_deref()?).ok();
        // The key's kind decides how it verifies; the token's header must agree.
        match (self.kty.as_str(), signed.header.alg.as_str()) {
            ("RSA", "RS256") => {
                let (Some(n), Some(e)) = (decode(&self.n), decode(&self.e)) else {
                    return false;
                };
                signature::RsaPublicKeyComponents { n: &n, e: &e }
                    .verify(&RSA_PKCS1_2048_8192_SHA256, signed.bytes, &signed.signature)
                    .is_ok()
            }
            ("EC", "ES256") if self.crv.as_deref() == Some("P-256") => {
                let (Some(x), Some(y)) = (decode(&self.x), decode(&self.y)) else {
                    return false;
                };
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                    .verify(signed.bytes, &signed.signature)
                    .is_ok()
            }
            _ => false,
        }
    }
}

/// Whether `text` has the shape of a token: then it is no password.
pub fn is_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.matches('.').count() == 2
}

/// Parses without believing anything.
pub fn read(token: &str) -> Option<(Value, Signed<'_>)> {
    if token.len() > MOST_TOKEN {
        return None;
    }
    let (bytes, signature) = token.rsplit_once('.')?;
    let (header, claims) = bytes.split_once('.')?;
    let header = serde_json::from_slice(&BASE64.decode(header).ok()?).ok()?;
    let claims: Value = serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
    let signature = BASE64.decode(signature).ok()?;
    let signed = Signed {
        header,
        bytes: bytes.as_bytes(),
        signature,
    };
    claims.is_object().then_some((claims, signed))
}

fn in_time(claims: &Value) -> Result<(), String> {
    let now = metadata::now().unsigned_abs();
    let number = |name: &str| claims[name].as_f64().map(|seconds| seconds as u64);
    let end = number("exp").ok_or("the identity token has no end")?;
    if end.saturating_add(LEEWAY) < now {
        return Err("the identity token's time is over".to_owned());
    }
    if number("nbf").is_some_and(|start| start > now + LEEWAY) {
        return Err("the identity token's time has not come".to_owned());
    }
    Ok(())
}

fn matches(rule: &config::Publisher, claims: &Value, subject: &str) -> bool {
    let audience = match &claims["aud"] {
        Value::String(audience) => *audience == rule.audience,
        Value::Array(audiences) => audiences.iter().any(|a| *a == rule.audience.as_str()),
        _ => false,
    };
    let claim = |(name, want): (&String, &config::Glob)| match &claims[name.as_str()] {
        Value::String(got) => want.covers(got),
        got @ (Value::Bool(_) | Value::Number(_)) => want.covers(&got.to_string()),
        _ => false,
    };
    audience && rule.subject.covers(subject) && rule.claims.iter().all(claim)
}

fn secure(place: &str) -> bool {
    if place.starts_with("https://") {
        return true;
    }
    let Some(rest) = place.strip_prefix("http://") else {
        return false;
    };
    let host = rest.split('/').next().unwrap_or("");
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(""),
        None => host.rsplit_once(':').map_or(host, |(host, _)| host),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_are_asked_over_tls_or_here() {
        for (place, want) in [
            ("https://issuer.example", true),
            ("http://issuer.example", false),
            ("http://127.0.0.1:8080/x", true),
            ("http://[::1]:8080", true),
            ("http://localhost", true),
            ("http://127.0.0.1.evil.example", false),
            ("http://localhost@evil.example", false),
            ("file:///etc/passwd", false),
        ] {
            assert_eq!(secure(place), want, "{place}");
        }
    }

    #[test]
    fn all_claims_must_fit() {
        let config = "[[auth.publisher]]\nname = \"ci\"\nissuer = \"https://i\"\n\
            audience = \"registry\"\nsubject = \"repo:acme/*\"\nclaims = { ref = \"refs/heads/main\" }";
        let config = config::Config::parse(config).unwrap();
        let rule = &config.auth.unwrap().publisher[0];
        let claims = |aud: Value, sub: &str, branch: &str| serde_json::json!({ "aud": aud, "sub": sub, "ref": format!("refs/heads/{branch}") });
        for (claims, want) in [
            (claims("registry".into(), "repo:acme/x", "main"), true),
            (
                claims(vec!["y", "registry"].into(), "repo:acme/x", "main"),
                true,
            ),
            (claims("other".into(), "repo:acme/x", "main"), false),
            (claims(Value::Null, "repo:acme/x", "main"), false),
            (claims("registry".into(), "repo:evil/x", "main"), false),
            (claims("registry".into(), "repo:acme/x", "dev"), false),
        ] {
            let subject = claims["sub"].as_str().unwrap().to_owned();
            assert_eq!(matches(rule, &claims, &subject), want, "{claims}");
        }
    }
}
