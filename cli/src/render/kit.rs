//! A kit as text.

use super::{cell, fields, name, table};
use crate::commands::KitView;
use crate::when::Time;

/// `kit show`
pub(crate) fn kit(kit: &KitView, now: Time, width: u16) -> String {
    let mut text = fields(&[
        ("kit of", cell(&kit.person)),
        ("exported", kit.exported_at.both(now)),
        ("policy issued", kit.policy_issued_at.both(now)),
        ("nodes", kit.nodes.len().to_string()),
    ]);
    if kit.nodes.is_empty() {
        return text;
    }
    let rows = kit
        .nodes
        .iter()
        .map(|node| {
            vec![
                name(&node.name),
                cell(&node.site),
                match node.direct_address.as_str() {
                    "" => "-".to_owned(),
                    address => cell(address),
                },
                node.last_seen_at.age(now),
            ]
        })
        .collect();
    text.push('\n');
    text.push_str(&table(&["NODE", "SITE", "DIRECT", "SEEN"], &[], rows, width));
    text
}
