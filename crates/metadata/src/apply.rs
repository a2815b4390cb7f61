//! How [`Change`]s are made in SQL that SQLite and PostgreSQL both speak.

use std::collections::BTreeMap;

use helios_model::Manifest;
use helios_storage::BlobInfo;
use helios_types::{Digest, ModelRef};

use super::sql::Work;
use super::value::{Row, Value};
use super::{Change, DIGESTS_MAX};
use crate::TagEntry;

/// Rows that one statement writes: below the parameters that SQLite takes.
const ROWS_MAX: usize = 200;

/// Makes changes of one kind. Those that garbage collection makes by the thousand take a few statements together: each
/// statement is a trip to the database's thread (100,000 manifests one by one took 287 s).
pub(super) async fn apply_all(work: &mut Work, changes: &[Change]) -> Result<(), sqlx::Error> {
    match changes {
        [Change::RemoveManifest(_), ..] => {
            let digests = changes.iter().filter_map(|change| match change {
                Change::RemoveManifest(digest) => Some(Value::from(digest)),
                _ => None,
            });
            remove_manifests(work, &digests.collect::<Vec<_>>()).await
        }
        [Change::PutRecord { .. }, ..] => put_records(work, changes).await,
        [Change::RemoveRecord { .. }, ..] => remove_records(work, changes).await,
        _ => {
            for change in changes {
                match change {
                    Change::PutManifest { digest, manifest } => put_manifest(work, digest, manifest).await?,
                    Change::SetTag { reference, history } => set_tag(work, reference, history).await?,
                    Change::RemoveTag(reference) => set_tag(work, reference, &[]).await?,
                    // Made together, above.
                    Change::RemoveManifest(_) | Change::PutRecord { .. } | Change::RemoveRecord { .. } => {}
                }
            }
            Ok(())
        }
    }
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

async fn put_manifest(work: &mut Work, digest: &Digest, manifest: &Manifest) -> Result<(), sqlx::Error> {
    let facts = serde_json::to_string(&manifest.metadata).expect("invariant: facts have only string keys");
    let values =
        [digest.into(), Value::Bytes(manifest.to_bytes()), Value::Text(facts), manifest.size().into()];
    let put = "INSERT INTO manifests (digest, body, facts, size) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (digest) DO NOTHING RETURNING id";
    let Some(id) = work.run(put, &values).await?.first().map(|row| row.integer(0)) else { return Ok(()) };
    let id = id.map_err(|problem| sqlx::Error::Decode(problem.into()))?;
    for files in manifest.files.chunks(ROWS_MAX) {
        let put = format!(
            "INSERT INTO blobs (digest, blake3, size) VALUES {} ON CONFLICT (digest) DO NOTHING",
            tuples(files.len(), 3)
        );
        let columns = |file: &helios_model::FileEntry| {
            let BlobInfo { digest, blake3, size } = file.blob;
            [Value::from(&digest), Value::Bytes(blake3.to_vec()), Value::from(size)]
        };
        work.run(&put, &files.iter().flat_map(columns).collect::<Vec<_>>()).await?;
        let refer = format!(
            "INSERT INTO blob_references (blob, manifest) SELECT id, $1 FROM blobs WHERE digest IN ({}) \
             ON CONFLICT DO NOTHING",
            parameters(2, files.len())
        );
        let values: Vec<Value> = [Value::Integer(id)]
            .into_iter()
            .chain(files.iter().map(|file| (&file.blob.digest).into()))
            .collect();
        work.run(&refer, &values).await?;
    }
    Ok(())
}

/// Removes the manifests that no tag's history has, and the blobs that only they refer to.
async fn remove_manifests(work: &mut Work, digests: &[Value]) -> Result<(), sqlx::Error> {
    for digests in digests.chunks(DIGESTS_MAX) {
        let remove = format!(
            "DELETE FROM manifests WHERE digest IN ({}) \
             AND NOT EXISTS (SELECT 1 FROM tag_entries e WHERE e.digest = manifests.digest) RETURNING id",
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
    let id = |row: &Row| row.integer(0).map(Value::Integer);
    rows.iter().map(id).collect::<Result<_, _>>().map_err(|problem| sqlx::Error::Decode(problem.into()))
}

async fn set_tag(work: &mut Work, reference: &ModelRef, history: &[TagEntry]) -> Result<(), sqlx::Error> {
    let tag = Value::Text(reference.to_string());
    work.run("DELETE FROM tag_entries WHERE tag = $1", std::slice::from_ref(&tag)).await?;
    for (position, entry) in history.iter().enumerate() {
        let put = "INSERT INTO tag_entries (tag, position, digest, at, source) VALUES ($1, $2, $3, $4, $5)";
        let position = Value::from(position as u64);
        let values =
            [tag.clone(), position, (&entry.digest).into(), entry.at.into(), entry.source.as_str().into()];
        work.run(put, &values).await?;
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
