//! PostgreSQL: a server that any number of instances write to.

use std::{str::FromStr as _, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, PgPool, Row as _,
    postgres::{PgConnectOptions, PgConnection, PgPoolOptions},
};

use super::{
    Metadata, OpenError,
    commit::{Source, Writer},
    now,
    sql::Readers,
};

/// Each entry takes the schema one version up; the table `schema_version` says which have.
const MIGRATIONS: &[&str] = &[
    include_str!("postgres_1.sql"),
    include_str!("postgres_2.sql"),
];

/// Connections of one instance for questions, beside the one that writes.
const READERS: u32 = 8;

/// The advisory lock of whoever changes the schema. That of whoever writes is in `commit`.
const MIGRATION_LOCK: i64 = 7_092_837_110;

/// How long a request waits for a connection before it is told 503.
const PATIENCE: Duration = Duration::from_secs(3);

pub async fn open(url: &str) -> Result<Metadata, OpenError> {
    let options = options(url)?;
    let mut connection = options.connect().await?;
    migrate(&mut connection).await?;
    for (setting, fault) in [
        ("fsync", "a power cut can destroy the database"),
        ("full_page_writes", "a power cut can damage the database"),
    ] {
        let show = sqlx::AssertSqlSafe(format!("SHOW {setting}"));
        let row = sqlx::raw_sql(show).fetch_one(&mut connection).await?;
        if row.try_get::<String, _>(0)? == "off" {
            tracing::warn!("PostgreSQL runs with {setting} off: {fault}");
        }
    }
    connection.close().await?;
    Ok(Metadata {
        readers: Readers::Postgres(pool(options.clone(), READERS)),
        writer: Writer::start(Source::Postgres(pool(options, 1))),
    })
}

pub async fn inspect(url: &str) -> Result<Metadata, OpenError> {
    let options = options(url)?.options([("default_transaction_read_only", "on")]);
    let mut connection = options.connect().await?;
    OpenError::refuse_newer(version(&mut connection).await?, MIGRATIONS.len() as i64)?;
    connection.close().await?;
    Ok(Metadata {
        writer: Writer::none(),
        readers: Readers::Postgres(pool(options, READERS)),
    })
}

/// A server that hangs must not make requests hang, an instance that hangs must not keep the
/// others from writing, and a commit is durable whatever the server's default says.
fn options(url: &str) -> Result<PgConnectOptions, OpenError> {
    let kind = url.split_once("://").map_or("", |(kind, _)| kind);
    if !["postgres", "postgresql"].contains(&kind) {
        return Err(OpenError::Kind(kind.to_owned()));
    }
    let options = PgConnectOptions::from_str(url)?.application_name("bpfseal-registry");
    let options = options.options([
        ("lock_timeout", "15s"),
        ("statement_timeout", "30s"),
        ("idle_in_transaction_session_timeout", "10s"),
        ("synchronous_commit", "on"),
    ]);
    Ok(options.disable_statement_logging())
}

fn pool(options: PgConnectOptions, most: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(PATIENCE)
        .connect_lazy_with(options)
}

async fn version(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let known = sqlx::query("SELECT to_regclass('schema_version') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !known.try_get::<bool, _>(0)? {
        return Ok(0);
    }
    let row = sqlx::query("SELECT coalesce(max(version), 0) FROM schema_version")
        .fetch_one(connection)
        .await?;
    row.try_get(0)
}

/// In one transaction, and one instance at a time.
async fn migrate(connection: &mut PgConnection) -> Result<(), OpenError> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(MIGRATION_LOCK)
        .execute(&mut *transaction)
        .await?;
    let found = version(&mut transaction).await?;
    OpenError::refuse_newer(found, MIGRATIONS.len() as i64)?;
    if found == 0 {
        let table = "CREATE TABLE schema_version (version BIGINT PRIMARY KEY, applied_at BIGINT)";
        sqlx::raw_sql(table).execute(&mut *transaction).await?;
    }
    for (version, migration) in (1_i64..).zip(MIGRATIONS).skip(found.max(0) as usize) {
        sqlx::raw_sql(*migration).execute(&mut *transaction).await?;
        sqlx::query("INSERT INTO schema_version VALUES ($1, $2)")
            .bind(version)
            .bind(now())
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(())
}
