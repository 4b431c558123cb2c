-- Version 2: blobs in copies of their own, uploads that any instance continues, and whose
-- store this is.
ALTER TABLE blob ADD COLUMN copy TEXT NOT NULL DEFAULT '';

CREATE TABLE upload (
    id         TEXT PRIMARY KEY,
    repository TEXT    NOT NULL,
    algorithm  TEXT    NOT NULL,
    touched_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE property (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
