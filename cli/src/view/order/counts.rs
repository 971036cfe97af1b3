//! How many nodes stand where. Pure.

use proto::v1;
use serde::Serialize;

use super::Outcome;

/// Nodes by outcome. Counts come from elsewhere: no sum of them may overflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Counts {
    pub(crate) nodes: u32,
    pub(crate) pending: u32,
    pub(crate) offline: u32,
    pub(crate) sent: u32,
    pub(crate) killed: u32,
    pub(crate) already_dead: u32,
    pub(crate) partial: u32,
    pub(crate) respawning: u32,
    pub(crate) failed: u32,
    pub(crate) frozen: u32,
    pub(crate) released: u32,
    pub(crate) superseded: u32,
    pub(crate) accepted: u32,
    pub(crate) rebooted: u32,
    /// Of the nodes above, those whose final proof is in.
    pub(crate) proven: u32,
}

impl From<v1::OutcomeCounts> for Counts {
    fn from(wire: v1::OutcomeCounts) -> Self {
        let v1::OutcomeCounts {
            nodes,
            pending,
            offline,
            sent,
            killed,
            already_dead,
            partial,
            respawning,
            failed,
            frozen,
            released,
            superseded,
            accepted,
            rebooted,
            proven,
        } = wire;
        Self {
            nodes,
            pending,
            offline,
            sent,
            killed,
            already_dead,
            partial,
            respawning,
            failed,
            frozen,
            released,
            superseded,
            accepted,
            rebooted,
            proven,
        }
    }
}

impl Counts {
    /// Counts one more node.
    pub(crate) fn add(&mut self, outcome: Outcome, proven: bool) {
        self.nodes = self.nodes.saturating_add(1);
        if proven {
            self.proven = self.proven.saturating_add(1);
        }
        let one = match outcome {
            Outcome::Pending => &mut self.pending,
            Outcome::Offline => &mut self.offline,
            Outcome::Sent => &mut self.sent,
            Outcome::Killed => &mut self.killed,
            Outcome::AlreadyDead => &mut self.already_dead,
            Outcome::Partial => &mut self.partial,
            Outcome::Respawning => &mut self.respawning,
            Outcome::Failed => &mut self.failed,
            Outcome::Frozen => &mut self.frozen,
            Outcome::Released => &mut self.released,
            Outcome::Superseded => &mut self.superseded,
            Outcome::Accepted => &mut self.accepted,
            Outcome::Rebooted => &mut self.rebooted,
            Outcome::Unknown => return,
        };
        *one = one.saturating_add(1);
    }

    /// Nodes that did what was asked, proofs apart.
    pub(crate) fn done(&self) -> u64 {
        [
            self.killed,
            self.already_dead,
            self.frozen,
            self.released,
            self.superseded,
            self.accepted,
            self.rebooted,
        ]
        .into_iter()
        .map(u64::from)
        .sum()
    }
}
