use proptest::prelude::*;
use proto::{HoldId, HoldKind, PersonName, Version};

use super::*;
use authz::Grant;

fn site(name: &str) -> SiteName {
    name.parse().expect("valid")
}

fn slice(name: &str) -> SliceName {
    name.parse().expect("valid")
}

fn here() -> Here {
    Here {
        id: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().expect("valid"),
        name: "planet1".into(),
        site: site("princeton"),
    }
}

const SLICES: [&str; 2] = ["princeton_codeen", "mit_chord"];

fn grants() -> Vec<Grant> {
    let mut all = vec![Grant::Support];
    for at in ["princeton", "mit"] {
        all.extend([Grant::Pi(site(at)), Grant::SiteAdmin(site(at))]);
    }
    all.extend(SLICES.map(|name| Grant::Developer(slice(name))));
    all
}

/// Nobody, everybody with one grant, and everybody with two.
fn actors() -> Vec<Actor> {
    let name: PersonName = "dave".parse().expect("valid");
    let mut sets = vec![Vec::new()];
    for one in grants() {
        sets.push(vec![one.clone()]);
        sets.extend(grants().into_iter().map(|two| vec![one.clone(), two]));
    }
    let actor = |grants| Actor {
        name: name.clone(),
        grants,
    };
    sets.into_iter().map(actor).collect()
}

fn hold(slice: Option<SliceName>, scope: Scope, holder: &str, role: Role) -> Hold {
    Hold {
        id: HoldId::new(),
        slice,
        scope,
        kind: HoldKind::Suspend,
        holder: holder.parse().expect("valid"),
        role,
        reason: "x".into(),
        evidence: String::new(),
        set_at_ms: 1,
        version: Version::default(),
    }
}

fn same(aimed: &Result<Aim, Refusal>, verdict: &Verdict) -> bool {
    match (aimed, verdict) {
        (Ok(aim), Verdict::Allow { role, rule }) => aim.role == *role && aim.rule == *rule,
        (Err(refusal), Verdict::Deny { rule }) => refusal.no == No::Refused(rule.clone()),
        _ => false,
    }
}

/// The table at the centre and the door at the node give the same verdict, the same role and the same words, for
/// every wish and every actor.
#[test]
fn the_door_says_what_the_table_says() {
    let here = here();
    let node = || NodeRef::Name("planet1".parse().expect("valid"));
    let mut cells = 0;
    for actor in actors() {
        let mut check = |wish: &Wish, action: Action, target: &Target| {
            let aimed = aim(&actor, wish, &here, &[], |_| true);
            let verdict = decide(&actor, action, target);
            assert!(
                same(&aimed, &verdict),
                "{actor:?} {wish:?}: {aimed:?}, the table says {verdict:?}"
            );
            cells += 1;
        };
        for kind in [HoldKind::Suspend, HoldKind::Freeze] {
            let (on_sliver, on_node) = match kind {
                HoldKind::Suspend => (Action::KillSliver, Action::KillNode),
                HoldKind::Freeze => (Action::FreezeSliver, Action::FreezeNode),
            };
            for name in SLICES {
                for reach in [Reach::Fleet, Reach::Site(site("princeton")), Reach::Node(node())] {
                    let wish = Wish::Hold {
                        slice: Some(slice(name)),
                        reach,
                        kind,
                    };
                    check(&wish, on_sliver, &here.sliver(&slice(name)));
                }
            }
            let wish = Wish::Hold {
                slice: None,
                reach: Reach::Node(node()),
                kind,
            };
            check(&wish, on_node, &here.node());
        }
        check(&Wish::Reboot(node()), Action::RebootNode, &here.node());
        let stop = Wish::Stop {
            node: node(),
            no_way_back: true,
        };
        check(&stop, Action::StopNode, &here.node());
    }
    assert!(cells > 800, "{cells}");
}

/// One hold, asked for by its id: whoever may see it gets the table's verdict, the others learn nothing.
#[test]
fn a_release_is_judged_by_the_table_as_well() {
    let here = here();
    for actor in actors() {
        for role in Role::ALL {
            for holder in ["dave", "erin"] {
                for scope in [Scope::Fleet, Scope::Site(site("princeton")), Scope::Node(here.id)] {
                    for name in [Some(slice("princeton_codeen")), Some(slice("mit_chord")), None] {
                        let hold = hold(name, scope.clone(), holder, role);
                        let wish = Wish::ReleaseHold(hold.id);
                        let aimed = aim(&actor, &wish, &here, std::slice::from_ref(&hold), |_| true);
                        let verdict =
                            decide(&actor, Action::Release, &Target::hold(&hold, here.site_of(&hold)));
                        if here.may_see(&actor, &hold) {
                            assert!(
                                same(&aimed, &verdict),
                                "{actor:?} {hold:?}: {aimed:?}, {verdict:?}"
                            );
                        } else {
                            assert!(aimed.is_err() && !verdict.is_allowed(), "{actor:?} {hold:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_not_here_or_takes_two_is_refused_by_name() {
    let here = here();
    let support = Actor {
        name: "alice".parse().expect("valid"),
        grants: vec![Grant::Support],
    };
    let no = |wish: &Wish| {
        aim(&support, wish, &here, &[], |_| false)
            .expect_err("refused")
            .no
            .to_string()
    };
    let wish = |slice: Option<&str>, reach| Wish::Hold {
        slice: slice.map(self::slice),
        reach,
        kind: HoldKind::Suspend,
    };
    let other = NodeRef::Name("planet2".parse().expect("valid"));
    assert!(
        no(&wish(Some("mit_chord"), Reach::Node(other.clone())))
            .contains("this is node planet1, not planet2")
    );
    assert!(no(&Wish::Reboot(other)).contains("not planet2"));
    assert!(
        no(&wish(Some("mit_chord"), Reach::Site(site("mit")))).contains("a node of princeton, not of mit")
    );
    assert!(no(&wish(Some("mit_chord"), Reach::Fleet)).contains("neither in this node's policy nor on it"));
    assert!(no(&wish(None, Reach::Fleet)).contains("only where the controller is"));
    assert!(no(&Wish::ReleaseHold(HoldId::new())).contains("none stands"));
    let stop = Wish::Stop {
        node: NodeRef::Id(here.id),
        no_way_back: false,
    };
    assert!(no(&stop).contains("no commissioned outlet"));
}

proptest! {
    /// A release by slice lifts exactly what the table lets its holder lift, and says what stands.
    #[test]
    fn a_release_lifts_what_may_be_lifted(grant in prop::sample::select(grants()), roles in prop::collection::vec(0usize..4, 1..8)) {
        let here = here();
        let actor = Actor { name: "dave".parse().expect("valid"), grants: vec![grant] };
        let holds: Vec<Hold> = roles
            .iter()
            .map(|role| hold(Some(slice("princeton_codeen")), Scope::Node(here.id), "erin", Role::ALL[*role]))
            .collect();
        let may = |hold: &&Hold| decide(&actor, Action::Release, &Target::hold(hold, here.site_of(hold))).is_allowed()
            && here.may_see(&actor, hold);
        let wanted = holds.iter().filter(may).count();
        match aim(&actor, &Wish::ReleaseSlice(slice("princeton_codeen")), &here, &holds, |_| true) {
            Ok(Aim { act: Act::Release(lifted), target, .. }) => {
                prop_assert_eq!(lifted.len(), wanted);
                prop_assert_eq!(target.contains("still standing"), wanted < holds.len());
            }
            Ok(other) => prop_assert!(false, "{other:?}"),
            Err(_) => prop_assert_eq!(wanted, 0),
        }
    }
}
