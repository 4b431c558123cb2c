//! The registry's state: what every request handler works with.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore},
    task::spawn_blocking,
};

use crate::{
    admission::Verdict,
    audit::Audit,
    cache::Cache,
    digest::Digest,
    error::OciError,
    lists::Lists,
    metadata::{Metadata, OpenError, StoredManifest},
    metrics::Metrics,
    name::Repository,
    route::Reference,
    site::Current,
    storage::Storage,
    store::{BucketError, Object, Store},
    upload::Uploads,
};

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether a manifest may refer to content that the repository does not have.
    pub sparse: bool,
    /// Bytes of blobs and manifests kept in memory.
    pub cache_bytes: usize,
    /// Most upload sessions at a time.
    pub uploads: usize,
    /// How long an upload may stay untouched.
    pub upload_idle: Duration,
    /// How long a client may send nothing in the middle of a request, or take nothing
    /// in the middle of an answer.
    pub idle: Duration,
    /// How long the collector leaves alone what somebody pushed or asked for.
    pub grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sparse: false,
            cache_bytes: 32 << 20,
            uploads: 4096,
            upload_idle: Duration::from_secs(24 * 3600),
            idle: Duration::from_secs(30),
            grace: Duration::from_secs(24 * 3600),
        }
    }
}

/// An open registry.
pub struct Registry {
    /// What the operator chose.
    pub settings: Settings,
    /// Tags, manifests, referrers, which repository shows which blob.
    pub metadata: Metadata,
    /// Blobs' bytes.
    pub store: Arc<dyn Store>,
    /// Blobs on their way in.
    pub uploads: Arc<Uploads>,
    /// Sizes of blobs by the repository that shows them.
    pub shown: Cache<(Repository, Digest), Arc<Shown>>,
    /// Bytes of small blobs. Content under a digest never changes.
    pub blobs: Cache<Digest, Bytes>,
    /// Manifests by name.
    pub manifests: Cache<(Repository, Reference), Arc<StoredManifest>>,
    /// Lists of tags and referrers, by page.
    pub lists: Lists,
    /// Room for manifests that are being pushed, in units of [`ROOM_UNIT`].
    pub manifest_room: Arc<Semaphore>,
    /// Rights and rules in force.
    pub current: Current,
    /// Where writes and refusals are noted.
    pub audit: Option<Audit>,
    /// What policies say of artifacts.
    pub verdicts: Cache<(Repository, Digest), Arc<Verdict>>,
    /// Rises with every change in a repository with a policy.
    pub epoch: AtomicU64,
    /// What is counted.
    pub metrics: Metrics,
    shelves: Vec<RwLock<()>>,
    copies: bool,
}

/// A blob that a repository shows.
pub struct Shown {
    /// How many bytes it has.
    pub size: u64,
    /// Which copy of it.
    pub copy: String,
    /// When the metadata last learned that somebody wants it, in seconds since 1970.
    pub touched: AtomicI64,
}

/// Why a registry cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The folder cannot be used.
    #[error("cannot use the folder {path}")]
    Folder {
        /// Which.
        path: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Another process has it open.
    #[error("another bpfseal-registry uses {path}")]
    Locked {
        /// Which folder.
        path: String,
    },
    /// The metadata cannot be used.
    #[error(transparent)]
    Metadata(#[from] OpenError),
    /// The store of blobs cannot be used.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The database or the store does not say whether they belong together.
    #[error("cannot tell whose store of blobs this is")]
    Claim(#[source] OciError),
    /// The store has the blobs of another registry.
    #[error("the store of blobs belongs to another database")]
    Foreign,
}

/// Locks between keeping a blob and collecting it: enough that two different blobs
/// rarely meet.
const SHELVES: usize = 64;

/// Bytes of a manifest that is being pushed are counted in units of this.
pub const ROOM_UNIT: usize = 64 * 1024;

/// Manifests in flight: 64 MiB, sixteen of the largest.
const MANIFEST_ROOM: usize = 1024;

impl Registry {
    /// Opens or creates a registry. The caller holds the lock of its folder.
    pub async fn open(
        storage: &Storage,
        settings: Settings,
        current: Current,
        audit: Option<Audit>,
    ) -> Result<Arc<Self>, RegistryError> {
        let folder = |error| RegistryError::Folder {
            path: storage.root.display().to_string(),
            error,
        };
        let metadata = Metadata::open(&storage.database).await?;
        let store = storage.open_store(&metadata).await?;
        // The database file's name is as durable as its content from here on.
        std::fs::File::open(&storage.root)
            .and_then(|file| file.sync_all())
            .map_err(folder)?;
        let copies = storage.is_shared();
        let (most, idle) = (settings.uploads, settings.upload_idle);
        let uploads = match copies {
            true => Uploads::share(Arc::clone(&store), metadata.clone(), most, idle),
            false => Uploads::open(Arc::clone(&store), most, idle).map_err(folder)?,
        };
        let quarter = settings.cache_bytes / 4;
        // What another instance may change is asked of the database; bytes never change.
        let own = if metadata.is_shared() { 0 } else { quarter };
        Ok(Arc::new(Self {
            metadata,
            uploads: Arc::new(uploads),
            shown: Cache::new(own),
            blobs: Cache::new(2 * quarter),
            manifests: Cache::new(quarter),
            lists: Lists::new(2 * own),
            manifest_room: Arc::new(Semaphore::new(MANIFEST_ROOM)),
            shelves: (0..SHELVES).map(|_| RwLock::new(())).collect(),
            verdicts: Cache::new(own),
            epoch: AtomicU64::new(0),
            current,
            audit,
            metrics: Metrics::default(),
            store,
            settings,
            copies,
        }))
    }

    /// Whether each push keeps its bytes under a name of its own.
    pub fn has_copies(&self) -> bool {
        self.copies
    }

    /// Removes bytes that no row names.
    pub async fn remove(&self, object: Object) -> Result<(), OciError> {
        let store = Arc::clone(&self.store);
        Ok(spawn_blocking(move || store.remove(&object))
            .await
            .map_err(OciError::internal)??)
    }

    /// Held while a blob is made durable and recorded: the collector waits.
    pub async fn shelve(&self, digest: &Digest) -> RwLockReadGuard<'_, ()> {
        self.shelf(digest).read().await
    }

    /// Held while a blob is collected: pushes of it wait.
    pub async fn clear_shelf(&self, digest: &Digest) -> RwLockWriteGuard<'_, ()> {
        self.shelf(digest).write().await
    }

    fn shelf(&self, digest: &Digest) -> &RwLock<()> {
        let first = digest.as_bytes().first().copied().unwrap_or(0);
        &self.shelves[usize::from(first) % SHELVES]
    }
}

/// The lock of a registry's folder. Dropped, it lets the next process in.
pub struct Lock(#[expect(dead_code, reason = "the open file is the lock")] std::fs::File);

impl Lock {
    /// Takes the folder `root`, which is created if need be.
    pub fn take(root: &Path) -> Result<Self, RegistryError> {
        let path = root.display().to_string();
        let folder = |error| RegistryError::Folder {
            path: path.clone(),
            error,
        };
        std::fs::create_dir_all(root).map_err(folder)?;
        let mut options = std::fs::OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(root.join("lock"));
        let file = file.map_err(folder)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(RegistryError::Locked { path: path.clone() })
            }
            Err(std::fs::TryLockError::Error(error)) => Err(folder(error)),
        }
    }
}
