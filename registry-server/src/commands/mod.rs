//! One file per subcommand.

mod check;
mod completions;
mod gc;
mod man;
mod serve;
mod user;

use std::path::{Path, PathBuf};

use crate::{
    audit::Audit,
    config::{Config, ConfigError},
    error::OciError,
    failure::{Exit, Failure},
    metadata::Metadata,
    registry::{DATABASE, Lock, Registry, RegistryError, Settings},
    site::{Complete, Current, Site},
    store::{Directory, Store},
};

/// What `bpfseal-registry` can do.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Verify every blob and manifest against its digest.
    Check(check::Args),
    /// Print a shell's completion script.
    Completions(completions::Args),
    /// Remove blobs that no manifest uses. The registry must not be serving.
    Gc(gc::Args),
    /// Write the manual pages into a folder.
    Man(man::Args),
    /// Serve the registry over HTTP.
    Serve(Box<serve::Args>),
    /// Add, remove and list users with passwords.
    User(user::Args),
}

impl Command {
    /// Does it.
    pub fn run(&self, json: bool) -> Result<(), Failure> {
        match self {
            Self::Check(args) => check::run(args, json),
            Self::Completions(args) => completions::run(args),
            Self::Gc(args) => gc::run(args, json),
            Self::Man(args) => man::run(args),
            Self::Serve(args) => serve::run(args, json),
            Self::User(args) => user::run(args, json),
        }
    }
}

/// Where a registry keeps everything.
#[derive(Clone, clap::Args)]
struct Root {
    /// Folder of the registry; created if it does not exist [default: registry]
    #[arg(long, value_name = "DIR", env = "BPFSEAL_REGISTRY_ROOT")]
    root: Option<PathBuf>,
    /// Configuration: users, rights, TLS, rules of repositories, storage.
    #[arg(long, value_name = "FILE", env = "BPFSEAL_REGISTRY_CONFIG")]
    config: Option<PathBuf>,
}

impl Root {
    /// The configuration, and the folder: the flag's, else the configuration's.
    fn open(&self) -> Result<(Config, PathBuf), Failure> {
        let config = self.config.as_deref().map(Config::read).transpose();
        let config = config.map_err(misconfigured)?.unwrap_or_default();
        let root = self.root.clone().or_else(|| config.root.clone());
        Ok((config, root.unwrap_or_else(|| PathBuf::from("registry"))))
    }
}

fn misconfigured(error: ConfigError) -> Failure {
    Failure::from_error(Exit::Usage, &error)
        .remedy("Correct it; docs/registry.md describes every key.")
}

/// Runs `work` with an open registry that nobody else has open.
fn with_registry<T, F>(
    root: &Path,
    settings: Settings,
    frame: impl FnOnce() -> Result<Frame, Failure>,
    work: impl FnOnce(std::sync::Arc<Registry>) -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let lock = Lock::take(root).map_err(unusable)?;
    let Frame {
        site,
        config,
        flags,
        audit,
    } = frame()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::from_error(Exit::Internal, &error))?;
    let result = runtime.block_on(async {
        let current = Current::new(site, config, root, flags);
        let opened = Registry::open(root, settings, current, audit).await;
        let registry = opened.map_err(unusable)?;
        let metadata = registry.metadata.clone();
        let result = work(registry).await;
        metadata.close().await;
        result
    });
    drop(lock);
    result
}

/// What surrounds a registry while it serves.
struct Frame {
    site: Site,
    config: Option<PathBuf>,
    flags: Box<Complete>,
    audit: Option<Audit>,
}

impl Frame {
    /// Nothing: upkeep has no clients.
    fn bare(root: &Path) -> Result<Self, Failure> {
        let site = Site::new(&Config::default(), root);
        Ok(Self {
            site: site.map_err(misconfigured)?,
            config: None,
            flags: Box::new(|_| ()),
            audit: None,
        })
    }
}

/// Runs `work` on a registry that a server may have open: it can only read.
fn inspect<T, F>(
    root: &Path,
    work: impl FnOnce(Metadata, Box<dyn Store>) -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::from_error(Exit::Internal, &error))?;
    runtime.block_on(async {
        let database = root.join(DATABASE);
        if !database.is_file() {
            let message = format!("{} holds no registry", root.display());
            return Err(Failure::new(Exit::Usage, message).remedy("Name its folder with --root."));
        }
        let metadata = Metadata::inspect(&database).await;
        let metadata = metadata.map_err(|error| Failure::from_error(Exit::Usage, &error))?;
        let result = work(metadata.clone(), Box::new(Directory::inspect(root))).await;
        metadata.close().await;
        result
    })
}

fn failed(error: OciError) -> Failure {
    Failure::from_error(Exit::Internal, &error)
}

fn unusable(error: RegistryError) -> Failure {
    let failure = Failure::from_error(Exit::Usage, &error);
    match error {
        RegistryError::Locked { .. } => {
            failure.remedy("Stop the other process, or name another folder with --root.")
        }
        _ => failure.remedy("Name a folder that can be written with --root."),
    }
}
