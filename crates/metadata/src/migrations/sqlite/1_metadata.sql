-- Manifests by digest; `body` is the exact bytes whose SHA-256 that is, `facts` and `size` are what lists show.
CREATE TABLE manifests (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    body BLOB NOT NULL,
    facts TEXT NOT NULL,
    size INTEGER NOT NULL
) STRICT;

-- Every blob that some manifest names, and which manifests those are.
CREATE TABLE blobs (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    blake3 BLOB NOT NULL,
    size INTEGER NOT NULL
) STRICT;

CREATE TABLE blob_references (
    blob INTEGER NOT NULL,
    manifest INTEGER NOT NULL,
    PRIMARY KEY (blob, manifest)
) STRICT, WITHOUT ROWID;

CREATE INDEX blob_references_by_manifest ON blob_references (manifest, blob);

-- What each tag pointed to; the highest position is what it points to now.
CREATE TABLE tag_entries (
    tag TEXT NOT NULL,
    position INTEGER NOT NULL,
    digest BLOB NOT NULL,
    at INTEGER NOT NULL,
    source TEXT NOT NULL,
    PRIMARY KEY (tag, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX tag_entries_by_digest ON tag_entries (digest);

-- Small JSON documents of other parts: pins, warm pools, what is being changed.
CREATE TABLE records (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
