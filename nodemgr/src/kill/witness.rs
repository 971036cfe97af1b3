//! Evidence, on a thread of its own: reading a command line may hang on the victim's memory lock, and the kill must
//! not. The thread is started with the engine; when a reading hangs, the press takes what there is and goes on, and
//! evidence is skipped (and said to be) until the thread is back. It comes back: the victim dies of the kill.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::EVIDENCE_PROCESSES;
use super::engine::{Entry, State};
use super::report::Evidence;
use crate::procfs::{Listing, Proc};

/// The handle. Dropping it ends the thread, as soon as that is not reading.
#[derive(Debug)]
pub(super) struct Witness {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    slot: Mutex<Slot>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Slot {
    /// What to read: the number of the sliver and one of its pids.
    work: Vec<(usize, i32)>,
    deadline: Option<Instant>,
    /// What was read, for the job in hand.
    found: Vec<(usize, Listing)>,
    /// The thread is at it, perhaps for a job that was given up.
    busy: bool,
    /// The job was given up: nobody takes what is still read.
    abandoned: bool,
    end: bool,
}

impl Witness {
    pub(super) fn start(proc: Proc) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.lock().work.reserve(EVIDENCE_PROCESSES);
        shared.lock().found.reserve(EVIDENCE_PROCESSES);
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("witness".to_owned())
            .spawn(move || theirs.serve(&proc))?;
        Ok(Self { shared })
    }

    /// Reads the processes of every living sliver into its entry, until the deadline.
    pub(super) fn examine(&self, entries: &mut [Entry], pids: &[i32], deadline: Instant) {
        let living = entries
            .iter()
            .filter(|entry| entry.state == State::Alive)
            .count()
            .max(1);
        let share = (EVIDENCE_PROCESSES / living).max(1);
        let mut slot = self.shared.lock();
        if slot.busy {
            for entry in entries.iter_mut().filter(|entry| entry.state == State::Alive) {
                let incomplete = "skipped: an earlier reading still hangs".to_owned();
                entry.evidence = Some(Evidence {
                    incomplete,
                    ..Evidence::default()
                });
            }
            return;
        }
        slot.work.clear();
        slot.found.clear();
        for (number, entry) in entries
            .iter_mut()
            .enumerate()
            .filter(|(_, entry)| entry.state == State::Alive)
        {
            let own = &pids[entry.pids.clone()];
            slot.work.extend(own.iter().take(share).map(|pid| (number, *pid)));
            let incomplete = match own.len().checked_sub(share) {
                Some(more @ 1..) => format!("{more} more processes were not read"),
                _ => String::new(),
            };
            entry.evidence = Some(Evidence {
                incomplete,
                ..Evidence::default()
            });
        }
        let asked = slot.work.len();
        (slot.deadline, slot.busy, slot.abandoned) = (Some(deadline), true, false);
        self.shared.changed.notify_all();
        while slot.busy {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            slot = self
                .shared
                .changed
                .wait_timeout(slot, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        slot.abandoned = slot.busy;
        let read = slot.found.len();
        for (number, listing) in slot.found.drain(..) {
            let Some(evidence) = entries[number].evidence.as_mut() else {
                continue;
            };
            evidence.processes.extend(listing.processes);
            if !listing.incomplete.is_empty() {
                evidence.incomplete = listing.incomplete;
            }
        }
        if read < asked {
            let late = &slot.work[read.min(asked)..];
            for (number, entry) in entries.iter_mut().enumerate() {
                let missing = late.iter().filter(|(of, _)| *of == number).count();
                if let (Some(evidence), 1..) = (entry.evidence.as_mut(), missing) {
                    evidence.incomplete = format!("{missing} processes not read in time");
                }
            }
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.shared.lock().end = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, proc: &Proc) {
        let mut slot = self.lock();
        while !slot.end {
            if !slot.busy {
                slot = self.changed.wait(slot).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            slot = self.work(slot, proc);
            slot.busy = false;
            self.changed.notify_all();
        }
    }

    /// Reads one process after the other, without the lock, until done, given up or late.
    fn work<'s>(&'s self, mut slot: MutexGuard<'s, Slot>, proc: &Proc) -> MutexGuard<'s, Slot> {
        let mut next = 0;
        while let Some((number, pid)) = slot.work.get(next).copied() {
            let deadline = slot.deadline;
            drop(slot);
            let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let listing = if late {
                None
            } else {
                Some(proc.list(&[pid], 1, None))
            };
            slot = self.lock();
            match listing {
                Some(listing) if !slot.abandoned && !slot.end => slot.found.push((number, listing)),
                _ => break,
            }
            next += 1;
        }
        slot
    }
}
