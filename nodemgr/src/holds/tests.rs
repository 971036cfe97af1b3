//! The set against a naive oracle: a plain list of everything that was ever said.

use proptest::prelude::*;
use proto::{Role, Scope};

use super::*;

fn slice(n: u8) -> SliceName {
    format!("site_s{n}").parse().expect("valid")
}

fn id(n: u8) -> HoldId {
    HoldId::from_uuid(uuid::Uuid::from_u128(u128::from(n)))
}

/// A hold whose slice follows from its id, as it does in life: an id never moves to another slice.
fn hold(n: u8, kind: HoldKind) -> Hold {
    Hold {
        id: id(n),
        slice: (!n.is_multiple_of(5)).then(|| slice(n % 4)),
        scope: Scope::Fleet,
        kind,
        holder: "alice".parse().expect("valid"),
        role: Role::Support,
        reason: format!("reason {n}"),
        evidence: String::new(),
        set_at_ms: 0,
        version: Version {
            incarnation: 1,
            epoch: u64::from(n),
        },
    }
}

fn signature(n: u8) -> Signature {
    [n; proto::canonical::SIGNATURE_BYTES]
}

fn decision(n: u8) -> Version {
    Version {
        incarnation: 1,
        epoch: 100 + u64::from(n),
    }
}

fn by_dan() -> Releaser {
    Releaser {
        person: "dan".parse().expect("valid"),
        role: Role::Developer,
        at_ms: 7,
    }
}

fn stone(n: u8) -> Tombstone {
    Tombstone {
        hold: id(n),
        lifted: Lifted::Signed {
            version: decision(n),
            signature: signature(n),
        },
    }
}

fn here() -> NodeId {
    NodeId::from_uuid(uuid::Uuid::from_u128(77))
}

#[derive(Debug, Clone)]
enum Step {
    Impose(u8, HoldKind, bool),
    Release(u8),
    ReleaseSigned(u8),
    ReleaseLocal(u8),
    Sync {
        holds: Vec<(u8, HoldKind, bool)>,
        released: Vec<u8>,
        stones: Vec<u8>,
        recorded: Vec<u8>,
    },
    /// To the disk and back.
    Restart,
}

fn kind() -> impl Strategy<Value = HoldKind> {
    prop_oneof![Just(HoldKind::Freeze), Just(HoldKind::Suspend)]
}

fn step() -> impl Strategy<Value = Step> {
    let ids = || prop::collection::vec(0..12u8, 0..6);
    prop_oneof![
        3 => (0..12u8, kind(), any::<bool>()).prop_map(|(n, k, s)| Step::Impose(n, k, s)),
        1 => (0..12u8).prop_map(Step::Release),
        1 => (0..12u8).prop_map(Step::ReleaseSigned),
        1 => (0..12u8).prop_map(Step::ReleaseLocal),
        2 => (prop::collection::vec((0..12u8, kind(), any::<bool>()), 0..6), ids(), ids(), ids()).prop_map(
            |(holds, released, stones, recorded)| Step::Sync { holds, released, stones, recorded }
        ),
        1 => Just(Step::Restart),
    ]
}

fn signed(n: u8, kind: HoldKind, with: bool) -> Signed {
    Signed {
        hold: hold(n, kind),
        signature: with.then(|| signature(n)),
    }
}

#[derive(Debug, Clone, Copy)]
enum Word {
    Imposed(HoldKind),
    Released,
    Buried { here: bool },
}

/// The oracle: every statement in order, nothing folded; a hold's state is found by reading them all again.
#[derive(Default)]
struct Naive(Vec<(u8, Word)>);

impl Naive {
    fn words(&self, n: u8) -> impl Iterator<Item = Word> {
        self.0.iter().filter(move |(m, _)| *m == n).map(|(_, word)| *word)
    }

    fn buried(&self, n: u8) -> bool {
        self.words(n).any(|word| matches!(word, Word::Buried { .. }))
    }

    /// Whoever buried it first is who is remembered, but that the controller's word takes a node's place.
    fn buried_here(&self, n: u8) -> bool {
        self.buried(n)
            && self
                .words(n)
                .all(|word| !matches!(word, Word::Buried { here: false }))
    }

    fn standing(&self, n: u8) -> Option<HoldKind> {
        let mut now: Option<HoldKind> = None;
        for word in self.words(n) {
            match word {
                Word::Imposed(kind) => now = Some(now.map_or(kind, |was| kind.max(was))),
                Word::Released => now = None,
                Word::Buried { .. } => return None,
            }
        }
        now
    }

    fn verdict(&self, s: u8) -> Verdict {
        let covers = |n: &u8| n.is_multiple_of(5) || n % 4 == s;
        match (0..12u8).filter(covers).filter_map(|n| self.standing(n)).max() {
            None => Verdict::Run,
            Some(HoldKind::Freeze) => Verdict::Frozen,
            Some(HoldKind::Suspend) => Verdict::Dead,
        }
    }
}

proptest! {
    #[test]
    fn the_set_agrees_with_reading_everything_again(steps in prop::collection::vec(step(), 0..40)) {
        let (mut state, mut naive) = (State::default(), Naive::default());
        for step in steps {
            let set = &mut state.holds;
            match step {
                Step::Impose(n, k, with) => {
                    let (before, buried) = (naive.standing(n), naive.buried(n));
                    naive.0.push((n, Word::Imposed(k)));
                    match set.impose(signed(n, k, with)) {
                        Err(HoldError::Released { id: which, .. }) => prop_assert!(buried && which == id(n)),
                        other => {
                            prop_assert!(!buried);
                            prop_assert_eq!(other, Ok(naive.standing(n) != before));
                        }
                    }
                }
                Step::Release(n) => {
                    let stood = naive.standing(n).is_some();
                    naive.0.push((n, Word::Released));
                    prop_assert_eq!(set.release(id(n)).is_some(), stood);
                }
                Step::ReleaseSigned(n) => {
                    let stood = naive.standing(n).is_some();
                    naive.0.push((n, Word::Buried { here: false }));
                    let (lifted, kept) = set.release_signed(id(n), decision(n), signature(n));
                    prop_assert_eq!((lifted.is_some(), kept), (stood, true));
                }
                Step::ReleaseLocal(n) => {
                    let stood = naive.standing(n).is_some();
                    if stood {
                        naive.0.push((n, Word::Buried { here: true }));
                    }
                    let lifted = set.release_local(id(n), by_dan(), here());
                    prop_assert_eq!(lifted.map(|lifted| lifted.is_some()), Ok(stood));
                }
                Step::Sync { holds, released, stones, recorded } => {
                    let stands = |n: &u8| holds.iter().any(|(m, ..)| m == n);
                    naive.0.extend(released.iter().filter(|n| !stands(n)).map(|n| (*n, Word::Released)));
                    naive.0.extend(
                        stones.iter().filter(|n| !stands(n)).map(|n| (*n, Word::Buried { here: false })),
                    );
                    naive.0.extend(holds.iter().map(|(n, k, _)| (*n, Word::Imposed(*k))));
                    let change = set.sync(Sync {
                        holds: holds.iter().map(|(n, k, with)| signed(*n, *k, *with)).collect(),
                        released: released.iter().map(|n| id(*n)).collect(),
                        tombstones: stones.iter().map(|n| stone(*n)).collect(),
                        recorded: recorded.iter().map(|n| id(*n)).collect(),
                        incarnation: 1,
                    });
                    prop_assert!(change.refused.is_empty());
                    for which in change.buried {
                        prop_assert!((0..12).any(|n| id(n) == which && naive.buried(n)));
                    }
                }
                Step::Restart => state = State::decode(&state.encode()).expect("our own bytes"),
            }
            let set = &state.holds;
            for s in 0..4 {
                prop_assert_eq!(set.verdict(&slice(s)), naive.verdict(s), "slice {}", s);
                prop_assert_eq!(set.foremost(&slice(s)).map(|h| Verdict::from(h.kind)),
                    (naive.verdict(s) != Verdict::Run).then(|| naive.verdict(s)));
            }
            prop_assert_eq!(set.len(), (0..12).filter(|n| naive.standing(*n).is_some()).count());
            for n in 0..12 {
                let remembered = set.tombstones().get(id(n));
                prop_assert_eq!(remembered.is_some(), naive.buried(n), "tombstone {}", n);
                if let Some(stone) = remembered {
                    prop_assert_eq!(matches!(stone.lifted, Lifted::Here { .. }), naive.buried_here(n));
                }
            }
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn what_was_released_here_is_never_lost_unconfirmed(
        signed in prop::collection::vec(prop::bool::weighted(0.2), 900..2_600),
        confirm in any::<bool>(),
    ) {
        let mut set = HoldSet::default();
        let mut waiting = Vec::new();
        for (n, signed) in signed.into_iter().enumerate() {
            let id = HoldId::from_uuid(uuid::Uuid::from_u128(1_000 + n as u128));
            set.impose(Hold { id, ..hold(1, HoldKind::Freeze) }).expect("fits");
            if signed {
                let (lifted, kept) = set.release_signed(id, decision(1), signature(1));
                prop_assert!(lifted.is_some(), "a release always takes effect");
                prop_assert!(kept || waiting.len() == Tombstones::MAX);
            } else {
                match set.release_local(id, by_dan(), here()) {
                    Ok(lifted) => {
                        prop_assert!(lifted.is_some());
                        waiting.push(id);
                    }
                    Err(error) => {
                        prop_assert_eq!(error, HoldError::TooManyReleases);
                        prop_assert!(set.get(id).is_some(), "refused, so it stands");
                        prop_assert_eq!(waiting.len(), Tombstones::MAX);
                        if confirm {
                            set.sync(Sync { recorded: waiting.split_off(512), incarnation: 1, ..Sync::default() });
                        }
                    }
                }
            }
            prop_assert!(set.tombstones().len() <= Tombstones::MAX);
        }
        prop_assert!(waiting.iter().all(|id| set.tombstones().get(*id).is_some()));
        prop_assert!(set.tombstones().unconfirmed(1) >= waiting.len());
    }
}

#[test]
fn a_release_made_here_also_keeps_away_what_the_controller_calls_it() {
    let mut set = HoldSet::default();
    set.impose(hold(1, HoldKind::Suspend)).expect("new");
    set.release_local(id(1), by_dan(), here()).expect("room");
    let renamed = Hold {
        id: proto::canonical::told_id(id(1), here()),
        scope: Scope::Node(here()),
        ..hold(1, HoldKind::Suspend)
    };
    let sync = Sync {
        holds: vec![renamed.clone().into()],
        released: vec![id(1)],
        incarnation: 1,
        ..Sync::default()
    };
    assert_eq!(set.sync(sync).buried, [renamed.id]);
    assert_eq!(set.verdict(&slice(1)), Verdict::Run);
    let error = set.impose(renamed).expect_err("released");
    assert!(
        error
            .to_string()
            .contains("was released on this node by dan (developer)"),
        "{error}"
    );
}

#[test]
fn a_hold_taken_over_under_another_id_leaves_no_gap() {
    let mut set = HoldSet::default();
    set.impose(hold(1, HoldKind::Suspend)).expect("new");
    let renamed = Hold {
        id: proto::canonical::told_id(id(1), here()),
        ..hold(1, HoldKind::Suspend)
    };
    let change = set.sync(Sync {
        holds: vec![renamed.clone().into()],
        released: vec![id(1)],
        ..Sync::default()
    });
    assert_eq!((change.imposed, change.released), (vec![renamed.id], vec![id(1)]));
    assert_eq!(set.verdict(&slice(1)), Verdict::Dead);
    assert!(set.tombstones().is_empty());
}

#[test]
fn a_new_incarnation_asks_for_every_tombstone_again() {
    let mut set = HoldSet::default();
    set.release_signed(id(1), decision(1), signature(1));
    set.impose(hold(2, HoldKind::Freeze)).expect("new");
    set.release_local(id(2), by_dan(), here()).expect("room");
    assert_eq!(set.tombstones().unconfirmed(1), 1, "the controller knows its own");
    let recorded = |incarnation| Sync {
        recorded: vec![id(1), id(2)],
        incarnation,
        ..Sync::default()
    };
    set.sync(recorded(1));
    assert_eq!(set.tombstones().unconfirmed(1), 0);
    assert_eq!(set.tombstones().unconfirmed(2), 2);
    set.sync(recorded(2));
    assert_eq!(set.tombstones().unconfirmed(2), 0);
}

#[test]
fn a_signature_is_kept_until_a_stronger_hold_takes_its_place() {
    let mut set = HoldSet::default();
    let word = |set: &HoldSet| set.get_signed(id(1)).and_then(|signed| signed.signature);
    set.impose(hold(1, HoldKind::Freeze)).expect("new");
    assert_eq!(word(&set), None);
    set.impose(signed(1, HoldKind::Freeze, true)).expect("the same");
    set.impose(hold(1, HoldKind::Freeze)).expect("the same");
    assert_eq!(word(&set), Some(signature(1)));
    set.impose(hold(1, HoldKind::Suspend)).expect("stronger");
    assert_eq!(
        word(&set),
        None,
        "a word for something weaker is no word for this"
    );
}

#[test]
fn a_known_id_never_moves_and_never_weakens() {
    let mut set = HoldSet::default();
    set.impose(hold(1, HoldKind::Suspend)).expect("new");
    let moved = Hold {
        slice: Some(slice(3)),
        ..hold(1, HoldKind::Freeze)
    };
    assert_eq!(set.impose(moved), Err(HoldError::Conflict { id: id(1) }));
    let elsewhere = Hold {
        scope: Scope::Node(NodeId::random()),
        ..hold(1, HoldKind::Suspend)
    };
    assert_eq!(
        set.impose(elsewhere.clone()),
        Err(HoldError::Conflict { id: id(1) })
    );
    assert_eq!(set.impose(hold(1, HoldKind::Freeze)), Ok(false));
    assert_eq!(set.verdict(&slice(1)), Verdict::Dead);
    let change = set.sync(Sync {
        holds: vec![elsewhere.into()],
        ..Sync::default()
    });
    assert_eq!(change.refused, vec![HoldError::Conflict { id: id(1) }]);
    assert_eq!(set.get(id(1)).map(|h| h.scope.clone()), Some(Scope::Fleet));
}

#[test]
fn a_hold_in_neither_list_stays_and_one_in_both_stands() {
    let mut set = HoldSet::default();
    set.impose(hold(1, HoldKind::Suspend)).expect("new");
    set.impose(hold(2, HoldKind::Suspend)).expect("new");
    let change = set.sync(Sync {
        holds: vec![hold(2, HoldKind::Suspend).into()],
        released: vec![id(2)],
        ..Sync::default()
    });
    assert_eq!(change, SyncChange::default());
    assert_eq!((set.len(), set.verdict(&slice(1))), (2, Verdict::Dead));
}

#[test]
fn the_set_is_bounded_and_says_so() {
    let mut set = HoldSet::default();
    for n in 0..HoldSet::MAX {
        let id = HoldId::from_uuid(uuid::Uuid::from_u128(1 + n as u128));
        set.impose(Hold {
            id,
            ..hold(1, HoldKind::Freeze)
        })
        .expect("fits");
    }
    assert_eq!(
        set.impose(Hold {
            id: HoldId::new(),
            ..hold(1, HoldKind::Freeze)
        }),
        Err(HoldError::TooMany)
    );
    let known = HoldId::from_uuid(uuid::Uuid::from_u128(7));
    assert_eq!(
        set.impose(Hold {
            id: known,
            ..hold(1, HoldKind::Suspend)
        }),
        Ok(true),
        "a known one may still rise"
    );
}
