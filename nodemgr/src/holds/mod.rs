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
//! Invariants: a hold leaves the set only by a release of its id; a known id never becomes weaker; an id with a
//! tombstone does not come back; the highest version seen never falls. A sliver runs only when no hold covers its
//! slice.

pub mod file;
mod state;
mod tombstones;
pub mod writer;

use std::collections::BTreeMap;

use proto::canonical::Signature;
use proto::{Hold, HoldId, HoldKind, Lifted, NodeId, SliceName, Tombstone, Version};

pub use state::{FIRST_UID, State, StateError, Touched};
pub(crate) use tombstones::Kept;
pub use tombstones::{Releaser, Tombstones};

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
    /// It was released, and that is remembered.
    #[error("hold {id} was released {by}; it does not come back: press again to set a new one")]
    Released {
        /// The id.
        id: HoldId,
        /// By whom, in words.
        by: String,
    },
    /// More releases made here than a node keeps until the controller has heard of them.
    #[error(
        "{} releases made on this node wait for the controller, the most it keeps: let it attach first",
        Tombstones::MAX
    )]
    TooManyReleases,
}

/// A hold as it comes, with the controller's word for it if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The hold.
    pub hold: Hold,
    /// Over [`proto::canonical::hold`]; not checked here: it is kept for who can check it.
    pub signature: Option<Signature>,
}

impl From<Hold> for Signed {
    fn from(hold: Hold) -> Self {
        Self {
            hold,
            signature: None,
        }
    }
}

impl From<Signed> for proto::v1::Hold {
    fn from(Signed { hold, signature }: Signed) -> Self {
        Self {
            signature: signature.map(|signature| signature.to_vec()).unwrap_or_default(),
            ..Self::from(hold)
        }
    }
}

/// What the controller says at once.
#[derive(Debug, Clone, Default)]
pub struct Sync {
    /// What holds here.
    pub holds: Vec<Signed>,
    /// What was released meanwhile.
    pub released: Vec<HoldId>,
    /// The controller's word for some of these.
    pub tombstones: Vec<Tombstone>,
    /// Tombstones of this node that it keeps.
    pub recorded: Vec<HoldId>,
    /// Its incarnation.
    pub incarnation: u64,
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
    /// Ids that were released here, or by the controller before: they stay released.
    pub buried: Vec<HoldId>,
}

/// Every hold that stands on this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HoldSet {
    holds: BTreeMap<HoldId, Signed>,
    tombstones: Tombstones,
}

impl HoldSet {
    /// The most holds that a node keeps. Hundreds on one slice are usual in a bad week; this bounds memory.
    pub const MAX: usize = 16_384;

    /// Sets a hold. The same hold again is fine and changes nothing.
    ///
    /// # Errors
    /// When the id stands for something else, was released, or the set is full.
    pub fn impose(&mut self, hold: impl Into<Signed>) -> Result<bool, HoldError> {
        let new = hold.into();
        let id = new.hold.id;
        if let Some(stone) = self.tombstones.get(id) {
            return Err(HoldError::Released { id, by: by(stone) });
        }
        let full = self.holds.len() >= Self::MAX;
        match self.holds.get_mut(&id) {
            Some(known) if known.hold.slice != new.hold.slice || known.hold.scope != new.hold.scope => {
                Err(HoldError::Conflict { id })
            }
            Some(known) => {
                let stronger = new.hold.kind > known.hold.kind;
                // Texts may differ after an upgrade; what counts is that it never becomes weaker, in what it does or
                // in who can prove it.
                let better = new.hold.kind == known.hold.kind
                    && (new.signature.is_some() || known.signature.is_none());
                if stronger || better {
                    *known = new;
                }
                Ok(stronger)
            }
            None if full => Err(HoldError::TooMany),
            None => {
                self.holds.insert(id, new);
                Ok(true)
            }
        }
    }

    /// Lifts a hold. `None` when it did not stand: a repeated release is fine. Nothing remembers it: for a release
    /// without the controller's word.
    pub fn release(&mut self, id: HoldId) -> Option<Hold> {
        self.holds.remove(&id).map(|signed| signed.hold)
    }

    /// Lifts a hold by the controller's word, and remembers that. The flag says whether there was room to.
    pub fn release_signed(
        &mut self,
        id: HoldId,
        version: Version,
        signature: Signature,
    ) -> (Option<Hold>, bool) {
        let stone = Tombstone {
            hold: id,
            lifted: Lifted::Signed { version, signature },
        };
        let kept = self.bury(stone, version.incarnation);
        (self.release(id), kept)
    }

    /// Lifts a hold on this node alone, and remembers that until the controller has heard of it, and longer.
    ///
    /// # Errors
    /// When there is no room to remember it. Nothing has changed then.
    pub fn release_local(
        &mut self,
        id: HoldId,
        releaser: Releaser,
        node: NodeId,
    ) -> Result<Option<Hold>, HoldError> {
        if !self.holds.contains_key(&id) {
            return Ok(None);
        }
        if !self.tombstones.add_local(id, releaser, node) {
            return Err(HoldError::TooManyReleases);
        }
        Ok(self.release(id))
    }

    fn bury(&mut self, stone: Tombstone, known_in: u64) -> bool {
        self.tombstones.add(Kept {
            stone,
            known_in,
            also: None,
        })
    }

    /// Adds what is missing and drops what was released meanwhile. A hold in neither list stays: the controller
    /// may have lost it, and losing a hold must never let something run. A hold with a tombstone stays away.
    pub fn sync(&mut self, sync: Sync) -> SyncChange {
        let Sync {
            holds,
            released,
            tombstones,
            recorded,
            incarnation,
        } = sync;
        let mut change = SyncChange::default();
        let stands = |id: HoldId| holds.iter().any(|signed| signed.hold.id == id);
        for id in released {
            // Listed both as standing and as released: it stands.
            if !stands(id) && self.release(id).is_some() {
                change.released.push(id);
            }
        }
        for stone in tombstones {
            let id = stone.hold;
            // A word about somebody's release on a node is not the controller's.
            if stands(id) || !matches!(stone.lifted, Lifted::Signed { .. }) {
                continue;
            }
            if self.release(id).is_some() {
                change.released.push(id);
            }
            self.bury(stone, incarnation);
        }
        for id in recorded {
            self.tombstones.confirm(id, incarnation);
        }
        for signed in holds {
            let id = signed.hold.id;
            match self.impose(signed) {
                Ok(true) => change.imposed.push(id),
                Ok(false) => {}
                Err(HoldError::Released { id, .. }) => change.buried.push(id),
                Err(error) => change.refused.push(error),
            }
        }
        change
    }

    /// The releases that are remembered.
    #[must_use]
    pub fn tombstones(&self) -> &Tombstones {
        &self.tombstones
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
        self.iter().filter(move |hold| hold.covers_slice(slice))
    }

    /// The hold to name when something is refused: the strongest, among equals the oldest decision.
    #[must_use]
    pub fn foremost(&self, slice: &SliceName) -> Option<&Hold> {
        self.covering(slice)
            .max_by_key(|hold| (hold.kind, std::cmp::Reverse((hold.version, hold.id))))
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Hold> {
        self.holds.values().map(|signed| &signed.hold)
    }

    /// All of them with the controller's word for them, by id.
    pub fn signed(&self) -> impl Iterator<Item = &Signed> {
        self.holds.values()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: HoldId) -> Option<&Hold> {
        self.holds.get(&id).map(|signed| &signed.hold)
    }

    /// One of them with the controller's word for it.
    #[must_use]
    pub fn get_signed(&self, id: HoldId) -> Option<&Signed> {
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

fn by(stone: &Tombstone) -> String {
    match &stone.lifted {
        Lifted::Signed { version, .. } => format!("by decision {version}"),
        Lifted::Here { person, role, .. } => format!("on this node by {person} ({role})"),
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
