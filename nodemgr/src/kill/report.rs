//! What a press says about each sliver.

use std::path::PathBuf;

use crate::cgroup::PidsMax;
use crate::procfs::Process;

/// What became of one sliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It lived; nothing lives there now.
    Killed,
    /// Nothing lived there, or the cgroup was gone.
    AlreadyDead,
    /// Some processes remain: see `stuck`.
    Partial,
    /// Frozen, as asked.
    Frozen,
    /// Refused by the guard or by the kernel: see `detail`.
    Failed,
}

impl From<Outcome> for proto::v1::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Killed => Self::Killed,
            Outcome::AlreadyDead => Self::AlreadyDead,
            Outcome::Partial => Self::Partial,
            Outcome::Frozen => Self::Frozen,
            Outcome::Failed => Self::Failed,
        }
    }
}

/// What was written down while the sliver stood still.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Evidence {
    /// Its processes.
    pub processes: Vec<Process>,
    /// Why some or all of it is missing; empty when complete.
    pub incomplete: String,
}

/// The proof for one sliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Path below the mount.
    pub path: PathBuf,
    /// The id that was acted on.
    pub id: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// For people: why it failed, or what could not be told. Often empty.
    pub detail: String,
    /// Processes found before the kill. Exact when `frozen`, a lower bound otherwise. None: could not be counted.
    pub killed: Option<u32>,
    /// Dead, but not reaped by their parents. None: could not be counted.
    pub zombies: Option<u32>,
    /// Left in uninterruptible sleep. None: could not be counted.
    pub stuck: Option<u32>,
    /// Whether the freeze was complete before the kill.
    pub frozen: bool,
    /// Microseconds from the wish to freeze until it was so, or until the kill went on without it.
    pub freeze_us: u64,
    /// Microseconds of evidence.
    pub evidence_us: u64,
    /// Microseconds from the kill to `populated 0`, or to the deadline.
    pub kill_us: u64,
    /// What was written down. None: not asked for.
    pub evidence: Option<Evidence>,
    /// The limit of tasks that stood before it was set to 0. To be kept, and given to [`super::thaw`]. None
    /// when there is no such limit here or a press before this one had set it.
    pub pids_max_before: Option<PidsMax>,
}
