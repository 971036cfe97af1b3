//! One press, step by step. Each step is done for every sliver before the next one begins.

use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::engine::{Engine, Entry, State};
use super::report::{Evidence, Outcome, Report};
use super::{Plan, census, fallback};
use crate::cgroup::{Events, PidsMax};

/// A press that has begun: the slivers are freezing. Dropping it leaves them so.
#[derive(Debug)]
pub struct Press<'e> {
    engine: &'e mut Engine,
    plan: Plan,
}

impl<'e> Press<'e> {
    pub(super) fn new(engine: &'e mut Engine) -> Self {
        Self {
            engine,
            plan: Plan::default(),
        }
    }

    /// Waits for the freeze (bounded, and only where it pays), takes evidence (bounded), closes the door to new tasks and kills.
    pub fn strike(&mut self, plan: &Plan) {
        self.plan = plan.clone();
        if plan.census || plan.evidence {
            self.engine.spare.release();
        }
        self.await_freeze(if self.freeze_pays() {
            plan.freeze
        } else {
            Duration::ZERO
        });
        for number in 0..self.engine.entries.len() {
            count(self.engine, number, plan.census);
        }
        if plan.evidence {
            self.take_evidence();
        }
        for entry in self
            .engine
            .entries
            .iter_mut()
            .filter(|entry| entry.state == State::Alive)
        {
            close_the_door(entry);
        }
        for number in 0..self.engine.entries.len() {
            self.strike_one(number);
        }
    }

    /// Waits until the last process of every sliver died, or the plan's deadline. True when all are dead:
    /// this is the moment of the stamp `dead`.
    pub fn wait(&mut self) -> bool {
        let began = Instant::now();
        let Press { engine, plan } = self;
        let Engine { entries, proc, .. } = &mut **engine;
        let settled = wait_for(entries, began + plan.kill, |entry, events| {
            if !events.populated {
                entry.state = State::Dead;
                entry.dead_after = entry.kill_began.map(|began| began.elapsed());
            } else if entry
                .last_round
                .is_some_and(|last| last.elapsed() >= fallback::PAUSE)
            {
                fallback::round(entry, proc);
            }
            !events.populated
        });
        settled
            && self
                .engine
                .entries
                .iter()
                .all(|entry| entry.state != State::Failed)
    }

    /// Counts what is left, and says what became of each sliver, in the order they were given.
    pub fn finish(self) -> Vec<Report> {
        let Self { engine, plan } = self;
        let reports = (0..engine.entries.len())
            .map(|number| report(engine, number, &plan))
            .collect();
        engine.entries.clear();
        if engine.spare.count() == 0 {
            engine.spare.refill();
        }
        reports
    }

    pub(super) fn finish_freeze(mut self, deadline: Duration) -> Vec<Report> {
        self.await_freeze(deadline);
        self.engine.spare.release();
        let engine = self.engine;
        let reports = (0..engine.entries.len())
            .map(|number| report_freeze(engine, number))
            .collect();
        engine.entries.clear();
        engine.spare.refill();
        reports
    }

    fn freeze_pays(&self) -> bool {
        let alive = |entry: &&Entry| entry.state == State::Alive;
        self.plan.evidence
            || self
                .engine
                .entries
                .iter()
                .filter(alive)
                .any(|entry| !entry.sliver.has_kill())
    }

    fn await_freeze(&mut self, bound: Duration) {
        let entries = &mut self.engine.entries;
        // Where the kernel cannot freeze there is nothing to wait for.
        let deadline = if entries.iter().any(|entry| entry.sliver.has_freeze()) {
            bound
        } else {
            Duration::ZERO
        };
        wait_for(entries, Instant::now() + deadline, |entry, events| {
            if entry.freeze.is_none() && (events.frozen || !entry.sliver.has_freeze()) {
                entry.frozen = events.frozen;
                entry.freeze = Some(entry.began.elapsed());
            }
            entry.freeze.is_some()
        });
        for entry in entries.iter_mut().filter(|entry| entry.freeze.is_none()) {
            entry.freeze = Some(entry.began.elapsed());
        }
    }

    fn take_evidence(&mut self) {
        let began = Instant::now();
        let Engine {
            entries,
            witness,
            pids,
            spare,
            ..
        } = &mut *self.engine;
        spare.release();
        witness.examine(entries, pids, began + self.plan.evidence_for);
        let took = micros(began.elapsed());
        for entry in entries.iter_mut().filter(|entry| entry.state == State::Alive) {
            entry.evidence_us = took;
            if entry.killed.is_none() {
                let incomplete = "its processes could not be listed".to_owned();
                entry.evidence = Some(Evidence {
                    incomplete,
                    ..Evidence::default()
                });
            }
        }
    }

    fn strike_one(&mut self, number: usize) {
        let Engine { entries, proc, .. } = &mut *self.engine;
        let entry = &mut entries[number];
        if entry.state != State::Alive {
            return;
        }
        entry.kill_began = Some(Instant::now());
        match entry.sliver.write_kill() {
            Ok(true) => {}
            Ok(false) => fallback::round(entry, proc),
            Err(error) => {
                entry.note(&error);
                if entry.state == State::Alive {
                    entry.state = State::Failed;
                }
            }
        }
    }
}

/// Reads `cgroup.events` of every living sliver until `done` said so of each, or the deadline.
///
/// The kernel tells of a change by POLLPRI, but at most once in 10 ms for one file (CGROUP_FILE_NOTIFY_MIN_INTV): after
/// `frozen 1`, a quick death would be heard of 10 ms late. So the wait is cut into short ticks as well.
fn wait_for(
    entries: &mut [Entry],
    deadline: Instant,
    mut done: impl FnMut(&mut Entry, Events) -> bool,
) -> bool {
    let began = Instant::now();
    loop {
        let mut first = None;
        for (number, entry) in entries.iter_mut().enumerate() {
            if entry.state != State::Alive {
                continue;
            }
            match entry.sliver.events() {
                Ok(events) if done(entry, events) => {}
                Ok(_) => first = first.or(Some(number)),
                Err(error) => {
                    entry.note(&error);
                    // Its manager was quick to remove it.
                    entry.dead_after = entry.kill_began.map(|began| began.elapsed());
                    if entry.state == State::Alive {
                        entry.state = State::Failed;
                    }
                }
            }
        }
        let now = Instant::now();
        let Some(first) = first else { return true };
        if now >= deadline {
            return false;
        }
        let tick = tick(now - began).min(deadline - now);
        let mut poll = [PollFd::new(entries[first].sliver.events_fd(), PollFlags::POLLPRI)];
        // Whatever it says (also EINTR), the files are read again.
        let _ = ppoll(&mut poll, Some(TimeSpec::from(tick)), None);
    }
}

/// Short at first, when a small sliver dies in a millisecond; long when it takes anyway.
fn tick(waited: Duration) -> Duration {
    match waited.as_millis() {
        0..50 => Duration::from_micros(500),
        50..500 => Duration::from_millis(2),
        _ => Duration::from_millis(10),
    }
}

/// Lists the processes, for evidence, zombies and the number killed.
fn count(engine: &mut Engine, number: usize, may_open: bool) {
    let Engine { entries, pids, .. } = engine;
    let entry = &mut entries[number];
    if entry.state != State::Alive {
        return;
    }
    let nested = entry.sliver.descendants() != Some(0);
    if nested && !may_open {
        entry.say("nested cgroups were not listed");
        return;
    }
    let start = pids.len();
    let mut overflow = 0_u32;
    let listed = entry.sliver.for_each_pid(|pid| {
        if pids.len() < pids.capacity() {
            pids.push(pid);
        } else {
            overflow += 1;
        }
    });
    if nested {
        pids[start..].sort_unstable();
        let unique = dedup(&mut pids[start..]);
        pids.truncate(start + unique);
    }
    entry.pids = start..pids.len();
    match listed {
        Ok(()) => {
            entry.all_pids = overflow == 0;
            entry.killed = Some(
                u32::try_from(entry.pids.len())
                    .unwrap_or(u32::MAX)
                    .saturating_add(overflow),
            );
        }
        Err(error) => entry.note(&error),
    }
}

/// Moves the distinct values of a sorted slice to its front; how many there are.
fn dedup(sorted: &mut [i32]) -> usize {
    let mut kept = 0;
    for at in 0..sorted.len() {
        if kept == 0 || sorted[kept - 1] != sorted[at] {
            sorted[kept] = sorted[at];
            kept += 1;
        }
    }
    kept
}

fn close_the_door(entry: &mut Entry) {
    match entry.sliver.pids_max() {
        Ok(None | Some(PidsMax::At(0))) => {}
        Ok(Some(limit)) => match entry.sliver.set_pids_max(PidsMax::At(0)) {
            Ok(()) => entry.pids_max_before = Some(limit),
            Err(error) => entry.note(&error),
        },
        Err(error) => entry.note(&error),
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn report(engine: &mut Engine, number: usize, plan: &Plan) -> Report {
    let (mut zombies, mut stuck) = (None, None);
    match engine.entries[number].state {
        // A removed cgroup may leave zombies behind, but nothing alive.
        State::Dead | State::Gone => {
            stuck = Some(0);
            if plan.census {
                zombies = census::zombies(engine, number);
            }
        }
        State::Alive => {
            let remaining = engine.stuck(number).filter(|_| plan.census);
            stuck = remaining.map(|remaining| remaining.stuck);
            let what = match remaining {
                Some(left) => format!("{} processes remain, {} in D state", left.processes, left.stuck),
                None => "processes remain, which could not be examined".to_owned(),
            };
            engine.entries[number].say(&what);
        }
        State::Failed => {}
    }
    let entry = &mut engine.entries[number];
    let outcome = match entry.state {
        State::Failed => Outcome::Failed,
        State::Alive => Outcome::Partial,
        State::Gone if !entry.was_populated || entry.kill_began.is_none() => Outcome::AlreadyDead,
        State::Dead if !entry.was_populated && entry.killed.unwrap_or(0) == 0 => Outcome::AlreadyDead,
        State::Dead | State::Gone => Outcome::Killed,
    };
    if entry.state == State::Gone {
        entry.say("the cgroup is gone");
    }
    let kill_us = entry
        .dead_after
        .or_else(|| entry.kill_began.map(|began| began.elapsed()));
    describe(
        entry,
        outcome,
        zombies,
        stuck,
        micros(kill_us.unwrap_or_default()),
    )
}

fn report_freeze(engine: &mut Engine, number: usize) -> Report {
    let mut stuck = None;
    let entry = &engine.entries[number];
    let outcome = match entry.state {
        State::Failed => Outcome::Failed,
        State::Gone => Outcome::AlreadyDead,
        State::Alive | State::Dead if entry.frozen => Outcome::Frozen,
        State::Alive | State::Dead if !entry.sliver.has_freeze() => {
            engine.entries[number].say("this kernel cannot freeze a cgroup");
            Outcome::Failed
        }
        State::Alive | State::Dead => {
            let remaining = engine.stuck(number);
            stuck = remaining.map(|remaining| remaining.stuck);
            let what = match remaining {
                Some(left) => format!(
                    "{} processes, of which {} in D state, do not all stand still",
                    left.processes, left.stuck
                ),
                None => "not every process stands still".to_owned(),
            };
            engine.entries[number].say(&what);
            Outcome::Partial
        }
    };
    describe(&mut engine.entries[number], outcome, None, stuck, 0)
}

fn describe(
    entry: &mut Entry,
    outcome: Outcome,
    zombies: Option<u32>,
    stuck: Option<u32>,
    kill_us: u64,
) -> Report {
    Report {
        path: entry.sliver.path().to_owned(),
        id: entry.sliver.id(),
        outcome,
        detail: std::mem::take(&mut entry.trouble),
        killed: entry.killed,
        zombies,
        stuck,
        frozen: entry.frozen,
        freeze_us: micros(entry.freeze.unwrap_or_default()),
        evidence_us: entry.evidence_us,
        kill_us,
        evidence: entry.evidence.take(),
        pids_max_before: entry.pids_max_before,
    }
}
