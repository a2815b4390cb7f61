//! Uploads in pieces: each a session that ends by itself when nothing comes. They are of this process: after a restart
//! clients begin again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use helios_registry::protocol::Incoming;
use helios_runtime::{Clock, Instant, random_u64};

use super::error::OciError;

/// Sessions at a time; more are refused.
const SESSIONS_MAX: usize = 64;
/// How long a session waits for its next piece. Those that waited longer go when the next one begins.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// One upload.
#[derive(Debug)]
pub(super) struct Session {
    /// The name that it is for.
    pub(super) name: String,
    /// Its bytes; held while a piece comes in.
    pub(super) incoming: tokio::sync::Mutex<Incoming>,
    used: Mutex<Instant>,
}

/// The uploads that run.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Arc<Session>>>);

impl Sessions {
    /// Begins an upload for `name`; returns its id.
    pub(super) fn begin(&self, name: &str, incoming: Incoming) -> Result<String, OciError> {
        let now = Clock.now();
        let mut sessions = self.sessions();
        sessions.retain(|_, session| now - session.used_at() < IDLE_MAX);
        if sessions.len() >= SESSIONS_MAX {
            let message =
                format!("{SESSIONS_MAX} uploads are running; no more are taken\nhint: try again later");
            return Err(OciError::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message));
        }
        let id = format!("{:016x}{:016x}", random_u64(), random_u64());
        let incoming = tokio::sync::Mutex::new(incoming);
        let session = Session { name: name.to_owned(), incoming, used: Mutex::new(now) };
        sessions.insert(id.clone(), Arc::new(session));
        Ok(id)
    }

    /// The upload of that id, which counts as used now.
    pub(super) fn get(&self, name: &str, id: &str) -> Result<Arc<Session>, OciError> {
        let session = self.sessions().get(id).filter(|session| session.name == name).cloned();
        let session = session.ok_or_else(|| OciError::no_upload(id))?;
        *session.used.lock().unwrap_or_else(PoisonError::into_inner) = Clock.now();
        Ok(session)
    }

    /// Ends the upload; what it holds goes with its last user.
    pub(super) fn end(&self, id: &str) -> Option<Arc<Session>> {
        self.sessions().remove(id)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn used_at(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
