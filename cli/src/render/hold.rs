//! Holds as text.

use super::{cell, name};
use crate::text;
use crate::view::hold::{Exemption, Hold};
use crate::when::Time;

/// Three lines a hold: the id with what it holds, who set it, and why; and one for each node where it was released by
/// somebody there. Empty when there are none.
pub(crate) fn holds(holds: &[Hold], exemptions: &[Exemption], now: Time, width: u16) -> String {
    let mut page = String::new();
    for hold in holds {
        let what = hold
            .slice
            .as_deref()
            .map_or_else(|| "every sliver".to_owned(), name);
        page.push_str(&format!(
            "{}  {} {what}, {}\n    by {} ({}), {}\n    {}\n",
            text::line(&hold.id, 36),
            hold.kind.text(),
            cell(&hold.scope.text()),
            name(&hold.holder),
            hold.role.text(),
            hold.set_at.both(now),
            text::line(&hold.reason, usize::from(width).saturating_sub(4) * 2),
        ));
        for exemption in exemptions.iter().filter(|exemption| exemption.hold == hold.id) {
            let node = match exemption.node_name.as_str() {
                "" => &exemption.node,
                name => name,
            };
            page.push_str(&format!(
                "    not on {}: released there by {} ({}), {}\n",
                name(node),
                name(&exemption.person),
                exemption.role.text(),
                exemption.at.both(now),
            ));
        }
    }
    page
}
