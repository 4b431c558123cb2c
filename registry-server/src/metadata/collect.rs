//! What garbage collection and the check ask of the metadata, in steps small enough
//! that pushes go on between them.

use std::time::Duration;

use sqlx::Row as _;

use super::{
    Metadata, StoredManifest, now,
    sql::{Readers, Row, query},
};
use crate::{digest::Digest, error::OciError, name::Repository, store::Object};

/// Most rows that one step changes or returns.
pub const STEP: u32 = 256;

/// Where a walk over rows goes on.
#[derive(Clone, Debug, Default)]
pub struct Place {
    repository: i64,
    digest: String,
}

/// A stored manifest as the check sees it.
pub struct ManifestRow {
    /// Where to go on after it.
    pub id: i64,
    /// Its repository.
    pub repository: String,
    /// What its content should hash to, if the text is a digest.
    pub digest: String,
    /// The bytes.
    pub content: Vec<u8>,
    /// What it refers to and its repository does not have.
    pub missing: i64,
}

impl Metadata {
    /// Hides blobs that no manifest of their repository has used and nobody has pushed
    /// or asked for within `grace`. `committed` learns which. Returns where to go on.
    pub async fn hide_unused(
        &self,
        from: Place,
        grace: Duration,
        committed: impl FnOnce(&[(Repository, Digest)]) + Send + 'static,
    ) -> Result<Option<Place>, OciError> {
        let before = cutoff(grace);
        let step = self.writer.write(
            move |connection| {
                Box::pin(async move {
                    let rows = query(
                        "SELECT shown.repository, repository.name, shown.digest
                         FROM repository_blob AS shown
                         JOIN repository ON repository.id = shown.repository
                         WHERE (shown.repository, shown.digest) > ($1, $2)
                         AND shown.linked_at <= $3 AND NOT EXISTS (
                             SELECT 1 FROM reference
                             JOIN manifest ON manifest.id = reference.manifest
                             WHERE reference.digest = shown.digest
                             AND manifest.repository = shown.repository)
                         ORDER BY shown.repository, shown.digest LIMIT $4",
                    );
                    let rows = rows.bind(from.repository).bind(&from.digest);
                    let rows = rows
                        .bind(before)
                        .bind(STEP)
                        .fetch_all(&mut *connection)
                        .await?;
                    let mut hidden = Vec::with_capacity(rows.len());
                    let mut place = None;
                    for row in &rows {
                        let repository: i64 = row.try_get("repository")?;
                        let digest: String = row.try_get("digest")?;
                        query("DELETE FROM repository_blob WHERE repository = $1 AND digest = $2")
                            .bind(repository)
                            .bind(&digest)
                            .execute(&mut *connection)
                            .await?;
                        hidden.push(named(row)?);
                        place = Some(Place { repository, digest });
                    }
                    Ok((hidden, place))
                })
            },
            move |(hidden, _): &(Vec<_>, _)| committed(hidden),
        );
        Ok(step.await?.1)
    }

    /// Deletes manifests without a tag that are in no index and whose subject, if they
    /// have one, is gone; only those pushed before `grace`. Says how many.
    pub async fn delete_untagged(
        &self,
        grace: Duration,
        committed: impl FnOnce(&[(Repository, Digest)]) + Send + 'static,
    ) -> Result<usize, OciError> {
        let before = cutoff(grace);
        let step = self.writer.write(
            move |connection| {
                Box::pin(async move {
                    let rows = query(
                        "SELECT old.id, repository.name, old.digest FROM manifest AS old
                         JOIN repository ON repository.id = old.repository
                         WHERE old.pushed_at <= $1
                         AND NOT EXISTS (SELECT 1 FROM tag WHERE tag.manifest = old.id)
                         AND NOT EXISTS (
                             SELECT 1 FROM reference
                             JOIN manifest AS parent ON parent.id = reference.manifest
                             WHERE reference.digest = old.digest
                             AND parent.repository = old.repository)
                         AND NOT EXISTS (
                             SELECT 1 FROM referrer
                             JOIN manifest AS subject ON subject.digest = referrer.subject
                             AND subject.repository = referrer.repository
                             WHERE referrer.manifest = old.id)
                         LIMIT $2",
                    );
                    let rows = rows
                        .bind(before)
                        .bind(STEP)
                        .fetch_all(&mut *connection)
                        .await?;
                    for row in &rows {
                        let id: i64 = row.try_get("id")?;
                        let delete = query("DELETE FROM manifest WHERE id = $1").bind(id);
                        delete.execute(&mut *connection).await?;
                    }
                    rows.iter().map(named).collect::<Result<Vec<_>, _>>()
                })
            },
            move |deleted: &Vec<_>| committed(deleted),
        );
        Ok(step.await?.len())
    }

    /// Blobs that no repository shows, stored before `grace`, after `after`.
    pub async fn unshown(&self, after: &str, grace: Duration) -> Result<Vec<Digest>, OciError> {
        let rows = query(
            "SELECT digest FROM blob WHERE digest > $1 AND stored_at <= $2
             AND NOT EXISTS (SELECT 1 FROM repository_blob AS shown
                             WHERE shown.digest = blob.digest)
             ORDER BY digest LIMIT $3",
        );
        let rows = rows.bind(after).bind(cutoff(grace)).bind(STEP);
        let rows = rows.fetch_all(&self.readers).await?;
        rows.iter().map(digest).collect()
    }

    /// Forgets a blob that no repository shows. Returns where its bytes are and their number
    /// if it was so. Where copies have no names of their own, the caller keeps pushes of it
    /// away until the bytes are gone too.
    pub async fn forget_unshown(
        &self,
        blob: &Digest,
        grace: Duration,
    ) -> Result<Option<(Object, u64)>, OciError> {
        let (digest, blob, before) = (*blob, blob.to_string(), cutoff(grace));
        let write = self.writer.write(
            move |connection| {
                Box::pin(async move {
                    let row = query(
                        "DELETE FROM blob WHERE digest = $1 AND stored_at <= $2
                         AND NOT EXISTS (SELECT 1 FROM repository_blob WHERE digest = $1)
                         RETURNING size, copy",
                    );
                    let row = row
                        .bind(blob)
                        .bind(before)
                        .fetch_optional(connection)
                        .await?;
                    row.map(|row| stored(digest, &row)).transpose()
                })
            },
            |_| (),
        );
        write.await
    }

    /// Forgets a blob whose bytes are damaged, and hides it everywhere, so that clients
    /// push it again.
    pub async fn forget_damaged(&self, blob: &Object) -> Result<(), OciError> {
        let (digest, copy) = (blob.digest.to_string(), blob.copy.clone());
        let write = self.writer.write(
            move |connection| {
                Box::pin(async move {
                    // Somebody may have pushed it again since it was found to be damaged.
                    let same = query("SELECT 1 FROM blob WHERE digest = $1 AND copy = $2");
                    let same = same.bind(&digest).bind(&copy);
                    if same.fetch_optional(&mut *connection).await?.is_none() {
                        return Ok(());
                    }
                    for delete in [
                        "DELETE FROM repository_blob WHERE digest = $1",
                        "DELETE FROM blob WHERE digest = $1",
                    ] {
                        query(delete)
                            .bind(&digest)
                            .execute(&mut *connection)
                            .await?;
                    }
                    Ok(())
                })
            },
            |()| (),
        );
        write.await
    }

    /// Whether there is a record of this copy of a blob.
    pub async fn has_blob(&self, blob: &Object) -> Result<bool, OciError> {
        let row = query("SELECT 1 FROM blob WHERE digest = $1 AND copy = $2");
        let row = row.bind(blob.digest.to_string()).bind(&blob.copy);
        Ok(row.fetch_optional(&self.readers).await?.is_some())
    }

    /// Records that somebody asked for a blob, so that the collector leaves it alone.
    pub async fn touch(&self, repository: &Repository, blob: &Digest) -> Result<(), OciError> {
        let (repository, blob) = (repository.to_string(), blob.to_string());
        let write = self.writer.write(
            move |connection| {
                Box::pin(async move {
                    let update = query(
                        "UPDATE repository_blob SET linked_at = $3 WHERE digest = $2
                         AND repository = (SELECT id FROM repository WHERE name = $1)",
                    );
                    update
                        .bind(repository)
                        .bind(blob)
                        .bind(now())
                        .execute(connection)
                        .await?;
                    Ok(())
                })
            },
            |()| (),
        );
        write.await
    }

    /// Every blob: where it is and its size, ordered by digest, after `after`.
    pub async fn blobs(&self, after: &str) -> Result<Vec<(Object, u64)>, OciError> {
        let rows =
            query("SELECT digest, size, copy FROM blob WHERE digest > $1 ORDER BY digest LIMIT $2");
        let rows = rows.bind(after).bind(STEP).fetch_all(&self.readers).await?;
        rows.iter().map(|row| stored(digest(row)?, row)).collect()
    }

    /// Every manifest after the one with the id `after`, a few at a time: each may have
    /// four megabytes.
    pub async fn manifests(&self, after: i64) -> Result<Vec<ManifestRow>, OciError> {
        let rows = query(
            "SELECT whole.id, repository.name, whole.digest, whole.content,
                 (SELECT count(*) FROM reference
                  LEFT JOIN repository_blob AS shown
                      ON shown.repository = whole.repository AND shown.digest = reference.digest
                  LEFT JOIN manifest AS child
                      ON child.repository = whole.repository AND child.digest = reference.digest
                  WHERE reference.manifest = whole.id
                  AND shown.digest IS NULL AND child.digest IS NULL) AS missing
             FROM manifest AS whole JOIN repository ON repository.id = whole.repository
             WHERE whole.id > $1 ORDER BY whole.id LIMIT 8",
        );
        let rows = rows.bind(after).fetch_all(&self.readers).await?;
        let row = |row: &Row| -> Result<ManifestRow, OciError> {
            Ok(ManifestRow {
                id: row.try_get("id")?,
                repository: row.try_get("name")?,
                digest: row.try_get("digest")?,
                content: row.try_get("content")?,
                missing: row.try_get("missing")?,
            })
        };
        rows.iter().map(row).collect()
    }

    /// Manifests of a repository after the one with the id `after`, a few at a time, each
    /// with its id.
    pub async fn manifests_of(
        &self,
        repository: &Repository,
        after: i64,
    ) -> Result<Vec<(i64, StoredManifest)>, OciError> {
        let rows = query(
            "SELECT id, digest, media_type, content FROM manifest
             WHERE repository = (SELECT id FROM repository WHERE name = $1) AND id > $2
             ORDER BY id LIMIT 8",
        );
        let rows = rows.bind(repository.as_str()).bind(after);
        let rows = rows.fetch_all(&self.readers).await?;
        let manifest = |row: &Row| {
            let manifest = StoredManifest {
                digest: digest(row)?,
                media_type: row.try_get("media_type")?,
                content: row.try_get::<Vec<u8>>("content")?.into(),
            };
            Ok((row.try_get("id")?, manifest))
        };
        rows.iter().map(manifest).collect()
    }

    /// Blobs that a repository shows: where they are and their size, ordered by digest,
    /// after `after`.
    pub async fn blobs_of(
        &self,
        repository: &Repository,
        after: &str,
    ) -> Result<Vec<(Object, u64)>, OciError> {
        let rows = query(
            "SELECT blob.digest, blob.size, blob.copy FROM repository_blob AS shown
             JOIN blob ON blob.digest = shown.digest
             WHERE shown.repository = (SELECT id FROM repository WHERE name = $1)
             AND shown.digest > $2 ORDER BY shown.digest LIMIT $3",
        );
        let rows = rows.bind(repository.as_str()).bind(after).bind(STEP);
        let rows = rows.fetch_all(&self.readers).await?;
        rows.iter().map(|row| stored(digest(row)?, row)).collect()
    }

    /// What is wrong with the database itself: lines for a person, none if all is well.
    pub async fn integrity(&self) -> Result<Vec<String>, OciError> {
        let mut lines = Vec::new();
        if let Readers::Sqlite(pool) = &self.readers {
            let rows = sqlx::query("PRAGMA integrity_check")
                .fetch_all(pool)
                .await?;
            let found = rows.iter().map(|row| row.try_get::<String, _>(0));
            lines = found.collect::<Result<_, _>>()?;
            lines.retain(|line| line != "ok");
        }
        for (what, orphans) in ORPHANS {
            let row = query(orphans).fetch_one(&self.readers).await?;
            match row.try_get::<i64>("orphans")? {
                0 => {}
                count => lines.push(format!("{count} {what}")),
            }
        }
        Ok(lines)
    }
}

/// Rows that refer to rows which do not exist. Both databases forbid them, unless somebody
/// wrote to the database by other means.
const ORPHANS: [(&str, &str); 5] = [
    (
        "tags are of manifests that do not exist",
        "SELECT count(*) AS orphans FROM tag WHERE NOT EXISTS
         (SELECT 1 FROM manifest WHERE manifest.id = tag.manifest
          AND manifest.repository = tag.repository)",
    ),
    (
        "referrers are manifests that do not exist",
        "SELECT count(*) AS orphans FROM referrer WHERE NOT EXISTS
         (SELECT 1 FROM manifest WHERE manifest.id = referrer.manifest
          AND manifest.digest = referrer.digest)",
    ),
    (
        "references are of manifests that do not exist",
        "SELECT count(*) AS orphans FROM reference WHERE NOT EXISTS
         (SELECT 1 FROM manifest WHERE manifest.id = reference.manifest)",
    ),
    (
        "repositories show blobs that do not exist",
        "SELECT count(*) AS orphans FROM repository_blob AS shown WHERE NOT EXISTS
         (SELECT 1 FROM blob WHERE blob.digest = shown.digest)",
    ),
    (
        "manifests are in repositories that do not exist",
        "SELECT count(*) AS orphans FROM manifest WHERE NOT EXISTS
         (SELECT 1 FROM repository WHERE repository.id = manifest.repository)",
    ),
];

pub(super) fn cutoff(grace: Duration) -> i64 {
    now().saturating_sub(i64::try_from(grace.as_secs()).unwrap_or(i64::MAX))
}

fn named(row: &Row) -> Result<(Repository, Digest), OciError> {
    let name: String = row.try_get("name")?;
    Ok((name.parse().map_err(OciError::internal)?, digest(row)?))
}

fn stored(digest: Digest, row: &Row) -> Result<(Object, u64), OciError> {
    let copy = row.try_get("copy")?;
    Ok((Object { digest, copy }, super::read::size(row)?))
}

fn digest(row: &Row) -> Result<Digest, OciError> {
    super::read::digest(row)
}
