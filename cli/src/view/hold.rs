//! Holds, and where they reach.

use proto::v1;
use serde::Serialize;

use super::{Role, Version, some, words};
use crate::when::Time;

words! {
    /// How hard a hold holds.
    HoldKind from v1::HoldKind {
        Freeze = "freeze",
        Suspend = "suspend",
    }
}

/// Where a hold or an order reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reach", rename_all = "snake_case")]
pub(crate) enum Scope {
    /// Every node.
    Fleet,
    /// Every node of a site.
    Site {
        /// Login base.
        site: String,
    },
    /// One node.
    Node {
        /// UUID.
        node: String,
    },
    /// Not told, or newer than this program.
    Unknown,
}

impl From<Option<v1::Scope>> for Scope {
    fn from(wire: Option<v1::Scope>) -> Self {
        use v1::scope::Reach;
        match wire.and_then(|scope| scope.reach) {
            Some(Reach::Fleet(true)) => Scope::Fleet,
            Some(Reach::Site(site)) => Scope::Site { site },
            Some(Reach::Node(node)) => Scope::Node { node },
            Some(Reach::Fleet(false)) | None => Scope::Unknown,
        }
    }
}

impl Scope {
    /// For people.
    pub(crate) fn text(&self) -> String {
        match self {
            Scope::Fleet => "everywhere".to_owned(),
            Scope::Site { site } => format!("site {site}"),
            Scope::Node { node } => format!("node {node}"),
            Scope::Unknown => "unknown".to_owned(),
        }
    }
}

/// Why something may not run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Hold {
    pub(crate) id: String,
    pub(crate) slice: Option<String>,
    pub(crate) scope: Scope,
    pub(crate) kind: HoldKind,
    pub(crate) holder: String,
    pub(crate) role: Role,
    pub(crate) reason: String,
    pub(crate) evidence: Option<String>,
    pub(crate) set_at: Time,
    pub(crate) version: Option<Version>,
}

impl From<v1::Hold> for Hold {
    fn from(wire: v1::Hold) -> Self {
        let v1::Hold {
            id,
            slice,
            scope,
            kind,
            holder,
            role,
            reason,
            evidence,
            set_at_ms,
            version,
            signature: _,
        } = wire;
        Self {
            id,
            slice: some(slice),
            scope: scope.into(),
            kind: HoldKind::from_wire(kind),
            holder,
            role: Role::from_wire(role),
            reason,
            evidence: some(evidence),
            set_at: Time(set_at_ms),
            version: version.map(Version::from),
        }
    }
}

/// `slice holds`
#[derive(Debug, Serialize)]
pub(crate) struct Holds {
    pub(crate) holds: Vec<Hold>,
    pub(crate) exemptions: Vec<Exemption>,
}

/// A node where a hold does not hold.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Exemption {
    pub(crate) hold: String,
    pub(crate) node: String,
    pub(crate) node_name: String,
    pub(crate) person: String,
    pub(crate) role: Role,
    pub(crate) at: Time,
}

impl From<v1::Exemption> for Exemption {
    fn from(wire: v1::Exemption) -> Self {
        let v1::Exemption {
            hold,
            node,
            node_name,
            person,
            role,
            at_ms,
        } = wire;
        Self {
            hold,
            node,
            node_name,
            person,
            role: Role::from_wire(role),
            at: Time(at_ms),
        }
    }
}
