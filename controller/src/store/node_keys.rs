//! Nodes that are shut out or not believed, and who trusts which root.

use async_trait::async_trait;
use proto::NodeId;
use trust::Spki;

use super::{Holder, KeyRecord, NodeRecord, Note, Result};

/// Why a node's answers count for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// In a few words.
    pub why: String,
}

/// A node that was revoked.
#[derive(Debug, Clone)]
pub struct RevokedNode {
    /// The node.
    pub node: NodeRecord,
    /// Keys that were good until now.
    pub keys: Vec<KeyRecord>,
}

/// What was handed over with a key's certificate, and taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// The root that its certificate leads to.
    pub root: Spki,
    /// Every root that its holder trusts.
    pub roots: Vec<Spki>,
}

/// A good key and what its holder trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTrust {
    /// The key.
    pub spki: Spki,
    /// Whose.
    pub holder: Holder,
    /// When its latest certificate ends, milliseconds since 1970.
    pub certificate_expires_at_ms: i64,
    /// `None`: not known; nothing new is to be assumed.
    pub trusted: Option<Trusted>,
}

/// The part of the [`Store`](super::Store) about nodes' standing and about roots.
#[async_trait]
pub trait NodeKeyStore: Send + Sync + 'static {
    /// Revokes every key of a node, makes its open join tokens void, and shuts it out until a rekey. `NotFound`.
    async fn revoke_node(&self, node: NodeId, why: &str, note: Note) -> Result<RevokedNode>;
    /// From now on the node's answers count for nothing, until a rekey. Idempotent: the first reason stays, and
    /// only the first makes an entry. `NotFound`.
    async fn quarantine_node(&self, node: NodeId, why: &str, note: Note) -> Result<NodeRecord>;
    /// Keeps what the holder of a key trusts now. An unknown key is passed over. Not audited: an observation.
    async fn note_trust(&self, spki: Spki, trusted: &Trusted) -> Result<()>;
    /// Every good key with what its holder trusts.
    async fn key_trust(&self) -> Result<Vec<KeyTrust>>;
    /// Whoever has no good key at all: nodes that were not revoked, people who have a role. They hold bundles from
    /// before keys were kept, or none.
    async fn keyless(&self) -> Result<Vec<String>>;
}
