//! One way to ask SQLite and PostgreSQL the same thing. Parameters are `$1`, `$2`… in both.

use std::time::Duration;

use sqlx::{
    Decode, PgPool, Postgres, Row as _, Sqlite, SqlitePool, Type,
    pool::PoolConnection,
    postgres::{PgConnection, PgRow},
    sqlite::{SqliteConnection, SqliteRow},
};

/// The one connection that a transaction is made on.
pub enum Connection {
    /// For as long as the database is open.
    Sqlite(SqliteConnection),
    /// For one transaction.
    Postgres(PoolConnection<Postgres>),
}

/// Connections for questions.
#[derive(Clone)]
pub enum Readers {
    /// On the write-ahead log.
    Sqlite(SqlitePool),
    /// Of the server.
    Postgres(PgPool),
}

/// Where a query runs.
pub enum Target<'c> {
    /// In a transaction.
    Connection(&'c mut Connection),
    /// Anywhere.
    Readers(&'c Readers),
}

impl<'c> From<&'c mut Connection> for Target<'c> {
    fn from(connection: &'c mut Connection) -> Self {
        Self::Connection(connection)
    }
}

impl<'c> From<&'c Readers> for Target<'c> {
    fn from(readers: &'c Readers) -> Self {
        Self::Readers(readers)
    }
}

/// A row of an answer.
pub enum Row {
    /// From SQLite.
    Sqlite(SqliteRow),
    /// From PostgreSQL.
    Postgres(PgRow),
}

impl Row {
    /// The value in a column.
    pub fn try_get<'r, T>(&'r self, column: &str) -> Result<T, sqlx::Error>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
    {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }
}

/// A value for a parameter.
pub enum Value {
    /// A number or a time.
    Integer(i64),
    /// Text, or nothing.
    Text(Option<String>),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// A statement with values for its parameters.
pub struct Query {
    sqlite: &'static str,
    postgres: &'static str,
    values: Vec<Value>,
}

/// A statement that both databases understand.
pub fn query(both: &'static str) -> Query {
    either(both, both)
}

/// A statement that each database spells in its own way.
pub fn either(sqlite: &'static str, postgres: &'static str) -> Query {
    Query {
        sqlite,
        postgres,
        values: Vec::new(),
    }
}

/// How long a server may take to answer: longer than it waits for a lock.
const PATIENCE: Duration = Duration::from_secs(20);

/// Gives up a server that says nothing: the network may have lost it.
pub async fn patiently<T>(
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let late = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    tokio::time::timeout(PATIENCE, answer).await.map_err(late)?
}

/// sqlx' own query with its values.
macro_rules! bound {
    ($database:ty, $sql:expr, $values:expr) => {
        $values
            .into_iter()
            .fold(sqlx::query::<$database>($sql), |query, value| match value {
                Value::Integer(value) => query.bind(value),
                Value::Text(value) => query.bind(value),
                Value::Bytes(value) => query.bind(value),
            })
    };
}

/// `$method` of sqlx' query, on whatever the target is.
macro_rules! on {
    ($self:ident, $target:ident, $method:ident, $wrap_sqlite:expr, $wrap_postgres:expr) => {
        match $target.into() {
            Target::Connection(Connection::Sqlite(connection)) => {
                let query = bound!(Sqlite, $self.sqlite, $self.values);
                query.$method(connection).await.map($wrap_sqlite)
            }
            Target::Readers(Readers::Sqlite(pool)) => {
                let query = bound!(Sqlite, $self.sqlite, $self.values);
                query.$method(pool).await.map($wrap_sqlite)
            }
            Target::Connection(Connection::Postgres(connection)) => {
                let connection: &mut PgConnection = connection;
                let query = bound!(Postgres, $self.postgres, $self.values);
                patiently(query.$method(connection))
                    .await
                    .map($wrap_postgres)
            }
            Target::Readers(Readers::Postgres(pool)) => {
                let query = bound!(Postgres, $self.postgres, $self.values);
                patiently(query.$method(pool)).await.map($wrap_postgres)
            }
        }
    };
}

impl Query {
    /// The value of the next parameter.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// All rows.
    pub async fn fetch_all<'c>(
        self,
        target: impl Into<Target<'c>>,
    ) -> Result<Vec<Row>, sqlx::Error> {
        on!(
            self,
            target,
            fetch_all,
            |rows| rows.into_iter().map(Row::Sqlite).collect(),
            |rows| rows.into_iter().map(Row::Postgres).collect()
        )
    }

    /// The first row, if there is one.
    pub async fn fetch_optional<'c>(
        self,
        target: impl Into<Target<'c>>,
    ) -> Result<Option<Row>, sqlx::Error> {
        on!(
            self,
            target,
            fetch_optional,
            |row| row.map(Row::Sqlite),
            |row| row.map(Row::Postgres)
        )
    }

    /// The first row, which there is.
    pub async fn fetch_one<'c>(self, target: impl Into<Target<'c>>) -> Result<Row, sqlx::Error> {
        on!(self, target, fetch_one, Row::Sqlite, Row::Postgres)
    }

    /// Says how many rows changed.
    pub async fn execute<'c>(self, target: impl Into<Target<'c>>) -> Result<u64, sqlx::Error> {
        on!(self, target, execute, |done| done.rows_affected(), |done| {
            done.rows_affected()
        })
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(Some(value.clone()))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        Self::Text(value.map(str::to_owned))
    }
}

impl From<Option<String>> for Value {
    fn from(value: Option<String>) -> Self {
        Self::Text(value)
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.to_vec())
    }
}
