//! An entry, before and after it is sealed.

use std::fmt;
use std::str::FromStr;

use proto::{OrderId, PersonName, Role, Version};

use crate::encoding;
use crate::hash::{Hash, Head};

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The table said yes.
    Allowed,
    /// The table, or a rule above it, said no.
    Refused,
    /// It was allowed and could not be done.
    Failed,
    /// It was done; also what the system did by itself.
    Done,
}

/// A word that is no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("outcome {0:?} is unknown: expected allowed, refused, failed or done")]
pub struct UnknownOutcome(
    /// What was given, cut to 80 characters.
    pub String,
);

impl Outcome {
    /// Every outcome.
    pub const ALL: [Outcome; 4] = [Outcome::Allowed, Outcome::Refused, Outcome::Failed, Outcome::Done];

    /// The word in files, messages and under the hash.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Allowed => "allowed",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
            Outcome::Done => "done",
        }
    }
}

impl FromStr for Outcome {
    type Err = UnknownOutcome;
    fn from_str(word: &str) -> Result<Outcome, UnknownOutcome> {
        Outcome::ALL
            .into_iter()
            .find(|outcome| outcome.as_str() == word)
            .ok_or_else(|| UnknownOutcome(word.chars().take(80).collect()))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an entry says, before it has a place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// When it was decided, milliseconds since 1970.
    pub at_ms: i64,
    /// The controller's version then.
    pub version: Version,
    /// Who; `None`: the system by itself.
    pub person: Option<PersonName>,
    /// The role that entitled them; `None`: no role, or none needed.
    pub role: Option<Role>,
    /// The action's stable name.
    pub action: String,
    /// What it was aimed at.
    pub target: String,
    /// Why, in the person's words.
    pub reason: String,
    /// A reference to what was seen.
    pub evidence: String,
    /// What came of it.
    pub outcome: Outcome,
    /// The rule that decided, or the summary of what came of it.
    pub detail: String,
    /// The order that came of it.
    pub order: Option<OrderId>,
}

/// A sealed entry. Anything may have happened to it since: [`crate::verify`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// 1, 2, 3, … without a gap.
    pub sequence: u64,
    /// What it says.
    pub said: Draft,
    /// Hash of the entry before; [`Hash::ZERO`] in the first.
    pub previous: Hash,
    /// Hash of this one.
    pub hash: Hash,
}

impl Entry {
    /// Longest action, target, reason and evidence, characters.
    pub const MAX_TEXT: usize = 1_000;
    /// Longest detail, characters.
    pub const MAX_DETAIL: usize = 4_000;

    /// Where the chain stands after this entry.
    #[must_use]
    pub const fn head(&self) -> Head {
        Head {
            sequence: self.sequence,
            hash: self.hash,
        }
    }

    /// The hash that this entry should have.
    #[must_use]
    pub fn computed_hash(&self) -> Hash {
        encoding::hash(self.sequence, &self.previous, &self.said)
    }
}

/// The next entry after `head`. Never fails: a decision must not be lost over its length, so texts beyond
/// [`Entry::MAX_TEXT`] and [`Entry::MAX_DETAIL`] are cut and end in `…`, which keeps every line of a file below
/// [`crate::lines::MAX_LINE_BYTES`].
#[must_use]
pub fn seal(head: &Head, mut draft: Draft) -> Entry {
    for text in [
        &mut draft.action,
        &mut draft.target,
        &mut draft.reason,
        &mut draft.evidence,
    ] {
        cut(text, Entry::MAX_TEXT);
    }
    cut(&mut draft.detail, Entry::MAX_DETAIL);
    // One entry a nanosecond for 584 years: saturating only keeps the arithmetic total, and a chain that got
    // there does not verify.
    let sequence = head.sequence.saturating_add(1);
    let hash = encoding::hash(sequence, &head.hash, &draft);
    Entry {
        sequence,
        said: draft,
        previous: head.hash,
        hash,
    }
}

fn cut(text: &mut String, max: usize) {
    if text.chars().nth(max).is_some() {
        let keep = text.char_indices().nth(max - 1).map_or(0, |(at, _)| at);
        text.truncate(keep);
        text.push('…');
    }
}
