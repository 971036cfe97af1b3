//! Releases that are remembered, so that no sync and no order that comes again brings a hold back. Pure.
//!
//! Bounded: the oldest of the controller's go first, then those released here that the controller has confirmed.
//! What was released here and is not confirmed never goes: with nothing else to give up, a new one is refused.

use std::collections::{BTreeMap, HashMap};

use proto::{HoldId, Lifted, NodeId, PersonName, Role, Tombstone, canonical};

/// Somebody who releases a hold at the node's own door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Releaser {
    /// Who.
    pub person: PersonName,
    /// The role that entitles them.
    pub role: Role,
    /// By the node's clock, milliseconds since 1970.
    pub at_ms: i64,
}

/// A tombstone with what is known of its way to the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) stone: Tombstone,
    /// The last incarnation of the controller that is known to know it; 0: none.
    pub(crate) known_in: u64,
    /// The id under which the controller keeps the hold if it has only this node's word for it.
    pub(crate) also: Option<HoldId>,
}

impl Kept {
    fn is_signed(&self) -> bool {
        matches!(self.stone.lifted, Lifted::Signed { .. })
    }
}

/// All of them, the oldest first.
#[derive(Debug, Clone, Default)]
pub struct Tombstones {
    by_age: BTreeMap<u64, Kept>,
    /// Ages by hold, and by the other id of the hold.
    ages: HashMap<HoldId, u64>,
    next: u64,
}

impl PartialEq for Tombstones {
    fn eq(&self, other: &Self) -> bool {
        self.by_age.values().eq(other.by_age.values())
    }
}

impl Eq for Tombstones {}

impl Tombstones {
    /// The most that a node keeps.
    pub const MAX: usize = 1_024;

    /// The one that keeps this hold away.
    #[must_use]
    pub fn get(&self, hold: HoldId) -> Option<&Tombstone> {
        self.kept(hold).map(|kept| &kept.stone)
    }

    pub(crate) fn kept(&self, hold: HoldId) -> Option<&Kept> {
        self.ages.get(&hold).and_then(|age| self.by_age.get(age))
    }

    /// All of them, the oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Kept> {
        self.by_age.values()
    }

    /// All of them as they are told, the oldest first.
    pub fn stones(&self) -> impl Iterator<Item = &Tombstone> {
        self.iter().map(|kept| &kept.stone)
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_age.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }

    /// Those that the controller of this incarnation is not known to know.
    #[must_use]
    pub fn unconfirmed(&self, incarnation: u64) -> usize {
        self.iter()
            .filter(|kept| kept.known_in < incarnation.max(1))
            .count()
    }

    /// Whether one more can be kept.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.len() < Self::MAX || self.weakest().is_some()
    }

    /// Remembers a release of this node. False when there is no room.
    pub(crate) fn add_local(&mut self, hold: HoldId, by: Releaser, node: NodeId) -> bool {
        let Releaser { person, role, at_ms } = by;
        self.add(Kept {
            stone: Tombstone {
                hold,
                lifted: Lifted::Here { person, role, at_ms },
            },
            known_in: 0,
            also: Some(canonical::told_id(hold, node)),
        })
    }

    /// Remembers a release. The first of a hold stays, but that the controller's word takes the place of one given
    /// here. False when there is no room.
    pub(crate) fn add(&mut self, kept: Kept) -> bool {
        let hold = kept.stone.hold;
        if let Some(known) = self.ages.get(&hold).and_then(|age| self.by_age.get_mut(age)) {
            if known.stone.hold == hold && kept.is_signed() && !known.is_signed() {
                known.stone = kept.stone;
                known.known_in = known.known_in.max(kept.known_in);
            }
            return true;
        }
        if self.len() >= Self::MAX {
            let Some(age) = self.weakest() else { return false };
            self.forget(age);
        }
        let age = self.next;
        self.next += 1;
        self.ages.insert(hold, age);
        if let Some(also) = kept.also {
            self.ages.entry(also).or_insert(age);
        }
        self.by_age.insert(age, kept);
        true
    }

    /// The controller of this incarnation has taken it in.
    pub(crate) fn confirm(&mut self, hold: HoldId, incarnation: u64) {
        let known = self.ages.get(&hold).and_then(|age| self.by_age.get_mut(age));
        if let Some(kept) = known.filter(|kept| kept.stone.hold == hold) {
            kept.known_in = kept.known_in.max(incarnation);
        }
    }

    /// The age of the one to give up first.
    fn weakest(&self) -> Option<u64> {
        let signed = self.by_age.iter().find(|(_, kept)| kept.is_signed());
        let confirmed = || self.by_age.iter().find(|(_, kept)| kept.known_in > 0);
        signed.or_else(confirmed).map(|(age, _)| *age)
    }

    fn forget(&mut self, age: u64) {
        if let Some(kept) = self.by_age.remove(&age) {
            for id in [Some(kept.stone.hold), kept.also].into_iter().flatten() {
                if self.ages.get(&id) == Some(&age) {
                    self.ages.remove(&id);
                }
            }
        }
    }
}
