//! What can go wrong in the database of a registry.

use helios_types::{Classify, ErrorCode, ModelRef};

/// A failed question to the database, or a failed commit.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// The database's files are damaged.
    #[error(
        "the database `{database}` is damaged: {problem}\nhint: stop the registry; `helios registry rebuild` makes the database again from the files of the store"
    )]
    Corrupt {
        /// Where it is, without credentials.
        database: String,
        /// What was found.
        problem: String,
    },
    /// A newer release has changed the database's form.
    #[error(
        "the database `{database}` was written by a newer release (migration {version})\nhint: use that release, or restore a backup made before it"
    )]
    Newer {
        /// Where it is, without credentials.
        database: String,
        /// The first migration that this release does not know.
        version: i64,
    },
    /// There is no database to copy.
    #[error(
        "there is no database `{database}`\nhint: check --store; a store gets its database when it is first used, or by `helios registry rebuild`"
    )]
    Missing {
        /// Where it would be.
        database: String,
    },
    /// The address of the database is none.
    #[error("{problem}\nhint: `store.metadata` is `sqlite` or postgres://USER:PASSWORD@HOST/DATABASE")]
    Address {
        /// What is wrong with it, without credentials.
        problem: String,
    },
    /// The database could not be reached.
    #[error(
        "the database `{database}` cannot be reached: {problem}\nhint: check that it runs and `store.metadata`"
    )]
    Unreachable {
        /// Where it is, without credentials.
        database: String,
        /// What happened.
        problem: String,
    },
    /// The database refused or failed.
    #[error("the database `{database}` failed: {problem}")]
    Failed {
        /// Where it is, without credentials.
        database: String,
        /// What happened.
        problem: String,
    },
    /// Somebody else changed a tag between what was read of it and the commit.
    #[error(
        "another registry on the database `{database}` changed the tag `{tag}` meanwhile\nhint: try again"
    )]
    Conflict {
        /// Where it is, without credentials.
        database: String,
        /// The tag.
        tag: ModelRef,
    },
    /// The database gave up on a statement.
    #[error(
        "the database `{database}` did not answer in time: {problem}\nhint: see who holds its locks (`pg_stat_activity`), then try again; `?options[statement_timeout]=2min` behind `store.metadata` gives it longer"
    )]
    TimedOut {
        /// Where it is, without credentials.
        database: String,
        /// What it said.
        problem: String,
    },
    /// The disk of the database is full.
    #[error("the database `{database}` has no space left\nhint: free space; `helios gc` helps")]
    Full {
        /// Where it is, without credentials.
        database: String,
    },
    /// A change is larger than it may be.
    #[error("the {what} of a record has {bytes} bytes, at most {bytes_max} fit")]
    OverLimit {
        /// Which part of it.
        what: &'static str,
        /// Bytes it has.
        bytes: usize,
        /// Bytes it may have.
        bytes_max: usize,
    },
    /// A copy of the database cannot be written.
    #[error(
        "no copy is made in `{file}`: {problem}\nhint: name a file that is not there yet, in a folder that is"
    )]
    Backup {
        /// The file to be.
        file: String,
        /// What happened.
        problem: String,
    },
    /// This database is backed up by other means.
    #[error("`{database}` is not backed up by Helios\nhint: {hint}")]
    NoBackup {
        /// Where it is, without credentials.
        database: String,
        /// By which.
        hint: &'static str,
    },
}

impl Classify for MetadataError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Corrupt { .. } => ErrorCode::Corrupt,
            Self::Newer { .. } | Self::Conflict { .. } => ErrorCode::Conflict,
            Self::Missing { .. } => ErrorCode::NotFound,
            Self::Unreachable { .. } | Self::TimedOut { .. } => ErrorCode::Unavailable,
            Self::Failed { .. } => ErrorCode::Internal,
            Self::Full { .. } => ErrorCode::StorageFull,
            Self::Address { .. } | Self::OverLimit { .. } | Self::Backup { .. } | Self::NoBackup { .. } => {
                ErrorCode::InvalidRequest
            }
        }
    }
}
