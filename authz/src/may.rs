//! What somebody may do, for people: the table read along their grants.

use std::collections::BTreeSet;

use proto::Role;

use crate::decide::listed;
use crate::table::{Cell, row};
use crate::target::Kind;
use crate::{Action, Actor, Grant};

/// More names than this in one sentence become a number.
const NAMES: usize = 8;

/// What `actor` may do of these actions, a sentence a line. Pass what the program really offers, in the order of
/// DESIGN.md's table; [`Action::ALL`] for the whole of it.
#[must_use]
pub fn may(actor: &Actor, actions: &[Action]) -> Vec<String> {
    let mut lines = vec!["ask who you are; verify an audit file".to_owned()];
    if actor.grants.is_empty() {
        lines.push("nothing else: you have no role yet".to_owned());
        return lines;
    }
    for &action in actions {
        // The kind only matters for a slice at one site, which its own row covers.
        let Some(row) = row(action, Kind::Slice) else {
            continue;
        };
        let scopes: Vec<String> = if actor.grants.contains(&Grant::Support) {
            scope(row.cell(Role::Support), "").into_iter().collect()
        } else {
            Role::ALL
                .into_iter()
                .filter_map(|role| scope(row.cell(role), &names(actor, role)?))
                .collect()
        };
        let line = format!("{}: {}", row.text, scopes.join("; "));
        if !scopes.is_empty() && lines.last() != Some(&line) && !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// The slices of a developer, the sites of a PI or site admin; `None` without a grant of this role.
fn names(actor: &Actor, role: Role) -> Option<String> {
    let all: BTreeSet<&str> = actor
        .grants
        .iter()
        .filter(|grant| grant.role() == role)
        .filter_map(|grant| match grant {
            Grant::Developer(slice) => Some(slice.as_str()),
            Grant::Pi(site) | Grant::SiteAdmin(site) => Some(site.as_str()),
            Grant::Support => None,
        })
        .collect();
    if all.is_empty() {
        return None;
    }
    let mut words: Vec<String> = all.iter().take(NAMES).map(|&name| name.to_owned()).collect();
    if all.len() > NAMES {
        words.push(format!("{} more", all.len() - NAMES));
    }
    Some(listed(words, "and"))
}

fn scope(cell: Cell, names: &str) -> Option<String> {
    Some(match cell {
        Cell::Never => return None,
        Cell::Own => names.to_owned(),
        Cell::SiteSlices => format!("slices of {names}"),
        Cell::SiteNodes => format!("on nodes of {names}"),
        Cell::Sites => format!("slices and nodes of {names}"),
        Cell::Contacts => format!("those of {names}"),
        Cell::HoldsTheySet => format!("those you set on {names}"),
        Cell::HoldsOnSiteSlices => format!("developers' and PIs' on slices of {names}"),
        Cell::HoldsOnSiteNodes => format!("site admins' on nodes of {names}"),
        Cell::SiteLoans => format!("between slices of {names}"),
        Cell::Developers => format!("developers into slices of {names}"),
        Cell::OwnActions => format!("what you did, and {names}"),
        Cell::All => "all".to_owned(),
        Cell::TwoPeople => "with a second person".to_owned(),
    })
}
