//! [`Metadata`] in SQL that SQLite and PostgreSQL both speak.

use std::collections::BTreeMap;
use std::io;
use std::mem::discriminant;
use std::path::Path;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use helios_runtime::Clock;
use helios_storage::BlobInfo;
use helios_types::{Digest, ModelRef};
use sqlx::{Pool, Postgres, Sqlite, Transaction};

use super::apply::{apply_all, moved, parameters};
use super::schema::Connections;
use super::value::{Row, Value, fetch};
use super::{Change, Counts, DIGESTS_MAX, Metadata, MetadataError, check};
use crate::{ModelSummary, TagEntry};

/// Longest wait for one answer of PostgreSQL: longer than it takes itself at most, so that its own word comes first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// The advisory lock under which PostgreSQL makes commits: "helios".
const COMMIT_LOCK: i64 = 0x6865_6c69_6f73;

/// A database in SQLite or PostgreSQL.
#[derive(Clone, Debug)]
pub struct SqlMetadata {
    connections: Connections,
}

/// A transaction of either database.
pub(super) enum Work {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Work {
    pub(super) async fn run(&mut self, statement: &str, values: &[Value]) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(work) => fetch::<Sqlite>(work, statement, values).await,
            Self::Postgres(work) => in_time(fetch::<Postgres>(work, statement, values)).await,
        }
    }

    async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(work) => work.commit().await,
            Self::Postgres(work) => in_time(work.commit()).await,
        }
    }
}

impl SqlMetadata {
    /// Opens a file of SQLite (write-ahead log, `synchronous=FULL`), creating it if need be.
    ///
    /// # Errors
    /// [`MetadataError::Corrupt`], [`MetadataError::Newer`] or [`MetadataError::Failed`].
    pub async fn sqlite(file: &Path) -> Result<Self, MetadataError> {
        Ok(Self { connections: Connections::sqlite(file).await? })
    }

    /// Connects to a PostgreSQL database, such as `postgres://user:password@host/helios`; its tables are made if need
    /// be.
    ///
    /// # Errors
    /// [`MetadataError::Address`], [`MetadataError::Unreachable`], [`MetadataError::Newer`] or
    /// [`MetadataError::Failed`].
    pub async fn postgres(url: &str) -> Result<Self, MetadataError> {
        Ok(Self { connections: Connections::postgres(url).await? })
    }

    async fn begin(&self) -> Result<Work, sqlx::Error> {
        match &self.connections {
            Connections::Sqlite { writes, .. } => {
                writes.begin_with("BEGIN IMMEDIATE").await.map(Work::Sqlite)
            }
            Connections::Postgres { pool, .. } => in_time(begin_alone(pool)).await.map(Work::Postgres),
        }
    }

    /// Asks outside a transaction.
    async fn ask(&self, statement: &str, values: &[Value]) -> Result<Vec<Row>, MetadataError> {
        let rows = match &self.connections {
            Connections::Sqlite { reads, .. } => match reads.acquire().await {
                Ok(mut connection) => fetch::<Sqlite>(&mut connection, statement, values).await,
                Err(error) => Err(error),
            },
            Connections::Postgres { pool, .. } => match pool.acquire().await {
                Ok(mut connection) => in_time(fetch::<Postgres>(&mut connection, statement, values)).await,
                Err(error) => Err(error),
            },
        };
        rows.map_err(|error| self.connections.error(error))
    }

    /// What `read` makes of each row; a row that it cannot read is damage.
    async fn all<T>(
        &self,
        statement: &str,
        values: &[Value],
        read: impl Fn(&Row) -> Result<T, String>,
    ) -> Result<Vec<T>, MetadataError> {
        let rows = self.ask(statement, values).await?;
        let read: Result<Vec<T>, String> = rows.iter().map(read).collect();
        read.map_err(|problem| MetadataError::Corrupt { database: self.connections.shown(), problem })
    }

    async fn first<T>(
        &self,
        statement: &str,
        values: &[Value],
        read: impl Fn(&Row) -> Result<T, String>,
    ) -> Result<Option<T>, MetadataError> {
        self.all(statement, values, read).await.map(|all| all.into_iter().next())
    }
}

impl Metadata for SqlMetadata {
    fn commit<'a>(&'a self, changes: &'a [Change]) -> BoxFuture<'a, Result<(), MetadataError>> {
        async move {
            check(changes)?;
            let done = async {
                let mut work = self.begin().await?;
                if let Some(tag) = moved(&mut work, changes).await? {
                    return Ok(Some(tag));
                }
                for alike in changes.chunk_by(|a, b| discriminant(a) == discriminant(b)) {
                    apply_all(&mut work, alike).await?;
                }
                work.commit().await.map(|()| None)
            };
            match done.await {
                Ok(None) => Ok(()),
                Ok(Some(tag)) => Err(MetadataError::Conflict { database: self.connections.shown(), tag }),
                Err(error) => Err(self.connections.error(error)),
            }
        }
        .boxed()
    }

    fn current<'a>(&'a self, tag: &'a ModelRef) -> BoxFuture<'a, Result<Option<TagEntry>, MetadataError>> {
        async move {
            let newest =
                "SELECT digest, at, source FROM tag_entries WHERE tag = $1 ORDER BY position DESC LIMIT 1";
            self.first(newest, &[Value::Text(tag.to_string())], tag_entry).await
        }
        .boxed()
    }

    fn history<'a>(&'a self, tag: &'a ModelRef) -> BoxFuture<'a, Result<Vec<TagEntry>, MetadataError>> {
        async move {
            let all = "SELECT digest, at, source FROM tag_entries WHERE tag = $1 ORDER BY position";
            self.all(all, &[Value::Text(tag.to_string())], tag_entry).await
        }
        .boxed()
    }

    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelSummary>, MetadataError>> {
        async move {
            let current = "SELECT e.tag, e.digest, m.size, e.at, m.facts FROM \
                 (SELECT tag, MAX(position) AS position FROM tag_entries GROUP BY tag) n \
                 JOIN tag_entries e ON e.tag = n.tag AND e.position = n.position \
                 JOIN manifests m ON m.digest = e.digest";
            let mut models = self.all(current, &[], summary).await?;
            models.sort_unstable_by(|a, b| a.model.cmp(&b.model));
            Ok(models)
        }
        .boxed()
    }

    fn tags(&self) -> BoxFuture<'_, Result<Vec<ModelRef>, MetadataError>> {
        async move {
            let mut tags =
                self.all("SELECT DISTINCT tag FROM tag_entries", &[], |row| reference(row, 0)).await?;
            tags.sort_unstable();
            Ok(tags)
        }
        .boxed()
    }

    fn tags_of<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<ModelRef>, MetadataError>> {
        async move {
            // A name has no `:`, and `;` is the character behind it.
            let tags = "SELECT DISTINCT tag FROM tag_entries WHERE tag > $1 AND tag < $2 ORDER BY tag";
            let (first, end) = (Value::Text(format!("{name}:")), Value::Text(format!("{name};")));
            self.all(tags, &[first, end], |row| reference(row, 0)).await
        }
        .boxed()
    }

    fn manifest<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<Vec<u8>>, MetadataError>> {
        async move {
            let body = "SELECT body FROM manifests WHERE digest = $1";
            self.first(body, &[digest.into()], |row| row.bytes(0).map(<[u8]>::to_vec)).await
        }
        .boxed()
    }

    fn manifest_with<'a>(&'a self, blob: &'a Digest) -> BoxFuture<'a, Result<Option<Digest>, MetadataError>> {
        async move {
            let newest = "SELECT m.digest FROM blobs b JOIN blob_references r ON r.blob = b.id \
                 JOIN manifests m ON m.id = r.manifest WHERE b.digest = $1 ORDER BY m.id DESC LIMIT 1";
            self.first(newest, &[blob.into()], |row| row.digest(0)).await
        }
        .boxed()
    }

    fn blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<BlobInfo>, MetadataError>> {
        async move {
            let blob = "SELECT digest, blake3, size FROM blobs WHERE digest = $1";
            self.first(blob, &[digest.into()], blob_info).await
        }
        .boxed()
    }

    fn blobs_after<'a>(
        &'a self,
        after: Option<&'a Digest>,
    ) -> BoxFuture<'a, Result<Vec<BlobInfo>, MetadataError>> {
        async move {
            let after = after.map_or(Value::Bytes(Vec::new()), Value::from);
            let blobs = "SELECT digest, blake3, size FROM blobs WHERE digest > $1 ORDER BY digest LIMIT $2";
            let limit = DIGESTS_MAX as u64;
            self.all(blobs, &[after, limit.into()], blob_info).await
        }
        .boxed()
    }

    fn untagged<'a>(&'a self, store: &'a str) -> BoxFuture<'a, Result<Vec<Digest>, MetadataError>> {
        async move {
            let untagged = "SELECT m.digest FROM manifest_stores s JOIN manifests m ON m.id = s.manifest \
                 WHERE s.store = $1 AND NOT EXISTS (SELECT 1 FROM tag_entries e WHERE e.digest = m.digest)";
            self.all(untagged, &[store.into()], |row| row.digest(0)).await
        }
        .boxed()
    }

    fn outlive<'a>(&'a self, store: &'a str) -> BoxFuture<'a, Result<Vec<(Digest, Digest)>, MetadataError>> {
        async move {
            let outlive = "SELECT DISTINCT b.digest, m.digest FROM manifest_stores s \
                 JOIN manifests m ON m.id = s.manifest JOIN blob_references r ON r.manifest = m.id \
                 JOIN blobs b ON b.id = r.blob \
                 WHERE s.store = $1 AND NOT EXISTS (SELECT 1 FROM tag_entries e WHERE e.digest = m.digest) \
                 AND EXISTS (SELECT 1 FROM blob_references o JOIN manifests k ON k.id = o.manifest \
                 JOIN tag_entries t ON t.digest = k.digest WHERE o.blob = r.blob)";
            self.all(outlive, &[store.into()], |row| Ok((row.digest(0)?, row.digest(1)?))).await
        }
        .boxed()
    }

    fn referenced<'a>(&'a self, blobs: &'a [Digest]) -> BoxFuture<'a, Result<Vec<Digest>, MetadataError>> {
        async move {
            let mut found = Vec::new();
            for some in blobs.chunks(DIGESTS_MAX) {
                let statement =
                    format!("SELECT digest FROM blobs WHERE digest IN ({})", parameters(1, some.len()));
                let values: Vec<Value> = some.iter().map(Value::from).collect();
                found.extend(self.all(&statement, &values, |row| row.digest(0)).await?);
            }
            Ok(found)
        }
        .boxed()
    }

    fn record<'a>(
        &'a self,
        kind: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, MetadataError>> {
        async move {
            let record = "SELECT value FROM records WHERE kind = $1 AND key = $2";
            self.first(record, &[kind.into(), key.into()], |row| row.text(0).map(str::to_owned)).await
        }
        .boxed()
    }

    fn records<'a>(&'a self, kind: &'a str) -> BoxFuture<'a, Result<Vec<(String, String)>, MetadataError>> {
        async move {
            let pair = |row: &Row| Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned()));
            let mut records =
                self.all("SELECT key, value FROM records WHERE kind = $1", &[kind.into()], pair).await?;
            records.sort_unstable();
            Ok(records)
        }
        .boxed()
    }

    fn record_kinds(&self) -> BoxFuture<'_, Result<BTreeMap<String, u64>, MetadataError>> {
        async move {
            let kinds = "SELECT kind, COUNT(*) FROM records GROUP BY kind";
            let kinds = self.all(kinds, &[], |row| Ok((row.text(0)?.to_owned(), row.number(1)?))).await?;
            Ok(kinds.into_iter().collect())
        }
        .boxed()
    }

    fn counts(&self) -> BoxFuture<'_, Result<Counts, MetadataError>> {
        async move {
            let counted = "SELECT (SELECT COUNT(*) FROM manifests), (SELECT COUNT(*) FROM blobs), \
                 (SELECT COUNT(DISTINCT tag) FROM tag_entries)";
            let counts = |row: &Row| {
                Ok(Counts { manifests: row.number(0)?, blobs: row.number(1)?, tags: row.number(2)? })
            };
            self.first(counted, &[], counts).await.map(Option::unwrap_or_default)
        }
        .boxed()
    }

    fn backup<'a>(&'a self, file: &'a Path) -> BoxFuture<'a, Result<(), MetadataError>> {
        async move {
            match &self.connections {
                Connections::Sqlite { .. } => {
                    let file = file.display().to_string();
                    let copied = self.ask("VACUUM INTO $1", &[Value::Text(file.clone())]).await;
                    copied.map(drop).map_err(|error| match error {
                        MetadataError::Failed { problem, .. } => MetadataError::Backup { file, problem },
                        error => error,
                    })
                }
                Connections::Postgres { .. } => Err(MetadataError::NoBackup {
                    database: self.connections.shown(),
                    hint: "`pg_dump` copies it while it serves",
                }),
            }
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            match &self.connections {
                Connections::Sqlite { reads, writes, .. } => {
                    reads.close().await;
                    writes.close().await;
                }
                Connections::Postgres { pool, .. } => pool.close().await,
            }
        }
        .boxed()
    }
}

/// Begins a transaction beside which no other registry commits anything: what one finds in the tables stays so until its
/// end.
async fn begin_alone(pool: &Pool<Postgres>) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut work = pool.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(COMMIT_LOCK).execute(&mut *work).await?;
    Ok(work)
}

/// What a server on the network answers, unless that takes so long that it will not come any more.
async fn in_time<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    Clock.timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|elapsed| {
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, elapsed.to_string())))
    })
}

fn blob_info(row: &Row) -> Result<BlobInfo, String> {
    Ok(BlobInfo { digest: row.digest(0)?, blake3: row.hash(1)?, size: row.number(2)? })
}

pub(super) fn tag_entry(row: &Row) -> Result<TagEntry, String> {
    Ok(TagEntry { digest: row.digest(0)?, at: row.number(1)?, source: row.text(2)?.to_owned() })
}

fn reference(row: &Row, column: usize) -> Result<ModelRef, String> {
    parsed(row.text(column)?)
}

/// The tag of that name.
pub(super) fn parsed(tag: &str) -> Result<ModelRef, String> {
    tag.parse().map_err(|error| format!("the tag `{tag}`: {error}"))
}

fn summary(row: &Row) -> Result<ModelSummary, String> {
    let metadata =
        serde_json::from_str(row.text(4)?).map_err(|error| format!("facts of a manifest: {error}"))?;
    Ok(ModelSummary {
        model: reference(row, 0)?,
        digest: row.digest(1)?,
        size: row.number(2)?,
        changed_at: row.number(3)?,
        metadata,
    })
}
