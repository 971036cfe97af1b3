//! What is left when the kill is over: the dead that nobody reaped, and the living that cannot die.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::REAP_DEADLINE;
use super::engine::Engine;
use crate::cgroup::Sliver;
use crate::procfs::Proc;

/// Pause between two looks at who was reaped.
const PAUSE: Duration = Duration::from_millis(2);
/// Looks without a change after which those left count as zombies.
const SETTLED: u32 = 4;
/// Most processes that are examined for D state.
const EXAMINED: usize = 4_096;

/// Processes that did not die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remaining {
    pub(super) processes: u32,
    pub(super) stuck: u32,
}

/// Lists what still lives in a sliver. None when it cannot be listed or read.
pub(super) fn remaining(proc: &Proc, sliver: &Sliver) -> Option<Remaining> {
    let pids = sliver.pids().ok()?;
    let mut stuck = 0;
    for pid in pids.iter().take(EXAMINED) {
        match proc.is_stuck(*pid) {
            Ok(true) => stuck += 1,
            Err(error) if error.is_out_of_descriptors() => return None,
            _ => {}
        }
    }
    Some(Remaining {
        processes: u32::try_from(pids.len()).unwrap_or(u32::MAX),
        stuck,
    })
}

/// Zombies of a sliver that is dead: after a short while for parents to reap. None when they cannot be told.
///
/// The pids controller counts them exactly. Without it, those pids of the list that still exist are looked up:
/// each is a zombie of ours, or left the sliver before the kill, or is another's by now. A sliver's own
/// zombies from before the kill are not in the list; their parents died with it, and so they were reaped.
pub(super) fn zombies(engine: &mut Engine, number: usize) -> Option<u32> {
    let Engine {
        entries, pids, proc, ..
    } = engine;
    let entry = &mut entries[number];
    let deadline = Instant::now() + REAP_DEADLINE;
    if let Some(current) = entry.sliver.pids_current() {
        let left = settle(current, deadline, || entry.sliver.pids_current().unwrap_or(0));
        return u32::try_from(left).ok();
    }
    if !entry.all_pids || (!entry.was_populated && entry.killed == Some(0)) {
        return None;
    }
    let list = &mut pids[entry.pids.clone()];
    let mut left = list.len();
    settle(u64::MAX, deadline, || {
        left = keep_existing(&mut list[..left]);
        left as u64
    });
    let mut count = 0;
    for (seen, pid) in list[..left].iter().enumerate() {
        if Instant::now() >= deadline + REAP_DEADLINE {
            entry.say(&format!(
                "at least {count} zombies, {} more pids not looked up in time",
                left - seen
            ));
            return None;
        }
        match is_zombie_of(proc, &entry.sliver, *pid) {
            Some(zombie) => count += u32::from(zombie),
            None => return None,
        }
    }
    Some(count)
}

/// Looks until nothing is left, nothing changes any more, or the deadline. The last number seen.
fn settle(mut last: u64, deadline: Instant, mut look: impl FnMut() -> u64) -> u64 {
    let mut unchanged = 0;
    loop {
        let now = look();
        unchanged = if now == last { unchanged + 1 } else { 0 };
        last = now;
        if last == 0 || unchanged >= SETTLED || Instant::now() >= deadline {
            return last;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Moves the pids that still exist to the front; how many there are.
fn keep_existing(pids: &mut [i32]) -> usize {
    let mut kept = 0;
    for at in 0..pids.len() {
        if kill(Pid::from_raw(pids[at]), None) != Err(Errno::ESRCH) {
            pids[kept] = pids[at];
            kept += 1;
        }
    }
    kept
}

/// Whether a pid still has its home in a sliver where nothing lives: then it is dead, and a zombie keeps its home. One
/// file, for there may be thousands. None: cannot be told.
fn is_zombie_of(proc: &Proc, sliver: &Sliver, pid: i32) -> Option<bool> {
    match proc.home(pid) {
        Ok(home) => Some(home.is_some_and(|home| home.starts_with(sliver.path()))),
        Err(error) if error.is_out_of_descriptors() => None,
        Err(_) => Some(false),
    }
}
