//! Whose handshake may be worked on: who waits, waits here, having cost nothing yet but a socket.
//!
//! ```text
//! first bytes ─▶ turn of its source (1/8 of all) ─▶ lane: known sources │ strangers ─▶ TLS ─▶ known from now on
//! ```
//! - Served in the order of arrival. A handshake that was begun is not given up for a newcomer: when 10,000 agents come
//!   up at once that would throw away each one's work for the next one's, and almost nobody would get through.
//! - One source takes no more than its share, so that a flood from one address waits behind itself.
//! - Sources from which somebody has authenticated before have a lane of their own: whatever strangers do, people and
//!   nodes that were here before stand behind each other only. After a restart nobody is known, and all are equal.
//! - A turn is for peers that answer. While others wait and most turns come to nothing, one that has not answered for a
//!   while is ended before its deadline (`is_wanted`): against those who say hello and no more. When most come to
//!   something, slow ones are honest, and their work would only be made twice.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::handshakes::Source;

/// Sources that are remembered: twice this many at most, the older half goes.
const REMEMBERED: usize = 32_768;

/// Share of turns that came to something lately, out of so many.
const ALL: u32 = 1 << 16;
/// Turns that "lately" spans.
const LATELY: u32 = 64;

#[derive(Debug)]
struct Lane {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    worth: AtomicU32,
}

impl Lane {
    fn new(permits: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            worth: AtomicU32::new(ALL),
        }
    }

    fn ended(&self, well: bool) {
        let step = |worth: u32| {
            let goal = if well { ALL } else { 0 };
            Some(worth - worth / LATELY + goal / LATELY)
        };
        let _ = self
            .worth
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }
}

/// Sources that somebody has authenticated from, newest half and older half.
#[derive(Debug, Default)]
struct Known {
    newer: HashSet<Source>,
    older: HashSet<Source>,
}

impl Known {
    fn contains(&self, source: Source) -> bool {
        self.newer.contains(&source) || self.older.contains(&source)
    }

    fn add(&mut self, source: Source) {
        if self.newer.len() >= REMEMBERED {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(source);
    }
}

#[derive(Debug)]
struct Shared {
    known: Mutex<Known>,
    strangers: Lane,
    friends: Lane,
    sources: Mutex<HashMap<Source, Arc<Semaphore>>>,
    per_source: usize,
}

/// The turns of one listener.
#[derive(Debug, Clone)]
pub(crate) struct Turns(Arc<Shared>);

/// A handshake may be worked on as long as this lives.
#[derive(Debug)]
pub(crate) struct Turn {
    shared: Arc<Shared>,
    source: Source,
    is_known: bool,
    // In the order in which they are given back.
    _lane: OwnedSemaphorePermit,
    _line: Line,
}

/// A place in the line of one source; the last to leave takes the line away.
#[derive(Debug)]
struct Line {
    shared: Arc<Shared>,
    source: Source,
    turn: Option<OwnedSemaphorePermit>,
    line: Option<Arc<Semaphore>>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut sources = held(&self.shared.sources);
        self.turn = None;
        self.line = None;
        // Whoever stands in it holds a clone, and clones are made under this lock alone.
        if sources
            .get(&self.source)
            .is_some_and(|line| Arc::strong_count(line) == 1)
        {
            sources.remove(&self.source);
        }
    }
}

/// Counts somebody who waits, also when they give up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn at(lane: &'a Lane) -> Self {
        lane.waiting.fetch_add(1, Ordering::Relaxed);
        Self(&lane.waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Turns {
    /// `at_once` turns for strangers, and as many for known sources.
    pub(crate) fn new(at_once: usize) -> Self {
        Self(Arc::new(Shared {
            known: Mutex::default(),
            strangers: Lane::new(at_once),
            friends: Lane::new(at_once),
            sources: Mutex::default(),
            per_source: (at_once / 8).max(1),
        }))
    }

    /// Waits for a turn. Cancel safe. `None`: never, for nobody closes a lane.
    pub(crate) async fn turn(&self, source: Source) -> Option<Turn> {
        let shared = &self.0;
        let line = held(&shared.sources)
            .entry(source)
            .or_insert_with(|| Arc::new(Semaphore::new(shared.per_source)))
            .clone();
        let mut place = Line {
            shared: shared.clone(),
            source,
            turn: None,
            line: Some(line.clone()),
        };
        place.turn = Some(line.acquire_owned().await.ok()?);
        let is_known = held(&shared.known).contains(source);
        let lane = if is_known {
            &shared.friends
        } else {
            &shared.strangers
        };
        let waiting = Waiting::at(lane);
        let permit = lane.permits.clone().acquire_owned().await.ok()?;
        drop(waiting);
        Some(Turn {
            shared: shared.clone(),
            source,
            is_known,
            _lane: permit,
            _line: place,
        })
    }
}

impl Turn {
    fn lane(&self) -> &Lane {
        if self.is_known {
            &self.shared.friends
        } else {
            &self.shared.strangers
        }
    }

    /// Whether somebody waits for a turn like this one while most come to nothing.
    pub(crate) fn is_wanted(&self) -> bool {
        let lane = self.lane();
        lane.waiting.load(Ordering::Relaxed) > 0 && lane.worth.load(Ordering::Relaxed) < ALL / 2
    }

    /// Somebody has authenticated from there, or has not.
    pub(crate) fn ended(&self, authenticated: bool) {
        self.lane().ended(authenticated);
        if authenticated && !self.is_known {
            held(&self.shared.known).add(self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use futures_util::FutureExt;

    use super::*;

    fn source(n: u8) -> Source {
        IpAddr::from([192, 0, 2, n]).into()
    }

    fn now(turns: &Turns, from: u8) -> Option<Turn> {
        turns.turn(source(from)).now_or_never().flatten()
    }

    #[test]
    fn one_source_waits_behind_itself() {
        let turns = Turns::new(16);
        let flood: Vec<Turn> = (0..2).filter_map(|_| now(&turns, 1)).collect();
        assert_eq!(flood.len(), 2, "an eighth of all");
        assert!(now(&turns, 1).is_none());
        assert!(now(&turns, 2).is_some());
        drop(flood);
        assert!(now(&turns, 1).is_some());
        assert!(held(&turns.0.sources).is_empty(), "lines are taken away");
    }

    #[test]
    fn strangers_do_not_stand_before_those_who_were_here() {
        let turns = Turns::new(8);
        now(&turns, 100).expect("free").ended(true);
        let strangers: Vec<Turn> = (0..8).filter_map(|n| now(&turns, n)).collect();
        assert_eq!(strangers.len(), 8);
        let waits = || turns.0.strangers.waiting.load(Ordering::Relaxed);
        assert_eq!(waits(), 0);
        let mut ninth = Box::pin(turns.turn(source(9)));
        assert!(ninth.as_mut().now_or_never().is_none());
        assert_eq!(waits(), 1);
        assert!(now(&turns, 100).is_some(), "a lane of its own");
        drop(ninth);
        assert_eq!(waits(), 0, "who gives up does not wait");
    }

    #[test]
    fn a_turn_is_wanted_when_others_wait_and_most_come_to_nothing() {
        let turns = Turns::new(1);
        let turn = now(&turns, 1).expect("free");
        for _ in 0..1_000 {
            turn.ended(false);
        }
        assert!(!turn.is_wanted(), "nobody waits");
        let mut second = Box::pin(turns.turn(source(2)));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(turn.is_wanted());
        for _ in 0..100 {
            turn.ended(true);
        }
        assert!(!turn.is_wanted(), "most come to something");
    }

    #[test]
    fn the_memory_of_sources_is_bounded() {
        let mut known = Known::default();
        let source = |n: u32| Source::from(IpAddr::from(n.to_be_bytes()));
        for n in 0..200_000 {
            known.add(source(n));
        }
        assert!(known.newer.len() + known.older.len() <= 2 * REMEMBERED);
        assert!(known.contains(source(199_999)) && !known.contains(source(0)));
    }
}
