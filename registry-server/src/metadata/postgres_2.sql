-- Version 2: blobs in copies of their own, uploads that any instance continues, and whose
-- store this is.
ALTER TABLE blob ADD COLUMN copy TEXT COLLATE "C" NOT NULL DEFAULT '';

CREATE TABLE upload (
    id         TEXT COLLATE "C" PRIMARY KEY,
    repository TEXT COLLATE "C" NOT NULL,
    algorithm  TEXT COLLATE "C" NOT NULL,
    touched_at BIGINT NOT NULL
);

CREATE TABLE property (
    name  TEXT COLLATE "C" PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL
);
