//! Rollouts: our own programs on their way to the nodes.

use proto::v1;
use serde::Serialize;

use super::{hex, some, words};
use crate::exit::Exit;
use crate::when::Time;

words! {
    /// Where a rollout stands.
    Phase from v1::RolloutPhase {
        Running = "running",
        Paused = "paused",
        Halted = "halted",
        Aborted = "aborted",
        Returning = "returning",
        Done = "done",
        Returned = "returned",
    }
}

words! {
    /// Where one node stands.
    Step from v1::NodeStep {
        Waiting = "waiting",
        Sending = "sending",
        Restarting = "restarting",
        Settling = "settling",
        Done = "done",
        Bad = "bad",
        Returning = "returning",
        Returned = "returned",
        Skipped = "skipped",
    }
}

/// A rollout in one line.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Rollout {
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) phase: Phase,
    pub(crate) why: Option<String>,
    pub(crate) started_by: String,
    pub(crate) reason: String,
    pub(crate) started_at: Time,
    pub(crate) wave: u32,
    pub(crate) waves: Vec<u32>,
    pub(crate) nodes: u32,
    pub(crate) waiting: u32,
    pub(crate) moving: u32,
    pub(crate) done: u32,
    pub(crate) bad: u32,
    pub(crate) returned: u32,
    pub(crate) skipped: u32,
    pub(crate) sha256: Vec<String>,
}

impl From<v1::Rollout> for Rollout {
    fn from(wire: v1::Rollout) -> Self {
        let v1::Rollout {
            id,
            version,
            phase,
            why,
            started_by,
            reason,
            started_at_ms,
            wave,
            plan,
            nodes,
            waiting,
            moving,
            done,
            bad,
            returned,
            skipped,
            sha256,
        } = wire;
        Self {
            id,
            version,
            phase: Phase::from_wire(phase),
            why: some(why),
            started_by,
            reason,
            started_at: Time(started_at_ms),
            wave,
            waves: plan.map(|plan| plan.waves).unwrap_or_default(),
            nodes,
            waiting,
            moving,
            done,
            bad,
            returned,
            skipped,
            sha256: sha256.iter().map(|bytes| hex(bytes)).collect(),
        }
    }
}

impl Rollout {
    /// 0: every node that could get it has it and is well, or all are back; 2: it goes on; 3: some are bad; 4: halted.
    pub(crate) const fn exit(&self) -> Exit {
        match (self.phase, self.bad) {
            (Phase::Halted, _) => Exit::Failed,
            (Phase::Done | Phase::Returned, 0) => Exit::Done,
            (Phase::Done | Phase::Returned, _) => Exit::Partial,
            (Phase::Running | Phase::Paused | Phase::Aborted | Phase::Returning | Phase::Unknown, _) => {
                Exit::Pending
            }
        }
    }
}

/// One node of a rollout.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Node {
    pub(crate) node: String,
    pub(crate) name: String,
    pub(crate) site: String,
    pub(crate) wave: u32,
    pub(crate) step: Step,
    pub(crate) detail: Option<String>,
    pub(crate) at: Time,
    pub(crate) attached: bool,
}

impl From<v1::RolloutNode> for Node {
    fn from(wire: v1::RolloutNode) -> Self {
        let v1::RolloutNode {
            node,
            name,
            site,
            wave,
            step,
            detail,
            at_ms,
            attached,
        } = wire;
        Self {
            node,
            name,
            site,
            wave,
            step: Step::from_wire(step),
            detail: some(detail),
            at: Time(at_ms),
            attached,
        }
    }
}

/// `rollout show`
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Detail {
    pub(crate) rollout: Rollout,
    pub(crate) nodes: Vec<Node>,
    /// What to type next, if there is something.
    pub(crate) next: Option<String>,
}

/// `rollout ls`
#[derive(Debug, Serialize)]
pub(crate) struct Rollouts {
    pub(crate) rollouts: Vec<Rollout>,
}
