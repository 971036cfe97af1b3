use authz::{Action, Actor, Target, decide};
use proptest::prelude::*;

use super::*;

fn name(text: &str) -> PersonName {
    text.parse().expect("valid")
}

fn site(text: &str) -> SiteName {
    text.parse().expect("valid")
}

fn slice(text: &str) -> SliceName {
    text.parse().expect("valid")
}

fn facts() -> Facts {
    Facts {
        people: vec![
            (name("alice"), vec![Grant::Support]),
            (name("sam"), vec![Grant::SiteAdmin(site("princeton"))]),
            (name("olga"), vec![Grant::SiteAdmin(site("mit"))]),
            (
                name("pia"),
                vec![Grant::SiteAdmin(site("mit")), Grant::Pi(site("mit"))],
            ),
            (name("dave"), vec![Grant::Developer(slice("mit_chord"))]),
            (name("nobody"), vec![]),
        ],
        slices: [slice("mit_chord"), slice("princeton_codeen")].into(),
        revoked: [Spki::new([1; 32])].into(),
        roots: "roots".into(),
    }
}

#[test]
fn a_node_gets_those_who_may_do_something_on_it_and_nobody_else() {
    let princeton = snapshot(&facts(), &site("princeton"));
    let names: Vec<&str> = princeton
        .people
        .iter()
        .map(|person| person.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["alice", "dave", "pia", "sam"],
        "olga looks after other nodes"
    );
    let pia = &princeton.people[2];
    assert_eq!(pia.grants.len(), 1, "what she is at mit says nothing here");
    assert_eq!(princeton.revoked_keys, [vec![1; 32]]);
    assert!(!princeton.incomplete);
}

#[test]
fn the_order_of_the_facts_changes_nothing() {
    let mut turned = facts();
    turned.people.reverse();
    turned.people[1].1.reverse();
    for at in ["princeton", "mit"] {
        let (one, two) = (snapshot(&facts(), &site(at)), snapshot(&turned, &site(at)));
        assert_eq!(content(&one), content(&two));
    }
    let mut other = facts();
    other.revoked.clear();
    assert_ne!(
        content(&snapshot(&other, &site("mit"))),
        content(&snapshot(&facts(), &site("mit")))
    );
}

#[test]
fn what_does_not_fit_leaves_out_those_who_may_least() {
    let mut many = facts();
    for n in 0..30_000 {
        many.people.push((
            name(&format!("dev{n:05}")),
            vec![Grant::Developer(slice("mit_chord"))],
        ));
    }
    let cut = snapshot(&many, &site("princeton"));
    assert!(
        cut.incomplete && cut.encoded_len() <= MOST,
        "{}",
        cut.encoded_len()
    );
    assert!(cut.people.len() > 10_000);
    for stays in ["alice", "sam"] {
        assert!(cut.people.iter().any(|person| person.name == stays), "{stays}");
    }
    assert_eq!(cut.revoked_keys.len(), 1);
}

#[test]
fn a_thousand_people_take_what_the_notes_say() {
    let mut facts = Facts::default();
    for n in 0..1_000 {
        facts.people.push((
            name(&format!("person{n:04}")),
            vec![Grant::Developer(slice(&format!("princeton_slice{n:04}")))],
        ));
        facts.slices.insert(slice(&format!("princeton_slice{n:04}")));
    }
    let bytes = snapshot(&facts, &site("princeton")).encoded_len();
    println!("1,000 people with a slice each: {bytes} bytes");
    assert!((30_000..100_000).contains(&bytes), "{bytes}");
}

fn grants() -> impl Strategy<Value = Vec<Grant>> {
    let sites = prop::sample::select(vec!["princeton", "mit", "cmu"]);
    let slices = prop::sample::select(vec!["princeton_codeen", "mit_chord"]);
    let grant = prop_oneof![
        Just(Grant::Support),
        sites.clone().prop_map(|at| Grant::Pi(site(at))),
        sites.prop_map(|at| Grant::SiteAdmin(site(at))),
        slices.prop_map(|of| Grant::Developer(slice(of))),
    ];
    prop::collection::vec(grant, 0..4)
}

proptest! {
    /// The centre, with all grants, and a node, with those of its snapshot, say the same of everything on that node.
    #[test]
    fn the_snapshot_changes_no_verdict_about_its_nodes(grants in grants()) {
        let at = site("princeton");
        let facts = Facts {
            people: vec![(name("dave"), grants.clone())],
            ..Facts::default()
        };
        let kept = snapshot(&facts, &at)
            .people
            .first()
            .map(|person| {
                person.grants.iter().map(|wire| {
                    let role = v1::Role::try_from(wire.role).expect("known").checked().expect("set");
                    let slice = (!wire.slice.is_empty()).then(|| slice(&wire.slice));
                    let site = (!wire.site.is_empty()).then(|| site(&wire.site));
                    Grant::from_parts(role, slice, site).expect("fits")
                }).collect()
            })
            .unwrap_or_default();
        let centre = Actor { name: name("dave"), grants };
        let node = Actor { name: name("dave"), grants: kept };
        let targets = [
            Target::Node { site: at.clone() },
            Target::Sliver { slice: slice("princeton_codeen"), site: at.clone() },
            Target::Sliver { slice: slice("mit_chord"), site: at.clone() },
            Target::SliceAtSite { slice: slice("mit_chord"), site: at },
        ];
        // Rules are the controller's, and who of another site sees them is nothing to a node.
        let decided_here = |action: &&Action| !matches!(action, Action::SeeRules | Action::ProposeRule);
        for action in Action::ALL.iter().filter(decided_here) {
            for target in &targets {
                prop_assert_eq!(decide(&centre, *action, target), decide(&node, *action, target));
            }
        }
    }
}
