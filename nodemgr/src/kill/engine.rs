//! What a press needs, made beforehand.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::press::Press;
use super::report::{Evidence, Report};
use super::witness::Witness;
use super::{Plan, census};
use crate::cgroup::{PidsMax, Sliver};
use crate::guard::Guard;
use crate::prepare::Spare;
use crate::procfs::Proc;

/// Pids that are remembered, over all slivers of a press. More are counted, but their zombies are not.
const PIDS: usize = 65_536;
/// Slivers that fit without growing the list.
const SLIVERS: usize = 256;
/// Descriptors kept for evidence and census.
const SPARE: usize = 16;

/// Kills. Made once at start, used by one thread.
#[derive(Debug)]
pub struct Engine {
    pub(super) proc: Proc,
    pub(super) witness: Witness,
    pub(super) spare: Spare,
    pub(super) entries: Vec<Entry>,
    pub(super) pids: Vec<i32>,
}

/// How far the press has come with one sliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Something may live there.
    Alive,
    /// `populated 0` was seen.
    Dead,
    /// The cgroup was removed.
    Gone,
    /// Not touched (guard), or the kernel refused: `trouble` says why.
    Failed,
}

/// One sliver of the press in progress.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) sliver: Arc<Sliver>,
    pub(super) state: State,
    pub(super) was_populated: bool,
    pub(super) began: Instant,
    pub(super) freeze: Option<Duration>,
    pub(super) frozen: bool,
    pub(super) killed: Option<u32>,
    /// Where its pids stand in the engine's list.
    pub(super) pids: Range<usize>,
    /// All of its pids stand there.
    pub(super) all_pids: bool,
    pub(super) evidence: Option<Evidence>,
    pub(super) evidence_us: u64,
    pub(super) pids_max_before: Option<PidsMax>,
    pub(super) kill_began: Option<Instant>,
    pub(super) dead_after: Option<Duration>,
    /// Killed by a loop of kill(2): when the last round was.
    pub(super) last_round: Option<Instant>,
    pub(super) trouble: String,
}

impl Entry {
    pub(super) fn new(sliver: Arc<Sliver>) -> Self {
        Self {
            sliver,
            state: State::Alive,
            was_populated: true,
            began: Instant::now(),
            freeze: None,
            frozen: false,
            killed: None,
            pids: 0..0,
            all_pids: false,
            evidence: None,
            evidence_us: 0,
            pids_max_before: None,
            kill_began: None,
            dead_after: None,
            last_round: None,
            trouble: String::new(),
        }
    }

    /// Takes an error of one of the sliver's files: gone is an end, everything else is remembered.
    pub(super) fn note(&mut self, error: &crate::cgroup::SliverError) {
        if error.is_gone() {
            self.state = State::Gone;
            return;
        }
        self.say(&match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        });
    }

    pub(super) fn say(&mut self, what: &str) {
        if !self.trouble.is_empty() {
            self.trouble.push_str("; ");
        }
        self.trouble.push_str(what);
    }
}

impl Engine {
    /// Makes the buffers, starts the witness thread, keeps spare descriptors. `proc_root` is `/proc`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn new(proc_root: &Path) -> std::io::Result<Self> {
        let proc = Proc::at(proc_root);
        let mut pids = vec![1_i32; PIDS];
        pids.clear();
        Ok(Self {
            witness: Witness::start(proc.clone())?,
            proc,
            spare: Spare::keep(SPARE),
            entries: Vec::with_capacity(SLIVERS),
            pids,
        })
    }

    /// Begins a press: asks the guard about each sliver, and writes the freeze for all it lets pass. Returns at
    /// once: now is the time to start writing the hold to disk on another thread.
    pub fn begin(&mut self, slivers: &[Arc<Sliver>], guard: &Guard) -> Press<'_> {
        self.entries.clear();
        self.pids.clear();
        for sliver in slivers {
            let mut entry = Entry::new(Arc::clone(sliver));
            match guard.check_now(sliver) {
                Ok(()) => begin_one(&mut entry),
                Err(refusal) => {
                    entry.state = State::Failed;
                    entry.say(&refusal.to_string());
                }
            }
            self.entries.push(entry);
        }
        Press::new(self)
    }

    /// The whole press. As [`Engine::begin`] and all steps of [`Press`].
    pub fn kill(&mut self, slivers: &[Arc<Sliver>], guard: &Guard, plan: &Plan) -> Vec<Report> {
        let mut press = self.begin(slivers, guard);
        press.strike(plan);
        press.wait();
        press.finish()
    }

    /// Freezes, and waits for it up to `deadline`. Outcomes: frozen, partial (some process does not stand
    /// still; the wish stays and the kernel goes on trying), already dead (the cgroup is gone), failed.
    pub fn freeze(&mut self, slivers: &[Arc<Sliver>], guard: &Guard, deadline: Duration) -> Vec<Report> {
        self.begin(slivers, guard).finish_freeze(deadline)
    }

    /// Which of a sliver's processes are in uninterruptible sleep.
    pub(super) fn stuck(&self, number: usize) -> Option<census::Remaining> {
        census::remaining(&self.proc, &self.entries[number].sliver)
    }
}

fn begin_one(entry: &mut Entry) {
    match entry.sliver.events() {
        Ok(events) => entry.was_populated = events.populated,
        Err(error) => entry.note(&error),
    }
    if entry.state == State::Alive
        && let Err(error) = entry.sliver.set_frozen(true)
    {
        entry.note(&error);
    }
}
