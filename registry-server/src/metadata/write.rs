//! Changes to the metadata. Each is one unit: all of it happens or nothing.

use super::{
    Metadata, integer, now,
    sql::{Connection, either, query},
};
use crate::{
    digest::Digest,
    error::{Code, OciError},
    manifest::{Manifest, Part},
    name::{Repository, Tag},
    route::UploadId,
    store::Object,
};
use bytes::Bytes;
use http::StatusCode;

/// A manifest to store.
#[derive(Clone, Debug)]
pub struct NewManifest {
    /// Where.
    pub repository: Repository,
    /// Its digest.
    pub digest: Digest,
    /// What was read in it.
    pub manifest: Manifest,
    /// Exactly the bytes that were pushed.
    pub content: Bytes,
    /// Tags to set on it.
    pub tags: Vec<Tag>,
    /// What must hold of the first tag.
    pub condition: Condition,
    /// Tags that may be made but not moved, with what the client is told otherwise.
    pub fixed: Vec<(Tag, OciError)>,
    /// Whether it may refer to what the repository does not have.
    pub sparse: bool,
    /// What the repository may hold.
    pub quota: Quota,
}

/// Compare-and-swap: what must be true of a tag for a change of it to happen
/// (RFC 9110, section 13: `If-Match` and `If-None-Match`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Anything.
    Always,
    /// The tag does not exist.
    Absent,
    /// The tag exists.
    Present,
    /// The tag is at one of these digests.
    At(Vec<String>),
    /// The tag is at none of these digests.
    NotAt(Vec<String>),
}

/// What a repository may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of its blobs and manifests.
    pub bytes: Option<u64>,
    /// Manifests.
    pub manifests: Option<u64>,
}

/// What a deletion took away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Tags that were on the manifest.
    pub tags: Vec<String>,
}

impl Metadata {
    /// Shows a durable blob in `repository`. `committed` runs after the commit.
    /// The upload `ended` is forgotten with it. Says whether these bytes are the blob's: another copy of it may be there already.
    pub async fn link_blob(
        &self,
        repository: &Repository,
        object: &Object,
        size: u64,
        quota: Quota,
        ended: Option<UploadId>,
        committed: impl FnOnce() + Send + 'static,
    ) -> Result<bool, OciError> {
        let size = integer(size)?;
        let (repository, digest) = (repository.clone(), object.digest.to_string());
        let copy = object.copy.clone();
        let write = self.writer.write(
            move |connection| {
                Box::pin(async move {
                    let repository = repository_id(connection, &repository).await?;
                    let row = query(
                        "INSERT INTO blob (digest, size, stored_at, copy) VALUES ($1, $2, $3, $4)
                     ON CONFLICT (digest) DO UPDATE SET stored_at = $3 RETURNING copy",
                    )
                    .bind(&digest)
                    .bind(size)
                    .bind(now())
                    .bind(&copy)
                    .fetch_one(&mut *connection)
                    .await?;
                    room(connection, repository, &digest, size, quota).await?;
                    show(connection, repository, &digest).await?;
                    if let Some(ended) = ended {
                        let end = query("DELETE FROM upload WHERE id = $1");
                        end.bind(ended.to_string()).execute(connection).await?;
                    }
                    Ok(row.try_get::<String>("copy")? == copy)
                })
            },
            move |_| committed(),
        );
        write.await
    }

    /// Shows in `repository` a blob that `from`, or any repository, shows.
    /// Says whether there was such a blob.
    pub async fn mount_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: Option<&Repository>,
        quota: Quota,
        committed: impl FnOnce() + Send + 'static,
    ) -> Result<bool, OciError> {
        let (repository, digest) = (repository.clone(), digest.to_string());
        let from = from.map(|from| from.as_str().to_owned());
        let write = self.writer.write(
            move |connection| {
                Box::pin(async move {
                    let found = query(
                        "SELECT 1 FROM repository_blob AS shown
                     JOIN repository ON repository.id = shown.repository
                     WHERE shown.digest = $1 AND ($2 IS NULL OR repository.name = $2) LIMIT 1",
                    );
                    let found = found.bind(&digest).bind(from);
                    if found.fetch_optional(&mut *connection).await?.is_none() {
                        return Ok(false);
                    }
                    let repository = repository_id(connection, &repository).await?;
                    room(connection, repository, &digest, 0, quota).await?;
                    show(connection, repository, &digest).await?;
                    Ok(true)
                })
            },
            move |_| committed(),
        );
        write.await
    }

    /// Hides a blob from `repository`. Says whether it was shown.
    pub async fn unlink_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        committed: impl FnOnce() + Send + 'static,
    ) -> Result<bool, OciError> {
        let (repository, digest) = (repository.clone(), digest.to_string());
        let write = self.writer.write(
            move |connection| {
                Box::pin(async move {
                    let deleted = query(
                        "DELETE FROM repository_blob WHERE digest = $2
                     AND repository = (SELECT id FROM repository WHERE name = $1)",
                    );
                    let deleted = deleted.bind(repository.as_str()).bind(&digest);
                    Ok(deleted.execute(connection).await? > 0)
                })
            },
            move |_| committed(),
        );
        write.await
    }

    /// Stores a manifest with its tags, its references and its place among referrers.
    pub async fn put_manifest(
        &self,
        new: NewManifest,
        committed: impl FnOnce() + Send + 'static,
    ) -> Result<(), OciError> {
        for part in new.manifest.blobs.iter().chain(&new.manifest.children) {
            integer(part.size)?;
        }
        let write = self.writer.write(
            move |connection| Box::pin(async move { put(connection, &new).await }),
            move |()| committed(),
        );
        write.await
    }

    /// Deletes a manifest and every tag on it. Nothing if there is none.
    pub async fn delete_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        keeps: impl Fn(&str) -> Option<OciError> + Send + 'static,
        committed: impl FnOnce(&Option<Removed>) + Send + 'static,
    ) -> Result<Option<Removed>, OciError> {
        let (repository, digest) = (repository.clone(), digest.to_string());
        let write = self.writer.write(
            move |connection| {
                Box::pin(async move {
                    let id = query(
                        "SELECT id FROM manifest WHERE digest = $2
                     AND repository = (SELECT id FROM repository WHERE name = $1)",
                    );
                    let id = id.bind(repository.as_str()).bind(&digest);
                    let Some(row) = id.fetch_optional(&mut *connection).await? else {
                        return Ok(None);
                    };
                    let id: i64 = row.try_get("id")?;
                    let tags = query("SELECT name FROM tag WHERE manifest = $1").bind(id);
                    let tags = tags.fetch_all(&mut *connection).await?;
                    let tags = tags.iter().map(|row| row.try_get("name"));
                    let tags: Vec<String> = tags.collect::<Result<_, _>>()?;
                    if let Some(error) = tags.iter().find_map(|tag| keeps(tag)) {
                        return Err(error);
                    }
                    let deleted = query("DELETE FROM manifest WHERE id = $1").bind(id);
                    deleted.execute(connection).await?;
                    Ok(Some(Removed { tags }))
                })
            },
            committed,
        );
        write.await
    }

    /// Deletes a tag; its manifest stays. Says whether there was one.
    pub async fn delete_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        condition: Condition,
        committed: impl FnOnce() + Send + 'static,
    ) -> Result<bool, OciError> {
        let (repository, tag) = (repository.clone(), tag.clone());
        let write = self.writer.write(
            move |connection| {
                Box::pin(async move {
                    let row = query("SELECT id FROM repository WHERE name = $1");
                    let row = row
                        .bind(repository.as_str())
                        .fetch_optional(&mut *connection)
                        .await?;
                    let Some(row) = row else {
                        return Ok(false);
                    };
                    let id: i64 = row.try_get("id")?;
                    check(connection, id, &tag, &condition).await?;
                    let deleted = query("DELETE FROM tag WHERE repository = $1 AND name = $2");
                    let deleted = deleted.bind(id).bind(tag.as_str());
                    Ok(deleted.execute(connection).await? > 0)
                })
            },
            move |_| committed(),
        );
        write.await
    }
}

async fn put(connection: &mut Connection, new: &NewManifest) -> Result<(), OciError> {
    let repository = repository_id(connection, &new.repository).await?;
    if let Some(tag) = new.tags.first() {
        check(connection, repository, tag, &new.condition).await?;
    }
    for (tag, error) in &new.fixed {
        let at = at(connection, repository, tag).await?;
        if at.is_some_and(|at| at != new.digest.to_string()) {
            return Err(error.clone());
        }
    }
    room(
        connection,
        repository,
        &new.digest.to_string(),
        new.content.len() as i64,
        new.quota,
    )
    .await?;
    if !new.sparse {
        complete(connection, repository, &new.manifest).await?;
    }
    let digest = new.digest.to_string();
    let id: i64 = query(
        "INSERT INTO manifest (repository, digest, media_type, size, pushed_at, content)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (repository, digest) DO UPDATE SET media_type = $3, pushed_at = $5
         RETURNING id",
    )
    .bind(repository)
    .bind(&digest)
    .bind(new.manifest.media_type)
    .bind(new.content.len() as i64)
    .bind(now())
    .bind(&*new.content)
    .fetch_one(&mut *connection)
    .await?
    .try_get("id")?;
    either(
        "INSERT OR IGNORE INTO reference (manifest, digest)
         SELECT $1, value ->> 0 FROM json_each($2)",
        "INSERT INTO reference (manifest, digest)
         SELECT $1, value ->> 0 FROM jsonb_array_elements($2::jsonb) ON CONFLICT DO NOTHING",
    )
    .bind(id)
    .bind(parts(
        new.manifest.blobs.iter().chain(&new.manifest.children),
    ))
    .execute(&mut *connection)
    .await?;
    if let Some(subject) = &new.manifest.subject {
        query(
            "INSERT INTO referrer
             (repository, subject, digest, manifest, artifact_type, descriptor)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (repository, subject, digest)
             DO UPDATE SET manifest = $4, artifact_type = $5, descriptor = $6",
        )
        .bind(repository)
        .bind(subject.to_string())
        .bind(&digest)
        .bind(id)
        .bind(new.manifest.artifact_type.as_deref())
        .bind(new.manifest.descriptor(&new.digest, new.content.len()))
        .execute(&mut *connection)
        .await?;
    }
    for tag in &new.tags {
        query(
            "INSERT INTO tag (repository, name, manifest, updated_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (repository, name) DO UPDATE SET manifest = $3, updated_at = $4",
        )
        .bind(repository)
        .bind(tag.as_str())
        .bind(id)
        .bind(now())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Everything that the manifest refers to is in the repository and as large as it says.
async fn complete(
    connection: &mut Connection,
    repository: i64,
    manifest: &Manifest,
) -> Result<(), OciError> {
    for (kind, wanted) in [("blob", &manifest.blobs), ("manifest", &manifest.children)] {
        if wanted.is_empty() {
            continue;
        }
        let row = match kind {
            "blob" => either(
                "SELECT part.value ->> 0 AS digest, blob.size FROM json_each($1) AS part
                 LEFT JOIN repository_blob AS shown
                     ON shown.repository = $2 AND shown.digest = part.value ->> 0
                 LEFT JOIN blob ON blob.digest = shown.digest
                 WHERE blob.size IS NOT part.value ->> 1 LIMIT 1",
                "SELECT part.value ->> 0 AS digest, blob.size
                 FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY AS part (value, place)
                 LEFT JOIN repository_blob AS shown
                     ON shown.repository = $2 AND shown.digest = part.value ->> 0
                 LEFT JOIN blob ON blob.digest = shown.digest
                 WHERE blob.size IS DISTINCT FROM (part.value ->> 1)::bigint
                 ORDER BY part.place LIMIT 1",
            ),
            _ => either(
                "SELECT part.value ->> 0 AS digest, manifest.size FROM json_each($1) AS part
                 LEFT JOIN manifest
                     ON manifest.repository = $2 AND manifest.digest = part.value ->> 0
                 WHERE manifest.size IS NOT part.value ->> 1 LIMIT 1",
                "SELECT part.value ->> 0 AS digest, manifest.size
                 FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY AS part (value, place)
                 LEFT JOIN manifest
                     ON manifest.repository = $2 AND manifest.digest = part.value ->> 0
                 WHERE manifest.size IS DISTINCT FROM (part.value ->> 1)::bigint
                 ORDER BY part.place LIMIT 1",
            ),
        };
        let row = row.bind(parts(wanted.iter())).bind(repository);
        let Some(row) = row.fetch_optional(&mut *connection).await? else {
            continue;
        };
        let digest: String = row.try_get("digest")?;
        return Err(match row.try_get::<Option<i64>>("size")? {
            None => {
                let message = format!("the repository does not have the {kind} {digest}");
                OciError::new(Code::ManifestBlobUnknown, message)
            }
            Some(size) => {
                let message =
                    format!("the {kind} {digest} has {size} bytes, the manifest disagrees");
                OciError::new(Code::ManifestInvalid, message)
            }
        });
    }
    Ok(())
}

/// `[["sha256:…",2],…]` for `json_each`.
fn parts<'a>(parts: impl Iterator<Item = &'a Part>) -> String {
    let parts = parts.map(|part| format!("[\"{}\",{}]", part.digest, part.size));
    format!("[{}]", parts.collect::<Vec<_>>().join(","))
}

/// The digest that a tag is at.
async fn at(
    connection: &mut Connection,
    repository: i64,
    tag: &Tag,
) -> Result<Option<String>, OciError> {
    let row = query(
        "SELECT manifest.digest FROM tag JOIN manifest ON manifest.id = tag.manifest
         WHERE tag.repository = $1 AND tag.name = $2",
    );
    let row = row.bind(repository).bind(tag.as_str());
    let row = row.fetch_optional(connection).await?;
    Ok(row.map(|row| row.try_get("digest")).transpose()?)
}

/// Compares the tag as it is now with what the client last saw.
async fn check(
    connection: &mut Connection,
    repository: i64,
    tag: &Tag,
    condition: &Condition,
) -> Result<(), OciError> {
    if *condition == Condition::Always {
        return Ok(());
    }
    let at = at(connection, repository, tag).await?;
    if condition.holds(at.as_deref()) {
        return Ok(());
    }
    let message = match &at {
        Some(digest) => format!("the tag {tag} is at {digest}"),
        None => format!("there is no tag {tag}"),
    };
    let error = OciError::new(Code::Denied, message).status(StatusCode::PRECONDITION_FAILED);
    Err(match at {
        Some(digest) => error.header(http::header::ETAG, format!("\"{digest}\"")),
        None => error,
    })
}

impl Condition {
    /// Whether it holds of a tag at the digest `at`.
    pub fn holds(&self, at: Option<&str>) -> bool {
        let listed = |digests: &[String]| at.is_some_and(|at| digests.iter().any(|d| d == at));
        match self {
            Self::Always => true,
            Self::Absent => at.is_none(),
            Self::Present => at.is_some(),
            Self::At(digests) => listed(digests),
            Self::NotAt(digests) => !listed(digests),
        }
    }
}

/// Whether `digest` may be added. Looked up only where there is a quota.
async fn room(
    connection: &mut Connection,
    repository: i64,
    digest: &str,
    size: i64,
    quota: Quota,
) -> Result<(), OciError> {
    if quota == Quota::default() {
        return Ok(());
    }
    let row = query(
        "SELECT
             (SELECT count(*) FROM manifest WHERE repository = $1) AS manifests,
             CAST((SELECT coalesce(sum(size), 0) FROM manifest WHERE repository = $1)
             + (SELECT coalesce(sum(blob.size), 0) FROM repository_blob AS shown
                JOIN blob ON blob.digest = shown.digest WHERE shown.repository = $1) AS BIGINT)
             AS bytes,
             (SELECT count(*) FROM manifest WHERE repository = $1 AND digest = $2)
             + (SELECT count(*) FROM repository_blob WHERE repository = $1 AND digest = $2)
             AS present,
             (SELECT coalesce(max(size), 0) FROM blob WHERE digest = $2) AS known",
    );
    let row = row
        .bind(repository)
        .bind(digest)
        .fetch_one(connection)
        .await?;
    let number = |name| -> Result<u64, OciError> { Ok(row.try_get::<i64>(name)?.unsigned_abs()) };
    if number("present")? > 0 {
        return Ok(());
    }
    let bytes = number("bytes")? + size.unsigned_abs().max(number("known")?);
    if quota.bytes.is_some_and(|most| bytes > most) {
        return Err(OciError::new(
            Code::Denied,
            format!("the repository's quota would be exceeded: {bytes} bytes"),
        ));
    }
    let manifests = number("manifests")? + 1;
    if quota.manifests.is_some_and(|most| manifests > most) {
        return Err(OciError::new(
            Code::Denied,
            format!("the repository's quota would be exceeded: {manifests} manifests"),
        ));
    }
    Ok(())
}

async fn repository_id(
    connection: &mut Connection,
    repository: &Repository,
) -> Result<i64, OciError> {
    let name = repository.as_str();
    let known = query("SELECT id FROM repository WHERE name = $1").bind(name);
    if let Some(row) = known.fetch_optional(&mut *connection).await? {
        return Ok(row.try_get("id")?);
    }
    let new = query("INSERT INTO repository (name) VALUES ($1) RETURNING id").bind(name);
    Ok(new.fetch_one(connection).await?.try_get("id")?)
}

async fn show(connection: &mut Connection, repository: i64, digest: &str) -> Result<(), OciError> {
    let shown = query(
        "INSERT INTO repository_blob (repository, digest, linked_at) VALUES ($1, $2, $3)
         ON CONFLICT (repository, digest) DO UPDATE SET linked_at = $3",
    );
    shown
        .bind(repository)
        .bind(digest)
        .bind(now())
        .execute(connection)
        .await?;
    Ok(())
}
