//! Uploads that an earlier process left open, so that the next one continues them.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use bundle::Digest;
use reqwest::Url;

use crate::reference::Repository;

/// A folder with one small file for each large upload under way. All of it is a
/// convenience: what cannot be read or written only means starting again.
pub struct Sessions {
    folder: Option<PathBuf>,
}

impl Sessions {
    /// `$XDG_CACHE_HOME/bpfseal/uploads`, or `~/.cache/bpfseal/uploads`.
    pub fn from_environment() -> Self {
        let cache = env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|folder| folder.is_absolute())
            .or_else(|| env::home_dir().map(|home| home.join(".cache")));
        Self {
            folder: cache.map(|cache| cache.join("bpfseal").join("uploads")),
        }
    }

    /// In this folder; for tests.
    #[cfg(test)]
    pub fn of(folder: &Path) -> Self {
        Self {
            folder: Some(folder.to_owned()),
        }
    }

    /// Where the upload of this blob went on last time.
    pub fn load(&self, repository: &Repository, digest: &Digest) -> Option<Url> {
        let text = fs::read_to_string(self.file(repository, digest)?).ok()?;
        Url::parse(text.trim()).ok()
    }

    /// Remembers it. Upload addresses are rights, so only the user may read them.
    pub fn save(&self, repository: &Repository, digest: &Digest, url: &Url) {
        let Some(file) = self.file(repository, digest) else {
            return;
        };
        let write = |folder: &Path| {
            fs::create_dir_all(folder)?;
            let mut fresh = tempfile::NamedTempFile::new_in(folder)?; // mode 0600
            fresh.write_all(url.as_str().as_bytes())?;
            fresh.persist(&file)?;
            Ok::<_, std::io::Error>(())
        };
        let _ = file.parent().map(write);
    }

    /// Forgets it.
    pub fn forget(&self, repository: &Repository, digest: &Digest) {
        if let Some(file) = self.file(repository, digest) {
            let _ = fs::remove_file(file);
        }
    }

    fn file(&self, repository: &Repository, digest: &Digest) -> Option<PathBuf> {
        let name = Digest::of(format!("{repository}@{digest}").as_bytes()).to_hex();
        Some(self.folder.as_ref()?.join(name))
    }
}
