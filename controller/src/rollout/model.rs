//! The words of a rollout: what is kept in rows, what is seen of nodes, what is to be done.

use std::collections::{BTreeMap, BTreeSet};

use proto::{HoldId, NodeId, SiteName, SliceName};
use serde::{Deserialize, Serialize};

use super::plan::Plan;

/// Where a rollout as a whole stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It moves, or waits for nodes that are away.
    Running,
    /// A person paused it.
    Paused,
    /// It stopped by itself.
    Halted,
    /// A person ended it.
    Aborted,
    /// Updated nodes go back.
    Returning,
    /// Every node has it, or is bad, or has nothing to get.
    Done,
    /// Every node that had it is back.
    Returned,
}

/// Where one node stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Its turn has not come, or it is away.
    Waiting,
    /// The program is on its way.
    Sending,
    /// It may have been told to switch: the link broke, or the controller died, in the midst of it.
    Unsure,
    /// It was told to switch.
    Restarting,
    /// It is back and is watched.
    Settling,
    /// It has it and is well.
    Done,
    /// It is not well, or did not take it.
    Bad(String),
    /// It is to go back; true: it was told.
    Returning(bool),
    /// It is back.
    Returned,
    /// There is nothing to do.
    Skipped(String),
}

/// What a node was before it was touched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// What ran; empty: the package.
    pub sha256: String,
    /// Its count of changes.
    pub attempt: u64,
    /// It was locked already.
    pub locked: bool,
    /// Holds on its disk.
    pub holds: BTreeSet<HoldId>,
    /// Slices with processes.
    pub running: BTreeSet<SliceName>,
}

/// One node of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub site: SiteName,
    /// From 0 on.
    pub wave: usize,
    /// After the wave's beginning.
    pub offset_ms: u64,
    /// How far.
    pub step: Step,
    /// As it was when its turn came.
    pub before: Option<Before>,
    /// The node's count of changes after the switch.
    pub attempt: u64,
    /// Broken links and short visits.
    pub tries: u8,
    /// Bad, and a person went on all the same.
    pub noted: bool,
    /// Bad, and it was told to go back.
    pub sent_back: bool,
    /// Since when it is in this step.
    pub at_ms: i64,
}

impl Item {
    pub(crate) fn moves(&self) -> bool {
        matches!(
            self.step,
            Step::Sending | Step::Unsure | Step::Restarting | Step::Settling
        )
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(
            self.step,
            Step::Done | Step::Bad(_) | Step::Returned | Step::Skipped(_)
        )
    }
}

/// What an attached node says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// It can be asked to change its program at all.
    pub able: bool,
    /// What runs; empty: the package.
    pub sha256: String,
    /// As `uname -m` says it.
    pub architecture: String,
    /// Its count of changes.
    pub attempt: u64,
    /// The program that it left last, and why.
    pub left: (String, String),
    /// Why it takes no program; empty: it does.
    pub refused: String,
    /// Why nothing may start there; empty: it may.
    pub locked: String,
    /// Holds on its disk.
    pub holds: BTreeSet<HoldId>,
    /// Slices with processes.
    pub running: BTreeSet<SliceName>,
    /// The controller's: holds that reach it.
    pub standing: BTreeSet<HoldId>,
    /// The controller's: slices that are held there; `None`: every slice is.
    pub held: Option<BTreeSet<SliceName>>,
}

/// Eyes on the fleet.
pub trait Look {
    /// Whether a node has a link.
    fn attached(&self, node: NodeId) -> bool;
    /// What it says, if it is attached.
    fn seen(&self, node: NodeId) -> Option<Seen>;
}

/// To be done, once the rows are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Bring it the program and let it switch.
    Push {
        /// Whom.
        node: NodeId,
        /// What.
        sha256: String,
    },
    /// Let it go back from this program.
    Return {
        /// Whom.
        node: NodeId,
        /// From what.
        sha256: String,
        /// For its log and report.
        why: String,
    },
}

/// What came of an act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It switches (or runs it already); its count of changes then.
    Switches(u64),
    /// The link broke before it was told to switch.
    Broken(String),
    /// The link broke while it was told to switch, or to go back.
    Unsure,
    /// It says no.
    Refused(String),
    /// It goes back, or needs not.
    GoesBack,
}

/// What a person wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    /// Begin nothing new.
    Pause,
    /// Go on; bad nodes so far are taken note of.
    Resume,
    /// End it; nodes stay as they are.
    Abort,
    /// Bring updated nodes back.
    Back,
}

/// Why it cannot be steered so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the rollout is {phase:?}: it cannot be steered by {wanted:?}")]
pub struct SteerError {
    pub(crate) phase: Phase,
    pub(crate) wanted: Steer,
}

/// The part of a rollout that is one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// How it goes.
    pub plan: Plan,
    /// Where it stands.
    pub phase: Phase,
    /// Why it is halted or paused.
    pub why: String,
    /// Which wave moves, from 0 on.
    pub wave: usize,
    /// Since when.
    pub wave_since_ms: i64,
    /// By architecture.
    pub programs: BTreeMap<String, String>,
}
