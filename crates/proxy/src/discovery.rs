//! Where the list of workers comes from.

use std::fmt;
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use helios_api::worker::Worker;
use helios_types::{Digest, ModelRef};

/// A worker that holds a model.
#[derive(Clone)]
pub struct Member {
    /// Unique among the members of a list.
    pub id: String,
    /// Name and tag under which it serves.
    pub reference: ModelRef,
    /// The version that it serves.
    pub manifest_digest: Digest,
    /// How to reach it. The same pointer in the next list means the same worker.
    pub worker: Arc<dyn Worker>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Member({} serves {})", self.id, self.reference)
    }
}

/// Tells which workers there are. Whether one is ready, it tells itself (`Watch`).
pub trait Discovery: Send + Sync {
    /// The whole list now, and again whenever it changes. While the source is out of reach nothing comes, so the last
    /// list stays in force.
    fn lists(&self) -> BoxStream<'static, Vec<Member>>;
}

/// Workers of this process, or otherwise known for good.
#[derive(Clone, Debug)]
pub struct InProcess {
    members: Vec<Member>,
}

impl InProcess {
    /// A list that never changes.
    pub fn new(members: Vec<Member>) -> Self {
        Self { members }
    }
}

impl Discovery for InProcess {
    fn lists(&self) -> BoxStream<'static, Vec<Member>> {
        let members = self.members.clone();
        stream::once(async move { members }).chain(stream::pending()).boxed()
    }
}
