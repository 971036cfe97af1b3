//! Whether a second person may agree. Facts in, a verdict out.

use proto::PersonName;

use super::{Digest, Terms};

/// How long who invited, promoted or re-keyed somebody cannot agree with them: 7 days.
pub const TIED_FOR_MS: i64 = 7 * 24 * 3_600 * 1_000;
/// How long after the approval a controller that was away still carries it out. Later the world has moved on, and
/// two people look again.
pub const CARRY_OUT_FOR_MS: i64 = 3_600 * 1_000;

/// One person made another what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tie {
    /// Who did it.
    pub by: PersonName,
    /// To whom.
    pub to: PersonName,
    /// What, as a past participle: invited, promoted, re-keyed.
    pub what: String,
    /// Milliseconds since 1970.
    pub at_ms: i64,
}

/// What has become of a proposal, as it stands in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Life {
    /// Waits for a second person.
    Open,
    /// Waited too long. Not stored: it follows from the time.
    Expired,
    /// From before a restore. Not stored: it follows from the incarnation.
    Void,
    /// Taken back.
    Withdrawn,
    /// A second person agreed.
    Approved,
    /// Carried out.
    Done,
    /// Agreed to, and came to nothing.
    Failed,
}

/// What has become of it now.
#[must_use]
pub fn life(stored: Life, terms: &Terms, incarnation: u64, now_ms: i64) -> Life {
    match stored {
        Life::Open | Life::Approved if terms.incarnation != incarnation => Life::Void,
        // A clock that was set back gives no more time than there ever was.
        Life::Open if !(terms.proposed_at_ms..terms.expires_at_ms).contains(&now_ms) => Life::Expired,
        other => other,
    }
}

/// Everything that counts.
#[derive(Debug, Clone)]
pub struct Case<'a> {
    /// What is proposed.
    pub terms: &'a Terms,
    /// What has become of it, by [`life`].
    pub life: Life,
    /// Whom a decided one is owed to: who agreed, or what was done, for the text.
    pub decided: &'a str,
    /// Of the terms as they are stored now; `None`: the signature over them is not ours.
    pub digest: Option<Digest>,
    /// As the approver saw it.
    pub seen: Digest,
    /// Since when the proposer is support; `None`: is not.
    pub proposer_since_ms: Option<i64>,
    /// Who would agree.
    pub approver: &'a PersonName,
    /// Since when they are support; `None`: are not.
    pub approver_since_ms: Option<i64>,
    /// Between anybody.
    pub ties: &'a [Tie],
    /// Milliseconds since 1970.
    pub now_ms: i64,
}

/// Why somebody cannot agree. The text is the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing more can become of it.
    #[error("proposal {id} {what}{decided}: propose it again")]
    Over {
        /// Which.
        id: proto::ProposalId,
        /// What became of it.
        what: &'static str,
        /// Who did it, and when.
        decided: String,
    },
    /// The store holds something that the controller never signed.
    #[error("proposal {0} was changed in the database since it was made: nobody may agree to it")]
    Changed(proto::ProposalId),
    /// Another one than they saw.
    #[error(
        "the digest given is {seen}, that of proposal {id} is {is}: agree only to what the proposer showed you"
    )]
    Digest {
        /// Which.
        id: proto::ProposalId,
        /// What was given.
        seen: Digest,
        /// What it should be.
        is: Digest,
    },
    /// Not two people.
    #[error("{0} proposed it: another person must agree, another certificate is not enough")]
    SamePerson(PersonName),
    /// No longer entitled, or not then.
    #[error("{who} {what}: both people must be support when it is proposed and when it is approved")]
    NotSupport {
        /// Who.
        who: PersonName,
        /// Is not, or was not.
        what: &'static str,
    },
    /// Depends on the other.
    #[error(
        "{by} {what} {to} less than 7 days ago: the two may not agree with each other; ask a third person"
    )]
    Tied {
        /// Who did it.
        by: PersonName,
        /// To whom.
        to: PersonName,
        /// What.
        what: String,
    },
}

/// Whether the approver of this case may agree.
///
/// # Errors
/// The rule that forbids it.
pub fn may_approve(case: &Case<'_>) -> Result<(), Refusal> {
    let Case {
        terms,
        life,
        decided,
        digest,
        seen,
        proposer_since_ms,
        approver,
        approver_since_ms,
        ties,
        now_ms,
    } = case;
    let over = match life {
        Life::Open => None,
        Life::Expired => Some("has expired after 5 minutes"),
        Life::Void => Some("was made before the database was restored and is void"),
        Life::Withdrawn => Some("was withdrawn"),
        Life::Approved => Some("was approved already"),
        Life::Done => Some("was approved and carried out already"),
        Life::Failed => Some("was approved already and came to nothing"),
    };
    if let Some(what) = over {
        let decided = if decided.is_empty() {
            String::new()
        } else {
            format!(" ({decided})")
        };
        return Err(Refusal::Over {
            id: terms.id,
            what,
            decided,
        });
    }
    let Some(digest) = digest else {
        return Err(Refusal::Changed(terms.id));
    };
    if digest != seen {
        return Err(Refusal::Digest {
            id: terms.id,
            seen: *seen,
            is: *digest,
        });
    }
    if **approver == terms.person {
        return Err(Refusal::SamePerson(terms.person.clone()));
    }
    for (who, since) in [(&terms.person, proposer_since_ms), (*approver, approver_since_ms)] {
        let what = match since {
            None => "is not support now",
            Some(since) if *since > terms.proposed_at_ms => "was not support when it was proposed",
            Some(_) => continue,
        };
        return Err(Refusal::NotSupport {
            who: who.clone(),
            what,
        });
    }
    let both = |tie: &&Tie| {
        (tie.by == terms.person && tie.to == **approver) || (tie.by == **approver && tie.to == terms.person)
    };
    // One that lies in the future is as fresh as can be: a clock was set back.
    let fresh = |tie: &&Tie| tie.at_ms > now_ms.saturating_sub(TIED_FOR_MS);
    match ties.iter().filter(both).find(fresh) {
        Some(Tie {
            by,
            to,
            what,
            at_ms: _,
        }) => Err(Refusal::Tied {
            by: by.clone(),
            to: to.clone(),
            what: what.clone(),
        }),
        None => Ok(()),
    }
}

/// Whether what was approved then may still be carried out.
#[must_use]
pub const fn may_carry_out(approved_at_ms: i64, now_ms: i64) -> bool {
    now_ms.saturating_sub(approved_at_ms) < CARRY_OUT_FOR_MS
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
