//! Kernels without `cgroup.kill` (before 5.14): kill what the list shows, again and again, until nothing lives.
//!
//! A loop races with fork; the freeze before it takes the race away (a frozen process neither forks nor ends, so its
//! pid cannot become another's). Where the freeze is not complete each process is pinned by a pidfd first and
//! looked at again, so that a pid that was used again is never hit.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::engine::Entry;
use crate::cgroup::Sliver;
use crate::procfs::Proc;
use crate::sys;

/// Time between two rounds.
pub(super) const PAUSE: Duration = Duration::from_millis(2);

/// Kills everything that the sliver's lists show now.
pub(super) fn round(entry: &mut Entry, proc: &Proc) {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let sliver = &entry.sliver;
    let frozen = entry.frozen;
    let listed = sliver.for_each_pid(|pid| {
        if pid > 1 && pid != own {
            strike(pid, sliver, proc, frozen);
        }
    });
    let first = entry.last_round.replace(Instant::now()).is_none();
    // Later rounds would only say the same again.
    if let (Err(error), true) = (listed, first) {
        entry.note(&error);
    }
}

fn strike(pid: i32, sliver: &Sliver, proc: &Proc, frozen: bool) {
    if !frozen && let Ok(pinned) = sys::pidfd_open(pid) {
        let home = proc.home(pid).ok().flatten();
        if home.is_some_and(|home| home.starts_with(sliver.path())) {
            // Gone meanwhile: the next round sees.
            let _ = sys::pidfd_kill(pinned.as_fd());
        }
        return;
    }
    // Frozen; or gone already (then this fails, too); or no descriptor left, and the list is microseconds old.
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}
