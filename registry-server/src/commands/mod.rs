//! One file per subcommand.

mod check;
mod completions;
mod export;
mod gc;
mod import;
mod man;
mod serve;
mod user;

use std::path::{Path, PathBuf};

use command::Output;

use crate::{
    audit::Audit,
    config::{self, Config, ConfigError},
    error::OciError,
    export::TransferError,
    failure::{Exit, Failure},
    metadata::Metadata,
    registry::{Lock, Registry, RegistryError, Settings},
    site::{Complete, Current, Site},
    storage::Storage,
    store::{BucketError, Store},
};

/// What `bpfseal-registry` can do.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Verify every blob and manifest against its digest.
    Check(check::Args),
    /// Print a shell's completion script.
    Completions(completions::Args),
    /// Write repositories as OCI image layouts, to a folder or a tar file.
    Export(export::Args),
    /// Remove blobs that no manifest uses.
    Gc(gc::Args),
    /// Take repositories out of OCI image layouts.
    Import(import::Args),
    /// Write the manual pages into a folder.
    Man(man::Args),
    /// Serve the registry over HTTP.
    Serve(Box<serve::Args>),
    /// Add, remove and list users with passwords.
    User(user::Args),
}

impl Command {
    /// Does it.
    pub fn run(&self, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Check(args) => check::run(args, output),
            Self::Completions(args) => completions::run(args),
            Self::Export(args) => export::run(args, output),
            Self::Gc(args) => gc::run(args, output),
            Self::Import(args) => import::run(args, output),
            Self::Man(args) => man::run(args),
            Self::Serve(args) => serve::run(args, output),
            Self::User(args) => user::run(args, output),
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
    /// Keep tags and manifests in PostgreSQL, which several instances may share:
    /// postgres://USER@HOST/DATABASE (PGPASSWORD and ~/.pgpass are read) [default: SQLite]
    #[arg(
        long,
        value_name = "URL",
        env = "BPFSEAL_REGISTRY_DATABASE",
        hide_env_values = true
    )]
    database: Option<String>,
    /// Keep blobs in an S3-compatible store, s3://BUCKET[/PREFIX] (AWS_ACCESS_KEY_ID and its
    /// like are read), or in a folder that instances share [default: the registry's folder]
    #[arg(long, value_name = "ADDRESS", env = "BPFSEAL_REGISTRY_BLOBS")]
    blobs: Option<String>,
    /// Address of the S3-compatible store if it is not AWS, http://HOST:PORT
    #[arg(long, value_name = "URL", env = "BPFSEAL_REGISTRY_S3_ENDPOINT")]
    s3_endpoint: Option<String>,
    /// Region of the S3-compatible store
    #[arg(long, value_name = "NAME", env = "BPFSEAL_REGISTRY_S3_REGION")]
    s3_region: Option<String>,
    /// Seconds that the S3-compatible store may take to answer [default: 20]
    #[arg(long, value_name = "SECONDS")]
    s3_timeout: Option<u64>,
}

impl Root {
    /// The configuration, and where everything is: what flags say, else the configuration.
    fn open(&self) -> Result<(Config, Storage), Failure> {
        let config = self.config.as_deref().map(Config::read).transpose();
        let config = config.map_err(misconfigured)?.unwrap_or_default();
        let root = self.root.clone().or_else(|| config.root.clone());
        let root = root.unwrap_or_else(|| PathBuf::from("registry"));
        let flag = |flag: &Option<String>, file: &Option<String>| flag.clone().or(file.clone());
        let storage = config::Storage {
            database: flag(&self.database, &config.storage.database),
            blobs: flag(&self.blobs, &config.storage.blobs),
            s3_endpoint: flag(&self.s3_endpoint, &config.storage.s3_endpoint),
            s3_region: flag(&self.s3_region, &config.storage.s3_region),
            s3_timeout_seconds: self.s3_timeout.or(config.storage.s3_timeout_seconds),
        };
        Ok((config, Storage::new(root, &storage)))
    }
}

fn misconfigured(error: ConfigError) -> Failure {
    Failure::from_error(Exit::Usage, &error)
        .with_remedy("Correct it; docs/registry.md describes every key.")
}

/// Runs `work` with an open registry that nobody else has open.
fn with_registry<T, F>(
    storage: &Storage,
    settings: Settings,
    frame: impl FnOnce() -> Result<Frame, Failure>,
    work: impl FnOnce(std::sync::Arc<Registry>) -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let root = &storage.root;
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
        let opened = Registry::open(storage, settings, current, audit).await;
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

/// Upkeep of a folder that holds no registry is a mistake in its name: it makes none.
fn must_exist(storage: &Storage) -> Result<(), Failure> {
    match storage.database_file().is_some_and(|file| !file.is_file()) {
        true => {
            let message = format!("{} holds no registry", storage.root.display());
            Err(Failure::new(Exit::Usage, message).with_remedy("Name its folder with --root."))
        }
        false => Ok(()),
    }
}

/// Runs `work` on a registry that a server may have open: it can only read.
fn inspect<T, F>(
    storage: &Storage,
    work: impl FnOnce(Metadata, std::sync::Arc<dyn Store>) -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::from_error(Exit::Internal, &error))?;
    must_exist(storage)?;
    runtime.block_on(async {
        let metadata = Metadata::inspect(&storage.database).await;
        let metadata = metadata.map_err(|error| unusable(error.into()))?;
        let store = storage.inspect_store().map_err(unusable)?;
        let result = work(metadata.clone(), store).await;
        metadata.close().await;
        result
    })
}

fn failed(error: OciError) -> Failure {
    Failure::from_error(Exit::Internal, &error)
}

fn transfer_failed(error: &TransferError) -> Failure {
    match error {
        TransferError::Damaged { .. } | TransferError::Missing(_) => {
            Failure::from_error(Exit::Refused, error)
                .with_remedy("What is damaged in a registry is named by `bpfseal-registry check`.")
        }
        TransferError::Registry { .. } => Failure::from_error(Exit::Internal, error),
        TransferError::File { .. } | TransferError::Layout { .. } => {
            Failure::from_error(Exit::Usage, error)
                .with_remedy("Name a folder or a .tar file of OCI image layouts.")
        }
    }
}

fn unusable(error: RegistryError) -> Failure {
    let failure = Failure::from_error(Exit::Usage, &error);
    match error {
        RegistryError::Locked { .. } => {
            failure.with_remedy("Stop the other process, or name another folder with --root.")
        }
        RegistryError::Folder { .. } => {
            failure.with_remedy("Name a folder that can be written with --root.")
        }
        RegistryError::Metadata(_) => failure
            .with_remedy("See that the database is there and may be written, or name another."),
        RegistryError::Bucket(BucketError::NotAtomic { .. } | BucketError::Lies) => failure
            .with_remedy(
                "Use a store whose conditional writes (If-None-Match) are atomic: with this one, \
             instances would lose each other's uploads.",
            ),
        RegistryError::Bucket(_) | RegistryError::Claim(_) => failure
            .with_remedy("See that bucket, endpoint, region and AWS_ACCESS_KEY_ID are right."),
        RegistryError::Foreign => {
            failure.with_remedy("Name the database that these blobs belong to, or another store.")
        }
    }
}
