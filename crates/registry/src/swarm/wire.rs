//! What nodes and trackers say to each other.

use helios_types::Digest;
use serde::{Deserialize, Serialize};

/// Body of `POST swarms/DIGEST`: what a node has got, and what it wants next.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ask {
    /// Where others reach the node; without it, nobody is sent to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    /// Bytes of the blob.
    pub(crate) size: u64,
    /// Pieces that the node has and can serve now.
    #[serde(default)]
    pub(crate) got: Vec<u64>,
    /// The piece it wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) piece: Option<u64>,
    /// Nodes that it does not want to be sent to.
    #[serde(default)]
    pub(crate) avoid: Vec<String>,
    /// Whether it cannot check pieces: it wants them from who has the whole blob.
    #[serde(default)]
    pub(crate) unchecked: bool,
    /// Whether it has the whole blob.
    #[serde(default)]
    pub(crate) whole: bool,
    /// Whether it fetches ahead of anybody's need.
    #[serde(default)]
    pub(crate) ahead: bool,
}

/// Answer: where to get the piece.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Place {
    /// From the origin; others are sent to the asker.
    Origin,
    /// From this node.
    Peer(String),
    /// It will be told when it asks again: others are about to fetch it.
    Later,
    /// Nothing was asked for.
    Noted,
}

/// Body of `PUT holdings`: which whole blobs a node has. Replaces what it said before, and ends unless said again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Holdings {
    pub(crate) node: String,
    pub(crate) blobs: Vec<Digest>,
}
