//! Every cell of DESIGN.md's table, written out by hand: action × target × role × own/foreign. A pair of action
//! and target that is not listed makes no sense and must be denied by name, to everybody.

use std::collections::HashMap;

use authz::{Action, Actor, Grant, Target, Verdict, decide};
use proto::{Role, SiteName, SliceName};

/// Own is princeton, foreign is mit. `+` allow, `-` deny, `2` needs a second person.
/// Targets are defined in `targets()`; `@own` is a node of princeton, `@foreign` one of mit; the slice is always
/// princeton_codeen. `alice` is its developer and `col.` another one, her colleague.
const TABLE: &str = "
# action                                              | target             | alice col. foreign | PI own foreign | admin own foreign | support

# see slices, contacts, usage, flows
see-slice see-usage see-flows                         | slice              |   +    +    -      |   +     -      |    -       -      |   +
see-slice see-usage see-flows                         | slice@own          |   +    +    -      |   +     -      |    +       -      |   +
see-slice see-usage see-flows                         | slice@foreign      |   +    +    -      |   +     -      |    -       +      |   +
see-slice see-usage see-flows                         | sliver@own         |   +    +    -      |   +     -      |    +       -      |   +
see-slice see-usage see-flows                         | sliver@foreign     |   +    +    -      |   +     -      |    -       +      |   +
see-usage see-flows                                   | node               |   -    -    -      |   -     -      |    +       -      |   +
see-usage see-flows                                   | site               |   -    -    -      |   -     -      |    +       -      |   +
see-usage see-flows                                   | fleet              |   -    -    -      |   -     -      |    -       -      |   +
see-person                                            | person:developer   |   +    +    -      |   +     -      |    -       -      |   +
see-person                                            | person:pi          |   +    +    -      |   +     -      |    +       -      |   +
see-person                                            | person:admin       |   -    -    -      |   +     -      |    +       -      |   +
see-person                                            | person:support     |   -    -    -      |   -     -      |    -       -      |   +
see-person                                            | person:nobody      |   -    -    -      |   -     -      |    -       -      |   +
see-person                                            | person:dev+pi      |   +    +    -      |   +     -      |    +       -      |   +
see-site                                              | site               |   +    +    -      |   +     -      |    +       -      |   +

# see node health, processes, journal tail
see-node see-journal                                  | node               |   -    -    -      |   -     -      |    +       -      |   +
see-processes                                         | sliver@own         |   +    +    -      |   +     -      |    +       -      |   +
see-processes                                         | sliver@foreign     |   +    +    -      |   +     -      |    -       +      |   +
see-processes                                         | node               |   -    -    -      |   -     -      |    +       -      |   +

# console: read, write
read-console write-console                            | node               |   -    -    -      |   -     -      |    +       -      |   +

# kill or freeze a slice everywhere; at one site it counts as the sliver row
kill-slice freeze-slice                               | slice              |   +    +    -      |   +     -      |    -       -      |   +
kill-slice freeze-slice                               | slice@own          |   +    +    -      |   +     -      |    +       -      |   +
kill-slice freeze-slice                               | slice@foreign      |   +    +    -      |   +     -      |    -       +      |   +

# kill or freeze one sliver on one node
kill-sliver freeze-sliver                             | slice@own          |   +    +    -      |   +     -      |    +       -      |   +
kill-sliver freeze-sliver                             | slice@foreign      |   +    +    -      |   +     -      |    -       +      |   +
kill-sliver freeze-sliver                             | sliver@own         |   +    +    -      |   +     -      |    +       -      |   +
kill-sliver freeze-sliver                             | sliver@foreign     |   +    +    -      |   +     -      |    -       +      |   +

# release a hold: by whom it was set, on the slice (everywhere, @own, @foreign) or on a node
release                                               | hold:alice         |   +    -    -      |   +     -      |    -       -      |   +
release                                               | hold:alice@own     |   +    -    -      |   +     -      |    -       -      |   +
release                                               | hold:alice@foreign |   +    -    -      |   +     -      |    -       -      |   +
release                                               | hold:alice-as-pi   |   -    -    -      |   +     -      |    -       -      |   +
release                                               | hold:alice-as-supp |   -    -    -      |   -     -      |    -       -      |   +
release                                               | hold:pi            |   -    -    -      |   +     -      |    -       -      |   +
release                                               | hold:pi@own        |   -    -    -      |   +     -      |    -       -      |   +
release                                               | hold:admin@own     |   -    -    -      |   -     -      |    +       -      |   +
release                                               | hold:admin@foreign |   -    -    -      |   -     -      |    -       +      |   +
release                                               | hold:support       |   -    -    -      |   -     -      |    -       -      |   +
release                                               | hold:support@own   |   -    -    -      |   -     -      |    -       -      |   +
release                                               | node-hold:admin    |   -    -    -      |   -     -      |    +       -      |   +
release                                               | node-hold:support  |   -    -    -      |   -     -      |    -       -      |   +
release                                               | node-hold:unknown  |   -    -    -      |   -     -      |    -       -      |   +

# hold a node (safe boot); kill-node
freeze-node kill-node                                 | node               |   -    -    -      |   -     -      |    +       -      |   +

# reboot a node; POD; halt a node; power
reboot-node pod-probe pod-dry-run pod-reboot          | node               |   -    -    -      |   -     -      |    +       -      |   +
pod-kill-slivers pod-crash stop-node                  | node               |   -    -    -      |   -     -      |    +       -      |   +
power-status power-on power-off power-cycle           | node               |   -    -    -      |   -     -      |    +       -      |   +

# add a PCU, edit outlets, commission
add-pcu edit-outlets commission-pcu                   | site               |   -    -    -      |   -     -      |    +       -      |   +
edit-outlets commission-pcu                           | node               |   -    -    -      |   -     -      |    +       -      |   +

# limits: developers lower own; PIs within the allocation, and loans; site admins caps and policy of the site
lower-limits                                          | slice              |   +    +    -      |   +     -      |    -       -      |   +
lower-limits                                          | slice@own          |   +    +    -      |   +     -      |    -       -      |   +
lower-limits                                          | slice@foreign      |   +    +    -      |   +     -      |    -       -      |   +
lower-limits                                          | sliver@own         |   +    +    -      |   +     -      |    -       -      |   +
lower-limits                                          | sliver@foreign     |   +    +    -      |   +     -      |    -       -      |   +
set-limits                                            | slice              |   -    -    -      |   +     -      |    -       -      |   +
set-limits                                            | slice@own          |   -    -    -      |   +     -      |    -       -      |   +
set-limits                                            | slice@foreign      |   -    -    -      |   +     -      |    -       -      |   +
set-limits                                            | sliver@own         |   -    -    -      |   +     -      |    -       -      |   +
set-limits                                            | sliver@foreign     |   -    -    -      |   +     -      |    -       -      |   +
lend-limits                                           | loan:inside        |   -    -    -      |   +     -      |    -       -      |   +
lend-limits                                           | loan:across        |   -    -    -      |   -     -      |    -       -      |   +
exceed-allocation                                     | slice              |   -    -    -      |   -     -      |    -       -      |   +
exceed-allocation                                     | slice@own          |   -    -    -      |   -     -      |    -       -      |   +
exceed-allocation                                     | slice@foreign      |   -    -    -      |   -     -      |    -       -      |   +
exceed-allocation                                     | sliver@own         |   -    -    -      |   -     -      |    -       -      |   +
exceed-allocation                                     | sliver@foreign     |   -    -    -      |   -     -      |    -       -      |   +
set-node-caps set-traffic-policy                      | node               |   -    -    -      |   -     -      |    +       -      |   +
set-node-caps set-traffic-policy                      | site               |   -    -    -      |   -     -      |    +       -      |   +
set-node-caps set-traffic-policy                      | fleet              |   -    -    -      |   -     -      |    -       -      |   +
set-traffic-policy                                    | slice              |   -    -    -      |   -     -      |    -       -      |   +

# rules: see / edit / let them act
see-rules                                             | slice              |   +    +    -      |   +     -      |    +       -      |   +
see-rules                                             | slice@own          |   +    +    -      |   +     -      |    +       -      |   +
see-rules                                             | slice@foreign      |   +    +    -      |   +     +      |    +       +      |   +
see-rules                                             | site               |   -    -    -      |   +     -      |    +       -      |   +
see-rules                                             | fleet              |   -    -    -      |   -     -      |    -       -      |   +
propose-rule                                          | slice              |   -    -    -      |   -     -      |    +       -      |   +
propose-rule                                          | slice@own          |   -    -    -      |   -     -      |    +       -      |   +
propose-rule                                          | slice@foreign      |   -    -    -      |   -     -      |    +       +      |   +
propose-rule                                          | site               |   -    -    -      |   -     -      |    +       -      |   +
propose-rule                                          | fleet              |   -    -    -      |   -     -      |    -       -      |   +
edit-rule arm-rule                                    | slice              |   -    -    -      |   -     -      |    -       -      |   +
edit-rule arm-rule                                    | slice@own          |   -    -    -      |   -     -      |    -       -      |   +
edit-rule arm-rule                                    | slice@foreign      |   -    -    -      |   -     -      |    -       -      |   +
edit-rule arm-rule                                    | site               |   -    -    -      |   -     -      |    -       -      |   +
edit-rule arm-rule                                    | fleet              |   -    -    -      |   -     -      |    -       -      |   +

# ladder: see / pause, maintenance
see-ladder pause-ladder set-maintenance               | node               |   -    -    -      |   -     -      |    +       -      |   +
see-ladder pause-ladder set-maintenance               | site               |   -    -    -      |   -     -      |    +       -      |   +
see-ladder pause-ladder set-maintenance               | fleet              |   -    -    -      |   -     -      |    -       -      |   +

# invite people, set roles (the grants are those to be given or taken)
invite set-role                                       | person:developer   |   -    -    -      |   +     -      |    -       -      |   +
invite set-role                                       | person:pi          |   -    -    -      |   -     -      |    -       -      |   +
invite set-role                                       | person:admin       |   -    -    -      |   -     -      |    -       -      |   +
invite set-role                                       | person:support     |   -    -    -      |   -     -      |    -       -      |   +
invite set-role                                       | person:nobody      |   -    -    -      |   -     -      |    -       -      |   +
invite set-role                                       | person:dev+pi      |   -    -    -      |   -     -      |    -       -      |   +

# not in DESIGN.md's table
create-site                                           | site               |   -    -    -      |   -     -      |    -       -      |   +
create-slice                                          | slice              |   -    -    -      |   -     -      |    -       -      |   +
steer-rollout                                         | fleet              |   -    -    -      |   -     -      |    -       -      |   +

# enrol, revoke, re-key nodes; site gateways
enrol-node revoke-node rekey-node                     | node               |   -    -    -      |   -     -      |    +       -      |   +
set-gateway                                           | site               |   -    -    -      |   -     -      |    +       -      |   +

# read the audit
read-audit                                            | entry:alice        |   +    -    -      |   -     -      |    -       -      |   +
read-audit                                            | entry:slice        |   +    +    -      |   +     -      |    -       -      |   +
read-audit                                            | entry:sliver@own   |   +    +    -      |   +     -      |    +       -      |   +
read-audit                                            | entry:sliver@foreign|  +    +    -      |   +     -      |    -       +      |   +
read-audit                                            | entry:node         |   -    -    -      |   -     -      |    +       -      |   +
read-audit                                            | entry:system       |   -    -    -      |   -     -      |    -       -      |   +
read-audit                                            | fleet              |   -    -    -      |   -     -      |    -       -      |   +

# two people
roll-out rotate-ca rotate-pod-keys restore            | fleet              |   -    -    -      |   -     -      |    -       -      |   2
stop-every-slice stop-every-node                      | fleet              |   -    -    -      |   -     -      |    -       -      |   2
issue-breakglass                                      | person:developer   |   -    -    -      |   -     -      |    -       -      |   2
issue-breakglass                                      | person:pi          |   -    -    -      |   -     -      |    -       -      |   2
issue-breakglass                                      | person:admin       |   -    -    -      |   -     -      |    -       -      |   2
issue-breakglass                                      | person:support     |   -    -    -      |   -     -      |    -       -      |   2
issue-breakglass                                      | person:nobody      |   -    -    -      |   -     -      |    -       -      |   2
issue-breakglass                                      | person:dev+pi      |   -    -    -      |   -     -      |    -       -      |   2
";

fn slice(name: &str) -> SliceName {
    name.parse().expect(name)
}

fn site(name: &str) -> SiteName {
    name.parse().expect(name)
}

fn developer(name: &str) -> Grant {
    Grant::Developer(slice(name))
}

fn actor(name: &str, grants: &[Grant]) -> Actor {
    Actor {
        name: name.parse().expect(name),
        grants: grants.to_vec(),
    }
}

/// In the order of the table's columns.
fn columns() -> [Actor; 8] {
    [
        actor("alice", &[developer("princeton_codeen")]),
        actor("colleague", &[developer("princeton_codeen")]),
        actor("foreign-developer", &[developer("mit_chord")]),
        actor("pi", &[Grant::Pi(site("princeton"))]),
        actor("foreign-pi", &[Grant::Pi(site("mit"))]),
        actor("admin", &[Grant::SiteAdmin(site("princeton"))]),
        actor("foreign-admin", &[Grant::SiteAdmin(site("mit"))]),
        actor("support", &[Grant::Support]),
    ]
}

fn targets() -> Vec<(&'static str, Target)> {
    let codeen = || slice("princeton_codeen");
    let (own, foreign) = (|| site("princeton"), || site("mit"));
    let person = |grants: &[Grant]| Target::Person {
        name: "somebody".parse().expect("valid"),
        grants: grants.to_vec(),
    };
    let hold = |slice: Option<SliceName>, site: Option<SiteName>, holder: &str, role: Role| Target::Hold {
        slice,
        site,
        holder: holder.parse().expect(holder),
        role,
    };
    let entry = |person: Option<&str>, slice: Option<SliceName>, site: Option<SiteName>| Target::AuditEntry {
        person: person.map(|name| name.parse().expect(name)),
        slice,
        site,
    };
    vec![
        ("slice", Target::Slice(codeen())),
        (
            "slice@own",
            Target::SliceAtSite {
                slice: codeen(),
                site: own(),
            },
        ),
        (
            "slice@foreign",
            Target::SliceAtSite {
                slice: codeen(),
                site: foreign(),
            },
        ),
        (
            "sliver@own",
            Target::Sliver {
                slice: codeen(),
                site: own(),
            },
        ),
        (
            "sliver@foreign",
            Target::Sliver {
                slice: codeen(),
                site: foreign(),
            },
        ),
        ("node", Target::Node { site: own() }),
        ("site", Target::Site(own())),
        ("fleet", Target::Fleet),
        ("hold:alice", hold(Some(codeen()), None, "alice", Role::Developer)),
        (
            "hold:alice@own",
            hold(Some(codeen()), Some(own()), "alice", Role::Developer),
        ),
        (
            "hold:alice@foreign",
            hold(Some(codeen()), Some(foreign()), "alice", Role::Developer),
        ),
        ("hold:alice-as-pi", hold(Some(codeen()), None, "alice", Role::Pi)),
        (
            "hold:alice-as-supp",
            hold(Some(codeen()), None, "alice", Role::Support),
        ),
        ("hold:pi", hold(Some(codeen()), None, "another-pi", Role::Pi)),
        (
            "hold:pi@own",
            hold(Some(codeen()), Some(own()), "another-pi", Role::Pi),
        ),
        (
            "hold:admin@own",
            hold(Some(codeen()), Some(own()), "another-admin", Role::SiteAdmin),
        ),
        (
            "hold:admin@foreign",
            hold(Some(codeen()), Some(foreign()), "another-admin", Role::SiteAdmin),
        ),
        (
            "hold:support",
            hold(Some(codeen()), None, "another-support", Role::Support),
        ),
        (
            "hold:support@own",
            hold(Some(codeen()), Some(own()), "another-support", Role::Support),
        ),
        (
            "node-hold:admin",
            hold(None, Some(own()), "another-admin", Role::SiteAdmin),
        ),
        (
            "node-hold:support",
            hold(None, Some(own()), "another-support", Role::Support),
        ),
        (
            "node-hold:unknown",
            hold(None, None, "another-admin", Role::SiteAdmin),
        ),
        ("person:developer", person(&[developer("princeton_codeen")])),
        ("person:pi", person(&[Grant::Pi(own())])),
        ("person:admin", person(&[Grant::SiteAdmin(own())])),
        ("person:support", person(&[Grant::Support])),
        ("person:nobody", person(&[])),
        (
            "person:dev+pi",
            person(&[developer("princeton_codeen"), Grant::Pi(own())]),
        ),
        (
            "loan:inside",
            Target::Loan {
                from: codeen(),
                to: slice("princeton_coral"),
            },
        ),
        (
            "loan:across",
            Target::Loan {
                from: codeen(),
                to: slice("mit_chord"),
            },
        ),
        ("entry:alice", entry(Some("alice"), None, None)),
        (
            "entry:slice",
            entry(Some("another-support"), Some(codeen()), None),
        ),
        (
            "entry:sliver@own",
            entry(Some("another-support"), Some(codeen()), Some(own())),
        ),
        (
            "entry:sliver@foreign",
            entry(Some("another-support"), Some(codeen()), Some(foreign())),
        ),
        ("entry:node", entry(Some("another-support"), None, Some(own()))),
        ("entry:system", entry(None, None, None)),
    ]
}

/// (action, target) → the eight marks.
fn expected() -> HashMap<(Action, &'static str), Vec<&'static str>> {
    let known = targets();
    let mut cells = HashMap::new();
    for line in TABLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let mut parts = line.splitn(3, '|');
        let (actions, target, marks) = (parts.next(), parts.next().expect(line).trim(), parts.next());
        assert!(
            known.iter().any(|(name, _)| *name == target),
            "unknown target in: {line}"
        );
        let marks: Vec<&str> = marks
            .expect(line)
            .split(['|', ' '])
            .filter(|mark| !mark.is_empty())
            .collect();
        assert_eq!(marks.len(), columns().len(), "{line}");
        for name in actions.expect(line).split_whitespace() {
            let action = name.parse().expect(line);
            assert!(
                cells.insert((action, target), marks.clone()).is_none(),
                "{name} {target} stands twice"
            );
        }
    }
    cells
}

#[test]
fn every_cell() {
    let expected = expected();
    let mut checked = 0;
    for &action in Action::ALL {
        if matches!(action, Action::WhoAmI | Action::VerifyAudit) {
            continue;
        }
        for (name, target) in &targets() {
            let marks = expected.get(&(action, *name));
            for (column, actor) in columns().iter().enumerate() {
                let verdict = decide(actor, action, target);
                let got = match &verdict {
                    Verdict::Allow { .. } => "+",
                    Verdict::NeedsSecondPerson { .. } => "2",
                    Verdict::Deny { .. } => "-",
                    Verdict::Anyone { .. } => "anyone",
                };
                assert_eq!(
                    got,
                    marks.map_or("-", |marks| marks[column]),
                    "{action} {name} {}",
                    actor.name
                );
                if let Some(role) = verdict.role() {
                    assert_eq!(role, actor.grants[0].role(), "{action} {name} {}", actor.name);
                }
                // Nonsense is told apart from a lack of rights.
                assert_eq!(
                    verdict.rule().contains("cannot be aimed at"),
                    marks.is_none(),
                    "{verdict:?}"
                );
                checked += 1;
            }
        }
    }
    assert_eq!(
        checked,
        (Action::ALL.len() - 2) * targets().len() * columns().len()
    );
    // No action is forgotten in the table.
    for &action in &Action::ALL[2..] {
        assert!(
            expected.keys().any(|(listed, _)| *listed == action),
            "{action} has no line"
        );
    }
}

#[test]
fn nobody_may_only_ask_who_they_are_and_verify() {
    let nobody = actor("nobody", &[]);
    for &action in Action::ALL {
        for (name, target) in &targets() {
            let open = matches!(action, Action::WhoAmI | Action::VerifyAudit);
            assert_eq!(
                decide(&nobody, action, target).is_allowed(),
                open,
                "{action} {name}"
            );
        }
    }
    let alice = actor("alice", &[]);
    let own = &targets()
        .into_iter()
        .find(|(name, _)| *name == "entry:alice")
        .expect("there")
        .1;
    assert!(
        !decide(&alice, Action::ReadAudit, own).is_allowed(),
        "own actions are a developer's to read"
    );
}

#[test]
fn names_are_stable() {
    for &action in Action::ALL {
        assert_eq!(action.as_str().parse(), Ok(action));
    }
    for unknown in ["", "kill", "Kill-Slice", "kill-slice ", "kill_slice", "root", "*"] {
        let refused = unknown.parse::<Action>().expect_err(unknown);
        assert_eq!(refused.to_string(), format!("unknown action {unknown:?}"));
    }
}

#[test]
fn a_denial_says_what_would_be_needed() {
    let nobody = actor("nobody", &[]);
    let targets: HashMap<_, _> = targets().into_iter().collect();
    for (action, target, says) in [
        (
            Action::KillSlice,
            "slice",
            "kill-slice on princeton_codeen needs: developer of it, PI of princeton, or support",
        ),
        (
            Action::KillSlice,
            "slice@foreign",
            "kill-slice on princeton_codeen at mit needs: developer of it, PI of princeton, site admin of mit, or support",
        ),
        (
            Action::Release,
            "hold:alice",
            "release on a hold on princeton_codeen needs: developer of it who set it, PI of princeton, or support",
        ),
        (
            Action::Release,
            "hold:support@own",
            "release on a hold on princeton_codeen needs: support",
        ),
        (
            Action::KillNode,
            "node",
            "kill-node on a node of princeton needs: site admin of princeton or support",
        ),
        (
            Action::StopEverySlice,
            "fleet",
            "stop-every-slice on the fleet needs: support and a second person",
        ),
        (
            Action::KillNode,
            "slice",
            "kill-node cannot be aimed at princeton_codeen: it takes a node",
        ),
        (
            Action::KillSlice,
            "fleet",
            "kill-slice cannot be aimed at the fleet: it takes a slice or a slice at a site",
        ),
        (
            Action::ReadAudit,
            "entry:alice",
            "read-audit on this audit entry needs: developer whose action it was or support",
        ),
    ] {
        assert_eq!(
            decide(&nobody, action, &targets[target]),
            Verdict::Deny { rule: says.into() }
        );
    }
}

#[test]
fn an_allowance_names_row_and_grant() {
    let alice = actor(
        "alice",
        &[
            Grant::Support,
            Grant::Pi(site("princeton")),
            developer("princeton_codeen"),
        ],
    );
    let rule = "kill or freeze a slice everywhere: developer of it".to_owned();
    assert_eq!(
        decide(
            &alice,
            Action::KillSlice,
            &Target::Slice(slice("princeton_codeen"))
        ),
        Verdict::Allow {
            role: Role::Developer,
            rule
        }
    );
    let rule = "stop every slice: support and a second person".to_owned();
    assert_eq!(
        decide(&alice, Action::StopEverySlice, &Target::Fleet),
        Verdict::NeedsSecondPerson {
            role: Role::Support,
            rule
        }
    );
}
