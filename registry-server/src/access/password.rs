//! Users and passwords: an htpasswd file with bcrypt hashes.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use ring::{digest, hmac, rand::SystemRandom};
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::config::ConfigError;

/// Checking a password costs bcrypt's time; for this long it is not checked again.
const REMEMBERED: Duration = Duration::from_secs(300);

/// Most checked passwords that are remembered.
const MOST_REMEMBERED: usize = 10_000;

/// The users of one file.
pub struct Users {
    path: PathBuf,
    state: Mutex<State>,
    /// Keys of [`State::checked`] are useless to whoever reads the memory of a dump.
    blind: hmac::Key,
    /// What a password for nobody is compared with, so that unknown users cannot be told
    /// from known ones by the time it takes.
    nobody: String,
    /// Hashing takes a core: not all of them at once.
    places: Semaphore,
}

struct State {
    users: BTreeMap<String, String>,
    seen: Option<(SystemTime, u64)>,
    looked: Instant,
    checked: HashMap<[u8; 32], Instant>,
}

impl Users {
    /// Reads the file; it must be there and well formed.
    pub fn open(path: &Path) -> Result<Self, ConfigError> {
        let users = read(path)?;
        let blind = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        Ok(Self {
            state: Mutex::new(State {
                users,
                seen: stamp(path).ok(),
                looked: Instant::now(),
                checked: HashMap::new(),
            }),
            path: path.to_owned(),
            nobody: hash("nobody").map_err(ConfigError::Unusable)?,
            blind: blind.map_err(|_| ConfigError::Unusable("there is no randomness".to_owned()))?,
            places: Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)),
        })
    }

    /// Whether `password` is `name`'s. Returns what tells this password from a later one.
    pub async fn check(&self, name: &str, password: &str) -> Option<String> {
        let hash = self.hash_of(name);
        let known = hash.clone().unwrap_or_else(|| self.nobody.clone());
        let key = self.blinded(&[name, password, &known]);
        if hash.is_some() && self.remembered(&key) {
            return hash.as_deref().map(fingerprint);
        }
        let _place = self.places.acquire().await.ok()?;
        // bcrypt takes 72 bytes; a longer password is not cut in silence but wrong.
        let password = (password.len() <= 72).then(|| password.to_owned())?;
        let verified = spawn_blocking(move || bcrypt::verify(password, &known));
        let right = verified.await.ok()?.unwrap_or(false) && hash.is_some();
        if right {
            let mut state = self.state();
            if state.checked.len() >= MOST_REMEMBERED {
                state.checked.clear();
            }
            state.checked.insert(key, Instant::now());
        }
        hash.filter(|_| right).as_deref().map(fingerprint)
    }

    /// What tells `name`'s present password from earlier ones; nothing for nobody.
    pub fn fingerprint(&self, name: &str) -> Option<String> {
        self.hash_of(name).as_deref().map(fingerprint)
    }

    /// The hash, from the file as it is now: a change is seen within a second.
    fn hash_of(&self, name: &str) -> Option<String> {
        let mut state = self.state();
        if state.looked.elapsed() > Duration::from_secs(1) {
            state.looked = Instant::now();
            let now = stamp(&self.path).ok();
            if now != state.seen {
                match read(&self.path) {
                    Ok(users) => {
                        tracing::info!(users = users.len(), "the users were read anew");
                        (state.users, state.seen) = (users, now);
                        state.checked.clear();
                    }
                    // Half written, perhaps: the next look tells.
                    Err(error) => tracing::error!(%error, "the users stay as they were"),
                }
            }
        }
        state.users.get(name).cloned()
    }

    fn remembered(&self, key: &[u8; 32]) -> bool {
        let state = self.state();
        let checked = state.checked.get(key);
        checked.is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    fn blinded(&self, parts: &[&str]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.blind);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.sign().as_ref());
        key
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the users of a file.
pub fn read(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let text = fs::read_to_string(path).map_err(|error| ConfigError::Read {
        path: path.display().to_string(),
        error,
    })?;
    parse(&text, path)
}

/// Reads `name:hash` lines. Only bcrypt is taken: everything older can be guessed. `path` is
/// what errors name.
pub fn parse(text: &str, path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let display = || path.display().to_string();
    let mut users = BTreeMap::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let fault = |message: &str| ConfigError::Malformed {
            path: display(),
            line,
            column: 1,
            message: message.to_owned(),
        };
        let (name, hash) = text
            .split_once(':')
            .ok_or_else(|| fault("a line is name:hash"))?;
        if !valid_name(name) {
            return Err(fault("a name has letters, digits and . _ - @ + only"));
        }
        if !["$2a$", "$2b$", "$2x$", "$2y$"]
            .iter()
            .any(|prefix| hash.starts_with(prefix))
        {
            return Err(fault("the hash is not bcrypt's (`htpasswd -B`)"));
        }
        if users.insert(name.to_owned(), hash.to_owned()).is_some() {
            return Err(fault("the name stands twice in the file"));
        }
    }
    Ok(users)
}

/// A name that cannot be taken for another kind of principal, nor break a line.
pub fn valid_name(name: &str) -> bool {
    let reserved = ["anonymous", "authenticated", "oidc"].contains(&name);
    (1..=128).contains(&name.len())
        && !reserved
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-@+".contains(&b))
}

/// bcrypt of `password`: cost 10, some 50 ms.
pub fn hash(password: &str) -> Result<String, String> {
    match password.len() {
        0 => Err("the password is empty".to_owned()),
        1..=72 => bcrypt::hash(password, 10).map_err(|error| error.to_string()),
        _ => Err("bcrypt takes at most 72 bytes of a password".to_owned()),
    }
}

fn fingerprint(hash: &str) -> String {
    let digest = digest::digest(&digest::SHA256, hash.as_bytes());
    hex::encode(&digest.as_ref()[..8])
}

fn stamp(path: &Path) -> io::Result<(SystemTime, u64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.modified()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bcrypt_lines_are_users() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        for (text, want) in [
            ("# comment\n\nalice:$2y$05$x\n", Ok(vec!["alice"])),
            ("alice", Err("line 1, column 1: a line is name:hash")),
            (
                "\nalice:{SHA}x",
                Err("line 2, column 1: the hash is not bcrypt's"),
            ),
            (
                "a b:$2y$05$x",
                Err("a name has letters, digits and . _ - @ + only"),
            ),
            ("anonymous:$2y$05$x", Err("a name has letters")),
            ("a:$2y$05$x\na:$2y$05$y", Err("line 2, column 1: the name")),
        ] {
            fs::write(&path, text).unwrap();
            let got = read(&path);
            match (got, want) {
                (Ok(users), Ok(names)) => {
                    assert_eq!(users.keys().map(String::as_str).collect::<Vec<_>>(), names);
                }
                (Err(error), Err(part)) => {
                    assert!(error.to_string().contains(part), "{error}");
                }
                (got, want) => panic!("{text}: {got:?}, {want:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_password_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let hash = bcrypt::hash("right", 4).unwrap();
        fs::write(&path, format!("alice:{hash}\n")).unwrap();
        let users = Users::open(&path).unwrap();
        let right = Some(fingerprint(&hash));
        assert_eq!(users.check("alice", "right").await, right);
        // The second time from memory.
        assert_eq!(users.check("alice", "right").await, right);
        assert_eq!(users.check("alice", "wrong").await, None);
        assert_eq!(users.check("alice", "").await, None);
        assert_eq!(users.check("bob", "right").await, None);
        assert_eq!(users.check("alice", &"x".repeat(1000)).await, None);
        assert_eq!(users.fingerprint("alice"), right);
    }
}
