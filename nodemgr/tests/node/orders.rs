//! Orders: kill, freeze, release, sync, and what the node answers.

use std::io::BufRead;

use proto::v1::{self, Outcome, SliverActivity, command::Action};
use proto::{HoldKind, NodeId, Scope, Version};

use crate::support::{CAP, Door, Lab, Started, eventually, exec_command, frozen, obey, populated, slice};

#[test]
fn a_press_kills_what_was_started_and_proves_it() {
    let Some(lab) = Lab::new() else { return };
    let node = lab.start();
    let _door = Door::open(&node, &lab.config().socket);
    let script = "for n in 1 2 3; do sleep 1000 & done; echo ready; wait";
    let mut started = Started::sh(&lab, "princeton_codeen", script);
    let mut other = Started::sleeper(&lab, "princeton_other");
    let hold = lab.hold("princeton_codeen", HoldKind::Suspend);
    let command = lab.impose(&hold);
    let answer = obey(&node, command.clone());
    assert_eq!(started.signal(), Some(9));
    assert_eq!(answer.outcome(), Outcome::Killed, "{answer:?}");
    assert!(answer.durable && answer.proven, "{answer:?}");
    assert_eq!((&answer.order, answer.version), (&command.order, command.given));
    assert!(answer.dead_us > 0 && answer.durable_us > 0);
    let [proof] = answer.slivers.as_slice() else {
        panic!("one sliver: {answer:?}")
    };
    assert_eq!((proof.killed, proof.stuck), (Some(4), Some(0)), "{proof:?}");
    assert!(proof.frozen && proof.cgroup.ends_with("/slivers/princeton_codeen"));
    let evidence = proof.evidence.as_ref().expect("taken");
    assert_eq!(
        evidence
            .processes
            .iter()
            .filter(|p| p.command_line == "sleep 1000")
            .count(),
        3,
        "{evidence:?}"
    );
    assert!(
        evidence
            .processes
            .iter()
            .all(|p| p.uid >= 2_000_000 && p.slice == "princeton_codeen")
    );
    assert!(
        other.child.try_wait().expect("waits").is_none(),
        "another slice was killed"
    );

    let again = obey(
        &node,
        v1::Command {
            now: Some(lab.next().into()),
            ..command
        },
    );
    assert_eq!(
        again.outcome(),
        Outcome::AlreadyDead,
        "the same order again is fine"
    );
    assert!(again.durable && again.proven);
}

#[test]
fn a_fork_bomb_dies_in_one_press() {
    let Some(lab) = Lab::new() else { return };
    let node = lab.start();
    let _door = Door::open(&node, &lab.config().socket);
    // Bounded by its own count: 400 children that each start one more.
    let bomb = "n=0; echo ready; while [ $n -lt 400 ]; do (sleep 500 & sleep 500) & n=$((n+1)); done; wait";
    let mut started = Started::sh(&lab, "princeton_bomb", bomb);
    let procs = lab.sliver("princeton_bomb").join("cgroup.procs");
    assert!(eventually(CAP, || std::fs::read_to_string(&procs)
        .is_ok_and(|t| t.lines().count() > 100)));
    let answer = obey(&node, lab.impose(&lab.hold("princeton_bomb", HoldKind::Suspend)));
    assert_eq!(answer.outcome(), Outcome::Killed, "{}", answer.detail);
    assert!(answer.proven && !populated(&lab.sliver("princeton_bomb")));
    assert_eq!(started.signal(), Some(9));
}

#[test]
fn a_freeze_stands_still_and_a_release_lets_go_on() {
    let Some(lab) = Lab::new() else { return };
    let node = lab.start();
    let _door = Door::open(&node, &lab.config().socket);
    let mut started = Started::sh(&lab, "a_b", "echo ready; while sleep 0.01; do echo tick; done");
    let hold = lab.hold("a_b", HoldKind::Freeze);
    let answer = obey(&node, lab.impose(&hold));
    assert_eq!(
        (answer.outcome(), answer.proven),
        (Outcome::Frozen, true),
        "{answer:?}"
    );
    assert!(frozen(&lab.sliver("a_b")));
    let report = node.report();
    assert_eq!(report.slivers[0].activity(), SliverActivity::Frozen);
    assert_eq!(report.slivers[0].holds, [hold.id.to_string()]);
    assert_eq!(report.slivers[0].uid, Some(2_000_000));

    // A second hold by somebody else: one release is not enough.
    let second = lab.hold("", HoldKind::Freeze);
    obey(&node, lab.impose(&second));
    assert_eq!(obey(&node, lab.release(&hold)).outcome(), Outcome::Released);
    assert!(frozen(&lab.sliver("a_b")));
    let answer = obey(&node, lab.release(&second));
    assert_eq!(
        (answer.outcome(), answer.durable, answer.proven),
        (Outcome::Released, true, true)
    );
    assert!(eventually(CAP, || !frozen(&lab.sliver("a_b"))));
    let mut line = String::new();
    for _ in 0..100 {
        line.clear();
        started.lines.read_line(&mut line).expect("it goes on");
        assert_eq!(line, "tick\n");
    }
}

#[test]
fn a_node_hold_kills_every_sliver_and_refuses_all() {
    let Some(lab) = Lab::new() else { return };
    let node = lab.start();
    let _door = Door::open(&node, &lab.config().socket);
    let mut all: Vec<_> = ["a_b", "a_c", "b_d"]
        .iter()
        .map(|s| Started::sleeper(&lab, s))
        .collect();
    let mut hold = lab.hold("", HoldKind::Suspend);
    hold.scope = Scope::Node(lab.id);
    let answer = obey(&node, lab.impose(&hold));
    assert_eq!(
        (answer.outcome(), answer.slivers.len()),
        (Outcome::Killed, 3),
        "{answer:?}"
    );
    assert!(all.iter_mut().all(|s| s.signal() == Some(9)));
    let out = exec_command(&lab, "z_new", "true").output().expect("runs");
    assert_eq!(out.status.code(), Some(5));
}

#[test]
fn what_is_malformed_stale_or_for_another_node_changes_nothing() {
    let Some(lab) = Lab::new() else { return };
    let node = lab.start();
    let hold = lab.hold("a_b", HoldKind::Suspend);
    let fails = |command: v1::Command, why: &str| {
        let answer = obey(&node, command);
        assert_eq!(answer.outcome(), Outcome::Failed, "{why}");
        assert!(answer.detail.contains(why), "{:?}", answer.detail);
        assert!(!answer.proven);
    };
    fails(
        v1::Command {
            now: None,
            ..lab.impose(&hold)
        },
        "now is missing",
    );
    fails(
        v1::Command {
            action: None,
            ..lab.impose(&hold)
        },
        "this node does not know this order",
    );
    let wire = |change: fn(&mut v1::Hold)| {
        let mut wire = v1::Hold::from(hold.clone());
        change(&mut wire);
        lab.command(Action::Impose(wire))
    };
    fails(
        wire(|h| h.slice = "../x".into()),
        "slice name \"../x\" is malformed",
    );
    fails(wire(|h| h.kind = 77), "kind has the unknown value 77");
    fails(wire(|h| h.scope = None), "scope is missing");
    fails(lab.command(Action::Release("x".into())), "release: hold id");
    fails(
        lab.command(Action::Reboot(v1::Reboot { boot_id: "x".into() })),
        "reboot.boot_id: boot id",
    );
    let mut other = hold.clone();
    other.scope = Scope::Node(NodeId::random());
    fails(lab.impose(&other), "this is node");
    let stale = v1::Command {
        now: Some(
            Version {
                incarnation: 0,
                epoch: 999,
            }
            .into(),
        ),
        ..lab.impose(&hold)
    };
    obey(&node, lab.sync(&[], &[]));
    fails(stale, "stale version: 0.999, this node has seen 1.");
    assert_eq!(node.verdict(&slice("a_b")), nodemgr::holds::Verdict::Run);
    assert!(node.report().holds.is_empty());
}

#[test]
fn a_sync_adds_what_is_missing_drops_what_was_released_and_keeps_the_rest() {
    let Some(lab) = Lab::new() else { return };
    let node = lab.start();
    let _door = Door::open(&node, &lab.config().socket);
    let [kept, released, missing] = ["a_kept", "a_gone", "a_new"].map(|s| lab.hold(s, HoldKind::Suspend));
    obey(&node, lab.impose(&kept));
    obey(&node, lab.impose(&released));
    let mut started = Started::sleeper(&lab, "a_new");
    let answer = obey(&node, lab.sync(std::slice::from_ref(&missing), &[released.id]));
    assert_eq!(
        (answer.outcome(), answer.order.as_str()),
        (Outcome::Killed, ""),
        "{answer:?}"
    );
    assert_eq!(
        started.signal(),
        Some(9),
        "a hold that comes by sync is obeyed like any other"
    );
    let mut expected = [kept.id.to_string(), missing.id.to_string()];
    expected.sort();
    assert_eq!(answer.holds, expected);
    assert_eq!(
        exec_command(&lab, "a_gone", "true")
            .status()
            .expect("runs")
            .code(),
        Some(0)
    );
    assert_eq!(
        exec_command(&lab, "a_kept", "true")
            .output()
            .expect("runs")
            .status
            .code(),
        Some(5)
    );
}

#[test]
fn reboot_and_halt_are_refused_unless_configured_and_idle_after_the_boot_changed() {
    let Some(lab) = Lab::new() else { return };
    let node = lab.start();
    let boot_id = node.report().boot_id;
    let answer = obey(
        &node,
        lab.command(Action::Reboot(v1::Reboot {
            boot_id: boot_id.clone(),
        })),
    );
    assert_eq!(answer.outcome(), Outcome::Failed);
    assert!(
        answer
            .detail
            .contains("reboot orders cannot be carried out on this node: a test restarts nothing")
    );
    let answer = obey(&node, lab.command(Action::Halt(v1::Halt { boot_id })));
    assert_eq!(answer.outcome(), Outcome::Failed);
    let elsewhen = "6ba7b810-9dad-11d1-80b4-00c04fd430c8".to_owned();
    let answer = obey(
        &node,
        lab.command(Action::Reboot(v1::Reboot { boot_id: elsewhen })),
    );
    assert_eq!(answer.outcome(), Outcome::Accepted);
    assert!(
        answer.detail.starts_with("already rebooted: this is boot"),
        "{}",
        answer.detail
    );
    assert!(
        node.report()
            .restart_means
            .starts_with("none: a test restarts nothing")
    );
}

#[test]
fn a_burst_of_presses_and_releases_ends_as_the_last_one_says() {
    let Some(lab) = Lab::new() else { return };
    let node = lab.start();
    let _door = Door::open(&node, &lab.config().socket);
    let _started = Started::sleeper(&lab, "a_b");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime");
    let mut pending = Vec::new();
    for _ in 0..50 {
        let hold = lab.hold("a_b", HoldKind::Freeze);
        pending.push(runtime.spawn(node.take(lab.impose(&hold))));
        pending.push(runtime.spawn(node.take(lab.release(&hold))));
    }
    runtime.block_on(async {
        for one in pending {
            let answer = tokio::time::timeout(CAP, one)
                .await
                .expect("in time")
                .expect("no panic")
                .answer;
            assert_ne!(answer.outcome(), Outcome::Failed, "{answer:?}");
        }
    });
    assert!(!frozen(&lab.sliver("a_b")) && populated(&lab.sliver("a_b")));
    assert_eq!(
        std::fs::read_to_string(lab.sliver("a_b").join("cgroup.freeze")).expect("readable"),
        "0\n"
    );
}
