//! What release 0.1.0 (commit c157691) left on a node's disk: its hold file, made by its programs, and its example
//! configuration. DO NOT CHANGE THIS TEST nor the files in `golden/0.1.0`: nodes have such files, and a node that
//! cannot read its holds starts nothing.

use std::path::Path;

use nodemgr::Config;
use nodemgr::holds::{Verdict, file};
use proto::{HoldKind, Role, SliceName, Version};

const HOLDS: &[u8] = include_bytes!("golden/0.1.0/holds");
const CONFIG: &str = include_str!("golden/0.1.0/nodemgr.toml");
const SLOT: usize = 64 << 10;

fn slice(name: &str) -> SliceName {
    name.parse().expect("a name")
}

#[test]
fn the_hold_file_is_read_obeyed_and_written_on() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join(file::NAME), HOLDS).expect("a copy");
    let loaded = file::load(dir.path(), SLOT, 1);
    assert_eq!(&*loaded.state.locked, "");
    assert!(
        loaded.note.is_some_and(|note| note.ends_with("format 1, now 2")),
        "it is read and says that it is written anew"
    );
    let holds: Vec<(String, HoldKind, String, Role)> = loaded
        .state
        .holds
        .iter()
        .map(|hold| (hold.id.to_string(), hold.kind, hold.holder.to_string(), hold.role))
        .collect();
    let expected = [
        (
            "01a20fd1-7bb8-76e7-94f6-3a02d5cc5052",
            HoldKind::Suspend,
            "alice",
            Role::Support,
        ),
        (
            "01a20fd1-7c32-73a5-b027-05500ecf9145",
            HoldKind::Freeze,
            "pat",
            Role::Pi,
        ),
    ]
    .map(|(id, kind, holder, role)| (id.to_owned(), kind, holder.to_owned(), role));
    assert_eq!(holds, expected);
    let verdict = |name| loaded.state.holds.verdict(&slice(name));
    assert_eq!(
        ["princeton_codeen", "princeton_quiet", "berkeley_oasis"].map(verdict),
        [
            Verdict::from(HoldKind::Suspend),
            Verdict::from(HoldKind::Freeze),
            Verdict::Run
        ]
    );
    let seen = Version {
        incarnation: 1,
        epoch: 4,
    };
    assert_eq!(loaded.state.seen, seen);
    // Each slice keeps its user: its files belong to it.
    let uids: Vec<(&str, u32)> = loaded
        .state
        .uids
        .iter()
        .map(|(slice, uid)| (slice.as_str(), *uid))
        .collect();
    let expected = [
        ("berkeley_oasis", 2_000_002),
        ("princeton_codeen", 2_000_000),
        ("princeton_quiet", 2_000_001),
    ];
    assert_eq!((uids, loaded.state.next_uid), (expected.to_vec(), 2_000_003));

    loaded
        .file
        .expect("it can be written on")
        .write(&loaded.state.encode())
        .expect("room");
    let again = file::load(dir.path(), SLOT, 2);
    assert_eq!(again.state.holds.iter().count(), 2);
    assert!(again.state.locked.is_empty());
}

#[test]
fn the_configuration_is_one() {
    let config = Config::parse(CONFIG, Path::new("nodemgr.toml")).expect("0.1.0 shipped it");
    assert_eq!(config.state_bytes, 1 << 20);
    assert_eq!(config.adopt.len(), 3);
}
