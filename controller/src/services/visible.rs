//! What somebody may see of orders and audit entries, as the store's filter. It says the same as
//! `authz::may_see_audit` asked row by row, which a test compares.

use authz::{Action, Actor, Grant, Target, decide};

use crate::store::Visible;

/// The filter for this person's lists of orders and audit entries.
pub(crate) fn of(actor: &Actor) -> Visible {
    if actor.grants.is_empty() {
        return Visible::Nothing;
    }
    if decide(actor, Action::ReadAudit, &Target::Fleet).is_allowed() {
        return Visible::All;
    }
    let (mut slices, mut slices_of, mut nodes_of) = (Vec::new(), Vec::new(), Vec::new());
    let mut person = None;
    for grant in &actor.grants {
        match grant {
            Grant::Developer(slice) => {
                slices.push(slice.clone());
                person = Some(actor.name.clone());
            }
            Grant::Pi(site) => slices_of.push(site.clone()),
            Grant::SiteAdmin(site) => nodes_of.push(site.clone()),
            Grant::Support => return Visible::All,
        }
    }
    Visible::Any {
        person,
        slices,
        slices_of,
        nodes_of,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use authz::may_see_audit;
    use proptest::prelude::*;
    use proto::{PersonName, SiteName, SliceName};

    fn shows(visible: &Visible, by: &PersonName, slice: Option<&SliceName>, site: Option<&SiteName>) -> bool {
        match visible {
            Visible::Nothing => false,
            Visible::All => true,
            Visible::Any {
                person,
                slices,
                slices_of,
                nodes_of,
            } => {
                person.as_ref() == Some(by)
                    || slice.is_some_and(|slice| slices.contains(slice) || slices_of.contains(&slice.site()))
                    || site.is_some_and(|site| nodes_of.contains(site))
            }
        }
    }

    fn grant() -> impl Strategy<Value = Grant> {
        let site =
            prop_oneof![Just("mit"), Just("princeton")].prop_map(|s| s.parse::<SiteName>().expect("valid"));
        prop_oneof![
            Just(Grant::Support),
            slice().prop_map(Grant::Developer),
            site.clone().prop_map(Grant::Pi),
            site.prop_map(Grant::SiteAdmin),
        ]
    }

    fn slice() -> impl Strategy<Value = SliceName> {
        prop_oneof![
            Just("mit_chord"),
            Just("princeton_codeen"),
            Just("princeton_coral")
        ]
        .prop_map(|s| s.parse().expect("valid"))
    }

    proptest! {
        #[test]
        fn the_filter_agrees_with_the_table(
            grants in prop::collection::vec(grant(), 0..4),
            by in prop_oneof![Just("alice"), Just("bob")],
            slice in prop::option::of(slice()),
            site in prop::option::of(prop_oneof![Just("mit"), Just("princeton")]),
        ) {
            let actor = Actor { name: "alice".parse().expect("valid"), grants };
            let by: PersonName = by.parse().expect("valid");
            let site: Option<SiteName> = site.map(|s| s.parse().expect("valid"));
            prop_assert_eq!(
                shows(&of(&actor), &by, slice.as_ref(), site.as_ref()),
                may_see_audit(&actor, Some(&by), slice.as_ref(), site.as_ref()),
                "{:?} {:?} {:?} {:?}", actor, by, slice, site
            );
        }
    }
}
