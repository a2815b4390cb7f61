-- Which stores have which manifests: each store collects its own, and a manifest goes when none has it any more.
CREATE TABLE manifest_stores (
    manifest BIGINT NOT NULL,
    store TEXT NOT NULL,
    PRIMARY KEY (manifest, store)
);

-- Which of the stores has a manifest was not written down before: each of them may.
INSERT INTO manifest_stores (manifest, store)
SELECT m.id, r.key FROM manifests m CROSS JOIN records r WHERE r.kind = 'store';
