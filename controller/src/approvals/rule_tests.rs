use proptest::prelude::*;
use proto::Role;

use super::*;
use crate::approvals::{Act, OPEN_FOR_MS};

const AT: i64 = 1_795_320_000_000;

fn name(text: &str) -> PersonName {
    text.parse().expect("valid")
}

fn terms() -> Terms {
    Terms {
        id: proto::ProposalId::new(),
        incarnation: 2,
        person: name("alice"),
        role: Role::Support,
        act: Act::StopEverySlice,
        reason: "worm".into(),
        evidence: String::new(),
        proposed_at_ms: AT,
        expires_at_ms: AT + OPEN_FOR_MS,
    }
}

fn tie(by: &str, to: &str, at_ms: i64) -> Tie {
    Tie {
        by: name(by),
        to: name(to),
        what: "promoted".into(),
        at_ms,
    }
}

fn asked(change: impl FnOnce(&mut Case<'_>)) -> Result<(), String> {
    asked_by("otto", &[], change)
}

fn asked_by(approver: &str, ties: &[Tie], change: impl FnOnce(&mut Case<'_>)) -> Result<(), String> {
    let (terms, approver) = (terms(), name(approver));
    let mut case = Case {
        terms: &terms,
        life: Life::Open,
        decided: "",
        digest: Some(terms.digest()),
        seen: terms.digest(),
        proposer_since_ms: Some(0),
        approver: &approver,
        approver_since_ms: Some(AT),
        ties,
        now_ms: AT + 1,
    };
    change(&mut case);
    may_approve(&case).map_err(|refusal| refusal.to_string())
}

#[test]
fn another_person_of_support_may_agree() {
    assert_eq!(asked(|_| ()), Ok(()));
}

#[test]
fn each_rule_says_its_own() {
    let refused = |change: fn(&mut Case<'_>), words: &str| {
        let text = asked(change).expect_err(words);
        assert!(text.contains(words), "{text}");
    };
    refused(|c| c.life = Life::Expired, "has expired after 5 minutes");
    refused(|c| c.life = Life::Void, "restored");
    refused(|c| c.life = Life::Withdrawn, "was withdrawn");
    refused(
        |c| (c.life, c.decided) = (Life::Approved, "by carl"),
        "approved already (by carl)",
    );
    refused(|c| c.life = Life::Done, "carried out already");
    refused(|c| c.life = Life::Failed, "came to nothing");
    refused(|c| c.digest = None, "changed in the database");
    refused(
        |c| c.seen = Digest::try_from(&[0; 32][..]).expect("32 bytes"),
        "the digest given",
    );
    refused(|c| c.proposer_since_ms = None, "alice is not support now");
    refused(|c| c.proposer_since_ms = Some(AT + 1), "alice was not support");
    refused(|c| c.approver_since_ms = None, "otto is not support now");
    refused(|c| c.approver_since_ms = Some(AT + 1), "otto was not support");
    let text = asked_by("alice", &[], |_| ()).expect_err("the same person");
    assert!(text.contains("another person must agree"), "{text}");
}

#[test]
fn ties_hold_for_seven_days_either_way() {
    let asked = |tie: Tie| asked_by("otto", &[tie], |_| ());
    let now = AT + 1;
    for (by, to) in [("alice", "otto"), ("otto", "alice")] {
        assert!(asked(tie(by, to, now - TIED_FOR_MS + 1)).is_err());
        assert!(
            asked(tie(by, to, now + 5_000)).is_err(),
            "a clock that was set back"
        );
        assert!(asked(tie(by, to, now - TIED_FOR_MS)).is_ok());
    }
    for (by, to) in [("carl", "otto"), ("alice", "carl"), ("otto", "otto")] {
        assert!(asked(tie(by, to, now)).is_ok(), "{by} and {to}");
    }
}

#[test]
fn what_it_has_become_follows_from_time_and_incarnation() {
    let terms = terms();
    let life = |stored, incarnation, now| life(stored, &terms, incarnation, now);
    assert_eq!(life(Life::Open, 2, AT), Life::Open);
    assert_eq!(life(Life::Open, 2, AT + OPEN_FOR_MS - 1), Life::Open);
    assert_eq!(life(Life::Open, 2, AT + OPEN_FOR_MS), Life::Expired);
    assert_eq!(
        life(Life::Open, 2, AT - 1),
        Life::Expired,
        "a clock that was set back"
    );
    assert_eq!(life(Life::Open, 3, AT), Life::Void);
    assert_eq!(life(Life::Approved, 3, AT), Life::Void);
    assert_eq!(life(Life::Approved, 2, AT + 10 * OPEN_FOR_MS), Life::Approved);
    for over in [Life::Withdrawn, Life::Done, Life::Failed] {
        assert_eq!(life(over, 3, AT + 10 * OPEN_FOR_MS), over);
    }
    assert!(may_carry_out(AT, AT + CARRY_OUT_FOR_MS - 1) && !may_carry_out(AT, AT + CARRY_OUT_FOR_MS));
}

proptest! {
    /// Against the rule read aloud: only an open proposal, only with its digest, only another person, both support
    /// from before it was made, no tie of less than seven days between them.
    #[test]
    fn nobody_agrees_against_the_rule(
        life in prop::sample::select(vec![Life::Open, Life::Open, Life::Open, Life::Expired, Life::Withdrawn, Life::Approved, Life::Done, Life::Failed, Life::Void]),
        same_digest in prop::bool::weighted(0.8),
        signed in prop::bool::weighted(0.9),
        approver in prop::sample::select(vec!["alice", "otto", "otto", "carl"]),
        since in prop::collection::vec(prop::option::weighted(0.9, -2..2_i64), 2),
        ties in prop::collection::vec((0..3_usize, 0..3_usize, -2..2_i64), 0..4),
    ) {
        const NAMES: [&str; 3] = ["alice", "otto", "carl"];
        let (terms, approver) = (terms(), name(approver));
        let now_ms = AT + 10;
        let ties: Vec<Tie> = ties.into_iter().map(|(by, to, days)| tie(NAMES[by], NAMES[to], now_ms - TIED_FOR_MS + days)).collect();
        let case = Case {
            terms: &terms,
            life,
            decided: "",
            digest: signed.then(|| terms.digest()),
            seen: if same_digest { terms.digest() } else { Digest::try_from(&[7; 32][..]).expect("32 bytes") },
            proposer_since_ms: since[0].map(|at| AT + at),
            approver: &approver,
            approver_since_ms: since[1].map(|at| AT + at),
            ties: &ties,
            now_ms,
        };
        let pair = |tie: &Tie| [&tie.by, &tie.to].contains(&&terms.person) && [&tie.by, &tie.to].contains(&&approver);
        let expected = life == Life::Open && same_digest && signed && approver != terms.person
            && since.iter().all(|at| at.is_some_and(|at| at <= 0))
            && !ties.iter().any(|tie| pair(tie) && now_ms - tie.at_ms < TIED_FOR_MS);
        prop_assert_eq!(may_approve(&case).is_ok(), expected);
    }
}
