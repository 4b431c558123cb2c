//! Uploads that any instance can continue, and whose store this is.

use std::time::Duration;

use super::{Metadata, now, sql::query};
use crate::{
    digest::Algorithm, error::OciError, name::Repository, route::UploadId, store::StoreId,
};

/// An upload under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Where its blob is to be shown.
    pub repository: Repository,
    /// What its bytes are hashed with while they arrive.
    pub algorithm: Algorithm,
    touched_at: i64,
}

impl Session {
    /// A new one.
    pub fn new(repository: Repository, algorithm: Algorithm) -> Self {
        Self {
            repository,
            algorithm,
            touched_at: now(),
        }
    }

    /// How long ago somebody last was seen to continue it.
    pub fn age(&self) -> Duration {
        Duration::from_secs(now().saturating_sub(self.touched_at).max(0).unsigned_abs())
    }
}

impl Metadata {
    /// Records a new upload.
    pub async fn start_upload(&self, id: UploadId, session: Session) -> Result<(), OciError> {
        let write = self.writer.write(
            move |connection| {
                Box::pin(async move {
                    query(
                        "INSERT INTO upload (id, repository, algorithm, touched_at)
                         VALUES ($1, $2, $3, $4)",
                    )
                    .bind(id.to_string())
                    .bind(session.repository.as_str())
                    .bind(session.algorithm.name())
                    .bind(session.touched_at)
                    .execute(connection)
                    .await?;
                    Ok(())
                })
            },
            |()| (),
        );
        write.await
    }

    /// The upload with this id.
    pub async fn upload(&self, id: UploadId) -> Result<Option<Session>, OciError> {
        let row = query("SELECT repository, algorithm, touched_at FROM upload WHERE id = $1");
        let row = row.bind(id.to_string()).fetch_optional(&self.readers);
        let Some(row) = row.await? else {
            return Ok(None);
        };
        let algorithm: String = row.try_get("algorithm")?;
        Ok(Some(Session {
            repository: row.try_get::<String>("repository")?.parse()?,
            algorithm: algorithm.parse().map_err(OciError::internal)?,
            touched_at: row.try_get("touched_at")?,
        }))
    }

    /// How many uploads are under way.
    pub async fn count_uploads(&self) -> Result<u64, OciError> {
        let row = query("SELECT count(*) AS uploads FROM upload");
        let row = row.fetch_one(&self.readers).await?;
        Ok(row.try_get::<i64>("uploads")?.unsigned_abs())
    }

    /// Records that bytes came. Says whether the upload is still there.
    pub async fn touch_upload(&self, id: UploadId) -> Result<bool, OciError> {
        let write = self.writer.write(
            move |connection| {
                Box::pin(async move {
                    let touch = query("UPDATE upload SET touched_at = $2 WHERE id = $1");
                    let touch = touch.bind(id.to_string()).bind(now());
                    Ok(touch.execute(connection).await? > 0)
                })
            },
            |_| (),
        );
        write.await
    }

    /// Forgets an upload. Says whether it was there.
    pub async fn end_upload(&self, id: UploadId) -> Result<bool, OciError> {
        let write = self.writer.write(
            move |connection| {
                Box::pin(async move {
                    let end = query("DELETE FROM upload WHERE id = $1").bind(id.to_string());
                    Ok(end.execute(connection).await? > 0)
                })
            },
            |_| (),
        );
        write.await
    }

    /// Uploads that nobody touched for `idle`, a few at a time.
    pub async fn idle_uploads(&self, idle: Duration) -> Result<Vec<UploadId>, OciError> {
        let before = super::collect::cutoff(idle);
        let rows = query("SELECT id FROM upload WHERE touched_at <= $1 LIMIT 100").bind(before);
        let rows = rows.fetch_all(&self.readers).await?;
        let ids = rows.iter().map(|row| row.try_get::<String>("id"));
        let ids: Vec<String> = ids.collect::<Result<_, _>>()?;
        Ok(ids.iter().filter_map(|id| UploadId::parse(id)).collect())
    }

    /// Which store belongs to this database: what it was told first, else `new`.
    pub async fn store_id(&self, new: StoreId) -> Result<StoreId, OciError> {
        let write = self.writer.write(
            move |connection| {
                Box::pin(async move {
                    let insert = query(
                        "INSERT INTO property (name, value) VALUES ('store', $1)
                         ON CONFLICT (name) DO NOTHING",
                    );
                    let insert = insert.bind(new.as_str());
                    insert.execute(&mut *connection).await?;
                    let row = query("SELECT value FROM property WHERE name = 'store'");
                    let row = row.fetch_one(connection).await?;
                    Ok(StoreId::from(row.try_get::<String>("value")?))
                })
            },
            |_| (),
        );
        write.await
    }
}
