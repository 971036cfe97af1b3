//! The wire and the bundle as release 0.1.0 had them (commit c157691). DO NOT CHANGE THIS TEST nor the files in
//! `golden/0.1.0`: programs of that release are out there and speak so. A new release gets a file and a test of its own
//! beside these; this one goes when nobody speaks to 0.1.0 any more (docs/versions.md).
//!
//! Read: every field has the meaning that it had. Written: what 0.1.0 knew is still written in the same bytes, as long
//! as nothing newer is said.

#![cfg(feature = "grpc")]
#![allow(
    clippy::needless_update,
    reason = "fields that later releases add have their defaults here"
)]

use prost::Message;
use proto::bundle::Bundle;
use proto::v1::{self, command::Action, scope::Reach};
use proto::{DaemonRole, Hold, Identity};

const MESSAGES: &str = include_str!("golden/0.1.0/messages.txt");
const BUNDLE: &str = include_str!("golden/0.1.0/planet1.bundle");

fn bytes(name: &str) -> Vec<u8> {
    let line = MESSAGES
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("{name} is not in messages.txt"));
    (0..line.len() / 2)
        .map(|at| u8::from_str_radix(&line[2 * at..2 * at + 2], 16).expect("hexadecimal"))
        .collect()
}

fn golden<M: Message + Default + PartialEq + std::fmt::Debug>(name: &str, said: &M) {
    if std::env::var_os("REDBUTTON_PRINT_GOLDEN").is_some() {
        let hex: String = said.encode_to_vec().iter().map(|b| format!("{b:02x}")).collect();
        println!("golden {name} {hex}");
        return;
    }
    let bytes = bytes(name);
    let read = M::decode(&*bytes).expect("0.1.0 wrote it");
    assert!(
        read == *said,
        "{name} means something else now: {read:#?}, expected {said:#?}"
    );
    assert_eq!(said.encode_to_vec(), bytes, "{name} is written otherwise now");
}

const ORDER: &str = "0193f2a0-7c11-7def-8a55-3b1f0c9de001";
const HOLD: &str = "0193f2a0-7c11-7def-8a55-3b1f0c9de002";
const NODE: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
const BOOT: &str = "7ba7b810-9dad-41d1-80b4-00c04fd430c8";

fn version(epoch: u64) -> Option<v1::Version> {
    Some(v1::Version {
        incarnation: 3,
        epoch,
        ..Default::default()
    })
}

fn hold() -> v1::Hold {
    v1::Hold {
        id: HOLD.into(),
        slice: "princeton_codeen".into(),
        scope: Some(v1::Scope {
            reach: Some(Reach::Site("princeton".into())),
        }),
        kind: v1::HoldKind::Suspend.into(),
        holder: "alice".into(),
        role: v1::Role::Support.into(),
        reason: "floods a bank".into(),
        evidence: "ticket 4711".into(),
        set_at_ms: 1_795_320_000_000,
        version: version(7),
        ..Default::default()
    }
}

fn command(action: Action) -> v1::Command {
    v1::Command {
        now: version(9),
        order: ORDER.into(),
        given: version(7),
        action: Some(action),
        ..Default::default()
    }
}

fn process() -> v1::Process {
    v1::Process {
        pid: 4711,
        ppid: 1,
        uid: 2_000_000,
        comm: "codeen".into(),
        command_line: "/usr/bin/codeen -x".into(),
        state: "D".into(),
        files: Some(7),
        sockets: Some(0),
        resident_kib: 1_024,
        cpu_ms: 99,
        slice: "princeton_codeen".into(),
        cgroup: "redbutton.slice/princeton_codeen".into(),
        ..Default::default()
    }
}

fn proof() -> v1::SliverProof {
    v1::SliverProof {
        slice: "princeton_codeen".into(),
        cgroup: "redbutton.slice/princeton_codeen".into(),
        cgroup_id: 12_345,
        outcome: v1::Outcome::Partial.into(),
        detail: "1 in D state".into(),
        killed: Some(4),
        zombies: Some(0),
        stuck: Some(1),
        respawns: 2,
        manager: "docker".into(),
        freeze_us: 10,
        frozen: true,
        evidence_us: 20,
        kill_us: 30,
        evidence: Some(v1::Evidence {
            processes: vec![process()],
            incomplete: "late".into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn commands() {
    golden("command-impose", &command(Action::Impose(hold())));
    golden("command-release", &command(Action::Release(HOLD.into())));
    let sync = v1::Command {
        order: String::new(),
        given: None,
        ..command(Action::Sync(v1::Sync {
            holds: vec![hold()],
            released: vec![ORDER.into()],
            ..Default::default()
        }))
    };
    golden("command-sync", &sync);
    let boot_id = || BOOT.to_owned();
    golden(
        "command-reboot",
        &command(Action::Reboot(v1::Reboot {
            boot_id: boot_id(),
            ..Default::default()
        })),
    );
    golden(
        "command-halt",
        &command(Action::Halt(v1::Halt {
            boot_id: boot_id(),
            ..Default::default()
        })),
    );
    let checked = Hold::try_from(hold()).expect("a hold of 0.1.0 is a hold");
    assert_eq!(v1::Hold::from(checked), hold());
}

#[test]
fn answers() {
    let answer = v1::Answer {
        order: ORDER.into(),
        version: version(7),
        outcome: v1::Outcome::Partial.into(),
        detail: "not durable: no space".into(),
        durable: true,
        proven: true,
        boot_id: BOOT.into(),
        dead_us: 840,
        durable_us: 1_270,
        slivers: vec![proof()],
        holds: vec![HOLD.into()],
        ..Default::default()
    };
    golden("answer", &answer);
}

#[test]
fn reports() {
    let report = v1::NodeReport {
        node: NODE.into(),
        protocol: 1,
        agent_version: "0.1.0".into(),
        boot_id: BOOT.into(),
        kernel: "6.18.0".into(),
        clock_ms: 1_795_320_000_001,
        uptime_ms: 7_300_000,
        load: Some(v1::Load {
            one: 41.25,
            five: 12.0,
            fifteen: 3.5,
            cpu_some: Some(97.25),
            memory_some: Some(0.0),
            memory_full: None,
            io_some: Some(1.5),
            io_full: None,
            ..Default::default()
        }),
        memory: Some(v1::Memory {
            total_kib: 16 << 20,
            available_kib: 3 << 20,
            ..Default::default()
        }),
        files: Some(v1::Files {
            allocated: 52_000,
            maximum: 200_000,
            ..Default::default()
        }),
        processes: 321,
        slivers: vec![v1::SliverState {
            slice: "princeton_codeen".into(),
            cgroup: "redbutton.slice/princeton_codeen".into(),
            activity: v1::SliverActivity::Frozen.into(),
            processes: Some(4),
            holds: vec![HOLD.into()],
            manager: "systemd".into(),
            respawns: 1,
            uid: Some(2_000_000),
            ..Default::default()
        }],
        seen: version(9),
        holds: vec![HOLD.into()],
        configuration_hash: "ab".repeat(32),
        capabilities: vec![v1::Capability {
            name: "cgroup.kill".into(),
            assurance: v1::Assurance::Bounded.into(),
            reason: "a loop".into(),
            ..Default::default()
        }],
        locked: "state file corrupt".into(),
        refused: vec![v1::RefusedCgroup {
            cgroup: "system.slice".into(),
            reason: "home of sshd".into(),
            ..Default::default()
        }],
        hostname: "planet1".into(),
        restart_means: "systemctl".into(),
        ..Default::default()
    };
    golden("report", &report);
}

/// Its key was replaced by zeros: it opened nothing that exists any more.
#[test]
fn a_bundle() {
    let bundle = Bundle::parse(BUNDLE).expect("0.1.0 wrote it");
    let Identity::Daemon(node, DaemonRole::NodeManager) = bundle.identity().expect("a daemon") else {
        panic!("a node's bundle");
    };
    assert_eq!(node.to_string(), "75275cd5-1715-4425-85e5-20aa365471fd");
    assert_eq!(
        (&*bundle.name, &bundle.controllers[..]),
        ("planet1", &["127.0.0.1:46801".to_owned()][..])
    );
    for pem in [&bundle.ca, &bundle.certificate] {
        assert!(pem.contains("BEGIN CERTIFICATE"));
    }
    assert!(bundle.key.expose().contains("BEGIN PRIVATE KEY"));
}
