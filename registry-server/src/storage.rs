//! Where a registry keeps what: its database and its blobs, chosen by flags and configuration.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    config,
    metadata::{Database, Metadata},
    registry::RegistryError,
    store::{Address, Bucket, Directory, Store, StoreId},
};

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// The instance's own folder: its lock, its audit log, and all of the rest by default.
    pub root: PathBuf,
    /// Tags, manifests, referrers.
    pub database: Database,
    blobs: Blobs,
}

/// Where blobs are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Blobs {
    /// In the instance's own folder.
    Root,
    /// In a folder that several instances may share.
    Folder(PathBuf),
    /// In an S3-compatible store.
    Bucket(Address),
}

impl Storage {
    /// What `[storage]` says, over `root`.
    pub fn new(root: PathBuf, storage: &config::Storage) -> Self {
        let database = match &storage.database {
            Some(url) => Database::Postgres(url.clone()),
            None => Database::Sqlite(root.join(DATABASE)),
        };
        let blobs = match storage.blobs.as_deref() {
            None => Blobs::Root,
            Some(url) if url.starts_with("s3://") => Blobs::Bucket(Address {
                url: url.to_owned(),
                endpoint: storage.s3_endpoint.clone(),
                region: storage.s3_region.clone(),
                patience: Duration::from_secs(storage.s3_timeout_seconds.unwrap_or(20).max(1)),
            }),
            Some(folder) => Blobs::Folder(PathBuf::from(folder)),
        };
        Self {
            root,
            database,
            blobs,
        }
    }

    /// The file of the database, if it is one.
    pub fn database_file(&self) -> Option<&Path> {
        match &self.database {
            Database::Sqlite(path) => Some(path),
            Database::Postgres(_) => None,
        }
    }

    /// Whether uploads and blobs are such that other instances can go on with them.
    pub fn is_shared(&self) -> bool {
        matches!(self.database, Database::Postgres(_)) || self.blobs != Blobs::Root
    }

    /// Opens the store for writing: proves what it must promise, and that it belongs to the
    /// database.
    pub async fn open_store(&self, metadata: &Metadata) -> Result<Arc<dyn Store>, RegistryError> {
        let folder = |path: &Path| {
            let path = path.display().to_string();
            move |error| RegistryError::Folder { path, error }
        };
        let store: Arc<dyn Store> = match &self.blobs {
            Blobs::Root if self.is_shared() => {
                Arc::new(Directory::share(&self.root).map_err(folder(&self.root))?)
            }
            Blobs::Root => Arc::new(Directory::open(&self.root).map_err(folder(&self.root))?),
            Blobs::Folder(path) => {
                std::fs::create_dir_all(path).map_err(folder(path))?;
                Arc::new(Directory::share(path).map_err(folder(path))?)
            }
            Blobs::Bucket(address) => {
                let bucket = Bucket::new(address)?;
                bucket.prove_atomic().await?;
                Arc::new(bucket)
            }
        };
        if self.is_shared() {
            self.claim(&store, metadata).await?;
        }
        Ok(store)
    }

    /// Opens the store for reading.
    pub fn inspect_store(&self) -> Result<Arc<dyn Store>, RegistryError> {
        Ok(match &self.blobs {
            Blobs::Root => Arc::new(Directory::inspect(&self.root)),
            Blobs::Folder(path) => Arc::new(Directory::inspect(path)),
            Blobs::Bucket(address) => Arc::new(Bucket::new(address)?),
        })
    }

    /// Garbage collection removes what the database does not know: with another registry's
    /// blobs that would be all of them.
    async fn claim(
        &self,
        store: &Arc<dyn Store>,
        metadata: &Metadata,
    ) -> Result<(), RegistryError> {
        let unusable = |error| RegistryError::Folder {
            path: self.root.display().to_string(),
            error,
        };
        let new = StoreId::random().map_err(unusable)?;
        let want = metadata.store_id(new).await.map_err(RegistryError::Claim)?;
        let (store, id) = (Arc::clone(store), want.clone());
        let claimed = tokio::task::spawn_blocking(move || store.claim(&id)).await;
        let got = claimed
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(|error| RegistryError::Claim(error.into()))?;
        match got == want {
            true => Ok(()),
            false => Err(RegistryError::Foreign),
        }
    }
}

/// File name of the metadata.
const DATABASE: &str = "metadata.db";
