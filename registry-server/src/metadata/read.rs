//! Questions to the metadata.

use super::{
    Metadata,
    sql::{Row, either, query},
};
use crate::{
    digest::Digest,
    error::OciError,
    name::Repository,
    route::{Page, Reference, ReferrerQuery},
};
use bytes::Bytes;

/// A manifest as it was pushed.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredManifest {
    /// Its digest, in the algorithm of its push.
    pub digest: Digest,
    /// The media type to serve it with.
    pub media_type: String,
    /// Exactly the bytes that were pushed.
    pub content: Bytes,
}

/// A blob that a repository shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownBlob {
    /// How many bytes it has.
    pub size: u64,
    /// When it was last pushed, mounted or [touched](Metadata::touch), in seconds since 1970.
    pub linked_at: i64,
    /// Which copy of it, see [`Object`](crate::store::Object).
    pub copy: String,
}

/// One page of referrers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Referrers {
    /// Descriptors, each a JSON object.
    pub descriptors: Vec<String>,
    /// The last digest of this page, if another page follows.
    pub next: Option<String>,
}

/// One page of tags or repositories.
#[derive(Clone, Debug, PartialEq)]
pub struct Names {
    /// The names, as a JSON list.
    pub json: String,
    /// The last name, if another page follows.
    pub next: Option<String>,
}

/// Largest page of referrers: annotations can make one entry as large as a manifest,
/// and clients limit what they read.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

impl Metadata {
    /// A blob that `repository` shows.
    pub async fn shown_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<ShownBlob>, OciError> {
        let row = query(
            "SELECT blob.size, blob.copy, shown.linked_at FROM repository
             JOIN repository_blob AS shown ON shown.repository = repository.id
             JOIN blob ON blob.digest = shown.digest
             WHERE repository.name = $1 AND shown.digest = $2",
        );
        let row = row.bind(repository.as_str()).bind(digest.to_string());
        let row = row.fetch_optional(&self.readers).await?;
        row.map(|row| {
            Ok(ShownBlob {
                size: size(&row)?,
                linked_at: row.try_get("linked_at")?,
                copy: row.try_get("copy")?,
            })
        })
        .transpose()
    }

    /// Repositories that show a blob, at most a few hundred.
    pub async fn showing(&self, digest: &Digest) -> Result<Vec<String>, OciError> {
        let rows = query(
            "SELECT repository.name FROM repository_blob AS shown
             JOIN repository ON repository.id = shown.repository
             WHERE shown.digest = $1 LIMIT 256",
        );
        let rows = rows
            .bind(digest.to_string())
            .fetch_all(&self.readers)
            .await?;
        let names = rows.iter().map(|row| row.try_get("name"));
        Ok(names.collect::<Result<_, _>>()?)
    }

    /// Manifests of a repository that refer to `digest`.
    pub async fn referring(
        &self,
        repository: &Repository,
        digest: &Digest,
        most: u32,
    ) -> Result<Vec<Digest>, OciError> {
        let rows = query(
            "SELECT manifest.digest FROM reference
             JOIN manifest ON manifest.id = reference.manifest
             WHERE reference.digest = $1
             AND manifest.repository = (SELECT id FROM repository WHERE name = $2) LIMIT $3",
        );
        let rows = rows.bind(digest.to_string()).bind(repository.as_str());
        let rows = rows.bind(i64::from(most)).fetch_all(&self.readers).await?;
        rows.iter().map(self::digest).collect()
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), OciError> {
        query("SELECT 1").fetch_one(&self.readers).await?;
        Ok(())
    }

    /// Whether anything was ever pushed to `repository`.
    pub async fn has_repository(&self, repository: &Repository) -> Result<bool, OciError> {
        let row = query("SELECT 1 FROM repository WHERE name = $1");
        let row = row
            .bind(repository.as_str())
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.is_some())
    }

    /// The digest and the media type of the manifest that `reference` names.
    pub async fn resolve(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Option<(Digest, String)>, OciError> {
        let (sql, name) = match reference {
            Reference::Digest(digest) => (
                "SELECT digest, media_type FROM manifest
                 WHERE repository = (SELECT id FROM repository WHERE name = $1) AND digest = $2",
                digest.to_string(),
            ),
            Reference::Tag(tag) => (
                "SELECT digest, media_type FROM manifest WHERE id =
                 (SELECT manifest FROM tag WHERE name = $2
                  AND repository = (SELECT id FROM repository WHERE name = $1))",
                tag.to_string(),
            ),
        };
        let row = query(sql).bind(repository.as_str()).bind(name);
        let row = row.fetch_optional(&self.readers).await?;
        row.map(|row| Ok((digest(&row)?, row.try_get("media_type")?)))
            .transpose()
    }

    /// The manifest that `reference` names in `repository`.
    pub async fn manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Option<StoredManifest>, OciError> {
        let (sql, name) = match reference {
            Reference::Digest(digest) => (
                "SELECT digest, media_type, content FROM manifest
                 WHERE repository = (SELECT id FROM repository WHERE name = $1) AND digest = $2",
                digest.to_string(),
            ),
            Reference::Tag(tag) => (
                "SELECT digest, media_type, content FROM manifest WHERE id =
                 (SELECT manifest FROM tag WHERE name = $2
                  AND repository = (SELECT id FROM repository WHERE name = $1))",
                tag.to_string(),
            ),
        };
        let row = query(sql).bind(repository.as_str()).bind(name);
        let Some(row) = row.fetch_optional(&self.readers).await? else {
            return Ok(None);
        };
        Ok(Some(StoredManifest {
            digest: digest(&row)?,
            media_type: row.try_get("media_type")?,
            content: row.try_get::<Vec<u8>>("content")?.into(),
        }))
    }

    /// Tags in byte order; nothing if the repository is unknown.
    pub async fn tags(
        &self,
        repository: &Repository,
        page: &Page,
    ) -> Result<Option<Names>, OciError> {
        let row = either(
            "WITH page AS (
                 SELECT name, row_number() OVER (ORDER BY name) AS place FROM tag
                 WHERE repository = (SELECT id FROM repository WHERE name = $1) AND name > $2
                 ORDER BY name LIMIT $3 + 1)
             SELECT count(*) > $3 AS more, max(name) FILTER (WHERE place <= $3) AS last,
                 json_group_array(name) FILTER (WHERE place <= $3) AS names FROM page",
            "WITH page AS (
                 SELECT name, row_number() OVER (ORDER BY name) AS place FROM tag
                 WHERE repository = (SELECT id FROM repository WHERE name = $1) AND name > $2
                 ORDER BY name LIMIT $3 + 1)
             SELECT count(*) > $3 AS more, max(name) FILTER (WHERE place <= $3) AS last,
                 '[' || coalesce(string_agg(to_json(name)::text, ',' ORDER BY place)
                     FILTER (WHERE place <= $3), '') || ']' AS names FROM page",
        );
        let row = row
            .bind(repository.as_str())
            .bind(page.after.as_deref().unwrap_or(""));
        let row = row
            .bind(i64::from(page.limit))
            .fetch_one(&self.readers)
            .await?;
        let names = Names::read(&row)?;
        if names.json == "[]" && !self.has_repository(repository).await? {
            return Ok(None);
        }
        Ok(Some(names))
    }

    /// Tags with their digests and when they were set, in byte order.
    pub async fn tagged(
        &self,
        repository: &Repository,
        most: u32,
    ) -> Result<Vec<(String, String, i64)>, OciError> {
        let rows = query(
            "SELECT tag.name, manifest.digest, tag.updated_at FROM tag
             JOIN manifest ON manifest.id = tag.manifest
             WHERE tag.repository = (SELECT id FROM repository WHERE name = $1)
             ORDER BY tag.name LIMIT $2",
        );
        let rows = rows.bind(repository.as_str()).bind(i64::from(most));
        let rows = rows.fetch_all(&self.readers).await?;
        let row = |row: &Row| {
            Ok((
                row.try_get("name")?,
                row.try_get("digest")?,
                row.try_get("updated_at")?,
            ))
        };
        rows.iter().map(row).collect()
    }

    /// The tags that are at a manifest.
    pub async fn tags_of(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Vec<String>, OciError> {
        let rows = query(
            "SELECT tag.name FROM tag JOIN manifest ON manifest.id = tag.manifest
             WHERE manifest.repository = (SELECT id FROM repository WHERE name = $1)
             AND manifest.digest = $2 ORDER BY tag.name LIMIT 1000",
        );
        let rows = rows.bind(repository.as_str()).bind(digest.to_string());
        let rows = rows.fetch_all(&self.readers).await?;
        let names = rows.iter().map(|row| row.try_get("name"));
        Ok(names.collect::<Result<_, _>>()?)
    }

    /// Repositories that hold a manifest, in byte order.
    pub async fn repositories(&self, page: &Page) -> Result<Names, OciError> {
        let row = either(
            "WITH page AS (
                 SELECT name, row_number() OVER (ORDER BY name) AS place FROM repository
                 WHERE name > $1
                 AND EXISTS (SELECT 1 FROM manifest WHERE manifest.repository = repository.id)
                 ORDER BY name LIMIT $2 + 1)
             SELECT count(*) > $2 AS more, max(name) FILTER (WHERE place <= $2) AS last,
                 json_group_array(name) FILTER (WHERE place <= $2) AS names FROM page",
            "WITH page AS (
                 SELECT name, row_number() OVER (ORDER BY name) AS place FROM repository
                 WHERE name > $1
                 AND EXISTS (SELECT 1 FROM manifest WHERE manifest.repository = repository.id)
                 ORDER BY name LIMIT $2 + 1)
             SELECT count(*) > $2 AS more, max(name) FILTER (WHERE place <= $2) AS last,
                 '[' || coalesce(string_agg(to_json(name)::text, ',' ORDER BY place)
                     FILTER (WHERE place <= $2), '') || ']' AS names FROM page",
        );
        let row = row.bind(page.after.as_deref().unwrap_or(""));
        let row = row
            .bind(i64::from(page.limit))
            .fetch_one(&self.readers)
            .await?;
        Names::read(&row)
    }

    /// Manifests whose subject is `subject`, ordered by digest.
    pub async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        asked: &ReferrerQuery,
    ) -> Result<Referrers, OciError> {
        let sql = if asked.artifact_type.is_some() {
            "SELECT digest, descriptor FROM referrer
             WHERE repository = (SELECT id FROM repository WHERE name = $1) AND subject = $2
             AND artifact_type = $3 AND digest > $4 ORDER BY digest LIMIT $5"
        } else {
            "SELECT digest, descriptor FROM referrer
             WHERE repository = (SELECT id FROM repository WHERE name = $1) AND subject = $2
             AND $3 IS NULL AND digest > $4 ORDER BY digest LIMIT $5"
        };
        let after = asked
            .after
            .as_ref()
            .map(Digest::to_string)
            .unwrap_or_default();
        let rows = query(sql)
            .bind(repository.as_str())
            .bind(subject.to_string());
        let rows = rows.bind(asked.artifact_type.as_deref()).bind(after);
        let rows = rows
            .bind(i64::from(asked.limit) + 1)
            .fetch_all(&self.readers)
            .await?;
        let mut descriptors: Vec<String> = Vec::with_capacity(rows.len());
        let mut bytes = 0;
        let mut last = None;
        for row in rows {
            let descriptor: String = row.try_get("descriptor")?;
            bytes += descriptor.len();
            let full = !descriptors.is_empty() && bytes > PAGE_BYTES;
            if full || descriptors.len() == asked.limit as usize {
                return Ok(Referrers {
                    descriptors,
                    next: last,
                });
            }
            last = Some(row.try_get("digest")?);
            descriptors.push(descriptor);
        }
        Ok(Referrers {
            descriptors,
            next: None,
        })
    }
}

impl Names {
    /// The database makes the list: ten thousand names are one row instead of ten thousand.
    fn read(row: &Row) -> Result<Self, OciError> {
        let more: bool = row.try_get("more")?;
        let last: Option<String> = row.try_get("last")?;
        let json = row.try_get("names")?;
        Ok(Self {
            json,
            next: last.filter(|_| more),
        })
    }
}

pub(super) fn size(row: &Row) -> Result<u64, OciError> {
    u64::try_from(row.try_get::<i64>("size")?).map_err(OciError::internal)
}

pub(super) fn digest(row: &Row) -> Result<Digest, OciError> {
    row.try_get::<String>("digest")?
        .parse()
        .map_err(OciError::internal)
}
