-- Version 1. Digests are text as in the protocol, so that an operator can read them.
-- Times are seconds since 1970.
CREATE TABLE repository (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- A blob whose file is complete, verified and durable.
CREATE TABLE blob (
    digest    TEXT PRIMARY KEY,
    size      INTEGER NOT NULL,
    stored_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Which repositories show which blobs.
CREATE TABLE repository_blob (
    repository INTEGER NOT NULL REFERENCES repository (id),
    digest     TEXT    NOT NULL REFERENCES blob (digest),
    linked_at  INTEGER NOT NULL,
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX repository_blob_by_digest ON repository_blob (digest);

CREATE TABLE manifest (
    id         INTEGER PRIMARY KEY,
    repository INTEGER NOT NULL REFERENCES repository (id),
    digest     TEXT    NOT NULL,
    media_type TEXT    NOT NULL,
    size       INTEGER NOT NULL,
    pushed_at  INTEGER NOT NULL,
    content    BLOB    NOT NULL,
    UNIQUE (repository, digest)
) STRICT;

-- What a manifest refers to: blobs, and manifests of an index.
CREATE TABLE reference (
    manifest INTEGER NOT NULL REFERENCES manifest (id) ON DELETE CASCADE,
    digest   TEXT    NOT NULL,
    PRIMARY KEY (manifest, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX reference_by_digest ON reference (digest);

-- A tag cannot outlive its manifest: no ghost tags.
CREATE TABLE tag (
    repository INTEGER NOT NULL REFERENCES repository (id),
    name       TEXT    NOT NULL,
    manifest   INTEGER NOT NULL REFERENCES manifest (id) ON DELETE CASCADE,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (repository, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX tag_by_manifest ON tag (manifest);

-- One row per manifest with a subject: writers never rewrite each other's entries.
CREATE TABLE referrer (
    repository    INTEGER NOT NULL REFERENCES repository (id),
    subject       TEXT    NOT NULL,
    digest        TEXT    NOT NULL,
    manifest      INTEGER NOT NULL REFERENCES manifest (id) ON DELETE CASCADE,
    artifact_type TEXT,
    descriptor    TEXT    NOT NULL,
    PRIMARY KEY (repository, subject, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX referrer_by_type ON referrer (repository, subject, artifact_type, digest);
CREATE INDEX referrer_by_manifest ON referrer (manifest);
