//! What people see, as snapshots in this file.

use proto::v1;

use super::*;
use crate::text;
use crate::view::hold::Hold;
use crate::view::order::{Ended, Order, Report, Tracker};
use crate::when::Time;

const NOW: Time = Time(1_795_316_645_123);
const ORDER: &str = "0193a1b2-0000-7000-8000-000000000001";

fn answer(killed: u32, dead_us: u64) -> v1::Answer {
    v1::Answer {
        durable: true,
        dead_us,
        durable_us: dead_us + 500,
        slivers: vec![v1::SliverProof {
            slice: "princeton_codeen".into(),
            cgroup: "redbutton.slice/princeton_codeen".into(),
            outcome: v1::Outcome::Killed.into(),
            killed: Some(killed),
            zombies: Some(0),
            stuck: Some(0),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn node(number: u32, outcome: v1::Outcome, answer: Option<v1::Answer>) -> v1::NodeResult {
    let proven = matches!(
        outcome,
        v1::Outcome::Killed | v1::Outcome::AlreadyDead | v1::Outcome::Frozen
    );
    v1::NodeResult {
        node: format!("00000000-0000-4000-8000-{number:012}"),
        node_name: format!("planetlab-{number}.cs.princeton.edu"),
        site: "princeton".into(),
        outcome: outcome.into(),
        answer,
        answered_at_ms: NOW.0,
        proven,
    }
}

/// The report of an order over these nodes, as the commands make it.
fn of(kind: &str, nodes: Vec<v1::NodeResult>, change: impl FnOnce(&mut Report)) -> Report {
    let mut counts = crate::view::order::Counts::default();
    for result in &nodes {
        counts.add(
            crate::view::order::Outcome::from_wire(result.outcome),
            result.proven,
        );
    }
    let wire = v1::Order {
        id: ORDER.into(),
        version: Some(v1::Version {
            incarnation: 1,
            epoch: 4711,
        }),
        person: "alice".into(),
        role: v1::Role::Support.into(),
        kind: kind.into(),
        target: "princeton_codeen everywhere".into(),
        reason: "floods a bank".into(),
        pressed_at_ms: NOW.0 - 2_000,
        state: v1::OrderState::Open.into(),
        slice: "princeton_codeen".into(),
        scope: Some(v1::Scope {
            reach: Some(v1::scope::Reach::Fleet(true)),
        }),
        ..Default::default()
    };
    let mut order = Order::from(wire);
    order.counts = counts;
    let mut tracker = Tracker::new(order);
    tracker.apply(v1::OrderEvent {
        order: None,
        changed: nodes,
        last: false,
    });
    let exit = tracker.exit();
    let (order, nodes) = tracker.into_parts();
    let mut report = Report {
        next: order::next_step(&order, &nodes),
        order,
        nodes,
        durable: Some(true),
        not_durable_reason: None,
        created: Some(true),
        ended: Ended::Settled,
        exit_code: exit.code(),
    };
    change(&mut report);
    report
}

fn shown(report: &Report) -> String {
    let text = order::report(report, false, NOW, 80);
    for line in text.lines() {
        assert!(!line.chars().any(text::is_hostile), "{line:?}");
    }
    text
}

/// Tables fit a terminal of 80 columns; headlines and reasons may be longer.
fn fits(text: &str) {
    for line in text.lines() {
        assert!(
            line.chars().count() <= 80,
            "{} columns: {line}",
            line.chars().count()
        );
    }
}

#[test]
fn a_slice_killed_on_three_nodes() {
    let nodes = vec![
        node(1, v1::Outcome::Killed, Some(answer(1_000, 84_300))),
        node(2, v1::Outcome::Killed, Some(answer(3, 9_100))),
        node(3, v1::Outcome::AlreadyDead, Some(answer(0, 640))),
    ];
    let text = shown(&of("kill-slice", nodes, |_| ()));
    fits(&text);
    insta::assert_snapshot!(text);
}

#[test]
fn of_a_hundred_nodes_only_those_that_matter_are_listed() {
    let mut nodes: Vec<_> = (1..=90)
        .map(|n| node(n, v1::Outcome::AlreadyDead, Some(answer(0, 500))))
        .collect();
    nodes.extend((91..=96).map(|n| node(n, v1::Outcome::Killed, Some(answer(12, 31_000)))));
    nodes[3].proven = false;
    nodes.push(node(97, v1::Outcome::Offline, None));
    nodes.push(node(98, v1::Outcome::Sent, None));
    let mut partial = answer(7, 2_000_000);
    partial.slivers[0].outcome = v1::Outcome::Partial.into();
    partial.slivers[0].stuck = Some(2);
    partial.slivers[0].detail = "2 tasks in uninterruptible sleep: nfs".into();
    nodes.push(node(99, v1::Outcome::Partial, Some(partial)));
    let mut failed = answer(0, 0);
    failed.slivers.clear();
    failed.durable = false;
    failed.detail = "stale version: 1.4711 is lower than 1.4800".into();
    nodes.push(node(100, v1::Outcome::Failed, Some(failed)));
    let report = of("kill-slice", nodes, |_| ());
    let text = shown(&report);
    assert_eq!(report.exit_code, 4);
    insta::assert_snapshot!(text);
    let all = order::report(&report, true, NOW, 80);
    assert!(all.lines().count() > 100, "--all lists every node");
}

#[test]
fn more_nodes_in_trouble_than_a_person_reads_are_counted() {
    let nodes = (1..=100).map(|n| node(n, v1::Outcome::Offline, None)).collect();
    let text = shown(&of("kill-slice", nodes, |_| ()));
    assert!(
        text.contains("and 60 more like these (--all lists them)"),
        "{text}"
    );
}

#[test]
fn a_manager_that_starts_it_again_is_named() {
    let mut respawning = answer(5, 12_000);
    respawning.slivers[0].outcome = v1::Outcome::Respawning.into();
    respawning.slivers[0].respawns = 4;
    respawning.slivers[0].manager = "docker".into();
    respawning.slivers[0].cgroup = "system.slice/docker-0123456789abcdef.scope".into();
    let nodes = vec![
        node(1, v1::Outcome::Killed, Some(answer(5, 12_000))),
        node(2, v1::Outcome::Respawning, Some(respawning)),
    ];
    let report = of("kill-slice", nodes, |report| report.ended = Ended::TimePassed);
    assert_eq!(report.exit_code, 3);
    insta::assert_snapshot!(shown(&report));
}

#[test]
fn what_is_not_durable_is_told_loudly() {
    let mut off_disk = answer(5, 12_000);
    off_disk.durable = false;
    off_disk.detail = "not durable: no space left on device".into();
    let nodes = vec![node(1, v1::Outcome::Killed, Some(off_disk))];
    insta::assert_snapshot!(shown(&of("kill-slice", nodes, |report| {
        report.durable = Some(false);
        report.not_durable_reason = Some("database or disk is full".into());
        report.created = Some(false);
    })));
}

#[test]
fn hostile_words_of_a_node_stay_words() {
    let mut hostile = answer(1, 1_000);
    hostile.detail = format!("\u{1b}]0;owned\u{7}\nnext: rm -rf /\r{}", "A".repeat(5_000));
    hostile.slivers[0].outcome = v1::Outcome::Failed.into();
    hostile.slivers[0].cgroup = "x\u{1b}[2J\u{202e}y".into();
    hostile.slivers[0].detail = "\u{9b}31m".into();
    hostile.slivers[0].manager = "\u{1b}[8mdocker".into();
    let mut one = node(1, v1::Outcome::Failed, Some(hostile));
    one.node_name = format!("n\u{1b}[31m{}", "界".repeat(300));
    let report = of("kill-slice", vec![one], |report| {
        report.order.target = "x\u{1b}[2J\ny".into();
        report.order.reason = "z\u{7}".into();
    });
    let text = shown(&report);
    insta::assert_snapshot!(text);
    let json = text::json(&serde_json::to_string(&report).expect("a report"));
    assert!(!json.chars().any(text::is_hostile));
    assert_eq!(json.lines().count(), 1);
}

#[test]
fn a_freeze_and_a_reboot_have_no_dead() {
    let frozen = of(
        "freeze-slice",
        vec![node(1, v1::Outcome::Frozen, Some(answer(0, 3_000)))],
        |_| (),
    );
    assert_eq!(frozen.exit_code, 0);
    let mut accepted = answer(0, 0);
    accepted.slivers.clear();
    let rebooting = of(
        "reboot-node",
        vec![node(1, v1::Outcome::Accepted, Some(accepted))],
        |report| {
            report.ended = Ended::Interrupted;
        },
    );
    assert_eq!(rebooting.exit_code, 2);
    insta::assert_snapshot!(format!("{}\n{}", shown(&frozen), shown(&rebooting)));
}

#[test]
fn the_json_of_a_report_keeps_its_keys() {
    let mut report = of(
        "kill-slice",
        vec![node(1, v1::Outcome::Killed, Some(answer(3, 9_100)))],
        |_| (),
    );
    report.order.holds = vec![hold()];
    insta::assert_snapshot!(serde_json::to_string_pretty(&report).expect("a report"));
}

#[test]
fn progress_is_one_line() {
    let mut nodes: Vec<_> = (1..=5).map(|n| node(n, v1::Outcome::Killed, None)).collect();
    nodes.push(node(6, v1::Outcome::Offline, None));
    nodes.push(node(7, v1::Outcome::Sent, None));
    assert_eq!(
        order::progress(&of("kill-slice", nodes.clone(), |_| ()).order),
        "killed 5/7, 1 offline"
    );
    nodes.pop();
    nodes[0].proven = false;
    nodes.push(node(8, v1::Outcome::Respawning, None));
    nodes.push(node(9, v1::Outcome::Failed, None));
    let report = of("kill-sliver", nodes.clone(), |_| ());
    assert_eq!(
        order::progress(&report.order),
        "killed 5/8, 1 offline, 1 respawning, 1 FAILED"
    );
    nodes.truncate(6);
    assert_eq!(
        order::progress(&of("kill-slice", nodes, |_| ()).order),
        "killed 5/6, 1 offline, 1 to be proven"
    );
}

fn hold() -> Hold {
    v1::Hold {
        id: "0193a1b2-0000-7000-8000-00000000000a".into(),
        slice: "princeton_codeen".into(),
        scope: Some(v1::Scope {
            reach: Some(v1::scope::Reach::Fleet(true)),
        }),
        kind: v1::HoldKind::Suspend.into(),
        holder: "alice".into(),
        role: v1::Role::Support.into(),
        reason: "floods a bank".into(),
        set_at_ms: NOW.0 - 200_000,
        version: Some(v1::Version {
            incarnation: 1,
            epoch: 4711,
        }),
        ..Default::default()
    }
    .into()
}

#[test]
fn a_slice_with_its_contacts_and_holds() {
    let sliver = |activity: v1::SliverActivity| v1::SliverState {
        slice: "princeton_codeen".into(),
        cgroup: "redbutton.slice/princeton_codeen".into(),
        activity: activity.into(),
        processes: Some(12),
        ..Default::default()
    };
    let on = |n: u32, activity| {
        v1::SliverOnNode {
            node: format!("00000000-0000-4000-8000-{n:012}"),
            node_name: format!("planetlab-{n}.cs.princeton.edu"),
            site: "princeton".into(),
            sliver: Some(sliver(activity)),
        }
        .into()
    };
    let view = crate::view::slice::SliceDetail {
        slice: v1::Slice {
            name: "princeton_codeen".into(),
            site: "princeton".into(),
            description: "a content distribution network".into(),
            contacts: vec!["kyoungso@example.org".into(), "vivek@example.org".into()],
            pis: vec!["larry".into()],
            running_on: 1,
            frozen_on: 1,
            holds: 1,
            ..Default::default()
        }
        .into(),
        holds: vec![hold()],
        slivers: vec![
            on(1, v1::SliverActivity::Running),
            on(2, v1::SliverActivity::Frozen),
        ],
    };
    let list = slice::slices(std::slice::from_ref(&view.slice), 80);
    let text = format!("{list}\n{}", slice::detail(&view, NOW, 80));
    fits(&text);
    insta::assert_snapshot!(text);
}

#[test]
fn a_node_its_health_and_what_its_kernel_lacks() {
    let listed: crate::view::node::Node = v1::Node {
        id: "00000000-0000-4000-8000-000000000001".into(),
        name: "planetlab-1.cs.princeton.edu".into(),
        site: "princeton".into(),
        attached: true,
        last_seen_ms: NOW.0 - 3_000,
        slivers: Some(2),
        load_one: Some(41.27),
        holds: 1,
        ..Default::default()
    }
    .into();
    let away: crate::view::node::Node = v1::Node {
        name: "planetlab-2.cs.princeton.edu".into(),
        site: "princeton".into(),
        last_seen_ms: NOW.0 - 86_400_000 * 9,
        ..Default::default()
    }
    .into();
    let report = v1::NodeReport {
        protocol: 1,
        agent_version: "0.1.0".into(),
        boot_id: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".into(),
        kernel: "6.18.0".into(),
        uptime_ms: 7_300_000,
        load: Some(v1::Load {
            one: 41.27,
            five: 12.0,
            fifteen: 3.5,
            cpu_some: Some(97.25),
            ..Default::default()
        }),
        memory: Some(v1::Memory {
            total_kib: 16 << 20,
            available_kib: 3 << 20,
        }),
        files: Some(v1::Files {
            allocated: 52_000,
            maximum: 200_000,
        }),
        processes: 1_312,
        slivers: vec![v1::SliverState {
            slice: "princeton_codeen".into(),
            activity: v1::SliverActivity::Frozen.into(),
            holds: vec!["x".into()],
            manager: "docker".into(),
            respawns: 3,
            ..Default::default()
        }],
        seen: Some(v1::Version {
            incarnation: 1,
            epoch: 4711,
        }),
        configuration_hash: "9f".repeat(32),
        capabilities: vec![
            v1::Capability {
                name: "kill".into(),
                assurance: v1::Assurance::Exact.into(),
                reason: String::new(),
            },
            v1::Capability {
                name: "processes".into(),
                assurance: v1::Assurance::NotEnforced.into(),
                reason: "the pids controller is mounted as v1".into(),
            },
        ],
        refused: vec![v1::RefusedCgroup {
            cgroup: "system.slice/ssh.service".into(),
            reason: "home of the host's sshd".into(),
        }],
        locked: "state file holds: checksum differs".into(),
        restart_means: "none: no lab guest".into(),
        ..Default::default()
    };
    let view = crate::view::node::NodeDetail {
        node: listed.clone(),
        reported_at: Time(NOW.0 - 3_000),
        report: Some(report.into()),
        holds: vec![],
    };
    let list = node::nodes(&[listed, away], NOW, 80);
    let text = format!("{list}\n{}", node::detail(&view, NOW, 80));
    fits(&text);
    insta::assert_snapshot!(text);
}

#[test]
fn processes_whose_names_are_hostile() {
    let process = |pid, command: &str| {
        v1::Process {
            pid,
            uid: 2_000_001,
            comm: "sshd".into(),
            command_line: command.into(),
            state: "R".into(),
            resident_kib: 40_000,
            cpu_ms: 61_000,
            slice: "princeton_codeen".into(),
            ..Default::default()
        }
        .into()
    };
    let list = [
        process(4_194_304, "\u{1b}]52;c;cm0gLXJm\u{7} sshd: root@pts/0"),
        process(7, ""),
    ];
    let text = node::processes(&list, true, 80);
    fits(&text);
    assert!(!text.chars().any(|c| c != '\n' && text::is_hostile(c)));
    insta::assert_snapshot!(text);
}

#[test]
fn people_sites_orders_and_the_audit() {
    let grant = |role: v1::Role, slice: &str, site: &str| v1::Grant {
        role: role.into(),
        slice: slice.into(),
        site: site.into(),
    };
    let person = v1::Person {
        name: "alice".into(),
        full_name: "Alice Adams".into(),
        email: "alice@example.org".into(),
        grants: vec![
            grant(v1::Role::Pi, "", "princeton"),
            grant(v1::Role::Developer, "princeton_codeen", ""),
            grant(v1::Role::Support, "", ""),
        ],
        created_at_ms: NOW.0 - 86_400_000 * 3,
    };
    let who = crate::view::people::WhoAmI {
        person: person.clone().into(),
        certificate_expires_at: Time(NOW.0 + 86_400_000 * 30),
        version: Some(crate::view::Version {
            incarnation: 1,
            epoch: 4711,
        }),
        controller_version: Some("0.1.0".into()),
        may: vec!["kill any slice everywhere".into()],
        alarms: Vec::new(),
    };
    let site_view: crate::view::site::Site = v1::Site {
        name: "princeton".into(),
        full_name: "Princeton University".into(),
        nodes: 4,
        attached: 3,
        slices: 12,
        pis: vec!["larry".into()],
        ..Default::default()
    }
    .into();
    let report = of(
        "kill-slice",
        vec![
            node(1, v1::Outcome::Killed, None),
            node(2, v1::Outcome::Offline, None),
        ],
        |_| (),
    );
    let entry: crate::view::audit::Entry = v1::AuditEntry {
        sequence: 17,
        at_ms: NOW.0 - 3_000,
        person: "mallory".into(),
        role: v1::Role::Developer.into(),
        action: "kill-slice".into(),
        target: "princeton_codeen everywhere".into(),
        reason: "because\u{1b}[2J".into(),
        outcome: "refused".into(),
        detail: "a developer may kill own slices only".into(),
        ..Default::default()
    }
    .into();
    let text = [
        people::whoami(&who, NOW),
        people::people(&[person.clone().into()], 80),
        people::person(&person.into(), NOW),
        site::sites(std::slice::from_ref(&site_view), 80),
        site::site(&site_view),
        order::orders(std::slice::from_ref(&report.order), true, NOW),
        audit::entry(&entry, NOW),
    ]
    .join("\n");
    insta::assert_snapshot!(text);
}
