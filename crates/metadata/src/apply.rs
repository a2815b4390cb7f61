//! How [`Change`]s are made in SQL that SQLite and PostgreSQL both speak.

use std::collections::{BTreeMap, HashMap};

use helios_model::Manifest;
use helios_storage::BlobInfo;
use helios_types::{Digest, ModelRef};

use super::sql::{Work, parsed, tag_entry};
use super::value::{Row, Value};
use super::{Change, DIGESTS_MAX};
use crate::TagEntry;

/// Rows that one statement writes: below the parameters that SQLite takes, and few enough that looking up the parameters'
/// names, which the client does one by one in a list, costs little (200 rows: a fifth of a rebuild).
const ROWS_MAX: usize = 100;

/// Makes changes of one kind. Those that come by the thousand take a few statements together: each statement is a trip to
/// the database's thread (collecting 100,000 manifests one by one took 287 s).
pub(super) async fn apply_all(work: &mut Work, changes: &[Change]) -> Result<(), sqlx::Error> {
    match changes {
        [Change::PutManifest { .. }, ..] => put_manifests(work, changes).await,
        [Change::RemoveManifest { .. }, ..] => {
            let mut by_store: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
            for change in changes {
                let Change::RemoveManifest { digest, store } = change else { continue };
                by_store.entry(store).or_default().push(digest.into());
            }
            for (store, digests) in by_store {
                remove_manifests(work, store, &digests).await?;
            }
            Ok(())
        }
        [Change::SetTag { .. } | Change::RemoveTag(_), ..] => set_tags(work, changes).await,
        [Change::PutRecord { .. }, ..] => put_records(work, changes).await,
        [Change::RemoveRecord { .. }, ..] => remove_records(work, changes).await,
        [] => Ok(()),
    }
}

/// The first tag whose history is not the one that its change was made from.
pub(super) async fn moved(work: &mut Work, changes: &[Change]) -> Result<Option<ModelRef>, sqlx::Error> {
    let made_from: BTreeMap<String, &[TagEntry]> = changes
        .iter()
        .filter_map(|change| match change {
            Change::SetTag { reference, from: Some(from), .. } => {
                Some((reference.to_string(), from.as_slice()))
            }
            _ => None,
        })
        .collect();
    let tags: Vec<Value> = made_from.keys().map(|tag| tag.as_str().into()).collect();
    let mut known: BTreeMap<String, Vec<TagEntry>> = BTreeMap::new();
    for tags in tags.chunks(ROWS_MAX) {
        let histories = format!(
            "SELECT digest, at, source, tag FROM tag_entries WHERE tag IN ({}) ORDER BY tag, position",
            parameters(1, tags.len())
        );
        for row in &work.run(&histories, tags).await? {
            let tag = decoded(row.text(3))?.to_owned();
            known.entry(tag).or_default().push(decoded(tag_entry(row))?);
        }
    }
    let is_moved =
        |(tag, from): &(&String, &&[TagEntry])| known.get(*tag).map_or(&[][..], Vec::as_slice) != **from;
    let moved = made_from.iter().find(is_moved).map(|(tag, _)| decoded(parsed(tag)));
    moved.transpose()
}

async fn put_records(work: &mut Work, changes: &[Change]) -> Result<(), sqlx::Error> {
    // Of several values for one key the last counts, and no statement may write a row twice.
    let latest: BTreeMap<(&str, &str), &str> = changes
        .iter()
        .filter_map(|change| match change {
            Change::PutRecord { kind, key, value } => Some(((kind.as_str(), key.as_str()), value.as_str())),
            _ => None,
        })
        .collect();
    let rows: Vec<[Value; 3]> =
        latest.into_iter().map(|((kind, key), value)| [kind.into(), key.into(), value.into()]).collect();
    for rows in rows.chunks(ROWS_MAX) {
        let put = format!(
            "INSERT INTO records (kind, key, value) VALUES {} \
             ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value",
            tuples(rows.len(), 3)
        );
        work.run(&put, &rows.concat()).await?;
    }
    Ok(())
}

async fn remove_records(work: &mut Work, changes: &[Change]) -> Result<(), sqlx::Error> {
    let keys: Vec<[Value; 2]> = changes
        .iter()
        .filter_map(|change| match change {
            Change::RemoveRecord { kind, key } => Some([kind.as_str().into(), key.as_str().into()]),
            _ => None,
        })
        .collect();
    for keys in keys.chunks(ROWS_MAX) {
        let remove = format!("DELETE FROM records WHERE (kind, key) IN (VALUES {})", tuples(keys.len(), 2));
        work.run(&remove, &keys.concat()).await?;
    }
    Ok(())
}

/// Puts the manifests that are not known yet, their blobs, and which refers to which.
async fn put_manifests(work: &mut Work, changes: &[Change]) -> Result<(), sqlx::Error> {
    let mut manifests: Vec<(&Digest, &Manifest)> = Vec::with_capacity(changes.len());
    let mut by_store: BTreeMap<&str, Vec<&Digest>> = BTreeMap::new();
    for change in changes {
        let Change::PutManifest { digest, manifest, store } = change else { continue };
        manifests.push((digest, &**manifest));
        by_store.entry(store).or_default().push(digest);
    }
    let by_digest: HashMap<&Digest, &Manifest> = manifests.iter().copied().collect();
    let mut references: Vec<(BlobInfo, i64)> = Vec::new();
    for some in manifests.chunks(ROWS_MAX) {
        let put = format!(
            "INSERT INTO manifests (digest, body, facts, size) VALUES {} \
             ON CONFLICT (digest) DO NOTHING RETURNING digest, id",
            tuples(some.len(), 4)
        );
        let columns = |(digest, manifest): &(&Digest, &Manifest)| {
            let facts = serde_json::to_string(&manifest.metadata);
            let facts = facts.expect("invariant: facts have only string keys");
            let body = Value::Bytes(manifest.to_bytes());
            [Value::from(*digest), body, Value::Text(facts), manifest.size().into()]
        };
        let new = work.run(&put, &some.iter().flat_map(columns).collect::<Vec<_>>()).await?;
        for row in &new {
            let (digest, id) = (decoded(row.digest(0))?, decoded(row.integer(1))?);
            let files = by_digest.get(&digest).into_iter().flat_map(|manifest| &manifest.files);
            references.extend(files.map(|file| (file.blob, id)));
        }
    }
    // In the order of the index, whose pages are then touched once; transactions of others lock rows in the same order.
    references.sort_unstable_by_key(|(blob, manifest)| (blob.digest, *manifest));
    for references in references.chunks(ROWS_MAX) {
        refer(work, references).await?;
    }
    for (store, digests) in by_store {
        for some in digests.chunks(DIGESTS_MAX) {
            note_store(work, store, some).await?;
        }
    }
    Ok(())
}

/// Notes that a store has manifests.
async fn note_store(work: &mut Work, store: &str, digests: &[&Digest]) -> Result<(), sqlx::Error> {
    let note = format!(
        "INSERT INTO manifest_stores (manifest, store) \
         SELECT m.id, $1 FROM manifests m WHERE m.digest IN ({}) ON CONFLICT DO NOTHING",
        parameters(2, digests.len())
    );
    let digests = digests.iter().map(|digest| Value::from(*digest));
    let values: Vec<Value> = [store.into()].into_iter().chain(digests).collect();
    work.run(&note, &values).await.map(drop)
}

/// Puts the blobs that are not known yet, and that manifests refer to them.
async fn refer(work: &mut Work, references: &[(BlobInfo, i64)]) -> Result<(), sqlx::Error> {
    let put = format!(
        "INSERT INTO blobs (digest, blake3, size) VALUES {} ON CONFLICT (digest) DO NOTHING",
        tuples(references.len(), 3)
    );
    let columns = |(blob, _): &(BlobInfo, i64)| {
        [Value::from(&blob.digest), Value::Bytes(blob.blake3.to_vec()), Value::from(blob.size)]
    };
    work.run(&put, &references.iter().flat_map(columns).collect::<Vec<_>>()).await?;
    let refer = format!(
        "INSERT INTO blob_references (blob, manifest) \
         SELECT b.id, r.column2 FROM (VALUES {}) r JOIN blobs b ON b.digest = r.column1 WHERE true \
         ON CONFLICT DO NOTHING",
        tuples(references.len(), 2)
    );
    let columns = |(blob, manifest): &(BlobInfo, i64)| [Value::from(&blob.digest), Value::from(*manifest)];
    work.run(&refer, &references.iter().flat_map(columns).collect::<Vec<_>>()).await?;
    Ok(())
}

/// Notes that a store has no longer those manifests that no tag's history has, and removes those that no other has, with
/// the blobs that only they refer to.
async fn remove_manifests(work: &mut Work, store: &str, digests: &[Value]) -> Result<(), sqlx::Error> {
    for digests in digests.chunks(DIGESTS_MAX) {
        let give_up = format!(
            "DELETE FROM manifest_stores WHERE store = $1 AND manifest IN \
             (SELECT m.id FROM manifests m WHERE m.digest IN ({}) \
             AND NOT EXISTS (SELECT 1 FROM tag_entries e WHERE e.digest = m.digest))",
            parameters(2, digests.len())
        );
        let values: Vec<Value> = [store.into()].into_iter().chain(digests.iter().cloned()).collect();
        work.run(&give_up, &values).await?;
        let remove = format!(
            "DELETE FROM manifests WHERE digest IN ({}) \
             AND NOT EXISTS (SELECT 1 FROM tag_entries e WHERE e.digest = manifests.digest) \
             AND NOT EXISTS (SELECT 1 FROM manifest_stores s WHERE s.manifest = manifests.id) RETURNING id",
            parameters(1, digests.len())
        );
        let manifests = ids(&work.run(&remove, digests).await?)?;
        if manifests.is_empty() {
            continue;
        }
        let forget = format!(
            "DELETE FROM blob_references WHERE manifest IN ({}) RETURNING blob",
            parameters(1, manifests.len())
        );
        let mut blobs = ids(&work.run(&forget, &manifests).await?)?;
        blobs.sort_unstable_by_key(Value::as_integer);
        blobs.dedup_by_key(|blob| blob.as_integer());
        for blobs in blobs.chunks(DIGESTS_MAX) {
            let orphans = format!(
                "DELETE FROM blobs WHERE id IN ({}) \
                 AND NOT EXISTS (SELECT 1 FROM blob_references r WHERE r.blob = blobs.id)",
                parameters(1, blobs.len())
            );
            work.run(&orphans, blobs).await?;
        }
    }
    Ok(())
}

/// The ids in the only column of `rows`.
fn ids(rows: &[Row]) -> Result<Vec<Value>, sqlx::Error> {
    rows.iter().map(|row| decoded(row.integer(0)).map(Value::Integer)).collect()
}

fn decoded<T>(value: Result<T, String>) -> Result<T, sqlx::Error> {
    value.map_err(|problem| sqlx::Error::Decode(problem.into()))
}

/// Gives tags their histories; a tag without one goes.
async fn set_tags(work: &mut Work, changes: &[Change]) -> Result<(), sqlx::Error> {
    // Of several histories of one tag the last counts.
    let histories: BTreeMap<String, &[TagEntry]> = changes
        .iter()
        .filter_map(|change| match change {
            Change::SetTag { reference, history, .. } => Some((reference.to_string(), history.as_slice())),
            Change::RemoveTag(reference) => Some((reference.to_string(), [].as_slice())),
            _ => None,
        })
        .collect();
    let tags: Vec<Value> = histories.keys().map(|tag| tag.as_str().into()).collect();
    for tags in tags.chunks(ROWS_MAX) {
        let forget = format!("DELETE FROM tag_entries WHERE tag IN ({})", parameters(1, tags.len()));
        work.run(&forget, tags).await?;
    }
    let columns = |(tag, history): (&String, &&[TagEntry])| -> Vec<[Value; 5]> {
        let entry = |(position, entry): (usize, &TagEntry)| {
            let position = Value::from(position as u64);
            let (tag, source) = (tag.as_str().into(), entry.source.as_str().into());
            [tag, position, (&entry.digest).into(), entry.at.into(), source]
        };
        history.iter().enumerate().map(entry).collect()
    };
    let rows: Vec<[Value; 5]> = histories.iter().flat_map(columns).collect();
    for rows in rows.chunks(ROWS_MAX) {
        let put = format!(
            "INSERT INTO tag_entries (tag, position, digest, at, source) VALUES {}",
            tuples(rows.len(), 5)
        );
        work.run(&put, &rows.concat()).await?;
    }
    Ok(())
}

/// `count` parameters from `$first` on, with commas.
pub(super) fn parameters(first: usize, count: usize) -> String {
    let names: Vec<String> = (first..first + count).map(|number| format!("${number}")).collect();
    names.join(", ")
}

/// `rows` tuples of `columns` parameters each, with commas.
fn tuples(rows: usize, columns: usize) -> String {
    let rows: Vec<String> =
        (0..rows).map(|row| format!("({})", parameters(columns * row + 1, columns))).collect();
    rows.join(", ")
}
