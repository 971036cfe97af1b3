//! The tracker against a naive oracle that keeps every event and looks at all of them each time.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::v1::{self, Outcome};
use proto::{BootId, HoldId};

use super::*;

fn boot(n: u128) -> BootId {
    BootId::from_uuid(uuid::Uuid::from_u128(n))
}

fn said(outcome: Outcome, proven: bool) -> Said {
    Said { outcome, proven }
}

fn kill(nodes: u32) -> Tracker {
    let mut tracker = Tracker::new(OrderKind::KillSlice, vec![HoldId::new()], None, true);
    (0..nodes).for_each(|node| tracker.include(node));
    tracker
}

#[test]
fn a_kill_goes_from_sent_over_dead_to_proven() {
    let mut order = kill(2);
    order.sent(0, 1);
    order.sent(1, 1);
    assert_eq!(
        order.heard(0, said(Outcome::Killed, false)),
        Heard::Changed(Cell::stored(Outcome::Killed, false))
    );
    assert_eq!(order.state(), OrderState::Open);
    assert_eq!(
        order.heard(1, said(Outcome::AlreadyDead, true)),
        Heard::Changed(Cell::stored(Outcome::AlreadyDead, true))
    );
    assert_eq!(order.state(), OrderState::Answered);
    // Sent again after a lost link, the node finds nothing left: the kill is not forgotten.
    assert_eq!(
        order.heard(0, said(Outcome::AlreadyDead, false)),
        Heard::Unchanged
    );
    assert_eq!(
        order.heard(0, said(Outcome::AlreadyDead, true)),
        Heard::Changed(Cell::stored(Outcome::Killed, true))
    );
    assert_eq!(order.state(), OrderState::Closed);
    assert_eq!(order.heard(0, said(Outcome::Failed, false)), Heard::Unchanged);
}

#[test]
fn respawning_is_not_proven_and_may_end() {
    let mut order = kill(1);
    order.heard(0, said(Outcome::Killed, false));
    order.heard(0, said(Outcome::Respawning, false));
    assert_eq!(order.state(), OrderState::Answered);
    order.heard(0, said(Outcome::Killed, true));
    assert_eq!(order.state(), OrderState::Closed);
}

#[test]
fn another_node_s_answer_changes_nothing() {
    let mut order = Tracker::new(OrderKind::KillSliver, vec![HoldId::new()], None, false);
    order.include(7);
    assert_eq!(order.heard(6, said(Outcome::Killed, true)), Heard::Foreign);
    assert_eq!(order.heard(8, said(Outcome::Killed, true)), Heard::Foreign);
    assert_eq!(order.state(), OrderState::Open);
}

#[test]
fn an_order_without_nodes_is_closed() {
    assert_eq!(kill(0).state(), OrderState::Closed);
}

#[test]
fn what_was_released_before_delivery_is_superseded() {
    let mut order = kill(3);
    order.sent(0, 1);
    order.heard(0, said(Outcome::Killed, false));
    let superseded = Delivery::Verdict(Cell::stored(Outcome::Superseded, true));
    assert_eq!(order.attached(1, boot(1), |_| false), superseded);
    assert_eq!(order.attached(1, boot(1), |_| false), Delivery::Nothing);
    assert_eq!(order.attached(2, boot(1), |_| true), Delivery::Send);
    assert_eq!(
        order.attached(0, boot(1), |_| false),
        Delivery::Nothing,
        "it has answered"
    );
}

#[test]
fn a_proof_that_was_lost_with_the_link_is_asked_for_again() {
    let mut order = kill(2);
    order.sent(0, 1);
    order.heard(0, said(Outcome::Killed, false));
    assert_eq!(order.attached(0, boot(1), |_| true), Delivery::Send);
    order.sent(0, 1);
    assert_eq!(
        order.cell(0),
        Cell::stored(Outcome::Killed, false),
        "what it said is not forgotten"
    );
    order.heard(0, said(Outcome::AlreadyDead, true));
    assert_eq!(order.cell(0), Cell::stored(Outcome::Killed, true));
    assert_eq!(order.attached(0, boot(1), |_| true), Delivery::Nothing);
}

#[test]
fn a_release_of_several_holds_waits_for_every_answer() {
    let holds = vec![HoldId::new(), HoldId::new(), HoldId::new()];
    let mut order = Tracker::new(OrderKind::Release, holds, None, false);
    order.include(1);
    order.sent(1, 3);
    assert_eq!(order.heard(1, said(Outcome::Released, true)), Heard::Unchanged);
    // The link was lost: all three go out again.
    order.sent(1, 3);
    for _ in 0..2 {
        assert_eq!(order.heard(1, said(Outcome::Released, true)), Heard::Unchanged);
    }
    assert!(matches!(
        order.heard(1, said(Outcome::Released, true)),
        Heard::Changed(_)
    ));
    assert_eq!(order.state(), OrderState::Closed);
}

#[test]
fn a_failed_release_stays_failed() {
    let mut order = Tracker::new(
        OrderKind::Release,
        vec![HoldId::new(), HoldId::new()],
        None,
        false,
    );
    order.include(1);
    order.sent(1, 2);
    order.heard(1, said(Outcome::Failed, false));
    assert_eq!(order.heard(1, said(Outcome::Released, true)), Heard::Unchanged);
    assert_eq!(order.state(), OrderState::Answered);
}

#[test]
fn only_another_boot_id_proves_a_reboot() {
    let mut order = Tracker::new(OrderKind::RebootNode, vec![], Some(boot(1)), false);
    order.include(0);
    assert_eq!(order.attached(0, boot(1), |_| true), Delivery::Send);
    order.sent(0, 1);
    order.heard(0, said(Outcome::Accepted, false));
    assert_eq!(order.state(), OrderState::Answered);
    assert_eq!(order.attached(0, boot(1), |_| true), Delivery::Nothing);
    let rebooted = Cell::stored(Outcome::Rebooted, true);
    assert_eq!(order.attached(0, boot(2), |_| true), Delivery::Verdict(rebooted));
    assert_eq!(order.state(), OrderState::Closed);
}

#[test]
fn a_halt_that_began_is_the_end() {
    let mut order = Tracker::new(OrderKind::StopNode, vec![], Some(boot(1)), false);
    order.include(0);
    order.heard(0, said(Outcome::Accepted, false));
    assert_eq!(order.state(), OrderState::Closed);
}

#[test]
fn what_a_node_cannot_mean_is_named() {
    let check = |kind, outcome: Outcome| Said::check(kind, outcome.into(), true);
    for outcome in [
        Outcome::Unspecified,
        Outcome::Pending,
        Outcome::Offline,
        Outcome::Sent,
        Outcome::Superseded,
        Outcome::Rebooted,
        Outcome::Released,
        Outcome::Accepted,
        Outcome::Frozen,
    ] {
        assert!(check(OrderKind::KillSlice, outcome).is_err(), "{outcome:?}");
    }
    assert!(check(OrderKind::Release, Outcome::Killed).is_err());
    assert!(check(OrderKind::RebootNode, Outcome::Killed).is_err());
    assert!(
        Said::check(OrderKind::KillSlice, 99, true)
            .expect_err("unknown")
            .contains("99")
    );
    // Nobody proves a failure or a process in D state.
    assert_eq!(
        check(OrderKind::KillSlice, Outcome::Partial),
        Ok(said(Outcome::Partial, false))
    );
    assert_eq!(
        check(OrderKind::KillSlice, Outcome::Respawning),
        Ok(said(Outcome::Respawning, false))
    );
    assert_eq!(
        Said::check(OrderKind::Release, Outcome::Released.into(), false),
        Ok(said(Outcome::Released, true))
    );
}

#[test]
fn a_fleet_wide_order_costs_a_byte_a_node() {
    assert_eq!(std::mem::size_of::<Cell>(), 1);
    let order = kill(10_000);
    assert!(matches!(&order.cells, Cells::Dense(cells) if cells.len() == 10_000));
}

/// One thing that happens to an order.
#[derive(Debug, Clone)]
enum Event {
    Include(NodeIndex),
    Sent(NodeIndex),
    Heard(NodeIndex, Outcome, bool),
    Attached(NodeIndex, bool),
}

fn event() -> impl Strategy<Value = Event> {
    let node = 0..6u32;
    prop_oneof![
        node.clone().prop_map(Event::Include),
        node.clone().prop_map(Event::Sent),
        (node.clone(), 0..6usize, any::<bool>()).prop_map(|(node, which, proven)| {
            let outcome = [
                Outcome::Killed,
                Outcome::AlreadyDead,
                Outcome::Partial,
                Outcome::Respawning,
                Outcome::Failed,
                Outcome::Killed,
            ][which];
            let checked = Said::check(OrderKind::KillSlice, outcome.into(), proven).expect("sensible");
            Event::Heard(node, checked.outcome, checked.proven)
        }),
        (node, any::<bool>()).prop_map(|(node, stands)| Event::Attached(node, stands)),
    ]
}

/// What a node has come to, told from the whole history: (outcome, proven), `None` while it has not answered.
fn oracle(history: &[Event], node: NodeIndex) -> Option<Option<(Outcome, bool)>> {
    let mut known = None;
    for event in history {
        match *event {
            Event::Include(n) if n == node && known.is_none() => known = Some(None),
            Event::Attached(n, false) if n == node && known == Some(None) => {
                known = Some(Some((Outcome::Superseded, true)));
            }
            Event::Heard(n, outcome, proven) if n == node => {
                known = match known {
                    None => None,
                    Some(None) => Some(Some((outcome, proven))),
                    Some(Some((old, true))) => Some(Some((old, true))),
                    Some(Some((old, false))) if outcome == Outcome::Failed => Some(Some((old, false))),
                    Some(Some((Outcome::Killed, false))) if outcome == Outcome::AlreadyDead => {
                        Some(Some((Outcome::Killed, proven)))
                    }
                    Some(Some(_)) => Some(Some((outcome, proven))),
                };
            }
            _ => {}
        }
    }
    known
}

proptest! {
    #[test]
    fn the_tracker_agrees_with_the_oracle(dense in any::<bool>(), events in prop::collection::vec(event(), 0..60)) {
        let mut tracker = Tracker::new(OrderKind::KillSlice, vec![HoldId::new()], None, dense);
        let mut answered_before: BTreeMap<NodeIndex, bool> = BTreeMap::new();
        for (at, event) in events.iter().enumerate() {
            match *event {
                Event::Include(node) => tracker.include(node),
                Event::Sent(node) => tracker.sent(node, 1),
                Event::Heard(node, outcome, proven) => {
                    let before = tracker.cell(node);
                    let heard = tracker.heard(node, said(outcome, proven));
                    match heard {
                        Heard::Foreign => prop_assert_eq!(before, Cell::ABSENT),
                        Heard::Unchanged => prop_assert_eq!(before, tracker.cell(node)),
                        Heard::Changed(cell) => prop_assert!(cell != before && cell == tracker.cell(node)),
                    }
                }
                Event::Attached(node, stands) => {
                    let delivery = tracker.attached(node, boot(1), |_| stands);
                    let before = oracle(&events[..at], node);
                    let unproven = before.is_some_and(|said| said.is_none_or(|(_, proven)| !proven));
                    prop_assert_eq!(delivery == Delivery::Send, unproven && stands);
                    prop_assert_eq!(matches!(delivery, Delivery::Verdict(_)), before == Some(None) && !stands);
                }
            }
            // Compare everything with the history so far.
            let truth: Vec<_> = (0..6).map(|node| oracle(&events[..=at], node)).collect();
            for (node, expected) in (0..).zip(&truth) {
                let cell = tracker.cell(node);
                match expected {
                    None => prop_assert_eq!(cell, Cell::ABSENT),
                    Some(None) => prop_assert!(cell == Cell::WAITING || cell == Cell::SENT),
                    Some(Some((outcome, proven))) => prop_assert_eq!(cell, Cell::stored(*outcome, *proven)),
                }
                let was = answered_before.insert(node, cell.is_answered()).unwrap_or(false);
                prop_assert!(cell.is_answered() || !was, "an answer was forgotten");
            }
            let known: Vec<_> = truth.iter().flatten().collect();
            let state = if known.iter().any(|node| node.is_none()) {
                OrderState::Open
            } else if known.iter().all(|node| node.is_some_and(|(_, proven)| proven)) {
                OrderState::Closed
            } else {
                OrderState::Answered
            };
            prop_assert_eq!(tracker.state(), state);
            let counts = v1::OutcomeCounts::from(tracker.counts(|node| node % 2 == 0));
            prop_assert_eq!(counts.nodes as usize, known.len());
            prop_assert_eq!(counts.nodes, tracker.len());
            let count = |wanted: Outcome| known.iter().filter(|node| node.is_some_and(|(is, _)| is == wanted)).count() as u32;
            prop_assert_eq!(counts.killed, count(Outcome::Killed));
            prop_assert_eq!(counts.superseded, count(Outcome::Superseded));
            prop_assert_eq!(counts.failed, count(Outcome::Failed));
            prop_assert_eq!(counts.proven as usize, known.iter().filter(|n| n.is_some_and(|(_, proven)| proven)).count());
            let open = truth.iter().filter(|node| **node == Some(None)).count() as u32;
            prop_assert_eq!(counts.pending + counts.offline + counts.sent, open);
            // The restart: results come back from the store, and what follows is the same.
            let mut again = Tracker::new(OrderKind::KillSlice, tracker.holds().to_vec(), None, !dense);
            for (node, cell) in tracker.iter() {
                again.include(node);
                if let Some(outcome) = cell.outcome() {
                    again.restore(node, Cell::stored(outcome, cell.is_proven()));
                }
            }
            prop_assert_eq!(again.state(), tracker.state());
        }
    }
}
