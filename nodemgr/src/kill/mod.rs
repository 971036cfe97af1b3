//! Killing slivers: the part that must work when nothing else on the node does.
//!
//! ```text
//!            begin              strike                                finish
//!  slivers ──┬─ guard by id ──┬─ frozen 1 or 100 ms ─┬─ kill each ──┬─ populated 0 of all, or 5 s
//!            └─ freeze each   ├─ evidence (≤ 200 ms) │              └─ census: zombies, stuck in D
//!                             └─ pids.max = 0        └─ (loop of kill(2) where there is no cgroup.kill)
//! ```
//!
//! One press takes any number of slivers: each step is done for all of them before the next, so a node with
//! many slivers is not killed one by one. The steps are apart so that the caller can write the hold to disk
//! meanwhile.
//!
//! The freeze is always begun, and waited for only where that gives something: evidence, or a kernel without
//! `cgroup.kill`, where a loop would race with fork. Otherwise the kill is atomic without it, and waiting would wake
//! every process twice: 10,000 of them then died 1.2 to 1.4 times as slowly as by a bare write to cgroup.kill,
//! against 1.0 times with a freeze that is only begun (measured in `tests/times.rs`).
//!
//! Invariants
//! - Between `begin` and `populated 0` this opens nothing, forks nothing, starts no thread and asks the
//!   allocator for nothing that it has not already (a test runs it under a seccomp filter). Exceptions, each
//!   reported and none needed to kill on a kernel with `cgroup.kill`: evidence, and listing nested cgroups.
//! - Nothing that can hang is read on the calling thread. `/proc/PID/cmdline` can (it takes the victim's
//!   memory lock), so evidence has a thread of its own, started beforehand; when it hangs, the kill goes on.
//! - Nothing is deleted. A killed sliver stays frozen with `pids.max` 0 until [`thaw`].
//!
//! Concurrency: blocking, one thread at a time (`&mut self`). It is the daemon's prepared thread
//! ([`crate::prepare`]). Which slivers an order names, respawns and the hold are the daemon's.

mod census;
mod engine;
mod fallback;
mod press;
mod report;
#[cfg(test)]
pub(crate) mod tests;
mod witness;

use std::time::Duration;

pub use engine::Engine;
pub use press::Press;
pub use report::{Evidence, Outcome, Report};

use crate::cgroup::{PidsMax, Sliver, SliverError};

/// How long a freeze may take before the kill goes on without it.
pub const FREEZE_DEADLINE: Duration = Duration::from_millis(100);
/// How long evidence may take, for one press.
pub const EVIDENCE_DEADLINE: Duration = Duration::from_millis(200);
/// Most processes that evidence describes, for one press.
pub const EVIDENCE_PROCESSES: usize = 512;
/// How long to wait for the last process.
pub const KILL_DEADLINE: Duration = Duration::from_secs(5);
/// How long to wait, after the last process died, for parents to reap.
pub const REAP_DEADLINE: Duration = Duration::from_millis(50);

/// What one press is to do, and how long each part may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Write down what is killed. Costs a completed freeze and the time of reading.
    pub evidence: bool,
    /// Count zombies and stuck tasks afterwards (opens files of /proc, after the last process died).
    pub census: bool,
    /// Bound of the freeze, where it is waited for: see the module.
    pub freeze: Duration,
    /// Bound of the evidence.
    pub evidence_for: Duration,
    /// Bound of the wait for the last process.
    pub kill: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            evidence: true,
            census: true,
            freeze: FREEZE_DEADLINE,
            evidence_for: EVIDENCE_DEADLINE,
            kill: KILL_DEADLINE,
        }
    }
}

/// Gives a sliver back: limit of tasks restored, then thawed. Starts nothing.
///
/// # Errors
/// When the kernel refuses. A cgroup that is gone is no error.
pub fn thaw(sliver: &Sliver, pids_max: Option<PidsMax>) -> Result<(), SliverError> {
    let restored = match pids_max {
        Some(limit) => sliver.set_pids_max(limit),
        None => Ok(()),
    };
    match restored.and_then(|()| sliver.set_frozen(false)) {
        Err(error) if !error.is_gone() => Err(error),
        _ => Ok(()),
    }
}
