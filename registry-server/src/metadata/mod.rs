//! Tags, manifests, referrers and who shows which blob, in SQLite or PostgreSQL.
//!
//! Writes go through one [`commit::Writer`] for each process that commits them in groups: an
//! answer is sent after the commit that holds it reached the disk, and a hundred concurrent
//! pushes share one flush. Reads use their own connections, so they never wait for a writer.

mod collect;
mod commit;
mod postgres;
mod read;
mod sql;
mod sqlite;
mod upload;
mod write;

use std::path::PathBuf;

use crate::error::OciError;

pub use collect::Place;
pub use read::{Names, Referrers, StoredManifest};
pub use upload::Session;
pub use write::{Condition, NewManifest, Quota, Removed};

/// Which database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// A file, for one process.
    Sqlite(PathBuf),
    /// A server, `postgres://…`, for any number of instances.
    Postgres(String),
}

/// The open database.
#[derive(Clone)]
pub struct Metadata {
    writer: commit::Writer,
    readers: sql::Readers,
}

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database says no.
    #[error("cannot open the metadata database")]
    Database(#[from] sqlx::Error),
    /// The address is of another kind of database.
    #[error("the database's address begins with {0:?}; want postgres://")]
    Kind(String),
    /// Written by a later release.
    #[error("the metadata has version {found}, this program knows up to {known}")]
    TooNew {
        /// The version in the database.
        found: i64,
        /// The last version known here.
        known: i64,
    },
}

impl OpenError {
    fn refuse_newer(found: i64, known: i64) -> Result<(), Self> {
        match found > known {
            true => Err(Self::TooNew { found, known }),
            false => Ok(()),
        }
    }
}

impl Metadata {
    /// Opens or creates the database and brings its schema up to date.
    pub async fn open(database: &Database) -> Result<Self, OpenError> {
        match database {
            Database::Sqlite(path) => sqlite::open(path).await,
            Database::Postgres(url) => postgres::open(url).await,
        }
    }

    /// Opens an existing database that another process may be writing. Whatever would
    /// change it fails.
    pub async fn inspect(database: &Database) -> Result<Self, OpenError> {
        match database {
            Database::Sqlite(path) => sqlite::inspect(path).await,
            Database::Postgres(url) => postgres::inspect(url).await,
        }
    }

    /// Whether other instances may be writing: then only the database knows where a tag is.
    pub fn is_shared(&self) -> bool {
        matches!(self.readers, sql::Readers::Postgres(_))
    }

    /// Waits for what is being written and closes the database.
    pub async fn close(self) {
        match &self.readers {
            sql::Readers::Sqlite(pool) => pool.close().await,
            sql::Readers::Postgres(pool) => pool.close().await,
        }
        self.writer.close().await;
    }
}

/// A size or count as databases store it.
fn integer(number: u64) -> Result<i64, OciError> {
    i64::try_from(number).map_err(|_| {
        OciError::new(
            crate::error::Code::SizeInvalid,
            "a size is larger than any blob can be",
        )
    })
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}
