//! Orders as text: the line while nodes answer, and the report at the end.

mod next;
mod report;

pub(crate) use next::next_step;
pub(crate) use report::report;

use super::name;
use crate::text;
use crate::view::order::{Counts, Order, Outcome};
use crate::when::Time;

/// The word for what an order's nodes become.
fn verb(kind: &str) -> &'static str {
    match kind.split('-').next().unwrap_or_default() {
        _ if kind == "stop-every-slice" => "killed",
        "kill" => "killed",
        "freeze" => "frozen",
        "release" => "released",
        "reboot" => "rebooting",
        "stop" => "stopping",
        _ => "done",
    }
}

/// What is not well, or not yet: `, 3 offline, 1 respawning`.
fn rest(counts: &Counts) -> String {
    let mut text = String::new();
    for (count, word) in [
        (counts.offline, "offline"),
        (counts.partial, "partial"),
        (counts.respawning, "respawning"),
        (counts.failed, "FAILED"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {count} {word}"));
        }
    }
    text
}

/// `killed 812/1000, 3 offline`
pub(crate) fn progress(order: &Order) -> String {
    let counts = &order.counts;
    let mut text = format!(
        "{} {}/{}{}",
        verb(&order.kind),
        counts.done(),
        counts.nodes,
        rest(counts)
    );
    let unproven = counts.done().saturating_sub(u64::from(counts.proven));
    if unproven > 0 && counts.done() + u64::from(counts.offline) >= u64::from(counts.nodes) {
        text.push_str(&format!(", {unproven} to be proven"));
    }
    text
}

/// How an order stands, in few words: `998 killed, 2 offline`.
pub(crate) fn standing(counts: &Counts) -> String {
    let parts: Vec<String> = Outcome::ALL
        .iter()
        .map(|outcome| (of(counts, *outcome), outcome.text()))
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    if parts.is_empty() {
        "no nodes".to_owned()
    } else {
        parts.join(", ")
    }
}

fn of(counts: &Counts, outcome: Outcome) -> u32 {
    match outcome {
        Outcome::Pending => counts.pending,
        Outcome::Offline => counts.offline,
        Outcome::Sent => counts.sent,
        Outcome::Killed => counts.killed,
        Outcome::AlreadyDead => counts.already_dead,
        Outcome::Partial => counts.partial,
        Outcome::Respawning => counts.respawning,
        Outcome::Failed => counts.failed,
        Outcome::Frozen => counts.frozen,
        Outcome::Released => counts.released,
        Outcome::Superseded => counts.superseded,
        Outcome::Accepted => counts.accepted,
        Outcome::Rebooted => counts.rebooted,
        Outcome::Unknown => 0,
    }
}

/// `order ls`: two lines an order, because a UUID and a target do not fit side by side in 80 columns.
pub(crate) fn orders(orders: &[Order], truncated: bool, now: Time) -> String {
    if orders.is_empty() {
        return "no orders\n".to_owned();
    }
    let mut page = String::new();
    for order in orders {
        page.push_str(&format!(
            "{}  {} {}\n    {} by {}, {}: {}\n",
            text::line(&order.id, 36),
            text::line(&order.kind, 20),
            text::line(&order.target, 100),
            order.pressed_at.age(now),
            name(&order.person),
            order.state.text(),
            standing(&order.counts),
        ));
    }
    if truncated {
        page.push_str("more exist: --limit N\n");
    }
    page
}
