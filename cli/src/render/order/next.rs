//! The one thing to do next about an order. Pure.

use proto::{NodeId, NodeName};

use crate::view::order::{NodeResult, Order, Outcome};

/// The next step for the worst that is there; `None` when everything is done and proven.
pub(crate) fn next_step(order: &Order, nodes: &[NodeResult]) -> Option<String> {
    let counts = &order.counts;
    let first = |outcome| nodes.iter().find(|node| node.outcome == outcome);
    let on = |outcome| first(outcome).map_or("NODE", typeable);
    let has = |count: u32, outcome| count > 0 || first(outcome).is_some();
    let watch = format!("redbutton order watch {}", order.id);
    if has(counts.failed, Outcome::Failed) {
        let node = on(Outcome::Failed);
        return Some(format!(
            "redbutton node show {node} (what is wrong there), then press again"
        ));
    }
    if has(counts.partial, Outcome::Partial) {
        let node = on(Outcome::Partial);
        return Some(format!(
            "wait for its disk or network I/O ({watch}), or redbutton node reboot {node}"
        ));
    }
    if has(counts.respawning, Outcome::Respawning) {
        let node = on(Outcome::Respawning);
        return Some(format!(
            "stop what starts it again (redbutton node show {node} names it); until then each start is killed"
        ));
    }
    let unanswered = u64::from(counts.nodes).saturating_sub(counts.done() + u64::from(counts.offline));
    if unanswered > 0 {
        return Some(watch);
    }
    if counts.offline > 0 {
        return Some(format!("nodes that are away obey when they return: {watch}"));
    }
    if counts.proven < counts.nodes {
        return Some(format!("proof is outstanding: {watch}"));
    }
    None
}

/// The node as it can be typed: what is no name must not become part of a command.
fn typeable(node: &NodeResult) -> &str {
    if node.name.parse::<NodeName>().is_ok() {
        &node.name
    } else if node.node.parse::<NodeId>().is_ok() {
        &node.node
    } else {
        "NODE"
    }
}
