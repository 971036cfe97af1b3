//! Exit codes, as scripts read them. Pure.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | dead everywhere (or frozen, released, rebooted: what was asked), proven |
//! | 2 | pending, offline, or proof outstanding on some node |
//! | 3 | partial or respawning on some node |
//! | 4 | failed: on some node, or the command itself |
//! | 5 | refused |
//! | 64 | usage: the command line or the bundle is wrong |
//!
//! Over an order's nodes the worst counts: 4, then 3, then 2, then 0. 5 and 64 stand alone: nothing was ordered.

use crate::view::order::Counts;

/// What the process ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// 0: what was asked is done and proven.
    Done,
    /// 2: some node has not answered, is away, or owes its proof.
    Pending,
    /// 3: processes remain, or something starts them again.
    Partial,
    /// 4: a node or the command failed.
    Failed,
    /// 5: not allowed.
    Refused,
    /// 64: the command line or the bundle is wrong.
    Usage,
}

impl Exit {
    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Pending => 2,
            Exit::Partial => 3,
            Exit::Failed => 4,
            Exit::Refused => 5,
            Exit::Usage => 64,
        }
    }
}

/// The exit code of an order: the worst over its nodes. Nodes that no outcome accounts for (a newer controller
/// may know outcomes that we do not) and nodes without final proof count as pending.
pub(crate) fn of_counts(counts: &Counts) -> Exit {
    if counts.failed > 0 {
        Exit::Failed
    } else if counts.partial > 0 || counts.respawning > 0 {
        Exit::Partial
    } else if counts.done() < u64::from(counts.nodes) || counts.proven < counts.nodes {
        Exit::Pending
    } else {
        Exit::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::order::Outcome;

    fn counts(outcomes: &[(Outcome, bool)]) -> Counts {
        let mut counts = Counts::default();
        for (outcome, proven) in outcomes {
            counts.add(*outcome, *proven);
        }
        counts
    }

    #[test]
    fn every_outcome_has_its_code() {
        use Outcome::*;
        for (outcome, proven, code) in [
            (Killed, true, 0),
            (AlreadyDead, true, 0),
            (Frozen, true, 0),
            (Released, true, 0),
            (Superseded, true, 0),
            (Rebooted, true, 0),
            (Accepted, true, 0),
            (Killed, false, 2),
            (AlreadyDead, false, 2),
            (Frozen, false, 2),
            (Released, false, 2),
            (Superseded, false, 2),
            (Rebooted, false, 2),
            (Accepted, false, 2),
            (Pending, false, 2),
            (Offline, false, 2),
            (Sent, false, 2),
            (Unknown, false, 2),
            (Unknown, true, 2),
            (Partial, false, 3),
            (Partial, true, 3),
            (Respawning, false, 3),
            (Respawning, true, 3),
            (Failed, false, 4),
            (Failed, true, 4),
        ] {
            assert_eq!(
                of_counts(&counts(&[(outcome, proven)])).code(),
                code,
                "{outcome:?} proven {proven}"
            );
        }
    }

    #[test]
    fn no_node_is_nothing_left_to_kill() {
        assert_eq!(of_counts(&Counts::default()), Exit::Done);
    }

    /// Every set of up to three nodes: the code is the worst of the nodes' own.
    #[test]
    fn the_worst_counts() {
        let each: Vec<(Outcome, bool)> = Outcome::ALL
            .iter()
            .flat_map(|outcome| [(*outcome, false), (*outcome, true)])
            .collect();
        let one = |node: (Outcome, bool)| of_counts(&counts(&[node]));
        for a in &each {
            for b in &each {
                for c in &each {
                    let worst = one(*a).max(one(*b)).max(one(*c));
                    assert_eq!(of_counts(&counts(&[*a, *b, *c])), worst, "{a:?} {b:?} {c:?}");
                }
            }
        }
    }

    #[test]
    fn nodes_that_nothing_accounts_for_are_pending() {
        let lost = Counts {
            nodes: 3,
            killed: 2,
            proven: 3,
            ..Counts::default()
        };
        assert_eq!(of_counts(&lost), Exit::Pending);
    }
}
