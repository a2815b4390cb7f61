//! Nodes of one fleet that want the same blob share it, so that its origin hands out each byte once.
//!
//! A blob is cut into pieces. For each piece a node asks the blob's *tracker* where to get it: from the origin, which is
//! then claimed for this piece, or from a node that has it or has claimed it. What a node has verified it serves to the
//! others while its own download still runs. The tracker is the parent registry where there is one, else that of the
//! peers which a rendezvous hash of the digest names, so that all nodes agree without talking. It keeps everything in
//! memory, bounded, and loses nothing but efficiency when it forgets.
//!
//! Nothing here is trusted: pieces from a peer are checked against the blob's tree as they arrive, and the whole against
//! its digest always. A peer that lies or fails is left alone for a while, and a tracker that is silent is done without.
//! Without a tree, as on a first pull from a hub, no piece is handed on before the whole has the right digest: one node
//! fetches the blob from the origin, and the others wait and take it from there.

mod cache;
mod cache_room;
mod node;
mod piece;
mod serve;
mod share;
mod tracker;
pub(crate) mod wire;

pub use cache::SharedCache;
pub(crate) use cache_room::CacheRoom;
pub(crate) use node::Swarm;
pub(crate) use piece::SwarmFile;
pub(crate) use share::Share;
pub(crate) use tracker::Tracker;

/// Smallest blob that is fetched together: below, asking around costs more than it saves.
pub(crate) const SHARED_BYTES_MIN: u64 = 256 << 10;
