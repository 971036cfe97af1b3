//! Filters for lists, each nothing but [`decide`] on the right action and target.

use proto::{Hold, PersonName, SiteName, SliceName};

use crate::{Action, Actor, Grant, Target, decide};

/// Whether a slice is in this person's lists. `runs_at`: the sites on whose nodes it runs, as far as is known; a
/// site admin sees what runs at home.
#[must_use]
pub fn may_see_slice<'a>(
    actor: &Actor,
    slice: &SliceName,
    runs_at: impl IntoIterator<Item = &'a SiteName>,
) -> bool {
    decide(actor, Action::SeeSlice, &Target::Slice(slice.clone())).is_allowed()
        || runs_at.into_iter().any(|site| {
            let here = Target::SliceAtSite {
                slice: slice.clone(),
                site: site.clone(),
            };
            decide(actor, Action::SeeSlice, &here).is_allowed()
        })
}

/// Whether the health of a node of `site` is for this person.
#[must_use]
pub fn may_see_node(actor: &Actor, site: &SiteName) -> bool {
    decide(actor, Action::SeeNode, &Target::Node { site: site.clone() }).is_allowed()
}

/// Whether the processes of one slice (`None`: of the whole node) on a node of `site` are for this person.
#[must_use]
pub fn may_see_processes(actor: &Actor, slice: Option<&SliceName>, site: &SiteName) -> bool {
    let target = match slice {
        Some(slice) => Target::Sliver {
            slice: slice.clone(),
            site: site.clone(),
        },
        None => Target::Node { site: site.clone() },
    };
    decide(actor, Action::SeeProcesses, &target).is_allowed()
}

/// Whether a site is in this person's lists.
#[must_use]
pub fn may_see_site(actor: &Actor, site: &SiteName) -> bool {
    decide(actor, Action::SeeSite, &Target::Site(site.clone())).is_allowed()
}

/// Whether a person, who was granted `grants`, is in this person's lists.
#[must_use]
pub fn may_see_person(actor: &Actor, name: &PersonName, grants: &[Grant]) -> bool {
    let target = Target::Person {
        name: name.clone(),
        grants: grants.to_vec(),
    };
    decide(actor, Action::SeePerson, &target).is_allowed()
}

/// Whether a hold is in this person's lists: who may see what it holds may see the hold. `node_site` as in
/// [`Target::hold`]; `runs_at` as in [`may_see_slice`].
#[must_use]
pub fn may_see_hold<'a>(
    actor: &Actor,
    hold: &Hold,
    node_site: Option<&SiteName>,
    runs_at: impl IntoIterator<Item = &'a SiteName>,
) -> bool {
    let target = Target::hold(hold, node_site);
    match &hold.slice {
        Some(slice) => may_see_slice(actor, slice, target.nodes_of()) || may_see_slice(actor, slice, runs_at),
        None => match target.nodes_of() {
            Some(site) => may_see_node(actor, site),
            // On everything, or on a node that nobody knows: for those who may see everything.
            None => decide(actor, Action::SeeUsage, &Target::Fleet).is_allowed(),
        },
    }
}

/// Whether an audit entry is for this person: who did it, to which slice, on a node of which site.
#[must_use]
pub fn may_see_audit(
    actor: &Actor,
    person: Option<&PersonName>,
    slice: Option<&SliceName>,
    site: Option<&SiteName>,
) -> bool {
    let target = Target::AuditEntry {
        person: person.cloned(),
        slice: slice.cloned(),
        site: site.cloned(),
    };
    decide(actor, Action::ReadAudit, &target).is_allowed()
}
