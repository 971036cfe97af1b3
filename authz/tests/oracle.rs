//! The table against a naive oracle, written the other way round: not action → cells, but for each grant and each
//! kind of target the list of actions. The two share nothing but the words.

use authz::{Action, Actor, Grant, Target, Verdict, decide};
use proptest::option::of;
use proptest::prelude::*;
use proto::{PersonName, Role, SiteName, SliceName};

const TWO_PEOPLE: [&str; 7] = [
    "roll-out",
    "rotate-ca",
    "rotate-pod-keys",
    "restore",
    "issue-breakglass",
    "stop-every-slice",
    "stop-every-node",
];

const SEE: &str = "see-slice see-usage see-flows";
const OF_A_NODE: &str = "see-usage see-flows see-node see-journal see-processes read-console write-console \
     freeze-node kill-node reboot-node pod-probe pod-dry-run pod-reboot pod-kill-slivers pod-crash stop-node \
     power-status power-on power-off power-cycle edit-outlets commission-pcu set-node-caps set-traffic-policy \
     see-ladder pause-ladder set-maintenance enrol-node revoke-node rekey-node";
const OF_A_SITE: &str = "see-usage see-flows see-site add-pcu edit-outlets commission-pcu set-node-caps \
     set-traffic-policy see-rules propose-rule see-ladder pause-ladder set-maintenance set-gateway";

/// Everything that support may do, alone or with a second person.
fn support(target: &Target) -> String {
    let limits = "lower-limits set-limits exceed-allocation";
    let rules = "see-rules propose-rule edit-rule arm-rule";
    match target {
        Target::Slice(_) => {
            format!("{SEE} kill-slice freeze-slice {limits} {rules} set-traffic-policy create-slice")
        }
        Target::SliceAtSite { .. } => {
            format!("{SEE} kill-slice freeze-slice kill-sliver freeze-sliver {limits} {rules}")
        }
        Target::Sliver { .. } => format!("{SEE} see-processes kill-sliver freeze-sliver {limits}"),
        Target::Node { .. } => OF_A_NODE.into(),
        Target::Site(_) => format!("{OF_A_SITE} edit-rule arm-rule create-site"),
        Target::Hold { .. } => "release".into(),
        Target::Person { .. } => "see-person invite set-role issue-breakglass".into(),
        Target::Loan { .. } => "lend-limits".into(),
        Target::AuditEntry { .. } => "read-audit".into(),
        Target::Fleet => format!(
            "see-usage see-flows set-node-caps set-traffic-policy {rules} see-ladder pause-ladder set-maintenance \
             read-audit roll-out steer-rollout rotate-ca rotate-pod-keys restore stop-every-slice stop-every-node"
        ),
    }
}

fn developer(me: &PersonName, own: &SliceName, target: &Target) -> String {
    match target {
        Target::Slice(s) if s == own => format!("{SEE} kill-slice freeze-slice lower-limits see-rules"),
        Target::SliceAtSite { slice, .. } if slice == own => {
            format!("{SEE} kill-slice freeze-slice kill-sliver freeze-sliver lower-limits see-rules")
        }
        Target::Sliver { slice, .. } if slice == own => {
            format!("{SEE} see-processes kill-sliver freeze-sliver lower-limits")
        }
        Target::Hold {
            slice: Some(slice),
            holder,
            role: Role::Developer,
            ..
        } if slice == own && holder == me => "release".into(),
        Target::Site(site) if own.as_str().starts_with(&format!("{site}_")) => "see-site".into(),
        Target::Person { grants, .. } => {
            let mate = |grant: &Grant| match grant {
                Grant::Developer(slice) => slice == own,
                Grant::Pi(site) => own.as_str().starts_with(&format!("{site}_")),
                _ => false,
            };
            if grants.iter().any(mate) {
                "see-person".into()
            } else {
                String::new()
            }
        }
        Target::AuditEntry { person, slice, .. }
            if person.as_ref() == Some(me) || slice.as_ref() == Some(own) =>
        {
            "read-audit".into()
        }
        _ => String::new(),
    }
}

fn pi(home: &SiteName, target: &Target) -> String {
    let ours = |slice: &SliceName| slice.as_str().starts_with(&format!("{home}_"));
    match target {
        Target::Slice(s) if ours(s) => {
            format!("{SEE} kill-slice freeze-slice lower-limits set-limits see-rules")
        }
        Target::SliceAtSite { slice, .. } if ours(slice) => {
            format!(
                "{SEE} kill-slice freeze-slice kill-sliver freeze-sliver lower-limits set-limits see-rules"
            )
        }
        Target::SliceAtSite { site, .. } if site == home => "see-rules".into(),
        Target::Sliver { slice, .. } if ours(slice) => {
            format!("{SEE} see-processes kill-sliver freeze-sliver lower-limits set-limits")
        }
        Target::Hold {
            slice: Some(slice),
            role: Role::Developer | Role::Pi,
            ..
        } if ours(slice) => "release".into(),
        Target::Site(site) if site == home => "see-site see-rules".into(),
        Target::Loan { from, to } if ours(from) && ours(to) => "lend-limits".into(),
        Target::Person { grants, .. } => {
            let mine = |grant: &Grant| match grant {
                Grant::Developer(slice) => ours(slice),
                Grant::Pi(site) | Grant::SiteAdmin(site) => site == home,
                Grant::Support => false,
            };
            let my_developer = |grant: &Grant| matches!(grant, Grant::Developer(slice) if ours(slice));
            let mut may = String::new();
            if grants.iter().any(mine) {
                may.push_str("see-person ");
            }
            if !grants.is_empty() && grants.iter().all(my_developer) {
                may.push_str("invite set-role");
            }
            may
        }
        Target::AuditEntry {
            slice: Some(slice), ..
        } if ours(slice) => "read-audit".into(),
        _ => String::new(),
    }
}

fn site_admin(home: &SiteName, target: &Target) -> String {
    match target {
        Target::Slice(s) if s.site() == *home => "see-rules propose-rule".into(),
        Target::SliceAtSite { site, .. } if site == home => {
            format!("{SEE} kill-slice freeze-slice kill-sliver freeze-sliver see-rules propose-rule")
        }
        Target::SliceAtSite { slice, .. } if slice.site() == *home => "see-rules propose-rule".into(),
        Target::Sliver { site, .. } if site == home => {
            format!("{SEE} see-processes kill-sliver freeze-sliver")
        }
        Target::Node { site } if site == home => OF_A_NODE.into(),
        Target::Site(site) if site == home => OF_A_SITE.into(),
        Target::Hold {
            site: Some(site),
            role: Role::SiteAdmin,
            ..
        } if site == home => "release".into(),
        Target::Person { grants, .. }
            if grants.contains(&Grant::Pi(home.clone()))
                || grants.contains(&Grant::SiteAdmin(home.clone())) =>
        {
            "see-person".into()
        }
        Target::AuditEntry { site: Some(site), .. } if site == home => "read-audit".into(),
        _ => String::new(),
    }
}

/// The weakest role that entitles.
fn oracle(actor: &Actor, action: Action, target: &Target) -> Option<Role> {
    let role = |grant: &Grant| {
        let (role, may) = match grant {
            Grant::Developer(own) => (Role::Developer, developer(&actor.name, own, target)),
            Grant::Pi(home) => (Role::Pi, pi(home, target)),
            Grant::SiteAdmin(home) => (Role::SiteAdmin, site_admin(home, target)),
            Grant::Support => (Role::Support, support(target)),
        };
        may.split_whitespace()
            .any(|may| may == action.as_str())
            .then_some(role)
    };
    actor.grants.iter().filter_map(role).min()
}

fn sites() -> impl Strategy<Value = SiteName> {
    prop::sample::select(vec!["a", "b", "ab"]).prop_map(|name| name.parse().expect(name))
}

fn slices() -> impl Strategy<Value = SliceName> {
    prop::sample::select(vec!["a_x", "a_y", "b_x", "ab_x"]).prop_map(|name| name.parse().expect(name))
}

fn people() -> impl Strategy<Value = PersonName> {
    prop::sample::select(vec!["p", "q"]).prop_map(|name| name.parse().expect(name))
}

fn grants() -> impl Strategy<Value = Grant> {
    prop_oneof![
        4 => slices().prop_map(Grant::Developer),
        4 => sites().prop_map(Grant::Pi),
        4 => sites().prop_map(Grant::SiteAdmin),
        1 => Just(Grant::Support),
    ]
}

fn actors() -> impl Strategy<Value = Actor> {
    (people(), prop::collection::vec(grants(), 0..4)).prop_map(|(name, grants)| Actor { name, grants })
}

fn actions() -> impl Strategy<Value = Action> {
    prop::sample::select(Action::ALL)
}

fn targets() -> impl Strategy<Value = Target> {
    prop_oneof![
        slices().prop_map(Target::Slice),
        (slices(), sites()).prop_map(|(slice, site)| Target::SliceAtSite { slice, site }),
        (slices(), sites()).prop_map(|(slice, site)| Target::Sliver { slice, site }),
        sites().prop_map(|site| Target::Node { site }),
        sites().prop_map(Target::Site),
        (
            of(slices()),
            of(sites()),
            people(),
            prop::sample::select(&Role::ALL[..])
        )
            .prop_map(|(slice, site, holder, role)| Target::Hold {
                slice,
                site,
                holder,
                role
            }),
        (people(), prop::collection::vec(grants(), 0..3))
            .prop_map(|(name, grants)| Target::Person { name, grants }),
        (slices(), slices()).prop_map(|(from, to)| Target::Loan { from, to }),
        (of(people()), of(slices()), of(sites())).prop_map(|(person, slice, site)| Target::AuditEntry {
            person,
            slice,
            site
        }),
        Just(Target::Fleet),
    ]
}

fn strength(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Deny { .. } => 0,
        Verdict::NeedsSecondPerson { .. } => 1,
        Verdict::Allow { .. } | Verdict::Anyone { .. } => 2,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_table_is_the_oracle(actor in actors(), target in targets()) {
        for &action in Action::ALL {
            let verdict = decide(&actor, action, &target);
            let wanted = oracle(&actor, action, &target);
            match &verdict {
                Verdict::Anyone { .. } => {
                    prop_assert!(["whoami", "verify-audit"].contains(&action.as_str()));
                }
                Verdict::Deny { .. } => prop_assert_eq!(None, wanted, "{} {:?}", action, verdict),
                Verdict::Allow { role, .. } => {
                    prop_assert_eq!(Some(*role), wanted, "{} {:?}", action, verdict);
                    prop_assert!(!TWO_PEOPLE.contains(&action.as_str()));
                }
                Verdict::NeedsSecondPerson { role, .. } => {
                    prop_assert_eq!(Some(*role), wanted, "{} {:?}", action, verdict);
                    prop_assert!(TWO_PEOPLE.contains(&action.as_str()));
                }
            }
        }
    }

    /// Another grant never takes anything away, and never raises the role in the verdict.
    #[test]
    fn grants_only_add(actor in actors(), more in grants(), at in 0usize..4, action in actions(), target in targets()) {
        let before = decide(&actor, action, &target);
        let mut richer = actor.clone();
        richer.grants.insert(at.min(actor.grants.len()), more);
        let after = decide(&richer, action, &target);
        prop_assert!(strength(&after) >= strength(&before), "{before:?} became {after:?}");
        if let (Some(was), Some(is)) = (before.role(), after.role()) {
            prop_assert!(is <= was);
        }
    }

    /// The same grants in another order, or twice, make the same verdict to the letter.
    #[test]
    fn the_order_of_grants_is_nothing(actor in actors(), action in actions(), target in targets()) {
        let mut other = actor.clone();
        other.grants.reverse();
        other.grants.extend(actor.grants.iter().cloned());
        prop_assert_eq!(decide(&actor, action, &target), decide(&other, action, &target));
    }

    /// A denial names something that would do, whenever anything would.
    #[test]
    fn denials_always_say_what_is_needed(name in people(), action in actions(), target in targets()) {
        let verdict = decide(&Actor { name, grants: vec![] }, action, &target);
        if let Verdict::Deny { rule } = verdict {
            prop_assert!(rule.contains("cannot be aimed at") || rule.contains("support"), "{rule}");
        }
    }
}
