//! Tags, manifests, referrers and who shows which blob, in SQLite.
//!
//! Writes go through one [`Writer`] that commits them in groups with `synchronous=FULL`:
//! an answer is sent after the commit that holds it reached the disk, and a hundred
//! concurrent pushes share one flush. Reads use their own connections on the
//! write-ahead log, so they never wait for a writer.

mod collect;
mod commit;
mod read;
mod write;

use std::{path::Path, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, Row as _, SqlitePool,
    sqlite::{
        SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions,
        SqliteSynchronous,
    },
};

use crate::error::OciError;

pub use collect::Place;
pub use read::{Names, Referrers, StoredManifest};
pub use write::{Condition, NewManifest, Quota, Removed};

/// The open database.
#[derive(Clone)]
pub struct Metadata {
    writer: commit::Writer,
    readers: SqlitePool,
}

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SQLite says no.
    #[error("cannot open the metadata database")]
    Sqlite(#[from] sqlx::Error),
    /// Written by a later release.
    #[error("the metadata has version {found}, this program knows up to {known}")]
    TooNew {
        /// The version in the file.
        found: i64,
        /// The last version known here.
        known: i64,
    },
}

/// Each entry takes the schema one version up; `PRAGMA user_version` counts them.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];

/// More readers than cores do not help: the data is in the page cache.
const READERS: u32 = 4;

impl Metadata {
    /// Opens or creates the database at `path` and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let options = options(path).create_if_missing(true);
        let options = options
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true);
        let mut connection = options.connect().await?;
        migrate(&mut connection).await?;
        let readers = readers(options).await?;
        Ok(Self {
            writer: commit::Writer::start(connection),
            readers,
        })
    }

    /// Opens an existing database that another process may be writing. Whatever would
    /// change it fails.
    pub async fn inspect(path: &Path) -> Result<Self, OpenError> {
        let readers = readers(options(path)).await?;
        Ok(Self {
            writer: commit::Writer::none(),
            readers,
        })
    }

    /// Waits for what is being written, folds the log into the database and closes it.
    pub async fn close(self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::from_secs(10))
        .disable_statement_logging()
}

async fn readers(options: SqliteConnectOptions) -> Result<SqlitePool, sqlx::Error> {
    SqlitePoolOptions::new()
        .min_connections(READERS)
        .max_connections(READERS)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options.read_only(true))
        .await
}

async fn migrate(connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let row = sqlx::query("PRAGMA user_version")
        .fetch_one(&mut *connection)
        .await?;
    let found: i64 = row.get(0);
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(OpenError::TooNew { found, known });
    }
    for (version, migration) in (1_i64..).zip(MIGRATIONS).skip(found.max(0) as usize) {
        let mut transaction = connection.begin().await?;
        sqlx::raw_sql(*migration).execute(&mut *transaction).await?;
        let set_version = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {version}"));
        sqlx::raw_sql(set_version)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
    }
    Ok(())
}

/// A size or count as SQLite stores it.
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
