//! Group commit: many writers, one transaction, one flush.

use futures_util::future::BoxFuture;
use sqlx::{Connection as _, sqlite::SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use crate::error::OciError;

/// Most writes in one transaction. More would keep the first waiting longer than a
/// flush costs.
const GROUP: usize = 128;

/// Most writes that wait for a place; beyond it callers wait too.
const WAITING: usize = 1024;

/// Runs one write inside the open transaction and keeps its result until the commit.
type Job = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Finish> + Send>;

/// Told whether the transaction was committed.
struct Finish {
    keep: bool,
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
    /// Takes over `connection`.
    pub fn start(connection: SqliteConnection) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(run(connection, receiver));
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
        W: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, OciError>>
            + Send
            + 'static,
        C: FnOnce(&T) + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let running = write(connection);
            Box::pin(async move {
                let result = running.await;
                Finish {
                    keep: result.is_ok(),
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

async fn run(mut connection: SqliteConnection, mut receiver: mpsc::Receiver<Message>) {
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
            commit(&mut connection, jobs).await;
        }
        if let Some(done) = closing {
            if let Err(error) = connection.close().await {
                tracing::error!(%error, "the metadata database did not close cleanly");
            }
            let _ = done.send(());
            return;
        }
    }
}

async fn commit(connection: &mut SqliteConnection, jobs: Vec<Job>) {
    let begun = execute(connection, "BEGIN IMMEDIATE").await;
    let mut finishes = Vec::with_capacity(jobs.len());
    let mut outcome = begun;
    for job in jobs {
        if outcome.is_ok() {
            outcome = execute(connection, "SAVEPOINT job").await;
        }
        // When the transaction is already lost the job still runs, against a database
        // that refuses it or is rolled back below, so that its caller is told.
        let finish = job(connection).await;
        if outcome.is_ok() {
            let undo = if finish.keep {
                "RELEASE job"
            } else {
                "ROLLBACK TO job; RELEASE job"
            };
            outcome = execute(connection, undo).await;
        }
        finishes.push(finish);
    }
    if outcome.is_ok() {
        outcome = execute(connection, "COMMIT").await;
    }
    if outcome.is_err() {
        // Fails when SQLite has rolled back by itself, which is as good.
        let _ = execute(connection, "ROLLBACK").await;
    }
    for finish in finishes {
        (finish.tell)(outcome.clone());
    }
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) -> Result<(), OciError> {
    sqlx::raw_sql(sql).execute(connection).await?;
    Ok(())
}
