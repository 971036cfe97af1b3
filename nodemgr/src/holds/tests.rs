//! The set against a naive oracle: a plain list of everything that was ever said.

use proptest::prelude::*;
use proto::{NodeId, Role, Scope};

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

#[derive(Debug, Clone)]
enum Step {
    Impose(u8, HoldKind),
    Release(u8),
    Sync(Vec<(u8, HoldKind)>, Vec<u8>),
}

fn kind() -> impl Strategy<Value = HoldKind> {
    prop_oneof![Just(HoldKind::Freeze), Just(HoldKind::Suspend)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..12u8, kind()).prop_map(|(n, k)| Step::Impose(n, k)),
        (0..12u8).prop_map(Step::Release),
        (
            prop::collection::vec((0..12u8, kind()), 0..6),
            prop::collection::vec(0..12u8, 0..6)
        )
            .prop_map(|(h, r)| Step::Sync(h, r)),
    ]
}

/// The oracle: every statement in order, nothing folded; a hold's state is found by reading them all again.
#[derive(Default)]
struct Naive(Vec<(u8, Option<HoldKind>)>);

impl Naive {
    fn standing(&self, n: u8) -> Option<HoldKind> {
        self.0
            .iter()
            .filter(|(m, _)| *m == n)
            .fold(None, |now, (_, said)| {
                said.map(|k| now.map_or(k, |was| k.max(was)))
            })
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
        let (mut set, mut naive) = (HoldSet::default(), Naive::default());
        for step in steps {
            match step {
                Step::Impose(n, k) => {
                    let before = naive.standing(n);
                    naive.0.push((n, Some(k)));
                    prop_assert_eq!(set.impose(hold(n, k)), Ok(naive.standing(n) != before));
                }
                Step::Release(n) => {
                    let stood = naive.standing(n).is_some();
                    naive.0.push((n, None));
                    prop_assert_eq!(set.release(id(n)).is_some(), stood);
                }
                Step::Sync(holds, released) => {
                    for n in &released {
                        if !holds.iter().any(|(m, _)| m == n) {
                            naive.0.push((*n, None));
                        }
                    }
                    naive.0.extend(holds.iter().map(|(n, k)| (*n, Some(*k))));
                    let wanted = holds.iter().map(|(n, k)| hold(*n, *k)).collect();
                    let change = set.sync(wanted, &released.iter().map(|n| id(*n)).collect::<Vec<_>>());
                    prop_assert!(change.refused.is_empty());
                }
            }
            for s in 0..4 {
                prop_assert_eq!(set.verdict(&slice(s)), naive.verdict(s), "slice {}", s);
                prop_assert_eq!(set.foremost(&slice(s)).map(|h| Verdict::from(h.kind)),
                    (naive.verdict(s) != Verdict::Run).then(|| naive.verdict(s)));
            }
            prop_assert_eq!(set.len(), (0..12).filter(|n| naive.standing(*n).is_some()).count());
        }
    }
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
    let change = set.sync(vec![elsewhere], &[]);
    assert_eq!(change.refused, vec![HoldError::Conflict { id: id(1) }]);
    assert_eq!(set.get(id(1)).map(|h| h.scope.clone()), Some(Scope::Fleet));
}

#[test]
fn a_hold_in_neither_list_stays_and_one_in_both_stands() {
    let mut set = HoldSet::default();
    set.impose(hold(1, HoldKind::Suspend)).expect("new");
    set.impose(hold(2, HoldKind::Suspend)).expect("new");
    let change = set.sync(vec![hold(2, HoldKind::Suspend)], &[id(2)]);
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
