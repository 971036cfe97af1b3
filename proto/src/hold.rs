//! A hold, checked: why something may not run.

use serde::{Deserialize, Serialize};

use crate::{HoldId, NodeId, PersonName, SiteName, SliceName, Version};

/// The four classes of people of PDN-03-015 §3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Works on a slice.
    Developer,
    /// Answers for the slices of a site.
    Pi,
    /// Looks after the nodes of a site.
    SiteAdmin,
    /// Looks after everything.
    Support,
}

impl Role {
    /// Every role, weakest first.
    pub const ALL: [Role; 4] = [Role::Developer, Role::Pi, Role::SiteAdmin, Role::Support];

    /// The word that people read and type.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Developer => "developer",
            Role::Pi => "pi",
            Role::SiteAdmin => "site-admin",
            Role::Support => "support",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How hard a hold holds. A stronger kind sorts after a weaker one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldKind {
    /// Processes stay, frozen; none may start.
    Freeze,
    /// Processes die; none may start.
    Suspend,
}

impl HoldKind {
    /// The word that people read and type.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            HoldKind::Freeze => "freeze",
            HoldKind::Suspend => "suspend",
        }
    }
}

impl std::fmt::Display for HoldKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a hold reaches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Every node, also those enrolled later.
    Fleet,
    /// Every node of one site.
    Site(SiteName),
    /// One node: with a slice that one sliver, without a slice every sliver.
    Node(NodeId),
}

/// Why something may not run. A sliver runs only when no hold applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Its name for ever.
    pub id: HoldId,
    /// The slice; `None` holds every slice in the scope.
    pub slice: Option<SliceName>,
    /// Where.
    pub scope: Scope,
    /// How hard.
    pub kind: HoldKind,
    /// Who set it.
    pub holder: PersonName,
    /// The role that entitled the holder.
    pub role: Role,
    /// Why, in the holder's words.
    pub reason: String,
    /// A reference to what was seen; may be empty.
    pub evidence: String,
    /// When the controller decided, milliseconds since 1970.
    pub set_at_ms: i64,
    /// The decision that set it.
    pub version: Version,
}

impl Hold {
    /// Longest reason and longest evidence reference, characters.
    pub const MAX_TEXT: usize = 1_000;

    /// Whether the hold speaks of this slice, scope apart.
    #[must_use]
    pub fn covers_slice(&self, slice: &SliceName) -> bool {
        self.slice.as_ref().is_none_or(|held| held == slice)
    }

    /// Whether the hold reaches this node.
    #[must_use]
    pub fn reaches(&self, node: NodeId, site: &SiteName) -> bool {
        match &self.scope {
            Scope::Fleet => true,
            Scope::Site(held) => held == site,
            Scope::Node(held) => *held == node,
        }
    }
}
