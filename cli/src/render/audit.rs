//! The audit trail as text.

use super::{LINE, name};
use crate::text;
use crate::view::audit::Entry;
use crate::when::Time;

/// One entry of `audit log`: who, what, what came of it; the reason and the rule beneath.
pub(crate) fn entry(entry: &Entry, now: Time) -> String {
    let role = match entry.role {
        crate::view::Role::Unknown => String::new(),
        role => format!(" ({})", role.text()),
    };
    let who = if entry.person.is_empty() {
        "the system".to_owned()
    } else {
        name(&entry.person)
    };
    let mut shown = format!(
        "{}  {}  {who}{role} {} {}: {}",
        entry.sequence,
        entry.at.both(now),
        text::line(&entry.action, 60),
        text::line(&entry.target, 120),
        text::line(&entry.outcome, 20),
    );
    for (label, value) in [
        ("reason", entry.reason.as_deref()),
        ("evidence", entry.evidence.as_deref()),
        ("detail", entry.detail.as_deref()),
        ("order", entry.order.as_deref()),
    ] {
        if let Some(value) = value {
            shown.push_str(&format!("\n    {label}: {}", text::line(value, LINE)));
        }
    }
    shown
}
