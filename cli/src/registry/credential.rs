//! Credentials, where Docker, podman and their helpers keep them. Never printed.

use std::{
    env, fmt, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::Error;
use crate::reference::Host;

/// What to show a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A user name and password, or an access token in its place.
    Password {
        /// The account.
        user: String,
        /// Its password.
        password: Secret,
    },
    /// An OAuth2 refresh token.
    Identity(Secret),
}

/// Text that is wiped after use and that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes over the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text, for the wire only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Credential {
    /// The value of an `Authorization: Basic` header; none for refresh tokens.
    pub fn basic(&self) -> Option<Secret> {
        let Self::Password { user, password } = self else {
            return None;
        };
        let pair = Zeroizing::new(format!("{user}:{}", password.expose()));
        Some(Secret::new(format!(
            "Basic {}",
            BASE64.encode(pair.as_bytes())
        )))
    }
}

/// The files that hold credentials, first one first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    files: Vec<PathBuf>,
    held: Option<Credential>,
}

impl Store {
    /// `$REGISTRY_AUTH_FILE` alone where it is set; else `$DOCKER_CONFIG/config.json` or
    /// `~/.docker/config.json`, then podman's `$XDG_RUNTIME_DIR/containers/auth.json`.
    pub fn from_environment() -> Self {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        if let Some(file) = set("REGISTRY_AUTH_FILE") {
            return Self {
                files: vec![file.into()],
                held: None,
            };
        }
        let docker = set("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| env::home_dir().map(|home| home.join(".docker")))
            .map(|folder| folder.join("config.json"));
        let podman = set("XDG_RUNTIME_DIR")
            .map(|folder| PathBuf::from(folder).join("containers").join("auth.json"));
        Self {
            files: docker.into_iter().chain(podman).collect(),
            held: None,
        }
    }

    /// No file, but this for every registry.
    pub const fn holding(credential: Credential) -> Self {
        Self {
            files: Vec::new(),
            held: Some(credential),
        }
    }

    /// Only this file; for tests.
    #[cfg(test)]
    pub fn of(file: PathBuf) -> Self {
        Self {
            files: vec![file],
            held: None,
        }
    }

    /// What the files and helpers hold for a repository of `host`.
    pub fn find(&self, host: &Host, repository: &str) -> Result<Option<Credential>, Error> {
        if self.held.is_some() {
            return Ok(self.held.clone());
        }
        for file in &self.files {
            let config = read(file)?;
            if let Some(credential) = config.find(file, host, repository)? {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }

    /// Remembers a password in the first file, or in the helper it names; says where.
    pub fn save(&self, host: &Host, user: &str, password: &Secret) -> Result<String, Error> {
        let file = self.first()?;
        let config = read(file)?;
        if let Some(helper) = config.helper(host) {
            let entry = json!({
                "ServerURL": host.as_str(), "Username": user, "Secret": password.expose(),
            });
            let entry = Zeroizing::new(entry.to_string());
            run_helper(helper, "store", &entry)?;
            return Ok(format!("docker-credential-{helper}"));
        }
        let credential = Credential::Password {
            user: user.to_owned(),
            password: password.clone(),
        };
        let basic = credential.basic().unwrap_or_else(|| Secret::new(""));
        let encoded = basic.expose().trim_start_matches("Basic ").to_owned();
        let entry = json!({ "auth": encoded });
        edit(file, |auths| {
            auths.insert(host.as_str().to_owned(), entry);
        })?;
        Ok(file.display().to_string())
    }

    /// Forgets the password; says where it was, if anywhere.
    pub fn forget(&self, host: &Host) -> Result<Option<String>, Error> {
        for file in &self.files {
            let config = read(file)?;
            if let Some(helper) = config.helper(host) {
                run_helper(helper, "erase", host.as_str())?;
                return Ok(Some(format!("docker-credential-{helper}")));
            }
            if config.auths.contains_key(host.as_str()) {
                edit(file, |auths| {
                    auths.remove(host.as_str());
                })?;
                return Ok(Some(file.display().to_string()));
            }
        }
        Ok(None)
    }

    fn first(&self) -> Result<&Path, Error> {
        self.files
            .first()
            .map(PathBuf::as_path)
            .ok_or_else(|| Error::Credential {
                place: "~/.docker/config.json".to_owned(),
                cause: "there is no home folder; set DOCKER_CONFIG".to_owned(),
            })
    }
}

/// The part of Docker's `config.json` that is about credentials.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: Map<String, Value>,
    cred_helpers: Map<String, Value>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

#[derive(Deserialize)]
struct Helped {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

impl Config {
    fn find(
        &self,
        file: &Path,
        host: &Host,
        repository: &str,
    ) -> Result<Option<Credential>, Error> {
        if let Some(helper) = self.helper(host) {
            return ask_helper(helper, host);
        }
        let Some(entry) = keys(host, repository)
            .into_iter()
            .find_map(|key| self.auths.get(&key))
        else {
            return Ok(None);
        };
        let entry: Entry = serde_json::from_value(entry.clone()).map_err(|_| broken(file))?;
        entry.credential().map_err(|()| broken(file))
    }

    fn helper(&self, host: &Host) -> Option<&str> {
        self.cred_helpers
            .get(host.as_str())
            .and_then(Value::as_str)
            .or(self.creds_store.as_deref())
            .filter(|helper| !helper.is_empty())
    }
}

impl Entry {
    fn credential(self) -> Result<Option<Credential>, ()> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credential::Identity(Secret::new(self.identitytoken))));
        }
        if !self.username.is_empty() {
            return Ok(Some(Credential::Password {
                user: self.username,
                password: Secret::new(self.password),
            }));
        }
        if self.auth.is_empty() {
            return Ok(None);
        }
        let pair = Zeroizing::new(BASE64.decode(self.auth.trim()).map_err(drop)?);
        let pair = std::str::from_utf8(&pair).map_err(drop)?;
        // Docker pads passwords with NUL in old files.
        let (user, password) = pair.trim_end_matches('\0').split_once(':').ok_or(())?;
        Ok(Some(Credential::Password {
            user: user.to_owned(),
            password: Secret::new(password),
        }))
    }
}

/// Names under which an entry may stand: podman's per-repository ones first, then the
/// host, then the addresses that Docker writes.
fn keys(host: &Host, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = repository;
    while !path.is_empty() {
        keys.push(format!("{host}/{path}"));
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    keys.push(host.to_string());
    for scheme in ["https", "http"] {
        for suffix in ["", "/", "/v1/", "/v2/"] {
            keys.push(format!("{scheme}://{host}{suffix}"));
        }
    }
    if matches!(host.as_str(), "docker.io" | "registry-1.docker.io") {
        keys.push("https://index.docker.io/v1/".to_owned());
    }
    keys
}

fn read(file: &Path) -> Result<Config, Error> {
    match fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| broken(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Config::default()),
        Err(error) => Err(Error::Credential {
            place: file.display().to_string(),
            cause: error.to_string(),
        }),
    }
}

/// The JSON error is left out: it could quote a secret.
fn broken(file: &Path) -> Error {
    Error::Credential {
        place: file.display().to_string(),
        cause: "it is not a Docker credential file".to_owned(),
    }
}

/// Rewrites `auths` and keeps everything else; the old file stays until the new one is whole.
fn edit(file: &Path, change: impl FnOnce(&mut Map<String, Value>)) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::Credential {
        place: file.display().to_string(),
        cause: error.to_string(),
    };
    let mut config: Map<String, Value> = match fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| broken(file))?,
        Err(_) => Map::new(),
    };
    let auths = config.entry("auths").or_insert_with(|| json!({}));
    change(auths.as_object_mut().ok_or_else(|| broken(file))?);

    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed)?;
    // A symbolic link stays one: what it points to is replaced.
    let target = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let folder = target.parent().unwrap_or(folder);
    let mut fresh = tempfile::NamedTempFile::new_in(folder).map_err(failed)?; // mode 0600
    let text = Zeroizing::new(serde_json::to_string_pretty(&config).unwrap_or_default());
    fresh.write_all(text.as_bytes()).map_err(failed)?;
    fresh.as_file().sync_all().map_err(failed)?;
    fresh
        .persist(&target)
        .map_err(|error| failed(error.error))?;
    Ok(())
}

fn ask_helper(helper: &str, host: &Host) -> Result<Option<Credential>, Error> {
    let Some(answer) = run_helper(helper, "get", host.as_str())? else {
        return Ok(None);
    };
    let answer: Helped = serde_json::from_slice(&answer).map_err(|_| Error::Credential {
        place: format!("docker-credential-{helper}"),
        cause: "its answer is not a credential".to_owned(),
    })?;
    Ok(Some(if answer.username == IDENTITY_USER {
        Credential::Identity(Secret::new(answer.secret))
    } else {
        Credential::Password {
            user: answer.username,
            password: Secret::new(answer.secret),
        }
    }))
}

/// Runs `docker-credential-HELPER VERB` with `input` on standard input. None means that
/// it does not know the host.
fn run_helper(helper: &str, verb: &str, input: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let program = format!("docker-credential-{helper}");
    let failed = |cause: String| Error::Credential {
        place: program.clone(),
        cause,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !helper.bytes().all(plain) {
        return Err(failed("its name has odd letters".to_owned()));
    }
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read ends the pipe early; its exit status tells.
        let _ = stdin.write_all(input.as_bytes());
    }
    let done = child
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    let answer = Zeroizing::new(done.stdout);
    if done.status.success() {
        return Ok(Some(answer));
    }
    let unknown = answer
        .windows(NOT_FOUND.len())
        .any(|window| window.eq_ignore_ascii_case(NOT_FOUND));
    if unknown {
        return Ok(None);
    }
    Err(failed(format!("it failed with {}", done.status)))
}

/// The user name by which helpers mark a refresh token (docker-credential-helpers).
const IDENTITY_USER: &str = "<token>";

/// How helpers say that there is nothing (docker-credential-helpers,
/// `errCredentialsNotFoundMessage`).
const NOT_FOUND: &[u8] = b"credentials not found";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn password(user: &str, password: &str) -> Credential {
        Credential::Password {
            user: user.to_owned(),
            password: Secret::new(password),
        }
    }

    fn host(text: &str) -> Host {
        text.parse().unwrap()
    }

    #[test]
    fn finds_every_form_of_entry() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        let store = Store::of(file.clone());
        for (config, want) in [
            (json!({}), None),
            (
                json!({"auths": {"r.io": {"auth": BASE64.encode("u:p:q")}}}),
                Some(password("u", "p:q")),
            ),
            (
                json!({"auths": {"https://r.io/v1/": {"username": "u", "password": "p"}}}),
                Some(password("u", "p")),
            ),
            (
                json!({"auths": {"r.io": {"identitytoken": "t", "auth": BASE64.encode("u:p")}}}),
                Some(Credential::Identity(Secret::new("t"))),
            ),
            (
                json!({"auths": {
                    "r.io": {"auth": BASE64.encode("u:p")},
                    "r.io/a": {"auth": BASE64.encode("v:q")},
                }}),
                Some(password("v", "q")),
            ),
            (json!({"auths": {"r.io": {}}}), None),
            (json!({"auths": {"other.io": {"auth": "eA=="}}}), None),
        ] {
            fs::write(&file, config.to_string()).unwrap();
            let got = store.find(&host("r.io"), "a/b").unwrap();
            assert_eq!(got, want, "{config}");
        }
    }

    #[test]
    fn a_broken_file_is_named_but_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        for text in [
            "{",
            r#"{"auths":{"r.io":{"auth":"hunter2!"}}}"#,
            r#"{"auths":{"r.io":"hunter2!"}}"#,
        ] {
            fs::write(&file, text).unwrap();
            let error = Store::of(file.clone())
                .find(&host("r.io"), "a")
                .unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "cannot use {}: it is not a Docker credential file",
                    file.display()
                )
            );
        }
    }

    #[test]
    fn saves_and_forgets_beside_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new").join("config.json");
        let store = Store::of(file.clone());
        store
            .save(&host("r.io:5000"), "u", &Secret::new("p"))
            .unwrap();
        let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(
            store.find(&host("r.io:5000"), "a").unwrap(),
            Some(password("u", "p"))
        );

        fs::write(&file, r#"{"proxies":{"x":1},"auths":{"a.io":{}}}"#).unwrap();
        store.save(&host("r.io"), "u", &Secret::new("p")).unwrap();
        store.forget(&host("r.io")).unwrap();
        let left: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(left, json!({"proxies": {"x": 1}, "auths": {"a.io": {}}}));
        assert_eq!(store.forget(&host("r.io")).unwrap(), None);
    }

    #[test]
    fn secrets_are_not_in_debug_output() {
        assert_eq!(
            format!("{:?}", password("u", "hunter2")),
            r#"Password { user: "u", password: (secret) }"#
        );
    }

    #[test]
    fn helpers_with_odd_names_are_not_run() {
        assert_eq!(
            run_helper("../../bin/sh", "get", "r.io")
                .unwrap_err()
                .to_string(),
            "cannot use docker-credential-../../bin/sh: its name has odd letters"
        );
    }
}
