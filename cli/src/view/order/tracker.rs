//! An order as we know it so far: the last word on it and on each of its nodes. Pure.

use std::collections::BTreeMap;

use proto::v1;

use super::{Counts, Event, NodeResult, Order};
use crate::exit::{self, Exit};

/// An order being followed.
#[derive(Debug, Clone)]
pub(crate) struct Tracker {
    pub(crate) order: Order,
    nodes: BTreeMap<String, NodeResult>,
}

impl Tracker {
    /// Starts with what is known of the order; no node has been told of yet.
    pub(crate) fn new(order: Order) -> Self {
        Self {
            order,
            nodes: BTreeMap::new(),
        }
    }

    /// Takes what is new, and returns it as an event of our own.
    pub(crate) fn apply(&mut self, event: v1::OrderEvent) -> Event {
        let v1::OrderEvent { order, changed, last } = event;
        if let Some(order) = order {
            self.order = order.into();
        }
        let changed: Vec<NodeResult> = changed.into_iter().map(NodeResult::from).collect();
        for result in &changed {
            self.nodes.insert(result.node.clone(), result.clone());
        }
        Event {
            order: self.order.clone(),
            changed,
            last,
        }
    }

    /// Every node that is there has answered, and its proof is in or will not come.
    pub(crate) fn is_settled(&self) -> bool {
        let told = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        told >= self.order.counts.nodes && self.nodes.values().all(NodeResult::is_settled)
    }

    /// What the exit code is, from the controller's counts and from the nodes we were told of: the worse.
    pub(crate) fn exit(&self) -> Exit {
        let mut told = Counts::default();
        for result in self.nodes.values() {
            told.add(result.outcome, result.proven);
        }
        exit::of_counts(&self.order.counts).max(exit::of_counts(&told))
    }

    /// The order and its nodes, those that matter first, then by name.
    pub(crate) fn into_parts(self) -> (Order, Vec<NodeResult>) {
        let mut nodes: Vec<NodeResult> = self.nodes.into_values().collect();
        let rank = |result: &NodeResult| {
            super::Outcome::ALL
                .iter()
                .position(|outcome| *outcome == result.outcome)
                .unwrap_or(usize::MAX)
        };
        nodes.sort_by(|a, b| {
            (!a.matters(), rank(a), &a.name, &a.node).cmp(&(!b.matters(), rank(b), &b.name, &b.node))
        });
        (self.order, nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::Outcome as O;

    fn result(node: &str, outcome: O, proven: bool) -> v1::NodeResult {
        v1::NodeResult {
            node: node.to_owned(),
            node_name: node.to_owned(),
            outcome: outcome.into(),
            proven,
            ..Default::default()
        }
    }

    fn event(nodes: u32, changed: Vec<v1::NodeResult>) -> v1::OrderEvent {
        let counts = v1::OutcomeCounts {
            nodes,
            ..Default::default()
        };
        v1::OrderEvent {
            order: Some(v1::Order {
                counts: Some(counts),
                ..Default::default()
            }),
            changed,
            last: false,
        }
    }

    #[test]
    fn settled_once_nothing_more_is_worth_waiting_for() {
        let mut tracker = Tracker::new(v1::Order::default().into());
        tracker.apply(event(
            4,
            vec![result("a", O::Sent, false), result("b", O::Offline, false)],
        ));
        assert!(!tracker.is_settled(), "two nodes were never told of");
        tracker.apply(event(
            4,
            vec![result("c", O::AlreadyDead, true), result("d", O::Partial, false)],
        ));
        assert!(!tracker.is_settled(), "one has not answered");
        tracker.apply(event(4, vec![result("a", O::Killed, false)]));
        assert!(!tracker.is_settled(), "its proof is outstanding");
        tracker.apply(event(4, vec![result("a", O::Killed, true)]));
        assert!(tracker.is_settled());
        assert_eq!(tracker.exit(), Exit::Partial);
    }

    #[test]
    fn the_worse_of_counts_and_nodes_is_the_exit() {
        let mut tracker = Tracker::new(v1::Order::default().into());
        let counts = v1::OutcomeCounts {
            nodes: 1,
            killed: 1,
            proven: 1,
            ..Default::default()
        };
        let order = v1::Order {
            counts: Some(counts),
            ..Default::default()
        };
        tracker.apply(v1::OrderEvent {
            order: Some(order),
            changed: vec![],
            last: false,
        });
        assert_eq!(tracker.exit(), Exit::Done);
        tracker.apply(v1::OrderEvent {
            order: None,
            changed: vec![result("a", O::Failed, false)],
            last: true,
        });
        assert_eq!(tracker.exit(), Exit::Failed);
    }

    #[test]
    fn what_matters_comes_first() {
        let mut tracker = Tracker::new(v1::Order::default().into());
        tracker.apply(event(
            4,
            vec![
                result("a", O::Killed, true),
                result("b", O::Offline, false),
                result("c", O::Failed, false),
                result("d", O::AlreadyDead, true),
            ],
        ));
        let (_, nodes) = tracker.into_parts();
        let names: Vec<&str> = nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["c", "b", "a", "d"]);
    }
}
