//! What became of an order: a headline, a table of the nodes that matter, the proof, the next step.

use super::{standing, verb};
use crate::render::{LINE, fields, name, number, table};
use crate::text;
use crate::view::order::{Ended, NodeResult, Order, Outcome, Report};
use crate::when::{self, Time};

/// Up to this many nodes each has its line.
const FEW: usize = 40;
/// Details of nodes that are told beneath the table.
const MOST_DETAILS: usize = 10;

/// The report of an order; `all` lists every node.
pub(crate) fn report(report: &Report, all: bool, now: Time, width: u16) -> String {
    let Report {
        order,
        nodes,
        durable,
        not_durable_reason,
        created,
        ended,
        next,
        exit_code: _,
    } = report;
    let mut page = format!(
        "{} {}: {}\n",
        text::line(&order.kind, 20),
        text::line(&order.target, 120),
        standing(&order.counts)
    );
    let epoch = order
        .version
        .map(|version| format!(", epoch {}", version.text()))
        .unwrap_or_default();
    let again = if *created == Some(false) {
        ", pressed before with this key"
    } else {
        ""
    };
    page.push_str(&fields(&[
        ("order", format!("{}{epoch}{again}", order.id)),
        (
            "by",
            format!(
                "{} ({}), {}",
                name(&order.person),
                order.role.text(),
                order.pressed_at.both(now)
            ),
        ),
        ("reason", order.reason.clone()),
        ("evidence", order.evidence.clone().unwrap_or_default()),
    ]));
    if *durable == Some(false) {
        page.push_str(&not_durable(not_durable_reason.as_deref()));
    }
    if !nodes.is_empty() {
        page.push('\n');
        page.push_str(&of_nodes(order, nodes, all, width));
        let told = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        if let missing @ 1.. = order.counts.nodes.saturating_sub(told) {
            // Of a very large order the controller tells those in trouble and as many others as fit.
            page.push_str(&format!(
                "and {missing} more, counted above but not told one by one\n"
            ));
        }
    }
    if let Some(proof) = proof(report) {
        page.push_str(&format!("\nproof: {proof}\n"));
    }
    if let Some(why) = why_ended(ended) {
        page.push_str(&format!("{why}\n"));
    }
    if let Some(next) = next {
        page.push_str(&format!("next: {}\n", text::line(next, LINE)));
    }
    page
}

fn not_durable(reason: Option<&str>) -> String {
    format!(
        "\nNOT DURABLE: the controller's disk did not take this order ({}).\n\
         It was sent to the nodes all the same; a controller that crashes now forgets it.\n",
        text::line(reason.unwrap_or("no reason given"), LINE)
    )
}

fn why_ended(ended: &Ended) -> Option<String> {
    match ended {
        Ended::Closed | Ended::Settled | Ended::NotWatched => None,
        Ended::TimePassed => Some("the time to wait has passed; the order goes on".to_owned()),
        Ended::Interrupted => Some("interrupted; the order goes on".to_owned()),
        Ended::Lost { cause } => Some(format!(
            "lost the controller ({}); the order goes on, this is the last that was seen",
            text::line(cause, LINE)
        )),
    }
}

fn of_nodes(order: &Order, nodes: &[NodeResult], all: bool, width: u16) -> String {
    let grouped = !all && nodes.len() > FEW;
    let (listed, well): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| !grouped || node.matters());
    let shown = if grouped {
        listed.len().min(FEW)
    } else {
        listed.len()
    };
    let mut page = String::new();
    if shown > 0 {
        page.push_str(&rows(&listed[..shown], &order.kind, width));
    }
    if listed.len() > shown {
        page.push_str(&format!(
            "and {} more like these (--all lists them)\n",
            listed.len() - shown
        ));
    }
    for outcome in Outcome::ALL {
        for proven in [true, false] {
            let count = well
                .iter()
                .filter(|node| node.outcome == outcome && node.proven == proven)
                .count();
            if count > 0 {
                let owed = if proven { "" } else { ", proof outstanding" };
                page.push_str(&format!("{count} {}{owed}\n", outcome.text()));
            }
        }
    }
    page.push_str(&details(order, &listed[..shown], all));
    page
}

fn rows(nodes: &[&NodeResult], kind: &str, width: u16) -> String {
    let killing = verb(kind) == "killed";
    let rows = nodes
        .iter()
        .map(|node| {
            let mut row = vec![name(&node.name), outcome(node)];
            if killing {
                row.extend([
                    number(node.killed),
                    number(node.zombies),
                    number(node.stuck),
                    number(node.respawns),
                ]);
            }
            if is_timed(kind) {
                let answered = node.outcome.is_done() || node.outcome == Outcome::Respawning;
                row.push(
                    node.dead_us
                        .filter(|_| answered)
                        .map_or_else(|| "-".to_owned(), when::micros),
                );
            }
            row
        })
        .collect();
    if !is_timed(kind) {
        table(&["NODE", "OUTCOME"], &[], rows, width)
    } else if killing {
        let header = [
            "NODE", "OUTCOME", "KILLED", "ZOMBIE", "STUCK", "RESPAWN", "DEAD IN",
        ];
        table(&header, &[2, 3, 4, 5, 6], rows, width)
    } else {
        table(&["NODE", "OUTCOME", "AFTER"], &[2], rows, width)
    }
}

/// Whether the nodes' time says something: a release or a reboot leaves nothing dead.
fn is_timed(kind: &str) -> bool {
    matches!(verb(kind), "killed" | "frozen")
}

fn outcome(node: &NodeResult) -> String {
    let word = node.outcome.text();
    if node.outcome.is_done() && !node.proven {
        format!("{word}, unproven")
    } else {
        word.to_owned()
    }
}

/// The words of nodes and managers, beneath the table.
fn details(order: &Order, nodes: &[&NodeResult], all: bool) -> String {
    let mut told: Vec<String> = Vec::new();
    for node in nodes {
        let mut words: Vec<String> = Vec::new();
        if order.is_about_holds() && node.durable == Some(false) && !node.outcome.is_awaited() {
            words.push("NOT DURABLE: the hold is not on its disk".to_owned());
        }
        words.extend(node.detail.as_deref().map(|detail| text::line(detail, 160)));
        for sliver in &node.slivers {
            if !sliver.outcome.is_done() {
                let manager = sliver
                    .manager
                    .as_deref()
                    .map(|m| format!(" by {}", name(m)))
                    .unwrap_or_default();
                let detail = sliver
                    .detail
                    .as_deref()
                    .map(|d| format!(": {}", text::line(d, 120)))
                    .unwrap_or_default();
                words.push(format!(
                    "{} {}{manager}{detail}",
                    text::line(&sliver.cgroup, 60),
                    sliver.outcome.text()
                ));
            }
        }
        if !words.is_empty() {
            told.push(format!(
                "  {}: {}\n",
                name(&node.name),
                text::line(&words.join("; "), LINE)
            ));
        }
    }
    let most = if all {
        told.len()
    } else {
        told.len().min(MOST_DETAILS)
    };
    let mut page: String = told[..most].concat();
    if told.len() > most {
        page.push_str(&format!(
            "  and {} more nodes have something to say (--all)\n",
            told.len() - most
        ));
    }
    if page.is_empty() {
        page
    } else {
        format!("\n{page}")
    }
}

/// `998 of 1000 nodes proven; slowest dead after 84 ms; holds on disk`
fn proof(report: &Report) -> Option<String> {
    let counts = &report.order.counts;
    if counts.nodes == 0 {
        return Some("no node is in the scope".to_owned());
    }
    let mut proof = format!(
        "{} of {} proven",
        counts.proven,
        text::count(counts.nodes.into(), "node", "nodes")
    );
    let done = || report.nodes.iter().filter(|node| node.outcome.is_done());
    if is_timed(&report.order.kind) {
        if let Some(slowest) = done().filter_map(|node| node.dead_us).max() {
            proof.push_str(&format!("; slowest after {}", when::micros(slowest)));
        }
        let on_disk = report
            .nodes
            .iter()
            .filter(|node| node.durable == Some(true))
            .count();
        if on_disk > 0 {
            proof.push_str(&format!(
                "; hold on disk on {}",
                text::count(on_disk as u64, "node", "nodes")
            ));
        }
    }
    let off_disk = done().filter(|node| node.durable == Some(false)).count();
    if report.order.is_about_holds() && off_disk > 0 {
        proof.push_str(&format!(
            "; NOT DURABLE on {}",
            text::count(off_disk as u64, "node", "nodes")
        ));
    }
    Some(proof)
}
