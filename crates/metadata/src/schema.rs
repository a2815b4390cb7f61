//! The two databases: how they are opened, and their tables, which migrations bring to this release's form.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::pool::PoolOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Pool, Postgres, SqlSafeStr, Sqlite};

use super::MetadataError;

/// Readers of one database at a time; more wait.
const READERS_MAX: u32 = 4;
/// Pages that the connection which writes may keep, as SQLite counts (negative: KiB). A collection changes pages all over
/// the index of digests, 56 MB with a million blobs; those that do not fit go to the log more than once in a commit.
const WRITER_CACHE: &str = "-65536";
/// Rows on their way from SQLite's thread: with the default of 50, a list of 100,000 models wakes both sides 2,000 times.
const ROWS_BUFFERED: usize = 1_024;
/// Connections to PostgreSQL.
const CONNECTIONS_MAX: u32 = 8;
/// Longest wait for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest that PostgreSQL takes for a statement, the wait for the commits of other registries included, and that it
/// waits for the next one of a transaction.
const STATEMENT_TIMEOUT: &str = "60s";
/// Longest wait for a lock of SQLite: a backup by another process holds one for moments.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections to one of the two databases.
#[derive(Clone, Debug)]
pub(super) enum Connections {
    /// SQLite: one connection writes, some read; the write-ahead log keeps them out of each other's way.
    Sqlite { file: PathBuf, reads: Pool<Sqlite>, writes: Pool<Sqlite> },
    /// PostgreSQL.
    Postgres { shown: String, pool: Pool<Postgres> },
}

impl Connections {
    /// Opens or creates a file.
    pub(super) async fn sqlite(file: &Path) -> Result<Self, MetadataError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .row_buffer_size(ROWS_BUFFERED)
            .foreign_keys(false);
        let writes = PoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT);
        let reads = PoolOptions::new().max_connections(READERS_MAX).acquire_timeout(ACQUIRE_TIMEOUT);
        let writes = writes.connect_lazy_with(options.clone().pragma("cache_size", WRITER_CACHE));
        let migrations = migrations([
            include_str!("migrations/sqlite/1_metadata.sql"),
            include_str!("migrations/sqlite/2_manifest_stores.sql"),
        ]);
        let migrated = migrations.run(&writes).await;
        let opened = Self::Sqlite { file: file.to_owned(), writes, reads: reads.connect_lazy_with(options) };
        migrated.map_err(|error| opened.migration_error(error))?;
        Ok(opened)
    }

    /// Connects to a server.
    pub(super) async fn postgres(url: &str) -> Result<Self, MetadataError> {
        let options = PgConnectOptions::from_str(url).map_err(|_| MetadataError::Address {
            problem: "the address of the PostgreSQL database cannot be read".to_owned(),
        })?;
        let database = options.get_database().unwrap_or("postgres");
        let shown = format!("postgres://{}:{}/{database}", options.get_host(), options.get_port());
        let pool = PoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(ACQUIRE_TIMEOUT);
        let pool = pool.connect_lazy_with(with_limits(options));
        let migrations = migrations([
            include_str!("migrations/postgres/1_metadata.sql"),
            include_str!("migrations/postgres/2_manifest_stores.sql"),
        ]);
        let migrated = migrations.run(&pool).await;
        let opened = Self::Postgres { shown, pool };
        migrated.map_err(|error| opened.migration_error(error))?;
        Ok(opened)
    }

    /// What people call the database: its file, or its address without credentials.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Sqlite { file, .. } => file.display().to_string(),
            Self::Postgres { shown, .. } => shown.clone(),
        }
    }

    fn migration_error(&self, error: MigrateError) -> MetadataError {
        match error {
            MigrateError::VersionMissing(version) => MetadataError::Newer { database: self.shown(), version },
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => self.error(error),
            error => MetadataError::Failed { database: self.shown(), problem: error.to_string() },
        }
    }

    /// The error in our words, by SQLite's result codes (<https://sqlite.org/rescode.html>).
    pub(super) fn error(&self, error: sqlx::Error) -> MetadataError {
        const SQLITE_CORRUPT: i64 = 11;
        const SQLITE_FULL: i64 = 13;
        /// The shared index of the log could not grow: no other error of it says so little of its cause, a full disk.
        const SQLITE_IOERR_SHMSIZE: i64 = 4874;
        const SQLITE_NOTADB: i64 = 26;
        /// PostgreSQL's `query_canceled`, by `statement_timeout` (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
        const QUERY_CANCELED: i64 = 57014;
        let database = self.shown();
        let problem = error.to_string();
        let code = error.as_database_error().and_then(|error| error.code()?.parse::<i64>().ok());
        match (self, code.map(|code| code & 0xff), &error) {
            (Self::Sqlite { .. }, Some(SQLITE_FULL), _) => MetadataError::Full { database },
            (Self::Sqlite { .. }, _, _) if code == Some(SQLITE_IOERR_SHMSIZE) => {
                MetadataError::Full { database }
            }
            (Self::Sqlite { .. }, Some(SQLITE_CORRUPT | SQLITE_NOTADB), _) => {
                MetadataError::Corrupt { database, problem }
            }
            (Self::Postgres { .. }, _, _) if code == Some(QUERY_CANCELED) => {
                MetadataError::TimedOut { database, problem }
            }
            (_, _, sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Tls(_)) => {
                MetadataError::Unreachable { database, problem }
            }
            _ => MetadataError::Failed { database, problem },
        }
    }
}

/// Limits on what a connection may take the server, unless its address sets them: so a registry that the network cut off
/// does not hold up the others, which wait for its commit, for ever.
fn with_limits(options: PgConnectOptions) -> PgConnectOptions {
    let given = options.get_options().unwrap_or_default().to_owned();
    let limits = ["statement_timeout", "idle_in_transaction_session_timeout"];
    let missing = limits.into_iter().filter(|limit| !given.contains(limit));
    options.options(missing.map(|limit| (limit, STATEMENT_TIMEOUT)))
}

/// What brings the tables to this release's form, step by step; later releases append.
fn migrations(steps: [&'static str; 2]) -> Migrator {
    let names = ["metadata", "manifest stores"];
    let step = |((version, name), sql): ((i64, &'static str), &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations((1..).zip(names).zip(steps).map(step).collect())
}
