//! Trusted roots under names, in the user's data folder: one file for each, replaced as a
//! whole, so that a reader sees the old state or the new one.

use std::{collections::BTreeMap, env, fs, io, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Failure, files};

/// The name of the instance whose root this program carries.
pub const PUBLIC_GOOD: &str = "public-good";

/// What is known of one Sigstore instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Of this file's form.
    version: u32,
    /// Where updates come from: a URL, or a folder.
    pub mirror: String,
    /// The root metadata in which the user put trust, as it was given.
    pub pinned: String,
    /// The newest metadata that was verified, by the names of The Update Framework: what
    /// the next update may not fall behind.
    pub metadata: BTreeMap<String, String>,
    /// When the last update ended well.
    pub fetched: Timestamp,
    /// When what it brought stops being fresh.
    pub fresh_until: Timestamp,
    /// Versions of the metadata, by role.
    pub versions: BTreeMap<String, u64>,
    /// The instance's `trusted_root.json`.
    pub trusted_root: String,
    /// Its `signing_config.json`, where it publishes one.
    pub signing_config: Option<String>,
}

impl Instance {
    /// One that was never updated.
    pub fn new(mirror: String, pinned: String) -> Self {
        Self {
            version: FORM,
            mirror,
            pinned,
            metadata: BTreeMap::new(),
            fetched: Timestamp::UNIX_EPOCH,
            fresh_until: Timestamp::UNIX_EPOCH,
            versions: BTreeMap::new(),
            trusted_root: String::new(),
            signing_config: None,
        }
    }
}

/// The folder that holds them.
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// `$XDG_DATA_HOME/bpfseal/trust`, by default `~/.local/share/bpfseal/trust`; `None`
    /// where there is no home.
    pub fn of_user() -> Option<Self> {
        let data = env::var_os("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| env::home_dir().map(|home| home.join(".local/share")))?;
        Some(Self {
            folder: data.join("bpfseal").join("trust"),
        })
    }

    /// The same for a command that has to write there.
    pub fn writable() -> Result<Self, Failure> {
        Self::of_user().ok_or_else(|| {
            Failure::usage("there is no home folder").with_remedy("Set XDG_DATA_HOME or HOME.")
        })
    }

    /// What is stored under `name`.
    pub fn find(&self, name: &str) -> Result<Option<Instance>, Failure> {
        let path = self.path(name)?;
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::io("cannot read", &path, error)),
        };
        let damaged = |error: &dyn std::fmt::Display| {
            Failure::usage(format!("{}: {error}", path.display())).with_remedy(format!(
                "Begin anew with `bpfseal trust init --replace --name {name}`."
            ))
        };
        let instance: Instance = serde_json::from_slice(&text).map_err(|error| damaged(&error))?;
        if instance.version != FORM {
            return Err(damaged(&format!("its form is {}", instance.version)));
        }
        Ok(Some(instance))
    }

    /// What is stored under `name`, which has to be there.
    pub fn get(&self, name: &str) -> Result<Instance, Failure> {
        self.find(name)?.ok_or_else(|| unknown(name))
    }

    /// Every name, in order.
    pub fn names(&self) -> Result<Vec<String>, Failure> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Failure::io("cannot read", &self.folder, error)),
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter_map(|file| file.strip_suffix(".json").map(str::to_owned))
            .filter(|name| is_name(name))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Puts `instance` in the place of what `name` was.
    pub fn put(&self, name: &str, instance: &Instance) -> Result<(), Failure> {
        let path = self.path(name)?;
        let json = serde_json::to_vec(instance)
            .map_err(|error| Failure::internal(format!("{name}: {error}")))?;
        files::replace(&path, &json)
    }

    /// Makes the folder, and keeps others from updating until the value is dropped: two
    /// updates at once could put an older state over a newer one.
    pub fn lock(&self) -> Result<fs::File, Failure> {
        let path = self.folder.join(".lock");
        let failed = |error: io::Error| Failure::io("cannot lock", &path, error);
        fs::create_dir_all(&self.folder).map_err(failed)?;
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(file)
    }

    fn path(&self, name: &str) -> Result<PathBuf, Failure> {
        if !is_name(name) {
            return Err(
                Failure::usage(format!("{name:?} is no name of an instance"))
                    .with_remedy("Names have small letters, digits, '.', '_' and '-'."),
            );
        }
        Ok(self.folder.join(format!("{name}.json")))
    }
}

/// `name` is not stored.
pub fn unknown(name: &str) -> Failure {
    Failure::not_found(format!("no trusted root is stored under the name {name:?}"))
        .with_remedy("`bpfseal trust show` lists them; `bpfseal trust init` adds one.")
}

fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(fits)
}

/// The form of the files.
const FORM: u32 = 1;

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn a_name_is_no_path() {
        for (name, want) in [
            ("public-good", true),
            ("acme_2.test", true),
            ("", false),
            (".", false),
            ("..", false),
            (".hidden", false),
            ("a/b", false),
            ("A", false),
            ("a b", false),
        ] {
            assert_eq!(is_name(name), want, "{name:?}");
        }
        assert!(!is_name(&"a".repeat(65)));
    }
}
