//! What nodes told of a time that the store does not know: releases, exemptions, diaries.

use std::collections::BTreeMap;

use async_trait::async_trait;
use proto::canonical::Signature;
use proto::{HoldId, NodeId, PersonName, Role, Version};

use super::{ImportedHold, Note, Result};

/// The controller's word for holds that an order sets, or for their release by it.
pub type Signatures = BTreeMap<HoldId, Signature>;

/// A release that the controller has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRelease {
    /// The hold.
    pub hold: HoldId,
    /// The decision.
    pub version: Version,
    /// Its word for it.
    pub signature: Signature,
}

/// One that a node remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldRelease {
    /// The release.
    pub release: SignedRelease,
    /// Who told it.
    pub node: NodeId,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
}

/// A hold that was released on one node by somebody there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exemption {
    /// The hold.
    pub hold: HoldId,
    /// Where it does not hold.
    pub node: NodeId,
    /// Who released it, by the node's word.
    pub person: PersonName,
    /// The role that entitled them there.
    pub role: Role,
    /// By the node's clock.
    pub at_ms: i64,
}

/// Exemptions that are kept of one node: as many as it can remember itself.
pub const MAX_EXEMPTIONS: u32 = 4_096;

/// The part of the store that grows by what nodes tell.
#[async_trait]
pub trait Told: Send + Sync + 'static {
    /// Takes over holds that only a node knew, in one transaction; those that are known stay as they are, and nothing is
    /// audited of them. [`super::StoreError::NotFound`] (the node).
    async fn import_holds(&self, holds: &[(ImportedHold, Note)]) -> Result<()>;
    /// Keeps releases that a node remembered, in one transaction; their holds are released from then on, known or not.
    /// Those that were released already stay as they are. [`super::StoreError::NotFound`] (the node).
    async fn tell_releases(&self, releases: &[(ToldRelease, Note)]) -> Result<()>;
    /// The controller's word for the releases of those of `ids` for which it gave one.
    async fn releases_among(&self, ids: &[HoldId]) -> Result<Vec<SignedRelease>>;
    /// Keeps an exemption. False (and no audit entry) when it is known already.
    /// [`super::StoreError::NotFound`] (the node), [`super::StoreError::Invalid`] (more than [`MAX_EXEMPTIONS`]).
    async fn exempt(&self, exemption: &Exemption, note: Note) -> Result<bool>;
    /// Every exemption but those from holds that were released.
    async fn exemptions(&self) -> Result<Vec<Exemption>>;
    /// How far each node's own audit has been taken over.
    async fn diaries(&self) -> Result<Vec<(NodeId, audit::Head)>>;
    /// Takes over more of a node's own audit: the entries as ours and how far they go, in one transaction.
    async fn tell_diary(&self, node: NodeId, head: audit::Head, notes: Vec<Note>) -> Result<()>;
}
