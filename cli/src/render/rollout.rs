//! Rollouts as text.

use super::{cell, fields, name, part, table};
use crate::text;
use crate::view::rollout::{Detail, Node, Phase, Rollout, Step};
use crate::when::Time;

/// Nodes that a page lists, unless all are wanted.
const LISTED: usize = 20;

/// `rollout ls`
pub(crate) fn rollouts(rollouts: &[Rollout], now: Time, width: u16) -> String {
    if rollouts.is_empty() {
        return "no rollouts\n".to_owned();
    }
    let rows = rollouts
        .iter()
        .map(|rollout| {
            vec![
                name(&rollout.id),
                cell(&rollout.version),
                rollout.phase.text().to_owned(),
                format!("{}/{}", rollout.done, rollout.nodes),
                rollout.bad.to_string(),
                rollout.started_at.age(now),
                name(&rollout.started_by),
            ]
        })
        .collect();
    table(
        &["ROLLOUT", "VERSION", "PHASE", "DONE", "BAD", "STARTED", "BY"],
        &[3, 4],
        rows,
        width,
    )
}

/// One line, as it goes on.
pub(crate) fn progress(rollout: &Rollout) -> String {
    format!(
        "{} of version {}: wave {} of {}, {} of {} done, {} in motion, {} waiting, {} bad, {} back",
        rollout.phase.text(),
        text::line(&rollout.version, 64),
        rollout.wave,
        rollout.waves.len(),
        rollout.done,
        rollout.nodes,
        rollout.moving,
        rollout.waiting,
        rollout.bad,
        rollout.returned
    )
}

/// `rollout show`
pub(crate) fn detail(detail: &Detail, all: bool, now: Time, width: u16) -> String {
    let Detail { rollout, nodes, next } = detail;
    let shares: Vec<String> = rollout.waves.iter().map(|share| format!("{share}%")).collect();
    let mut page = fields(&[
        ("rollout", rollout.id.clone()),
        ("version", rollout.version.clone()),
        ("phase", rollout.phase.text().to_owned()),
        ("why", rollout.why.clone().unwrap_or_default()),
        (
            "started",
            format!("{} by {}", rollout.started_at.both(now), rollout.started_by),
        ),
        ("reason", rollout.reason.clone()),
        ("wave", format!("{} of {}", rollout.wave, shares.join(", "))),
        (
            "nodes",
            format!(
                "{}: {} done, {} in motion, {} waiting, {} bad, {} back, {} skipped",
                rollout.nodes,
                rollout.done,
                rollout.moving,
                rollout.waiting,
                rollout.bad,
                rollout.returned,
                rollout.skipped
            ),
        ),
    ]);
    let told = |node: &&Node| all || !matches!(node.step, Step::Done | Step::Waiting | Step::Returned);
    let rows: Vec<Vec<String>> = nodes
        .iter()
        .filter(told)
        .take(if all { usize::MAX } else { LISTED })
        .map(|node| {
            let state = if node.attached { "attached" } else { "away" };
            vec![
                name(&node.name),
                name(&node.site),
                node.wave.to_string(),
                node.step.text().to_owned(),
                state.to_owned(),
                cell(node.detail.as_deref().unwrap_or("")),
            ]
        })
        .collect();
    if !rows.is_empty() {
        let header = ["NODE", "SITE", "WAVE", "STEP", "STATE", "WHY"];
        page.push_str(&part("nodes", &table(&header, &[2], rows, width), "none"));
    }
    if let Some(next) = next {
        page.push_str(&format!("\nnext: {next}\n"));
    }
    page
}

/// What to type next.
pub(crate) fn next_step(rollout: &Rollout) -> Option<String> {
    let id = &rollout.id;
    match rollout.phase {
        Phase::Running | Phase::Returning => Some(format!("redbutton rollout watch {id}")),
        Phase::Paused => Some(format!("redbutton rollout resume {id} --reason TEXT")),
        Phase::Halted => Some(format!(
            "look at the bad nodes (redbutton node logs NODE), then redbutton rollout back {id} --reason TEXT, or \
             resume"
        )),
        Phase::Aborted | Phase::Done | Phase::Returned | Phase::Unknown => None,
    }
}
