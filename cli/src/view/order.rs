//! Orders, and what became of them on each node.

mod counts;
mod tracker;

use proto::v1;
use serde::Serialize;

pub(crate) use counts::Counts;
pub(crate) use tracker::Tracker;

use super::hold::{Hold, Scope};
use super::{Role, Version, some, words};
use crate::when::Time;

words! {
    /// What became of an order on one node or sliver.
    Outcome from v1::Outcome {
        Pending = "pending",
        Offline = "offline",
        Sent = "sent",
        Killed = "killed",
        AlreadyDead = "already dead",
        Partial = "partial",
        Respawning = "respawning",
        Failed = "FAILED",
        Frozen = "frozen",
        Released = "released",
        Superseded = "superseded",
        Accepted = "accepted",
        Rebooted = "rebooted",
    }
}

impl Outcome {
    /// Every outcome, in the order in which people are told.
    pub(crate) const ALL: [Outcome; 14] = [
        Outcome::Failed,
        Outcome::Partial,
        Outcome::Respawning,
        Outcome::Offline,
        Outcome::Pending,
        Outcome::Sent,
        Outcome::Unknown,
        Outcome::Accepted,
        Outcome::Killed,
        Outcome::AlreadyDead,
        Outcome::Frozen,
        Outcome::Released,
        Outcome::Superseded,
        Outcome::Rebooted,
    ];

    /// Whether the node did what was asked (its proof apart).
    pub(crate) const fn is_done(self) -> bool {
        matches!(
            self,
            Outcome::Killed
                | Outcome::AlreadyDead
                | Outcome::Frozen
                | Outcome::Released
                | Outcome::Superseded
                | Outcome::Accepted
                | Outcome::Rebooted
        )
    }

    /// Whether the node's answer is still awaited, the node being there.
    pub(crate) const fn is_awaited(self) -> bool {
        matches!(self, Outcome::Pending | Outcome::Sent | Outcome::Unknown)
    }
}

words! {
    /// How far an order is.
    OrderState from v1::OrderState {
        Open = "open",
        Answered = "answered",
        Closed = "closed",
    }
}

/// What somebody asked for.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) version: Option<Version>,
    pub(crate) kind: String,
    pub(crate) target: String,
    pub(crate) slice: Option<String>,
    pub(crate) scope: Scope,
    pub(crate) person: String,
    pub(crate) role: Role,
    pub(crate) reason: String,
    pub(crate) evidence: Option<String>,
    pub(crate) pressed_at: Time,
    pub(crate) state: OrderState,
    pub(crate) counts: Counts,
    pub(crate) holds: Vec<Hold>,
}

impl From<v1::Order> for Order {
    fn from(wire: v1::Order) -> Self {
        let v1::Order {
            id,
            version,
            person,
            role,
            kind,
            target,
            reason,
            evidence,
            pressed_at_ms,
            state,
            holds,
            counts,
            slice,
            scope,
        } = wire;
        Self {
            id,
            version: version.map(Version::from),
            kind,
            target,
            slice: some(slice),
            scope: scope.into(),
            person,
            role: Role::from_wire(role),
            reason,
            evidence: some(evidence),
            pressed_at: Time(pressed_at_ms),
            state: OrderState::from_wire(state),
            counts: counts.unwrap_or_default().into(),
            holds: holds.into_iter().map(Hold::from).collect(),
        }
    }
}

impl Order {
    /// Whether nodes have something to write to their disk for it. A reboot leaves nothing there.
    pub(crate) fn is_about_holds(&self) -> bool {
        !matches!(
            self.kind.as_str(),
            "reboot-node" | "stop-node" | "stop-every-node"
        )
    }
}

/// What became of the order on one node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct NodeResult {
    pub(crate) node: String,
    pub(crate) name: String,
    pub(crate) site: String,
    pub(crate) outcome: Outcome,
    pub(crate) proven: bool,
    pub(crate) answered_at: Time,
    /// The rest comes from the node itself and is null until it answers.
    pub(crate) durable: Option<bool>,
    pub(crate) detail: Option<String>,
    /// Sums over the slivers; null where some sliver's could not be counted.
    pub(crate) killed: Option<u64>,
    pub(crate) zombies: Option<u64>,
    pub(crate) stuck: Option<u64>,
    pub(crate) respawns: Option<u64>,
    pub(crate) dead_us: Option<u64>,
    pub(crate) durable_us: Option<u64>,
    pub(crate) boot_id: Option<String>,
    pub(crate) slivers: Vec<SliverProof>,
}

impl From<v1::NodeResult> for NodeResult {
    fn from(wire: v1::NodeResult) -> Self {
        let v1::NodeResult {
            node,
            node_name,
            site,
            outcome,
            answer,
            answered_at_ms,
            proven,
        } = wire;
        let mut result = Self {
            node,
            name: node_name,
            site,
            outcome: Outcome::from_wire(outcome),
            proven,
            answered_at: Time(answered_at_ms),
            durable: None,
            detail: None,
            killed: None,
            zombies: None,
            stuck: None,
            respawns: None,
            dead_us: None,
            durable_us: None,
            boot_id: None,
            slivers: Vec::new(),
        };
        if let Some(answer) = answer {
            let sum = |of: fn(&v1::SliverProof) -> Option<u32>| {
                answer
                    .slivers
                    .iter()
                    .try_fold(0_u64, |sum, sliver| Some(sum + u64::from(of(sliver)?)))
            };
            result.durable = Some(answer.durable);
            result.killed = sum(|sliver| sliver.killed);
            result.zombies = sum(|sliver| sliver.zombies);
            result.stuck = sum(|sliver| sliver.stuck);
            result.respawns = sum(|sliver| Some(sliver.respawns));
            result.dead_us = Some(answer.dead_us);
            result.durable_us = Some(answer.durable_us);
            result.detail = some(answer.detail);
            result.boot_id = some(answer.boot_id);
            result.slivers = answer.slivers.into_iter().map(SliverProof::from).collect();
        }
        result
    }
}

impl NodeResult {
    /// Whether nothing more is to be waited for: proven, away, or answered in a way that waiting does not mend.
    pub(crate) fn is_settled(&self) -> bool {
        self.proven
            || matches!(
                self.outcome,
                Outcome::Offline | Outcome::Partial | Outcome::Respawning | Outcome::Failed
            )
    }

    /// Whether a person has to look at it.
    pub(crate) fn matters(&self) -> bool {
        !self.outcome.is_done() || self.durable == Some(false) || self.stuck.is_some_and(|n| n > 0)
    }
}

/// What happened to one subtree.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct SliverProof {
    pub(crate) slice: String,
    pub(crate) cgroup: String,
    pub(crate) cgroup_id: u64,
    pub(crate) outcome: Outcome,
    pub(crate) detail: Option<String>,
    pub(crate) killed: Option<u32>,
    pub(crate) zombies: Option<u32>,
    pub(crate) stuck: Option<u32>,
    pub(crate) respawns: u32,
    pub(crate) manager: Option<String>,
    pub(crate) frozen: bool,
    pub(crate) freeze_us: u64,
    pub(crate) evidence_us: u64,
    pub(crate) kill_us: u64,
    pub(crate) evidence: Option<Evidence>,
}

impl From<v1::SliverProof> for SliverProof {
    fn from(wire: v1::SliverProof) -> Self {
        let v1::SliverProof {
            slice,
            cgroup,
            cgroup_id,
            outcome,
            detail,
            killed,
            zombies,
            stuck,
            respawns,
            manager,
            freeze_us,
            frozen,
            evidence_us,
            kill_us,
            evidence,
        } = wire;
        Self {
            slice,
            cgroup,
            cgroup_id,
            outcome: Outcome::from_wire(outcome),
            detail: some(detail),
            killed,
            zombies,
            stuck,
            respawns,
            manager: some(manager),
            frozen,
            freeze_us,
            evidence_us,
            kill_us,
            evidence: evidence.map(|evidence| Evidence {
                processes: evidence
                    .processes
                    .into_iter()
                    .map(super::node::Process::from)
                    .collect(),
                incomplete: some(evidence.incomplete),
            }),
        }
    }
}

/// Taken while frozen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Evidence {
    pub(crate) processes: Vec<super::node::Process>,
    pub(crate) incomplete: Option<String>,
}

/// `order ls`
#[derive(Debug, Serialize)]
pub(crate) struct Orders {
    pub(crate) orders: Vec<Order>,
    /// More exist than were asked for.
    pub(crate) truncated: bool,
}

/// The end of a press or a watch, and `order show`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) order: Order,
    pub(crate) nodes: Vec<NodeResult>,
    /// Only after a press: the order was on the controller's disk when it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) durable: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_durable_reason: Option<String>,
    /// Only after a press: false when this key had been pressed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<bool>,
    /// Why the watching ended.
    pub(crate) ended: Ended,
    pub(crate) next: Option<String>,
    pub(crate) exit_code: u8,
}

/// Why the watching ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub(crate) enum Ended {
    /// Nothing more is to come.
    Closed,
    /// Every node that is there has answered and proven, or cannot.
    Settled,
    /// The time to wait has passed.
    TimePassed,
    /// Ctrl-C.
    Interrupted,
    /// Nobody watched: `--no-wait`, `order show`.
    NotWatched,
    /// The controller was lost; the order goes on.
    Lost {
        /// How.
        cause: String,
    },
}

/// One line of `order watch --json`.
#[derive(Debug, Serialize)]
pub(crate) struct Event {
    pub(crate) order: Order,
    pub(crate) changed: Vec<NodeResult>,
    pub(crate) last: bool,
}
