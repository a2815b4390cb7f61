//! What can go wrong with files, and whom to blame for it.

use std::io;
use std::path::{Path, PathBuf};

use helios_types::{Classify, Digest, ErrorCode};

use crate::FormatError;

/// A failed operation on the store or on a model file.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried: a verb that takes the path as its object.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file system, the user's quota or a limit on file sizes has no room left.
    #[error(
        "no space left to {action} `{}`\nhint: free space on the file system of `{}`, or choose another folder for the store",
        path.display(), folder.display()
    )]
    StorageFull {
        /// What was tried.
        action: &'static str,
        /// The file that did not fit.
        path: PathBuf,
        /// The folder that holds it.
        folder: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// No directory of the store has room for a blob, and nothing may leave.
    #[error(
        "no tier has room for {bytes} bytes: {tiers}\nhint: `helios rm` and `helios gc` free space, `helios warm MODEL --off` lets a model go; or add a directory to `store.tiers`"
    )]
    NoRoom {
        /// Size of the blob, or what is known of it.
        bytes: u64,
        /// What each directory says.
        tiers: String,
    },
    /// A directory is not the tier that it was.
    #[error(
        "`{}` is not the tier it was: its `tier.json` is missing or another's\nhint: mount its file system; to begin anew with this one, delete `tiers.json` in the store while no server runs",
        dir.display()
    )]
    TierAbsent {
        /// The directory.
        dir: PathBuf,
    },
    /// The store has no such blob.
    #[error("blob {digest} is not in the store\nhint: pull the model again")]
    BlobMissing {
        /// The blob that was wanted.
        digest: Digest,
    },
    /// A stored file is not the blob whose name it bears; it was moved out of the way.
    #[error(
        "blob {digest} is corrupt: {problem}; the file was moved to `{}`\nhint: pull the model again",
        quarantine.display()
    )]
    BlobCorrupt {
        /// The blob that was wanted.
        digest: Digest,
        /// How it differs.
        problem: String,
        /// Where the wrong bytes are now.
        quarantine: PathBuf,
    },
    /// A blob is the one its name says, but not the one that a manifest describes.
    #[error("blob {digest} does not match its manifest: {problem}\nhint: pull the model again")]
    BlobMismatch {
        /// The blob that was wanted.
        digest: Digest,
        /// How it differs.
        problem: String,
    },
    /// A file is kept as ranges of others, and cannot be put together from them.
    #[error("blob {digest} is kept as a recipe that cannot be used: {problem}\nhint: pull the model again")]
    RecipeBroken {
        /// The blob that was wanted.
        digest: Digest,
        /// What is wrong, naming the part.
        problem: String,
    },
    /// Bytes that were written are not those that were expected; they were discarded.
    #[error("received bytes have digest {actual}, expected {expected}; they were discarded")]
    DigestMismatch {
        /// What should have come.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// Bytes are not what the BLAKE3 tree of their blob says, or leaves are not the tree of a root.
    #[error("the BLAKE3 tree refuses what came: {problem}")]
    TreeMismatch {
        /// What does not fit.
        problem: String,
    },
    /// Bytes were asked for that a blob does not have.
    #[error("bytes {start} to {end} of blob {digest} were asked for, which has {size}")]
    InvalidRange {
        /// The blob.
        digest: Digest,
        /// The first byte.
        start: u64,
        /// The byte after the last.
        end: u64,
        /// Bytes of the blob.
        size: u64,
    },
    /// Another process holds the folder.
    #[error(
        "`{}` is in use by {}\nhint: stop that process, or choose another folder",
        dir.display(), holder_pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// The holder, where it could be read.
        holder_pid: Option<u32>,
    },
    /// A name for a partial download that could not be a file name.
    #[error(
        "`{key}` cannot name a partial blob: expected 1 to 200 letters, digits, `.`, `_`, `-`, not beginning with `.`"
    )]
    InvalidKey {
        /// The refused name, shortened to 100 characters.
        key: String,
    },
    /// A model file breaks its format, or uses what Helios does not support.
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl StorageError {
    /// The file or folder that the system refused.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Io { path, .. } | Self::StorageFull { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Wraps what the system said about `path`, tried to `action`: a full file system is told from other failures.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                let folder = path.parent().unwrap_or(&path).to_owned();
                Self::StorageFull { action, path, folder, source }
            }
            _ => Self::Io { action, path, source },
        }
    }
}

impl Classify for StorageError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorCode::NotFound,
                io::ErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
                _ => ErrorCode::Internal,
            },
            Self::StorageFull { .. } | Self::NoRoom { .. } => ErrorCode::StorageFull,
            Self::TierAbsent { .. } => ErrorCode::Unavailable,
            Self::BlobMissing { .. } => ErrorCode::NotFound,
            Self::BlobCorrupt { .. }
            | Self::BlobMismatch { .. }
            | Self::RecipeBroken { .. }
            | Self::DigestMismatch { .. }
            | Self::TreeMismatch { .. } => ErrorCode::Corrupt,
            Self::Locked { .. } => ErrorCode::Conflict,
            Self::InvalidKey { .. } | Self::InvalidRange { .. } => ErrorCode::InvalidRequest,
            Self::Format(error) => error.code(),
        }
    }
}
