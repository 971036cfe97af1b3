//! Encoding version 1, for ever. DO NOT CHANGE THIS TEST nor `golden-v1.jsonl`: chains that exist must verify in
//! every later release. A new encoding gets a file and a test of its own beside these.
//!
//! The hashes were made by `recompute.py` before the Rust code first ran.

use audit::{Draft, Entry, Head, Outcome, lines, seal, verify_lines};
use proto::{Role, Version};

const FILE: &str = include_str!("golden-v1.jsonl");
const HASHES: [&str; 3] = [
    "5bf63fd0016c633f627df8b2ea871214c6072c3c9769551eaa78b5f3ddf27455",
    "22571e7823117f9f1544af8b105f00d303197290f27b0ec3909acb08f0dfafc3",
    "3bf463e742d4257fd8e4b1ea0013f66ec815be9c0c2d354520fdae46715a3ec6",
];

fn drafts() -> [Draft; 3] {
    [
        Draft {
            at_ms: 1_795_320_000_000,
            version: Version {
                incarnation: 1,
                epoch: 7,
            },
            person: Some("alice".parse().expect("valid")),
            role: Some(Role::Support),
            action: "kill-slice".into(),
            target: "princeton_codeen everywhere".into(),
            reason: "floods a bank".into(),
            evidence: "ticket 4711".into(),
            outcome: Outcome::Allowed,
            detail: "kill or freeze a slice everywhere: support".into(),
            order: Some("0193f2a0-7c11-7def-8a55-3b1f0c9de001".parse().expect("valid")),
        },
        Draft {
            at_ms: 1_795_320_000_001,
            version: Version {
                incarnation: 1,
                epoch: 7,
            },
            person: Some("robert.adams".parse().expect("valid")),
            role: None,
            action: "kill-slice".into(),
            target: "mit_chord everywhere".into(),
            reason: "läuft Amok \"again\"\n".into(),
            evidence: String::new(),
            outcome: Outcome::Refused,
            detail: "kill-slice on mit_chord needs: developer of it, PI of mit, or support".into(),
            order: None,
        },
        Draft {
            at_ms: -1,
            version: Version {
                incarnation: u64::MAX,
                epoch: 0,
            },
            person: None,
            role: None,
            action: String::new(),
            target: String::new(),
            reason: String::new(),
            evidence: String::new(),
            outcome: Outcome::Done,
            detail: String::new(),
            order: None,
        },
    ]
}

fn chain() -> Vec<Entry> {
    let mut head = Head::GENESIS;
    drafts()
        .map(|draft| {
            let entry = seal(&head, draft);
            head = entry.head();
            entry
        })
        .into()
}

#[test]
fn fixed_entries_have_fixed_hashes() {
    assert_eq!(
        chain()
            .iter()
            .map(|entry| entry.hash.to_string())
            .collect::<Vec<_>>(),
        HASHES
    );
}

#[test]
fn fixed_entries_have_fixed_lines() {
    let mut file = Vec::new();
    for entry in chain() {
        lines::write(&mut file, &entry).expect("memory");
    }
    assert_eq!(String::from_utf8(file).expect("JSON is UTF-8"), FILE);
    let read: Vec<Entry> = lines::Lines::new(FILE.as_bytes())
        .collect::<Result<_, _>>()
        .expect("reads");
    assert_eq!(read, chain());
    let verified = verify_lines(FILE.as_bytes(), None, &[]).expect("a chain");
    assert_eq!(
        (verified.entries, verified.head.to_string()),
        (3, format!("3:{}", HASHES[2]))
    );
}

#[test]
#[expect(
    clippy::disallowed_types,
    reason = "the crate is pure, its oracle is a program"
)]
fn a_stranger_recomputes_it() {
    let run = std::process::Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recompute.py"))
        .stdin(
            std::fs::File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden-v1.jsonl"))
                .expect("there"),
        )
        .output();
    match run {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: no python3 on this machine")
        }
        Err(why) => panic!("python3: {why}"),
        Ok(run) => {
            assert_eq!(String::from_utf8_lossy(&run.stderr), "");
            assert_eq!(String::from_utf8_lossy(&run.stdout), format!("3:{}\n", HASHES[2]));
        }
    }
}
