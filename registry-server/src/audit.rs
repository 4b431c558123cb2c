//! The audit log: one JSON line for every write and every refusal.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::Serialize;

/// Size at which a file is put aside: refusals cost a client nothing, so they must not
/// fill the disk.
const LARGEST: u64 = 64 << 20;

/// How many files are kept beside the current one.
const KEPT: usize = 4;

/// A log that is written.
pub struct Audit {
    path: PathBuf,
    file: Mutex<Option<(File, u64)>>,
}

/// One line.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// When, RFC 3339.
    pub time: String,
    /// `write` or `refusal`.
    pub event: &'a str,
    /// Who.
    pub who: String,
    /// Where from.
    pub peer: String,
    /// The request.
    pub method: &'a str,
    /// Its path; never its query, which may hold anything.
    pub path: &'a str,
    /// What was answered.
    pub status: u16,
    /// What was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<&'a str>,
    /// The specification's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'a str>,
    /// The policy's reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
}

impl Audit {
    /// Opens the log at `path`, at its end.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(Some(open(path)?)),
        })
    }

    /// Adds a line. A log that cannot be written stops nothing: the failure goes to the
    /// server's own log.
    pub fn write(&self, line: &Line<'_>) {
        if let Err(error) = self.try_write(line) {
            tracing::error!(%error, "the audit log cannot be written");
        }
    }

    /// Opens the file anew: somebody moved it.
    pub fn reopen(&self) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn try_write(&self, line: &Line<'_>) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        let mut slot = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().is_some_and(|(_, size)| *size > LARGEST) {
            *slot = None;
            self.rotate()?;
        }
        let (file, size) = match &mut *slot {
            Some(open) => open,
            empty => empty.insert(open(&self.path)?),
        };
        *size += bytes.len() as u64;
        // One call: lines of several processes do not mix.
        file.write_all(&bytes)
    }

    fn rotate(&self) -> io::Result<()> {
        let numbered = |n: usize| self.path.with_added_extension(n.to_string());
        for n in (1..KEPT).rev() {
            if numbered(n).exists() {
                fs::rename(numbered(n), numbered(n + 1))?;
            }
        }
        fs::rename(&self.path, numbered(1))
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).mode(0o640).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}
