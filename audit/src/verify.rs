//! Checking a chain. What can be told from the entries alone: that none was edited, taken out or moved. What
//! cannot: a tail cut off, or everything from some entry on made anew; for that somebody else must have kept a
//! head. The verifier keeps no entries, so that a chain of any length costs the same memory.

use crate::entry::Entry;
use crate::hash::{Hash, Head};

/// The first thing that is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Entries are not there.
    #[error("audit entry {missing} is missing: entry {found} stands in its place")]
    Gap {
        /// The first that is not there.
        missing: u64,
        /// What comes instead.
        found: u64,
    },
    /// An entry is there, but not in its place.
    #[error("audit entry {moved} is out of order: entry {found} stands before it")]
    Reordered {
        /// Which.
        moved: u64,
        /// What stands in its place.
        found: u64,
    },
    /// An entry comes again, or belongs before the start.
    #[error("audit entry {found} stands where entry {expected} belongs: repeated or out of order")]
    Repeated {
        /// What belongs here.
        expected: u64,
        /// What comes.
        found: u64,
    },
    /// The content does not match the entry's own hash.
    #[error("audit entry {sequence} was edited: its hash is {recorded}, its content makes {computed}")]
    Edited {
        /// Which.
        sequence: u64,
        /// What it says.
        recorded: Hash,
        /// What it should say.
        computed: Hash,
    },
    /// Matches its own hash, but names another one before.
    #[error(
        "audit entry {sequence} does not follow the entry before: it names {recorded}, that one is {expected}"
    )]
    Previous {
        /// Which.
        sequence: u64,
        /// What it names.
        recorded: Hash,
        /// The hash of the entry before it.
        expected: Hash,
    },
    /// In itself right, and not what a witness saw.
    #[error(
        "audit entry {sequence} is not the one that was witnessed: it is {found}, the witness saw {witnessed}"
    )]
    Rewritten {
        /// Which.
        sequence: u64,
        /// What stands in the chain.
        found: Hash,
        /// What the witness kept.
        witnessed: Hash,
    },
    /// A witness saw more than there is.
    #[error("the audit was cut: it ends with entry {last}, entry {witnessed} was witnessed")]
    Cut {
        /// The last entry there is.
        last: u64,
        /// The highest that a witness saw.
        witnessed: u64,
    },
    /// Entry 2^64 - 1 cannot be followed.
    #[error("the audit is full at entry {last}")]
    Full {
        /// The last entry there can be.
        last: u64,
    },
}

/// A chain that was found right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Entries checked.
    pub entries: u64,
    /// Where it ends. Keep it: it is the next witness.
    pub head: Head,
    /// Witnessed heads that were found in it.
    pub witnesses: usize,
    /// Witnessed heads from before its start, which say nothing about it.
    pub before_start: usize,
}

/// Checks one entry after the other; holds no entries.
#[derive(Debug, Clone)]
pub struct Verifier {
    head: Head,
    /// Sorted; those below `next_witness` are done.
    witnesses: Vec<Head>,
    next_witness: usize,
    before_start: usize,
    entries: u64,
    fault: Option<Fault>,
}

impl Verifier {
    /// Starts after `start` (`None`: at the very first entry) with what witnesses kept.
    #[must_use]
    pub fn new(start: Option<Head>, witnesses: &[Head]) -> Verifier {
        let head = start.unwrap_or(Head::GENESIS);
        let mut witnesses = witnesses.to_vec();
        witnesses.sort_unstable();
        let before_start = witnesses.partition_point(|witness| witness.sequence < head.sequence);
        let mut verifier = Verifier {
            head,
            witnesses,
            next_witness: before_start,
            before_start,
            entries: 0,
            fault: None,
        };
        verifier.fault = verifier.ask_witnesses();
        verifier
    }

    /// The next entry. After a fault only its place is looked at, to tell a gap from a changed order.
    pub fn push(&mut self, entry: &Entry) {
        match self.fault {
            None => self.fault = self.check(entry).err(),
            Some(Fault::Gap { missing, found }) if entry.sequence == missing => {
                self.fault = Some(Fault::Reordered {
                    moved: missing,
                    found,
                });
            }
            Some(_) => {}
        }
    }

    /// What is wrong so far.
    #[must_use]
    pub const fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// The end of the chain.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn finish(self) -> Result<Verified, Fault> {
        let Verifier {
            head,
            witnesses,
            next_witness,
            before_start,
            entries,
            fault,
        } = self;
        if let Some(fault) = fault {
            return Err(fault);
        }
        match witnesses.last() {
            Some(last) if next_witness < witnesses.len() => Err(Fault::Cut {
                last: head.sequence,
                witnessed: last.sequence,
            }),
            _ => Ok(Verified {
                entries,
                head,
                witnesses: witnesses.len() - before_start,
                before_start,
            }),
        }
    }

    fn check(&mut self, entry: &Entry) -> Result<(), Fault> {
        let expected = self.head.sequence.checked_add(1).ok_or(Fault::Full {
            last: self.head.sequence,
        })?;
        let found = entry.sequence;
        if found > expected {
            return Err(Fault::Gap {
                missing: expected,
                found,
            });
        }
        if found < expected {
            return Err(Fault::Repeated { expected, found });
        }
        // The entry's own hash first: an edited `previous` is an edit of this entry, not of the one before.
        let computed = entry.computed_hash();
        if computed != entry.hash {
            return Err(Fault::Edited {
                sequence: found,
                recorded: entry.hash,
                computed,
            });
        }
        if entry.previous != self.head.hash {
            return Err(Fault::Previous {
                sequence: found,
                recorded: entry.previous,
                expected: self.head.hash,
            });
        }
        self.head = entry.head();
        self.entries += 1;
        self.ask_witnesses().map_or(Ok(()), Err)
    }

    /// Compares the head with every witness of its sequence.
    fn ask_witnesses(&mut self) -> Option<Fault> {
        while let Some(witness) = self.witnesses.get(self.next_witness) {
            if witness.sequence != self.head.sequence {
                break;
            }
            if witness.hash != self.head.hash {
                return Some(Fault::Rewritten {
                    sequence: witness.sequence,
                    found: self.head.hash,
                    witnessed: witness.hash,
                });
            }
            self.next_witness += 1;
        }
        None
    }
}

/// Checks a whole chain: after `start` (`None`: from the very first entry), against what witnesses kept.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn verify<'a>(
    entries: impl IntoIterator<Item = &'a Entry>,
    start: Option<Head>,
    witnesses: &[Head],
) -> Result<Verified, Fault> {
    let mut verifier = Verifier::new(start, witnesses);
    for entry in entries {
        verifier.push(entry);
    }
    verifier.finish()
}
