//! Group commit: many writers, one transaction, one flush.

use futures_util::future::BoxFuture;
use sqlx::{Connection as _, PgPool, sqlite::SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::sql::{Connection, patiently};
use crate::error::OciError;

/// Most writes in one transaction. More would keep the first waiting longer than a
/// flush costs.
const GROUP: usize = 128;

/// Most writes that wait for a place; beyond it callers wait too.
const WAITING: usize = 1024;

/// Runs one write inside the open transaction, or not at all if that is lost already, and
/// keeps its result until the commit.
type Job =
    Box<dyn for<'c> FnOnce(Result<&'c mut Connection, OciError>) -> BoxFuture<'c, Finish> + Send>;

/// Told whether the transaction was committed.
struct Finish {
    failed: Option<OciError>,
    tell: Box<dyn FnOnce(Result<(), OciError>) + Send>,
}

enum Message {
    Write(Job),
    Close(oneshot::Sender<()>),
}

/// The one place that writes.
#[derive(Clone)]
pub struct Writer(mpsc::Sender<Message>);

impl Writer {
    /// Writes to `source`.
    pub fn start(source: Source) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(run(source, receiver));
        Self(sender)
    }

    /// Writes nothing: every write fails.
    pub fn none() -> Self {
        Self(mpsc::channel(1).0)
    }

    /// Runs `write` in a transaction that others may share, and returns once it is durable.
    ///
    /// An error from `write` undoes only what `write` did. `committed` runs after the
    /// commit and before anybody is told, even if the caller has gone away: it is where
    /// caches forget.
    pub async fn write<T, W, C>(&self, write: W, committed: C) -> Result<T, OciError>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, Result<T, OciError>>
            + Send
            + 'static,
        C: FnOnce(&T) + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let running = match connection {
                Ok(connection) => write(connection),
                Err(lost) => Box::pin(std::future::ready(Err(lost))),
            };
            Box::pin(async move {
                let result = running.await;
                Finish {
                    failed: result.as_ref().err().cloned(),
                    tell: Box::new(move |outcome| {
                        let result = outcome.and(result);
                        if let Ok(value) = &result {
                            committed(value);
                        }
                        // The caller may have hung up: the write stands either way.
                        let _ = sender.send(result);
                    }),
                }
            })
        });
        let stopped = |_| OciError::internal("the metadata writer has stopped");
        self.0
            .send(Message::Write(job))
            .await
            .map_err(|_| stopped(()))?;
        receiver.await.map_err(|_| stopped(()))?
    }

    /// Finishes what was asked before, then closes the database.
    pub async fn close(&self) {
        let (sender, receiver) = oneshot::channel();
        if self.0.send(Message::Close(sender)).await.is_ok() {
            let _ = receiver.await;
        }
    }
}

/// Where transactions are made.
pub enum Source {
    /// On this connection: SQLite has one writer.
    Sqlite(Box<Connection>),
    /// On a connection of the pool, which replaces those that broke.
    Postgres(PgPool),
}

impl Source {
    /// Writes to an SQLite database.
    pub fn sqlite(connection: SqliteConnection) -> Self {
        Self::Sqlite(Box::new(Connection::Sqlite(connection)))
    }

    async fn close(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(connection) => match *connection {
                Connection::Sqlite(connection) => connection.close().await,
                Connection::Postgres(_) => Ok(()),
            },
            Self::Postgres(pool) => {
                pool.close().await;
                Ok(())
            }
        }
    }
}

async fn run(mut source: Source, mut receiver: mpsc::Receiver<Message>) {
    let mut messages = Vec::with_capacity(GROUP);
    while receiver.recv_many(&mut messages, GROUP).await > 0 {
        let mut jobs = Vec::with_capacity(messages.len());
        let mut closing = None;
        for message in messages.drain(..) {
            match message {
                Message::Write(job) => jobs.push(job),
                Message::Close(done) => closing = Some(done),
            }
        }
        if !jobs.is_empty() {
            commit(&mut source, jobs).await;
        }
        if let Some(done) = closing {
            if let Err(error) = source.close().await {
                tracing::error!(%error, "the metadata database did not close cleanly");
            }
            let _ = done.send(());
            return;
        }
    }
}

async fn commit(source: &mut Source, jobs: Vec<Job>) {
    match source {
        Source::Sqlite(connection) => {
            if !commit_on(connection, "BEGIN IMMEDIATE", jobs).await {
                // Fails when SQLite has rolled back by itself, which is as good.
                let _ = execute(connection, "ROLLBACK").await;
            }
        }
        Source::Postgres(pool) => match pool.acquire().await {
            Ok(connection) => {
                let mut connection = Connection::Postgres(connection);
                let committed = commit_on(&mut connection, BEGIN_POSTGRES, jobs).await;
                if let (Connection::Postgres(connection), false) = (connection, committed) {
                    // In whatever state it is: closing it undoes what was begun.
                    drop(connection.detach());
                }
            }
            Err(error) => {
                let lost = OciError::from(error);
                for job in jobs {
                    (job(Err(lost.clone())).await.tell)(Err(lost.clone()));
                }
            }
        },
    }
}

/// One writer at a time among all instances, as in SQLite: what a transaction has read is
/// still so when it commits. The number is that of [`super::postgres::LOCK`].
const BEGIN_POSTGRES: &str = "BEGIN; SELECT pg_advisory_xact_lock(7092837109)";

/// Says whether there was a commit. Without one, the transaction is still open.
async fn commit_on(connection: &mut Connection, begin: &'static str, jobs: Vec<Job>) -> bool {
    let mut outcome = execute(connection, begin).await;
    let mut finishes = Vec::with_capacity(jobs.len());
    for job in jobs {
        if outcome.is_ok() {
            outcome = execute(connection, "SAVEPOINT job").await;
        }
        let open = outcome.clone().map(|()| &mut *connection);
        let finish = job(open).await;
        if outcome.is_ok() {
            let undone = match finish.failed {
                None => execute(connection, "RELEASE job").await,
                Some(_) => execute(connection, "ROLLBACK TO job; RELEASE job").await,
            };
            // A full disk makes SQLite give up the whole transaction: then the reason is
            // why the job failed, not that there was nothing left to undo.
            outcome = undone.map_err(|error| finish.failed.clone().unwrap_or(error));
        }
        finishes.push(finish);
    }
    if outcome.is_ok() {
        outcome = execute(connection, "COMMIT").await;
    }
    for finish in finishes {
        (finish.tell)(outcome.clone());
    }
    outcome.is_ok()
}

async fn execute(connection: &mut Connection, sql: &'static str) -> Result<(), OciError> {
    match connection {
        Connection::Sqlite(connection) => {
            sqlx::raw_sql(sql).execute(connection).await?;
        }
        Connection::Postgres(connection) => {
            patiently(sqlx::raw_sql(sql).execute(&mut **connection)).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use sqlx::{ConnectOptions as _, Row as _, sqlite::SqliteConnectOptions};

    use super::*;
    use crate::{error::Code, metadata::sql::query};

    /// A writer on a new database, and a reader of the same.
    async fn open(folder: &std::path::Path) -> (Writer, SqliteConnection) {
        let options = SqliteConnectOptions::new().filename(folder.join("db"));
        let options = options.create_if_missing(true);
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql("CREATE TABLE t (n INTEGER UNIQUE)")
            .execute(&mut connection)
            .await
            .unwrap();
        let reader = options.connect().await.unwrap();
        (Writer::start(Source::sqlite(connection)), reader)
    }

    async fn insert(writer: &Writer, n: i64, then: Result<(), OciError>) -> Result<(), OciError> {
        let write = writer.write(
            move |connection| {
                Box::pin(async move {
                    query("INSERT INTO t VALUES ($1)")
                        .bind(n)
                        .execute(connection)
                        .await?;
                    then
                })
            },
            |()| (),
        );
        write.await
    }

    async fn rows(reader: &mut SqliteConnection) -> Vec<i64> {
        let rows = sqlx::query("SELECT n FROM t ORDER BY n")
            .fetch_all(reader)
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    fn refused() -> OciError {
        OciError::new(Code::Denied, "no")
    }

    #[tokio::test]
    async fn a_refused_write_undoes_itself_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, mut reader) = open(folder.path()).await;
        let results = tokio::join!(
            insert(&writer, 1, Ok(())),
            insert(&writer, 2, Err(refused())),
            insert(&writer, 3, Ok(())),
        );
        assert_eq!(results, (Ok(()), Err(refused()), Ok(())));
        assert_eq!(rows(&mut reader).await, [1, 3]);
    }

    #[tokio::test]
    async fn a_lost_transaction_is_told_to_everybody_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, mut reader) = open(folder.path()).await;
        let lose = writer.write(
            |connection| {
                Box::pin(async move {
                    // What SQLite does by itself when the disk is full.
                    execute(connection, "ROLLBACK").await?;
                    Err::<(), _>(refused())
                })
            },
            |()| (),
        );
        let results = tokio::join!(insert(&writer, 1, Ok(())), lose, insert(&writer, 2, Ok(())));
        assert_eq!(results, (Err(refused()), Err(refused()), Err(refused())));
        assert_eq!(rows(&mut reader).await, [] as [i64; 0]);
        assert_eq!(insert(&writer, 4, Ok(())).await, Ok(()));
        assert_eq!(rows(&mut reader).await, [4]);
    }

    #[tokio::test]
    async fn a_write_stands_when_its_caller_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, mut reader) = open(folder.path()).await;
        let gone = insert(&writer, 1, Ok(()));
        assert_eq!(gone.now_or_never(), None);
        writer.close().await;
        assert_eq!(rows(&mut reader).await, [1]);
    }
}
