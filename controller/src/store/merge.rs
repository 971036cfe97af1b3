//! What an order has come to when one more answer arrives: pure, so that every store behaves alike.
//!
//! ```text
//!   nothing ──> answered ──> proven     a proof is final; an unproven answer gives way to the next one,
//!                                       except that "already dead" never hides the kill before it
//!   order: Open ──all answered──> Answered ──all proven──> Closed
//! ```

use proto::v1::{Outcome, OutcomeCounts};

use super::{OrderState, ResultRecord};

/// What a result says, its proof of it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The outcome.
    pub outcome: Outcome,
    /// The final proof is in.
    pub proven: bool,
}

impl From<&ResultRecord> for Standing {
    fn from(result: &ResultRecord) -> Self {
        Standing {
            outcome: result.outcome,
            proven: result.proven,
        }
    }
}

/// What to do with a result that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing: what stands is final or says more.
    Keep,
    /// Leave the answer that stands, mark it proven.
    Prove,
    /// Store the new one in its place.
    Replace,
}

/// What to do when `new` arrives and `old` stands.
///
/// A node that is handed an order again finds nothing left to kill and says so. Its first answer holds the
/// evidence, so only the proof is taken from the second.
#[must_use]
pub const fn merge(old: Option<Standing>, new: Standing) -> Change {
    match (old, new) {
        (None, _) => Change::Replace,
        (Some(Standing { proven: true, .. }), _) => Change::Keep,
        (
            Some(Standing {
                outcome: Outcome::Killed,
                ..
            }),
            Standing {
                outcome: Outcome::AlreadyDead,
                proven,
            },
        ) => {
            if proven {
                Change::Prove
            } else {
                Change::Keep
            }
        }
        (Some(_), _) => Change::Replace,
    }
}

/// What stands after a change.
#[must_use]
pub const fn after(old: Option<Standing>, new: Standing) -> Standing {
    match (merge(old, new), old) {
        (Change::Keep, Some(old)) => old,
        (Change::Prove, Some(old)) => Standing {
            outcome: old.outcome,
            proven: true,
        },
        (Change::Keep | Change::Prove, None) | (Change::Replace, _) => new,
    }
}

/// The state that follows from the counts.
#[must_use]
pub fn state(counts: &OutcomeCounts) -> OrderState {
    if counts.proven >= counts.nodes {
        OrderState::Closed
    } else if answered(counts) >= counts.nodes {
        OrderState::Answered
    } else {
        OrderState::Open
    }
}

/// Nodes that have answered.
#[must_use]
pub fn answered(counts: &OutcomeCounts) -> u32 {
    let OutcomeCounts {
        nodes: _,
        pending: _,
        offline: _,
        sent: _,
        killed,
        already_dead,
        partial,
        respawning,
        failed,
        frozen,
        released,
        superseded,
        accepted,
        rebooted,
        proven: _,
    } = counts;
    killed
        + already_dead
        + partial
        + respawning
        + failed
        + frozen
        + released
        + superseded
        + accepted
        + rebooted
}

/// The number that counts this outcome; `None` for those that no node answers with.
fn counter(counts: &mut OutcomeCounts, outcome: Outcome) -> Option<&mut u32> {
    Some(match outcome {
        Outcome::Unspecified | Outcome::Pending | Outcome::Offline | Outcome::Sent => return None,
        Outcome::Killed => &mut counts.killed,
        Outcome::AlreadyDead => &mut counts.already_dead,
        Outcome::Partial => &mut counts.partial,
        Outcome::Respawning => &mut counts.respawning,
        Outcome::Failed => &mut counts.failed,
        Outcome::Frozen => &mut counts.frozen,
        Outcome::Released => &mut counts.released,
        Outcome::Superseded => &mut counts.superseded,
        Outcome::Accepted => &mut counts.accepted,
        Outcome::Rebooted => &mut counts.rebooted,
    })
}

/// Whether a node can answer with it, so that it can be stored.
#[must_use]
pub fn is_answer(outcome: Outcome) -> bool {
    counter(&mut OutcomeCounts::default(), outcome).is_some()
}

/// Moves one node's count from `old` to `new`.
pub fn count(counts: &mut OutcomeCounts, old: Option<Standing>, new: Standing) {
    if let Some(old) = old {
        if let Some(n) = counter(counts, old.outcome) {
            *n = n.saturating_sub(1);
        }
        counts.proven = counts.proven.saturating_sub(u32::from(old.proven));
    }
    if let Some(n) = counter(counts, new.outcome) {
        *n += 1;
    }
    counts.proven += u32::from(new.proven);
}

/// The counts as a list, by outcome number: how a store keeps them.
#[must_use]
pub fn to_list(counts: &OutcomeCounts) -> Vec<u32> {
    let mut counts = *counts;
    (0..=LAST)
        .map(|number| {
            outcome(number)
                .and_then(|it| counter(&mut counts, it).copied())
                .unwrap_or(0)
        })
        .collect()
}

/// The counts from their list. Numbers of outcomes that this program does not know are passed over.
#[must_use]
pub fn from_list(list: &[u32], nodes: u32, proven: u32) -> OutcomeCounts {
    let mut counts = OutcomeCounts {
        nodes,
        proven,
        ..OutcomeCounts::default()
    };
    for (number, n) in (0..).zip(list) {
        if let Some(at) = outcome(number).and_then(|it| counter(&mut counts, it)) {
            *at = *n;
        }
    }
    counts
}

/// The highest outcome number.
const LAST: i32 = Outcome::Rebooted as i32;

fn outcome(number: i32) -> Option<Outcome> {
    Outcome::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWERS: [Outcome; 10] = [
        Outcome::Killed,
        Outcome::AlreadyDead,
        Outcome::Partial,
        Outcome::Respawning,
        Outcome::Failed,
        Outcome::Frozen,
        Outcome::Released,
        Outcome::Superseded,
        Outcome::Accepted,
        Outcome::Rebooted,
    ];

    fn standings() -> impl Iterator<Item = Standing> {
        ANSWERS
            .into_iter()
            .flat_map(|outcome| [false, true].map(|proven| Standing { outcome, proven }))
    }

    #[test]
    fn nothing_displaces_a_proof() {
        for old in standings().filter(|old| old.proven) {
            for new in standings() {
                assert_eq!(after(Some(old), new), old, "{old:?} gave way to {new:?}");
            }
        }
    }

    #[test]
    fn a_kill_keeps_its_evidence_when_the_order_comes_again() {
        let killed = Standing {
            outcome: Outcome::Killed,
            proven: false,
        };
        let dead = |proven| Standing {
            outcome: Outcome::AlreadyDead,
            proven,
        };
        assert_eq!(merge(Some(killed), dead(false)), Change::Keep);
        assert_eq!(merge(Some(killed), dead(true)), Change::Prove);
        assert_eq!(
            after(Some(killed), dead(true)),
            Standing {
                proven: true,
                ..killed
            }
        );
    }

    #[test]
    fn only_what_a_node_answers_is_stored() {
        for number in 0..=LAST {
            let outcome = Outcome::try_from(number).expect("the numbers have no gap");
            assert_eq!(is_answer(outcome), ANSWERS.contains(&outcome), "{outcome:?}");
        }
        assert!(
            Outcome::try_from(LAST + 1).is_err(),
            "a new outcome: decide whether a node answers with it"
        );
    }

    #[test]
    fn counts_survive_their_list() {
        let mut counts = OutcomeCounts {
            nodes: 200,
            ..OutcomeCounts::default()
        };
        for (n, standing) in standings().enumerate() {
            for _ in 0..=n {
                count(&mut counts, None, standing);
            }
        }
        assert_eq!(from_list(&to_list(&counts), counts.nodes, counts.proven), counts);
    }

    #[test]
    fn the_state_follows_the_counts() {
        let mut counts = OutcomeCounts {
            nodes: 2,
            ..OutcomeCounts::default()
        };
        let failed = Standing {
            outcome: Outcome::Failed,
            proven: false,
        };
        let killed = Standing {
            outcome: Outcome::Killed,
            proven: true,
        };
        assert_eq!(state(&counts), OrderState::Open);
        count(&mut counts, None, killed);
        assert_eq!(state(&counts), OrderState::Open);
        count(&mut counts, None, failed);
        assert_eq!(state(&counts), OrderState::Answered);
        count(&mut counts, Some(failed), killed);
        assert_eq!(state(&counts), OrderState::Closed);
        assert_eq!(
            state(&OutcomeCounts::default()),
            OrderState::Closed,
            "nobody to reach"
        );
    }
}
