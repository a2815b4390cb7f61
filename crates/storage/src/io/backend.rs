//! Which backend runs: what was asked for, what the system allows, and the reason as a person reads it.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use super::pool::Pool;
use super::queue::Request;
use super::threads::Threads;
use super::uring::Uring;

/// What a user may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoChoice {
    /// io_uring where the system has and allows it, else threads.
    #[default]
    Auto,
    /// io_uring, or an error.
    IoUring,
    /// Threads.
    Threads,
}

static OF_PROCESS: OnceLock<IoChoice> = OnceLock::new();

impl IoChoice {
    /// Makes this the choice for [`super::IoEngine::shared`]; the first call counts, if it comes before the engine's
    /// first use.
    pub fn set_for_process(self) {
        let _ = OF_PROCESS.set(self);
    }

    pub(super) fn of_process() -> Self {
        *OF_PROCESS.get_or_init(Self::default)
    }
}

impl FromStr for IoChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "io_uring" => Ok(Self::IoUring),
            "threads" => Ok(Self::Threads),
            other => Err(format!("`{other}` is no I/O backend: expected `auto`, `io_uring` or `threads`")),
        }
    }
}

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoBackend {
    /// Linux io_uring.
    IoUring,
    /// Threads with `pread` and `pwrite`.
    Threads,
}

impl fmt::Display for IoBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IoUring => "io_uring",
            Self::Threads => "threads",
        })
    }
}

/// What runs, and why.
#[derive(Clone, Debug)]
pub struct IoReport {
    /// The backend.
    pub backend: IoBackend,
    /// Why this one.
    pub reason: String,
    /// Whether the kernel has the buffers registered, which spares it looking their pages up at every transfer.
    pub registered: bool,
}

/// The backend of one engine.
pub(super) enum Backend {
    Uring(Uring, IoReport),
    Threads(Threads, IoReport),
}

impl Backend {
    pub(super) fn start(choice: IoChoice, pool: &Arc<Pool>) -> io::Result<Self> {
        if choice == IoChoice::Threads {
            return Self::threads(pool, "asked for".to_owned());
        }
        match Uring::start(pool) {
            Ok((uring, registered)) => {
                let reason = match choice {
                    IoChoice::Auto => "the system has and allows io_uring",
                    _ => "asked for",
                };
                let reason = reason.to_owned();
                Ok(Self::Uring(uring, IoReport { backend: IoBackend::IoUring, reason, registered }))
            }
            Err(error) if choice == IoChoice::Auto => Self::threads(pool, format!("no io_uring: {error}")),
            Err(error) => {
                let problem = format!(
                    "io_uring was asked for and is not to be had: {error}\nhint: set `store.io` to `auto`"
                );
                Err(io::Error::new(io::ErrorKind::Unsupported, problem))
            }
        }
    }

    fn threads(pool: &Arc<Pool>, reason: String) -> io::Result<Self> {
        let report = IoReport { backend: IoBackend::Threads, reason, registered: false };
        Ok(Self::Threads(Threads::start(pool.buffers())?, report))
    }

    pub(super) fn submit(&self, request: Request) {
        match self {
            Self::Uring(uring, _) => uring.submit(request),
            Self::Threads(threads, _) => threads.submit(request),
        }
    }

    /// Whether it broke.
    pub(super) fn has_stopped(&self) -> bool {
        match self {
            Self::Uring(uring, _) => uring.has_stopped(),
            Self::Threads(..) => false,
        }
    }

    pub(super) fn report(&self) -> &IoReport {
        match self {
            Self::Uring(_, report) | Self::Threads(_, report) => report,
        }
    }
}
