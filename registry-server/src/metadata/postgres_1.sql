-- Version 1. Digests are text as in the protocol, so that an operator can read them.
-- Times are seconds since 1970. Names are compared byte by byte: pages are in that order.
CREATE TABLE repository (
    id   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL UNIQUE
);

-- A blob whose file is complete, verified and durable.
CREATE TABLE blob (
    digest    TEXT COLLATE "C" PRIMARY KEY,
    size      BIGINT NOT NULL,
    stored_at BIGINT NOT NULL
);

-- Which repositories show which blobs.
CREATE TABLE repository_blob (
    repository BIGINT NOT NULL REFERENCES repository (id),
    digest     TEXT COLLATE "C" NOT NULL REFERENCES blob (digest),
    linked_at  BIGINT NOT NULL,
    PRIMARY KEY (repository, digest)
);
CREATE INDEX repository_blob_by_digest ON repository_blob (digest);

CREATE TABLE manifest (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    repository BIGINT NOT NULL REFERENCES repository (id),
    digest     TEXT COLLATE "C" NOT NULL,
    media_type TEXT COLLATE "C" NOT NULL,
    size       BIGINT NOT NULL,
    pushed_at  BIGINT NOT NULL,
    content    BYTEA    NOT NULL,
    UNIQUE (repository, digest)
);

-- What a manifest refers to: blobs, and manifests of an index.
CREATE TABLE reference (
    manifest BIGINT NOT NULL REFERENCES manifest (id) ON DELETE CASCADE,
    digest   TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (manifest, digest)
);
CREATE INDEX reference_by_digest ON reference (digest);

-- A tag cannot outlive its manifest: no ghost tags.
CREATE TABLE tag (
    repository BIGINT NOT NULL REFERENCES repository (id),
    name       TEXT COLLATE "C" NOT NULL,
    manifest   BIGINT NOT NULL REFERENCES manifest (id) ON DELETE CASCADE,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (repository, name)
);
CREATE INDEX tag_by_manifest ON tag (manifest);

-- One row per manifest with a subject: writers never rewrite each other's entries.
CREATE TABLE referrer (
    repository    BIGINT NOT NULL REFERENCES repository (id),
    subject       TEXT COLLATE "C" NOT NULL,
    digest        TEXT COLLATE "C" NOT NULL,
    manifest      BIGINT NOT NULL REFERENCES manifest (id) ON DELETE CASCADE,
    artifact_type TEXT COLLATE "C",
    descriptor    TEXT NOT NULL,
    PRIMARY KEY (repository, subject, digest)
);
-- None by type: a type can be longer than an entry of an index.
CREATE INDEX referrer_by_manifest ON referrer (manifest);
