//! SQLite: a file beside the blobs, for one process.

use std::{path::Path, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, Row as _, SqlitePool,
    sqlite::{
        SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions,
        SqliteSynchronous,
    },
};

use super::{
    Metadata, OpenError,
    commit::{Source, Writer},
    sql::Readers,
};

/// Each entry takes the schema one version up; `PRAGMA user_version` counts them.
const MIGRATIONS: &[&str] = &[include_str!("sqlite_1.sql"), include_str!("sqlite_2.sql")];

/// More readers than cores do not help: the data is in the page cache.
const READERS: u32 = 4;

pub async fn open(path: &Path) -> Result<Metadata, OpenError> {
    let options = options(path).create_if_missing(true);
    let options = options
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true);
    let mut connection = options.connect().await?;
    migrate(&mut connection).await?;
    Ok(Metadata {
        readers: Readers::Sqlite(readers(options).await?),
        writer: Writer::start(Source::sqlite(connection)),
    })
}

pub async fn inspect(path: &Path) -> Result<Metadata, OpenError> {
    let pool = readers(options(path)).await?;
    let row = sqlx::query("PRAGMA user_version").fetch_one(&pool).await?;
    OpenError::refuse_newer(row.get(0), MIGRATIONS.len() as i64)?;
    Ok(Metadata {
        writer: Writer::none(),
        readers: Readers::Sqlite(pool),
    })
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
    OpenError::refuse_newer(found, MIGRATIONS.len() as i64)?;
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
