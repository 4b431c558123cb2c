//! The configuration file: TOML, in which an unknown key is an error with its place.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, de};

use crate::access::Action;

/// Everything that a file can say. What it leaves out has the default of the flag, or is off.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address to listen on.
    pub listen: Option<String>,
    /// Folder of the registry.
    pub root: Option<PathBuf>,
    /// `host[:port]` that clients write: the first part of policy scopes, and where tokens
    /// are fetched. Else what the client wrote.
    pub name: Option<String>,
    /// `https` where a proxy in front speaks TLS.
    pub scheme: Option<String>,
    /// TLS by the registry itself.
    pub tls: Option<Tls>,
    /// Who may log in. Without it everybody may do everything.
    pub auth: Option<Auth>,
    /// Who may do what where.
    pub access: Vec<Rule>,
    /// What holds in which repositories.
    pub repository: Vec<RepositoryRule>,
    /// What was signed once and is not good any more.
    pub revocation: Option<Revocation>,
    /// How much one client may ask for.
    pub limits: Limits,
    /// Where the audit log is.
    pub audit: Audit,
    /// Where everything is kept, if not in the folder.
    pub storage: Storage,
}

/// `[tls]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The server's certificate and what leads to its root, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// Roots of clients' certificates, in PEM: mutual TLS.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is turned away during the handshake.
    #[serde(default)]
    pub require_client_certificate: bool,
}

/// `[auth]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Users and their bcrypt hashes, `name:hash` by line.
    pub htpasswd: Option<PathBuf>,
    /// Whether everybody may pull everything.
    pub anonymous_pull: bool,
    /// The secret that signs tokens, shared by all instances. Else `ROOT/token.key`.
    pub token_key: Option<PathBuf>,
    /// How long a token is good for.
    pub token_seconds: Option<u64>,
    /// CI identities that may log in without a stored secret.
    pub publisher: Vec<Publisher>,
}

/// `[[auth.publisher]]`: trusted publishing.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publisher {
    /// What access rules call it: `publisher:NAME`.
    pub name: String,
    /// The OIDC issuer, as in the token's `iss`.
    pub issuer: String,
    /// What the token's `aud` must name.
    pub audience: String,
    /// The token's `sub`; `*` stands for any characters.
    pub subject: Glob,
    /// Other claims that must have these values; `*` stands for any characters.
    #[serde(default)]
    pub claims: BTreeMap<String, Glob>,
}

/// `[[access]]`: rights add up over all rules.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A user's name, `publisher:NAME`, `certificate:NAME`, `anonymous` (everybody) or
    /// `authenticated` (everybody who logged in). `*` stands for any characters in a name.
    pub who: Vec<Glob>,
    /// Which repositories.
    pub repository: Scope,
    /// What is allowed there.
    pub actions: Vec<Action>,
}

/// `[[repository]]`: the first that covers a repository holds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryRule {
    /// Which repositories.
    pub name: Scope,
    /// Tags that stay where they are once set.
    #[serde(default)]
    pub immutable_tags: Vec<Glob>,
    /// The policy that decides what readers see.
    #[serde(default)]
    pub policy: Option<PathBuf>,
    /// Most bytes of blobs and manifests in one repository.
    #[serde(default)]
    pub quota_bytes: Option<u64>,
    /// Most manifests in one repository.
    #[serde(default)]
    pub quota_manifests: Option<u64>,
}

/// `[revocation]`: a list counts wherever a policy does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// The public key, in PEM, that must have signed the list.
    pub authority: PathBuf,
    /// The signed list, as `bpfseal revoke` writes it.
    pub list: PathBuf,
}

/// `[limits]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests that one address may make in a second, over time.
    pub requests_per_second: Option<u32>,
    /// Requests that it may make at once before that counts.
    pub burst: Option<u32>,
    /// Wrong passwords and tokens that one address may send in a minute.
    pub failed_logins_per_minute: Option<u32>,
}

/// `[storage]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// `postgres://…`. Else an SQLite file in the folder.
    pub database: Option<String>,
    /// `s3://BUCKET[/PREFIX]`, or a folder that instances share. Else the registry's folder.
    pub blobs: Option<String>,
    /// Address of the S3-compatible store, if it is not AWS.
    pub s3_endpoint: Option<String>,
    /// Its region.
    pub s3_region: Option<String>,
    /// Seconds that it may take to answer.
    pub s3_timeout_seconds: Option<u64>,
}

/// `[audit]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// A file of JSON lines. Else `ROOT/audit.jsonl`.
    pub file: Option<PathBuf>,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{path}: line {line}, column {column}: {message}")]
    Malformed {
        /// Which file.
        path: String,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// One clause.
        message: String,
    },
    /// Its parts do not fit together, or a file that it names is unusable.
    #[error("{0}")]
    Unusable(String),
}

impl Config {
    /// Reads the file at `path`. Relative paths in it start at its folder.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| ConfigError::Read {
            path: path.display().to_string(),
            error,
        })?;
        let mut config = Self::parse(&text).map_err(|(line, column, message)| {
            let path = path.display().to_string();
            ConfigError::Malformed {
                path,
                line,
                column,
                message,
            }
        })?;
        config.resolve(path.parent().unwrap_or(Path::new(".")));
        Ok(config)
    }

    /// Reads TOML. An error has its line, its column and a clause.
    pub fn parse(text: &str) -> Result<Self, (usize, usize, String)> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let before = text.get(..start).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            (line, column, error.message().trim().replace('\n', "; "))
        })
    }

    fn resolve(&mut self, folder: &Path) {
        let at = |path: &mut PathBuf| *path = folder.join(&path);
        self.root.iter_mut().for_each(at);
        self.audit.file.iter_mut().for_each(at);
        if let Some(blobs) = &mut self.storage.blobs
            && !blobs.starts_with("s3://")
        {
            *blobs = folder.join(&blobs).display().to_string();
        }
        if let Some(tls) = &mut self.tls {
            at(&mut tls.certificate);
            at(&mut tls.key);
            tls.client_ca.iter_mut().for_each(at);
        }
        if let Some(auth) = &mut self.auth {
            auth.htpasswd.iter_mut().for_each(at);
            auth.token_key.iter_mut().for_each(at);
        }
        if let Some(revocation) = &mut self.revocation {
            at(&mut revocation.authority);
            at(&mut revocation.list);
        }
        for rule in &mut self.repository {
            rule.policy.iter_mut().for_each(at);
        }
    }
}

/// A pattern over text: `*` stands for any characters, everything else for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// Does the pattern cover `text`?
    pub fn covers(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or("");
        let Some(mut rest) = text.strip_prefix(first) else {
            return false;
        };
        let mut last = None;
        for part in parts {
            if let Some(middle) = last.replace(part) {
                let Some(at) = rest.find(middle) else {
                    return false;
                };
                rest = &rest[at + str::len(middle)..];
            }
        }
        last.map_or(rest.is_empty(), |last| rest.ends_with(last))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Glob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Err(de::Error::custom("a pattern cannot be empty"));
        }
        Ok(Self(text))
    }
}

/// A pattern over repositories, with the grammar of policy scopes: `*` stays within one
/// part of a path, a final `/*` covers everything below, `*` alone covers everything.
#[derive(Clone, Debug)]
pub struct Scope(policy::scope::Scope);

impl Scope {
    /// Does the pattern cover the repository?
    pub fn covers(&self, repository: &str) -> bool {
        self.0.covers(repository)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        policy::scope::Scope::parse(&text)
            .map(Self)
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_has_its_line_and_column() {
        for (text, want) in [
            ("listen = 1", (1, 10, "invalid type")),
            (
                "\nlisten = \"x\"\nlistn = \"x\"\n",
                (3, 1, "unknown field `listn`"),
            ),
            (
                "[tls]\ncertificate = \"a\"\nkey = \"b\"\nx = 1",
                (4, 1, "unknown field `x`"),
            ),
            (
                "[[access]]\nwho = [\"a\"]\nrepository = \"**\"\nactions = []",
                (3, 14, "`**` has no meaning here"),
            ),
            (
                "[[access]]\nwho = [\"a\"]\nrepository = \"*\"\nactions = [\"fly\"]",
                (4, 12, "unknown variant `fly`"),
            ),
        ] {
            let (line, column, message) = Config::parse(text).unwrap_err();
            assert_eq!((line, column), (want.0, want.1), "{text}: {message}");
            assert!(message.contains(want.2), "{message}");
        }
    }

    #[test]
    fn the_example_has_every_key() {
        let text = include_str!("../../docs/examples/registry/registry.toml");
        let config = Config::parse(text).unwrap();
        assert_eq!((config.access.len(), config.repository.len()), (4, 1));
    }

    #[test]
    fn a_glob_covers() {
        for (pattern, text, want) in [
            ("v*", "v1.2", true),
            ("v*", "latest", false),
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("a*a", "a", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
            ("*.sig", "sha256-00.sig", true),
        ] {
            assert_eq!(Glob(pattern.into()).covers(text), want, "{pattern} {text}");
        }
    }
}
