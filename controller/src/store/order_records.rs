//! Orders, their results and the holds that they set and lift, as checked types.

use std::fmt;
use std::str::FromStr;

use proto::canonical::Signature;
use proto::v1::{Answer, Outcome, OutcomeCounts};
use proto::{BootId, Hold, HoldId, HoldKind, NodeId, OrderId, PersonName, Role, Scope, SliceName, Version};
use serde::{Deserialize, Serialize};

use super::{Signatures, StoreError, Visible};

/// What an order is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OrderKind {
    /// Suspend a slice in the fleet or at a site.
    KillSlice,
    /// Freeze a slice in the fleet or at a site.
    FreezeSlice,
    /// Suspend a slice on one node.
    KillSliver,
    /// Freeze a slice on one node.
    FreezeSliver,
    /// Suspend every sliver on one node.
    KillNode,
    /// Freeze every sliver on one node.
    FreezeNode,
    /// Lift holds.
    Release,
    /// Restart a machine.
    RebootNode,
    /// Power a machine off.
    StopNode,
    /// Suspend every slice in the fleet.
    StopEverySlice,
    /// Power every machine off.
    StopEveryNode,
}

impl OrderKind {
    /// Every kind.
    pub const ALL: [OrderKind; 11] = [
        OrderKind::KillSlice,
        OrderKind::FreezeSlice,
        OrderKind::KillSliver,
        OrderKind::FreezeSliver,
        OrderKind::KillNode,
        OrderKind::FreezeNode,
        OrderKind::Release,
        OrderKind::RebootNode,
        OrderKind::StopNode,
        OrderKind::StopEverySlice,
        OrderKind::StopEveryNode,
    ];

    /// The word on the wire and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            OrderKind::KillSlice => "kill-slice",
            OrderKind::FreezeSlice => "freeze-slice",
            OrderKind::KillSliver => "kill-sliver",
            OrderKind::FreezeSliver => "freeze-sliver",
            OrderKind::KillNode => "kill-node",
            OrderKind::FreezeNode => "freeze-node",
            OrderKind::Release => "release",
            OrderKind::RebootNode => "reboot-node",
            OrderKind::StopNode => "stop-node",
            OrderKind::StopEverySlice => "stop-every-slice",
            OrderKind::StopEveryNode => "stop-every-node",
        }
    }
}

impl fmt::Display for OrderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OrderKind {
    type Err = StoreError;

    fn from_str(word: &str) -> Result<Self, StoreError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| StoreError::invalid("order kind", word, "one that this program knows"))
    }
}

/// How far an order has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OrderState {
    /// Some node has not answered.
    Open,
    /// Every node has answered, not every one is proven.
    Answered,
    /// Every node is proven.
    Closed,
}

/// What was wished for, kept so that it can be sent again after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// Set a hold.
    Hold {
        /// The slice; `None`: every sliver in the scope.
        slice: Option<SliceName>,
        /// Where.
        scope: Scope,
        /// How hard.
        kind: HoldKind,
    },
    /// Lift these holds.
    Release {
        /// Their ids, as decided at the press.
        holds: Vec<HoldId>,
    },
    /// Restart.
    Reboot {
        /// Which machine.
        node: NodeId,
        /// The boot that is to end; `None`: never seen.
        boot_id: Option<BootId>,
    },
    /// Power off.
    Stop {
        /// Which machine.
        node: NodeId,
        /// The boot that is to end; `None`: never seen.
        boot_id: Option<BootId>,
        /// The caller accepted that nothing can power it on again from afar.
        no_way_back: bool,
    },
    /// Power every machine off that was in the fleet then, in the boot that it was last seen in.
    StopEveryNode {
        /// Both people accepted that nothing can power some of them on again from afar.
        no_way_back: bool,
    },
}

/// An order to commit.
#[derive(Debug, Clone)]
pub struct NewOrder {
    /// Unique for ever.
    pub id: OrderId,
    /// Chosen by the client; unique for the person.
    pub key: String,
    /// Who pressed.
    pub person: PersonName,
    /// The role that entitled them.
    pub role: Role,
    /// What it is called.
    pub kind: OrderKind,
    /// The slice that it speaks of.
    pub slice: Option<SliceName>,
    /// The nodes that it reaches: those in this scope, enrolled at or before `version`.
    pub scope: Scope,
    /// What it is aimed at, for people.
    pub target: String,
    /// Why.
    pub reason: String,
    /// A reference; may be empty.
    pub evidence: String,
    /// Milliseconds since 1970.
    pub pressed_at_ms: i64,
    /// The decision; unique.
    pub version: Version,
    /// What to tell the nodes.
    pub wish: Wish,
    /// Holds that it sets.
    pub sets: Vec<Hold>,
    /// Holds that it lifts.
    pub lifts: Vec<HoldId>,
    /// The controller's word for what it sets, or for what it lifts.
    pub signatures: Signatures,
}

/// What came of a commit.
#[derive(Debug, Clone)]
pub enum Committed {
    /// It is durable now.
    Created(OrderRecord),
    /// This person pressed with this key before, and this is that order. Nothing was written.
    Existing(OrderRecord),
}

impl Committed {
    /// The order, whichever way.
    #[must_use]
    pub fn order(&self) -> &OrderRecord {
        match self {
            Committed::Created(order) | Committed::Existing(order) => order,
        }
    }
}

/// An order.
#[derive(Debug, Clone)]
pub struct OrderRecord {
    /// Unique for ever.
    pub id: OrderId,
    /// Chosen by the client.
    pub key: String,
    /// Who pressed.
    pub person: PersonName,
    /// The role that entitled them.
    pub role: Role,
    /// What it is called.
    pub kind: OrderKind,
    /// The slice that it speaks of.
    pub slice: Option<SliceName>,
    /// The nodes that it reaches.
    pub scope: Scope,
    /// What it is aimed at, for people.
    pub target: String,
    /// Why.
    pub reason: String,
    /// A reference; may be empty.
    pub evidence: String,
    /// Milliseconds since 1970.
    pub pressed_at_ms: i64,
    /// The decision.
    pub version: Version,
    /// What to tell the nodes.
    pub wish: Wish,
    /// How far it has come.
    pub state: OrderState,
    /// Nodes that it reaches, proofs, and answers by outcome. `pending`, `offline` and `sent` are 0: the fleet
    /// knows those.
    pub counts: OutcomeCounts,
    /// The holds that it set or lifted.
    pub holds: Vec<Hold>,
    /// The controller's word for that; not for those from before there were signatures.
    pub signatures: Signatures,
}

/// Which orders are wanted.
#[derive(Debug, Clone, Default)]
pub struct OrderFilter {
    /// Only of this slice.
    pub slice: Option<SliceName>,
    /// Only those not closed.
    pub open_only: bool,
    /// Only what the caller may see.
    pub visible: Visible,
}

/// What one node made of one order.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultRecord {
    /// The order.
    pub order: OrderId,
    /// The node, by the link's certificate.
    pub node: NodeId,
    /// An outcome of a node: from `KILLED` on. `PENDING`, `OFFLINE` and `SENT` are not stored.
    pub outcome: Outcome,
    /// The final proof is in.
    pub proven: bool,
    /// When it came, milliseconds since 1970.
    pub answered_at_ms: i64,
    /// The node's own words; `None` where the controller decided (superseded, rebooted).
    pub answer: Option<Answer>,
}

/// What became of a batch of results.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// Orders whose counts or state changed.
    pub orders: Vec<OrderProgress>,
    /// Rows that name an order or a node that is not in the store; nothing of them was stored.
    pub unknown: Vec<(OrderId, NodeId)>,
}

/// An order's standing after a batch.
#[derive(Debug, Clone)]
pub struct OrderProgress {
    /// Which.
    pub order: OrderId,
    /// How far it has come.
    pub state: OrderState,
    /// See [`OrderRecord::counts`].
    pub counts: OutcomeCounts,
}

// --- holds ---

/// A hold and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRecord {
    /// The hold.
    pub hold: Hold,
    /// Who lifted it; `None`: it stands.
    pub released: Option<Release>,
    /// The node that brought it; `None`: an order set it here.
    pub imported_from: Option<NodeId>,
    /// The controller's word for it; `None`: from before there were signatures.
    pub signature: Option<Signature>,
}

/// The end of a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Who.
    pub person: PersonName,
    /// The decision.
    pub version: Version,
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// The order that did it.
    pub order: OrderId,
}

/// A hold that a node had and the controller did not.
#[derive(Debug, Clone)]
pub struct ImportedHold {
    /// As the node has it.
    pub hold: Hold,
    /// Who brought it.
    pub node: NodeId,
    /// The controller's word for it.
    pub signature: Option<Signature>,
}
