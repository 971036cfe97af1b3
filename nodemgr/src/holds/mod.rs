//! What may not run here, and why. Pure: no files, no clock.
//!
//! ```text
//!            impose / release / sync             verdict(slice)
//! orders ───────────────────────────▶ HoldSet ──────────────────▶ Run | Frozen | Dead
//!                                        │
//!                                  State (+ seen version, uids, what was touched)
//!                                        │ encode / decode
//!                                   StateFile: two copies on disk ([`file`]), written by [`writer`]
//! ```
//!
//! Invariants: a hold leaves the set only by a release of its id; a known id never becomes weaker; the highest
//! version seen never falls. A sliver runs only when no hold covers its slice.

pub mod file;
mod state;
pub mod writer;

use std::collections::BTreeMap;

use proto::{Hold, HoldId, HoldKind, SliceName, Version};

pub use state::{FIRST_UID, State, StateError, Touched};

/// What the holds say of one slice. A stronger verdict sorts after a weaker one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// No hold covers it.
    Run,
    /// Processes stay, frozen; none may start.
    Frozen,
    /// Processes die; none may start.
    Dead,
}

/// Why an order about holds is refused. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// From before a version that this node has already seen.
    #[error("stale version: {got}, this node has seen {seen}")]
    Stale {
        /// In the command.
        got: Version,
        /// The highest so far.
        seen: Version,
    },
    /// The id stands already, for another slice or another scope.
    #[error("hold {id} stands already for another slice or scope")]
    Conflict {
        /// The id.
        id: HoldId,
    },
    /// More holds than a node keeps.
    #[error("this node already keeps {} holds, the most it takes", HoldSet::MAX)]
    TooMany,
}

/// What a [`HoldSet::sync`] changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncChange {
    /// Holds that were missing, or became stronger.
    pub imposed: Vec<HoldId>,
    /// Holds that fell.
    pub released: Vec<HoldId>,
    /// Ids that stand for something else here, or did not fit: left as they were.
    pub refused: Vec<HoldError>,
}

/// Every hold that stands on this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HoldSet {
    holds: BTreeMap<HoldId, Hold>,
}

impl HoldSet {
    /// The most holds that a node keeps. Hundreds on one slice are usual in a bad week; this bounds memory.
    pub const MAX: usize = 16_384;

    /// Sets a hold. The same hold again is fine and changes nothing.
    ///
    /// # Errors
    /// When the id stands for something else, or the set is full.
    pub fn impose(&mut self, hold: Hold) -> Result<bool, HoldError> {
        let full = self.holds.len() >= Self::MAX;
        match self.holds.get_mut(&hold.id) {
            Some(known) if known.slice != hold.slice || known.scope != hold.scope => {
                Err(HoldError::Conflict { id: hold.id })
            }
            Some(known) => {
                // Texts may differ after an upgrade; what counts is that it never becomes weaker.
                let kind = known.kind.max(hold.kind);
                let stronger = kind > known.kind;
                *known = Hold { kind, ..hold };
                Ok(stronger)
            }
            None if full => Err(HoldError::TooMany),
            None => {
                self.holds.insert(hold.id, hold);
                Ok(true)
            }
        }
    }

    /// Lifts a hold. `None` when it did not stand: a repeated release is fine.
    pub fn release(&mut self, id: HoldId) -> Option<Hold> {
        self.holds.remove(&id)
    }

    /// Adds what is missing and drops what was released meanwhile. A hold in neither list stays: the controller
    /// may have lost it, and losing a hold must never let something run.
    pub fn sync(&mut self, holds: Vec<Hold>, released: &[HoldId]) -> SyncChange {
        let mut change = SyncChange::default();
        for id in released {
            // Listed both as standing and as released: it stands.
            if !holds.iter().any(|hold| hold.id == *id) && self.release(*id).is_some() {
                change.released.push(*id);
            }
        }
        for hold in holds {
            let id = hold.id;
            match self.impose(hold) {
                Ok(true) => change.imposed.push(id),
                Ok(false) => {}
                Err(error) => change.refused.push(error),
            }
        }
        change
    }

    /// What the holds say of a slice: the strongest that covers it.
    #[must_use]
    pub fn verdict(&self, slice: &SliceName) -> Verdict {
        self.covering(slice)
            .map(|hold| Verdict::from(hold.kind))
            .max()
            .unwrap_or(Verdict::Run)
    }

    /// The holds that cover a slice, those on the whole node included.
    pub fn covering<'a>(&'a self, slice: &SliceName) -> impl Iterator<Item = &'a Hold> {
        self.holds.values().filter(move |hold| hold.covers_slice(slice))
    }

    /// The hold to name when something is refused: the strongest, among equals the oldest decision.
    #[must_use]
    pub fn foremost(&self, slice: &SliceName) -> Option<&Hold> {
        self.covering(slice)
            .max_by_key(|hold| (hold.kind, std::cmp::Reverse((hold.version, hold.id))))
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Hold> {
        self.holds.values()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: HoldId) -> Option<&Hold> {
        self.holds.get(&id)
    }

    /// How many stand.
    #[must_use]
    pub fn len(&self) -> usize {
        self.holds.len()
    }

    /// Whether none stands.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.holds.is_empty()
    }
}

impl From<HoldKind> for Verdict {
    fn from(kind: HoldKind) -> Self {
        match kind {
            HoldKind::Freeze => Verdict::Frozen,
            HoldKind::Suspend => Verdict::Dead,
        }
    }
}

#[cfg(test)]
mod tests;
