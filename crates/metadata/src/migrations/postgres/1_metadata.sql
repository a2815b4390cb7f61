-- Manifests by digest; `body` is the exact bytes whose SHA-256 that is, `facts` and `size` are what lists show.
CREATE TABLE manifests (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest BYTEA NOT NULL UNIQUE,
    body BYTEA NOT NULL,
    facts TEXT NOT NULL,
    size BIGINT NOT NULL
);

-- Every blob that some manifest names, and which manifests those are.
CREATE TABLE blobs (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest BYTEA NOT NULL UNIQUE,
    blake3 BYTEA NOT NULL,
    size BIGINT NOT NULL
);

CREATE TABLE blob_references (
    blob BIGINT NOT NULL,
    manifest BIGINT NOT NULL,
    PRIMARY KEY (blob, manifest)
);

CREATE INDEX blob_references_by_manifest ON blob_references (manifest, blob);

-- What each tag pointed to; the highest position is what it points to now.
CREATE TABLE tag_entries (
    tag TEXT COLLATE "C" NOT NULL,
    position BIGINT NOT NULL,
    digest BYTEA NOT NULL,
    at BIGINT NOT NULL,
    source TEXT NOT NULL,
    PRIMARY KEY (tag, position)
);

CREATE INDEX tag_entries_by_digest ON tag_entries (digest);

-- Small JSON documents of other parts: pins, warm pools, what is being changed.
CREATE TABLE records (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (kind, key)
);
