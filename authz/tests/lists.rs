//! What people are told about themselves, and what is in their lists.

use authz::{
    Action, Actor, Grant, Target, may, may_see_audit, may_see_hold, may_see_node, may_see_person,
    may_see_processes, may_see_site, may_see_slice,
};
use proto::{Hold, HoldId, HoldKind, NodeId, PersonName, Role, Scope, SiteName, SliceName, Version};

fn slice(name: &str) -> SliceName {
    name.parse().expect(name)
}

fn site(name: &str) -> SiteName {
    name.parse().expect(name)
}

fn person(name: &str) -> PersonName {
    name.parse().expect(name)
}

fn actor(name: &str, grants: Vec<Grant>) -> Actor {
    Actor {
        name: person(name),
        grants,
    }
}

fn hold(slice: Option<SliceName>, scope: Scope) -> Hold {
    Hold {
        id: HoldId::new(),
        slice,
        scope,
        kind: HoldKind::Suspend,
        holder: person("alice"),
        role: Role::Support,
        reason: "floods a bank".into(),
        evidence: String::new(),
        set_at_ms: 1,
        version: Version::default(),
    }
}

#[test]
fn a_developer_is_told() {
    let alice = actor(
        "alice",
        vec![
            Grant::Developer(slice("princeton_coral")),
            Grant::Developer(slice("princeton_codeen")),
        ],
    );
    let both = "princeton_codeen and princeton_coral";
    assert_eq!(
        may(&alice, Action::ALL),
        [
            "ask who you are; verify an audit file".to_owned(),
            format!("see slices and their contacts: {both}"),
            format!("see usage and flows: {both}"),
            format!("see people: those of {both}"),
            format!("see sites and their contacts: those of {both}"),
            format!("see processes: {both}"),
            format!("kill or freeze a slice everywhere: {both}"),
            format!("kill or freeze one sliver on one node: {both}"),
            format!("release a hold: those you set on {both}"),
            format!("lower limits: {both}"),
            format!("see rules: {both}"),
            format!("read the audit: what you did, and {both}"),
        ]
    );
}

#[test]
fn several_roles_share_a_line() {
    let bob = actor(
        "bob",
        vec![Grant::SiteAdmin(site("mit")), Grant::Pi(site("princeton"))],
    );
    let lines = may(&bob, Action::ALL);
    for line in [
        "kill or freeze a slice everywhere: slices of princeton",
        "kill or freeze one sliver on one node: slices of princeton; on nodes of mit",
        "release a hold: developers' and PIs' on slices of princeton; site admins' on nodes of mit",
        "invite people, set roles: developers into slices of princeton",
        "kill every sliver on a node: on nodes of mit",
    ] {
        assert!(
            lines.iter().any(|have| have == line),
            "{line:?} is not in {lines:#?}"
        );
    }
    assert!(!lines.iter().any(|line| line.contains("restore")), "{lines:#?}");
}

#[test]
fn support_is_told_of_the_second_person() {
    let lines = may(
        &actor("carol", vec![Grant::Support, Grant::Pi(site("mit"))]),
        Action::ALL,
    );
    assert!(
        lines.contains(&"kill or freeze a slice everywhere: all".to_owned()),
        "{lines:#?}"
    );
    assert!(
        lines.contains(&"stop every slice: with a second person".to_owned()),
        "{lines:#?}"
    );
    assert!(
        !lines.iter().any(|line| line.contains("of mit")),
        "all is all: {lines:#?}"
    );
}

#[test]
fn nobody_is_told_so_and_long_lists_are_cut() {
    assert_eq!(
        may(&actor("nobody", vec![]), Action::ALL),
        [
            "ask who you are; verify an audit file",
            "nothing else: you have no role yet"
        ]
    );
    let many = (0..500)
        .map(|n| Grant::Developer(slice(&format!("a_{n:03}"))))
        .collect();
    let lines = may(&actor("busy", many), Action::ALL);
    assert!(
        lines[1].ends_with("a_000, a_001, a_002, a_003, a_004, a_005, a_006, a_007, and 492 more"),
        "{lines:#?}"
    );
    assert!(lines.iter().all(|line| line.len() < 200));
}

#[test]
fn lists_hold_what_the_table_gives() {
    let developer = actor("alice", vec![Grant::Developer(slice("princeton_codeen"))]);
    let pi = actor("pi", vec![Grant::Pi(site("princeton"))]);
    let admin = actor("admin", vec![Grant::SiteAdmin(site("princeton"))]);
    let support = actor("support", vec![Grant::Support]);
    let nobody = actor("nobody", vec![]);
    let (home, away) = (site("princeton"), site("mit"));
    let all = [&developer, &pi, &admin, &support, &nobody];
    let check = |what: &str, sees: &dyn Fn(&Actor) -> bool, wanted: [bool; 5]| {
        assert_eq!(
            all.map(sees),
            wanted,
            "{what}: developer, pi, admin, support, nobody"
        );
    };

    let codeen = slice("princeton_codeen");
    let chord = slice("mit_chord");
    check(
        "own slice that runs nowhere",
        &|who| may_see_slice(who, &codeen, []),
        [true, true, false, true, false],
    );
    check(
        "foreign slice that runs at home too",
        &|who| may_see_slice(who, &chord, [&away, &home]),
        [false, false, true, true, false],
    );
    check(
        "node at home",
        &|who| may_see_node(who, &home),
        [false, false, true, true, false],
    );
    check(
        "node away",
        &|who| may_see_node(who, &away),
        [false, false, false, true, false],
    );
    check(
        "own slice's processes away",
        &|who| may_see_processes(who, Some(&codeen), &away),
        [true, true, false, true, false],
    );
    check(
        "all processes at home",
        &|who| may_see_processes(who, None, &home),
        [false, false, true, true, false],
    );
    check(
        "own site",
        &|who| may_see_site(who, &home),
        [true, true, true, true, false],
    );
    check(
        "the PI as a person",
        &|who| may_see_person(who, &person("pi"), &[Grant::Pi(site("princeton"))]),
        [true, true, true, true, false],
    );
    check(
        "own action",
        &|who| may_see_audit(who, Some(&person("alice")), None, None),
        [true, false, false, true, false],
    );
    check(
        "deed of the system on a node at home",
        &|who| may_see_audit(who, None, None, Some(&home)),
        [false, false, true, true, false],
    );

    let everywhere = hold(Some(codeen.clone()), Scope::Fleet);
    check(
        "hold on a slice everywhere",
        &|who| may_see_hold(who, &everywhere, None, []),
        [true, true, false, true, false],
    );
    check(
        "hold on a slice everywhere that runs at home",
        &|who| may_see_hold(who, &everywhere, None, [&home]),
        [true, true, true, true, false],
    );
    let at_home = hold(Some(chord), Scope::Site(home.clone()));
    check(
        "hold on a foreign slice at home",
        &|who| may_see_hold(who, &at_home, None, []),
        [false, false, true, true, false],
    );
    let on_node = hold(None, Scope::Node(NodeId::random()));
    check(
        "hold on a node at home",
        &|who| may_see_hold(who, &on_node, Some(&home), []),
        [false, false, true, true, false],
    );
    check(
        "hold on a node nobody knows",
        &|who| may_see_hold(who, &on_node, None, []),
        [false, false, false, true, false],
    );
    let on_all = hold(None, Scope::Fleet);
    check(
        "hold on everything",
        &|who| may_see_hold(who, &on_all, Some(&home), []),
        [false, false, false, true, false],
    );
}

#[test]
fn a_hold_becomes_a_target_with_the_site_of_its_scope() {
    let home = site("princeton");
    let of = |scope, node_site| match Target::hold(&hold(None, scope), node_site) {
        Target::Hold { site, .. } => site,
        other => panic!("{other:?}"),
    };
    assert_eq!(of(Scope::Fleet, Some(&home)), None);
    assert_eq!(of(Scope::Site(home.clone()), None), Some(home.clone()));
    assert_eq!(of(Scope::Node(NodeId::random()), Some(&home)), Some(home.clone()));
    assert_eq!(of(Scope::Node(NodeId::random()), None), None);
}
