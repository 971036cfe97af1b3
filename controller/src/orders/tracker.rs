//! One order over all its nodes. A fleet-wide order costs one byte a node; an order for a site or a node costs
//! eight bytes for each node that it concerns.

use proto::v1::{self, Outcome};
use proto::{BootId, HoldId};

use super::{Cell, Said};
use crate::store::{OrderKind, OrderState};

/// A node's place in the roster: dense, never reused.
pub type NodeIndex = u32;

/// What an answer did to the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The order does not concern this node.
    Foreign,
    /// Nothing new: a duplicate, a late word, one of several answers that are still awaited.
    Unchanged,
    /// The node's result is now this.
    Changed(Cell),
}

/// What a node that attaches is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing.
    Nothing,
    /// The order.
    Send,
    /// Only this verdict, which is to be recorded.
    Verdict(Cell),
}

/// Nodes by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    by_outcome: [u32; 14],
    proven: u32,
}

impl Counts {
    /// One more node.
    pub fn add(&mut self, outcome: Outcome, proven: bool) {
        self.by_outcome[outcome as i32 as usize] += 1;
        self.proven += u32::from(proven);
    }

    /// How many have this outcome.
    #[must_use]
    pub const fn of(&self, outcome: Outcome) -> u32 {
        self.by_outcome[outcome as i32 as usize]
    }
}

impl From<Counts> for v1::OutcomeCounts {
    fn from(counts: Counts) -> Self {
        v1::OutcomeCounts {
            nodes: counts.by_outcome.iter().sum(),
            pending: counts.of(Outcome::Pending),
            offline: counts.of(Outcome::Offline),
            sent: counts.of(Outcome::Sent),
            killed: counts.of(Outcome::Killed),
            already_dead: counts.of(Outcome::AlreadyDead),
            partial: counts.of(Outcome::Partial),
            respawning: counts.of(Outcome::Respawning),
            failed: counts.of(Outcome::Failed),
            frozen: counts.of(Outcome::Frozen),
            released: counts.of(Outcome::Released),
            superseded: counts.of(Outcome::Superseded),
            accepted: counts.of(Outcome::Accepted),
            rebooted: counts.of(Outcome::Rebooted),
            proven: counts.proven,
        }
    }
}

/// The nodes of an order.
#[derive(Debug, Clone)]
enum Cells {
    /// By roster index; those that it does not concern are absent.
    Dense(Vec<Cell>),
    /// Sorted by roster index.
    Sparse(Vec<(NodeIndex, Cell)>),
}

impl Cells {
    fn get(&self, node: NodeIndex) -> Cell {
        match self {
            Cells::Dense(cells) => cells.get(node as usize).copied().unwrap_or(Cell::ABSENT),
            Cells::Sparse(cells) => cells
                .binary_search_by_key(&node, |(index, _)| *index)
                .map_or(Cell::ABSENT, |at| cells[at].1),
        }
    }

    fn set(&mut self, node: NodeIndex, cell: Cell) {
        match self {
            Cells::Dense(cells) => {
                let at = node as usize;
                if at >= cells.len() {
                    cells.resize(at + 1, Cell::ABSENT);
                }
                cells[at] = cell;
            }
            Cells::Sparse(cells) => match cells.binary_search_by_key(&node, |(index, _)| *index) {
                Ok(at) => cells[at].1 = cell,
                Err(at) => cells.insert(at, (node, cell)),
            },
        }
    }
}

/// One order over all its nodes.
#[derive(Debug, Clone)]
pub struct Tracker {
    kind: OrderKind,
    holds: Vec<HoldId>,
    boot: Option<BootId>,
    /// For an order that halts many: the boot of each node that is to end.
    boots: std::collections::BTreeMap<NodeIndex, BootId>,
    cells: Cells,
    /// Answers still awaited from a node, for releases of several holds; a node that is not here owes one.
    owed: std::collections::BTreeMap<NodeIndex, u16>,
    nodes: u32,
    unanswered: u32,
    unproven: u32,
}

impl Tracker {
    /// An order that concerns no node yet. `dense` when it is for most of the fleet. `boot` is the boot that a
    /// reboot or halt is to end, when it is known.
    #[must_use]
    pub fn new(kind: OrderKind, holds: Vec<HoldId>, boot: Option<BootId>, dense: bool) -> Self {
        let cells = if dense {
            Cells::Dense(Vec::new())
        } else {
            Cells::Sparse(Vec::new())
        };
        let owed = std::collections::BTreeMap::new();
        Self {
            kind,
            holds,
            boot,
            boots: std::collections::BTreeMap::new(),
            cells,
            owed,
            nodes: 0,
            unanswered: 0,
            unproven: 0,
        }
    }

    /// The order concerns this node, too. Does nothing when it is known.
    pub fn include(&mut self, node: NodeIndex) {
        if self.cells.get(node) == Cell::ABSENT {
            self.cells.set(node, Cell::WAITING);
            self.nodes += 1;
            self.unanswered += 1;
            self.unproven += 1;
        }
    }

    /// What the order does.
    #[must_use]
    pub const fn kind(&self) -> OrderKind {
        self.kind
    }

    /// The holds that it set or lifts.
    #[must_use]
    pub fn holds(&self) -> &[HoldId] {
        &self.holds
    }

    /// The boot of a node that a reboot or halt is to end.
    #[must_use]
    pub fn boot(&self, node: NodeIndex) -> Option<BootId> {
        match self.kind {
            OrderKind::StopEveryNode => self.boots.get(&node).copied(),
            _ => self.boot,
        }
    }

    /// Fixes the boot of a reboot or halt that was pressed before the node was ever seen. Other orders need none.
    pub fn learn_boot(&mut self, node: NodeIndex, boot: BootId) {
        match self.kind {
            OrderKind::StopEveryNode => {
                self.boots.entry(node).or_insert(boot);
            }
            OrderKind::RebootNode | OrderKind::StopNode => {
                self.boot.get_or_insert(boot);
            }
            _ => {}
        }
    }

    /// How many nodes it concerns.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.nodes
    }

    /// Whether it concerns no node.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.nodes == 0
    }

    /// The state of one node; absent when the order does not concern it.
    #[must_use]
    pub fn cell(&self, node: NodeIndex) -> Cell {
        self.cells.get(node)
    }

    /// Its nodes.
    pub fn iter(&self) -> Box<dyn Iterator<Item = (NodeIndex, Cell)> + '_> {
        match &self.cells {
            Cells::Dense(cells) => Box::new(
                (0..)
                    .zip(cells.iter().copied())
                    .filter(|(_, cell)| *cell != Cell::ABSENT),
            ),
            Cells::Sparse(cells) => Box::new(cells.iter().copied()),
        }
    }

    /// How far it has come.
    #[must_use]
    pub const fn state(&self) -> OrderState {
        match (self.unanswered, self.unproven) {
            (0, 0) => OrderState::Closed,
            (0, _) => OrderState::Answered,
            _ => OrderState::Open,
        }
    }

    /// Its nodes by outcome.
    pub fn counts(&self, attached: impl Fn(NodeIndex) -> bool) -> Counts {
        let mut counts = Counts::default();
        for (node, cell) in self.iter() {
            counts.add(cell.shown(attached(node)), cell.is_proven());
        }
        counts
    }

    /// Whether every attached node has answered.
    pub fn is_settled(&self, attached: impl Fn(NodeIndex) -> bool) -> bool {
        self.unanswered == 0
            || self
                .iter()
                .all(|(node, cell)| cell.is_answered() || !attached(node))
    }

    /// The order was written to the node's link, as `commands` commands, each of which will be answered.
    pub fn sent(&mut self, node: NodeIndex, commands: u16) {
        let cell = self.cells.get(node);
        if cell == Cell::ABSENT || cell.is_answered() {
            return;
        }
        self.cells.set(node, Cell::SENT);
        if commands > 1 {
            self.owed.insert(node, commands);
        } else {
            self.owed.remove(&node);
        }
    }

    /// A word from the node.
    pub fn heard(&mut self, node: NodeIndex, said: Said) -> Heard {
        if self.cells.get(node) == Cell::ABSENT {
            return Heard::Foreign;
        }
        if said.outcome == Outcome::Released
            && let Some(left) = self.owed.get_mut(&node)
        {
            *left -= 1;
            if *left > 0 {
                return Heard::Unchanged;
            }
        }
        self.owed.remove(&node);
        self.apply(node, said)
    }

    /// The node attached with this boot id: what it is owed. `stands` tells whether a hold still stands.
    ///
    /// A node whose answer was no proof is told again while the hold stands: the proof may have been lost with
    /// the link, and who failed may do better now. Obeying twice changes nothing.
    pub fn attached(&mut self, node: NodeIndex, boot: BootId, stands: impl Fn(HoldId) -> bool) -> Delivery {
        let cell = self.cells.get(node);
        if cell == Cell::ABSENT || cell.is_proven() {
            return Delivery::Nothing;
        }
        let holds = self.kind.imposes() && self.holds.iter().any(|hold| stands(*hold));
        let verdict = match self.kind {
            OrderKind::RebootNode if self.boot.is_some_and(|old| old != boot) => Some(Outcome::Rebooted),
            // What was to be powered off has ended; who powered it on again since meant it.
            OrderKind::StopEveryNode if self.boot(node).is_some_and(|old| old != boot) => {
                Some(Outcome::Rebooted)
            }
            kind if kind.imposes() && !cell.is_answered() && !holds => Some(Outcome::Superseded),
            _ => None,
        };
        match verdict {
            Some(outcome) => match self.apply(
                node,
                Said {
                    outcome,
                    proven: false,
                },
            ) {
                Heard::Changed(cell) => Delivery::Verdict(cell),
                Heard::Foreign | Heard::Unchanged => Delivery::Nothing,
            },
            None if cell.is_answered() && !holds => Delivery::Nothing,
            None => Delivery::Send,
        }
    }

    /// A result that was recorded before a restart.
    pub fn restore(&mut self, node: NodeIndex, cell: Cell) {
        self.include(node);
        self.put(node, cell);
    }

    fn apply(&mut self, node: NodeIndex, said: Said) -> Heard {
        let old = self.cells.get(node);
        let new = old.merge(self.kind, said);
        if new == old {
            return Heard::Unchanged;
        }
        self.put(node, new);
        Heard::Changed(new)
    }

    fn put(&mut self, node: NodeIndex, new: Cell) {
        let old = self.cells.get(node);
        self.unanswered -= u32::from(!old.is_answered());
        self.unanswered += u32::from(!new.is_answered());
        self.unproven -= u32::from(!old.is_proven());
        self.unproven += u32::from(!new.is_proven());
        self.cells.set(node, new);
    }
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
