//! Debian's tools and kernels, fetched by `tests/lab/fetch.sh` and kept for later runs.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use super::workspace;

/// The folder of fetched things.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// One kernel in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The series asked for, for example `6.12`.
    pub series: String,
    /// What `uname -r` must say.
    pub release: String,
    /// The ELF kernel, which also holds its BTF.
    pub vmlinux: PathBuf,
}

/// Something could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The script could not be run.
    #[error("tests/lab/fetch.sh does not start")]
    Start(#[source] io::Error),
    /// The script failed.
    #[error("fetching {name} failed: {output}")]
    Failed {
        /// What was asked for.
        name: String,
        /// What the script said.
        output: String,
    },
    /// Debian no longer has it; the reason is the script's `SKIPPED` line.
    #[error("{0}")]
    Gone(String),
}

impl Cache {
    /// The cache of this user: `$XDG_CACHE_HOME/bpfseal`, by default `~/.cache/bpfseal`.
    pub fn open() -> Self {
        let base = env::var_os("XDG_CACHE_HOME").map_or_else(
            || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache"),
            PathBuf::from,
        );
        Self {
            root: base.join("bpfseal"),
        }
    }

    /// Fetches a tool if it is not there, and names its folder.
    pub fn tool(&self, name: &str) -> Result<PathBuf, FetchError> {
        let folder = self.root.join("tools").join(name);
        if !folder.join(".complete").exists() {
            fetch(name)?;
        }
        Ok(folder)
    }

    /// The folder of a tool's unpacked packages.
    pub fn tool_root(&self, name: &str) -> Result<PathBuf, FetchError> {
        Ok(self.tool(name)?.join("root"))
    }

    /// A program that can be run on this machine, from a tool's folder.
    pub fn program(&self, tool: &str, program: &str) -> Result<PathBuf, FetchError> {
        Ok(self.tool(tool)?.join("bin").join(program))
    }

    /// Fetches a kernel if it is not there.
    pub fn kernel(&self, series: &str) -> Result<Kernel, FetchError> {
        let folder = self.root.join("kernels").join(series);
        let vmlinux = folder.join("vmlinux");
        if !vmlinux.exists() {
            let said = fetch(&format!("kernel-{series}"))?;
            if !vmlinux.exists() {
                return Err(FetchError::Gone(skipped_line(&said)));
            }
        }
        let release = fs::read_to_string(folder.join("release")).map_err(FetchError::Start)?;
        Ok(Kernel {
            series: series.to_owned(),
            release: release.trim().to_owned(),
            vmlinux,
        })
    }

    /// A module of that very kernel, signed by whoever built both; an empty file where it is built in.
    pub fn module(&self, kernel: &Kernel, name: &str) -> Result<PathBuf, FetchError> {
        let folder = self.root.join("modules").join(&kernel.release);
        let file = folder.join(format!("{name}.ko"));
        if !file.exists() {
            let said = fetch(&format!("modules-{}", kernel.series))?;
            if !file.exists() {
                return Err(FetchError::Gone(skipped_line(&said)));
            }
        }
        Ok(file)
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

fn fetch(name: &str) -> Result<String, FetchError> {
    let output = Command::new(workspace().join("tests/lab/fetch.sh"))
        .arg(name)
        .output()
        .map_err(FetchError::Start)?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(FetchError::Failed {
        name: name.to_owned(),
        output: said,
    })
}

fn skipped_line(said: &str) -> String {
    said.lines()
        .find(|line| line.starts_with("SKIPPED"))
        .unwrap_or("SKIPPED: the fetch script gave no reason")
        .to_owned()
}
