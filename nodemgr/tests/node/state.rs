//! What survives: holds over restarts, corrupt files, full disks.

use std::fs;

use nodemgr::holds::file;
use proto::HoldKind;
use proto::v1::Outcome;

use crate::support::{Door, Lab, Started, exec_command, obey, populated, skip};

#[test]
fn holds_are_obeyed_after_a_restart_before_anything_starts() {
    let Some(lab) = Lab::new() else { return };
    let hold = lab.hold("a_b", HoldKind::Suspend);
    let frozen = lab.hold("a_c", HoldKind::Freeze);
    let mut started = {
        let node = lab.start();
        let _door = Door::open(&node, &lab.config().socket);
        [
            Started::sleeper(&lab, "a_b"),
            Started::sleeper(&lab, "a_c"),
            Started::sleeper(&lab, "a_d"),
        ]
    };
    // The daemon is away; its state says that two of them are held.
    let loaded = file::load(&lab.config().state_dir, 64 << 10, 1);
    let mut state = loaded.state;
    state.holds.impose(hold.clone()).expect("fits");
    state.holds.impose(frozen.clone()).expect("fits");
    loaded
        .file
        .expect("writable")
        .write(&state.encode())
        .expect("writable");

    let node = lab.start();
    assert!(!populated(&lab.sliver("a_b")), "killed before start returned");
    assert!(
        crate::support::frozen(&lab.sliver("a_c")),
        "frozen before start returned"
    );
    assert!(populated(&lab.sliver("a_d")) && !crate::support::frozen(&lab.sliver("a_d")));
    assert_eq!(started[0].signal(), Some(9));
    let _door = Door::open(&node, &lab.config().socket);
    assert_eq!(
        exec_command(&lab, "a_b", "true")
            .output()
            .expect("runs")
            .status
            .code(),
        Some(5)
    );
    let mut holds = node.report().holds;
    holds.sort();
    let mut expected = [hold.id.to_string(), frozen.id.to_string()];
    expected.sort();
    assert_eq!(holds, expected);
    // And the way back still works, although the daemon that froze it is another.
    assert_eq!(obey(&node, lab.release(&frozen)).outcome(), Outcome::Released);
    assert!(!crate::support::frozen(&lab.sliver("a_c")) && populated(&lab.sliver("a_c")));
}

#[test]
fn with_a_corrupt_state_nothing_starts_until_the_full_set_has_come() {
    let Some(lab) = Lab::new() else { return };
    let hold = lab.hold("a_held", HoldKind::Suspend);
    let mut running = {
        let node = lab.start();
        let _door = Door::open(&node, &lab.config().socket);
        obey(&node, lab.impose(&hold));
        Started::sleeper(&lab, "a_b")
    };
    let path = lab.config().state_dir.join("holds");
    let len = fs::metadata(&path).expect("there").len();
    fs::write(&path, vec![0xa5; len as usize]).expect("writable");

    for _ in 0..2 {
        let node = lab.start();
        let _door = Door::open(&node, &lab.config().socket);
        let out = exec_command(&lab, "a_new", "true").output().expect("runs");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(5), "{said}");
        assert!(said.contains("corrupt: copy A: no magic"), "{said}");
        assert!(node.report().locked.contains("is corrupt"));
        assert!(populated(&lab.sliver("a_b")), "what runs is left alone");
        assert!(running.child.try_wait().expect("waits").is_none());
        assert!(lab.config().state_dir.join("holds.corrupt-1").exists());
        // Restarted once more: still locked.
    }
    let node = lab.start();
    let _door = Door::open(&node, &lab.config().socket);
    // A press works all the same, and does not unlock.
    assert_eq!(
        obey(&node, lab.impose(&lab.hold("a_b", HoldKind::Suspend))).outcome(),
        Outcome::Killed
    );
    assert_eq!(running.signal(), Some(9));
    assert_eq!(
        exec_command(&lab, "a_new", "true")
            .output()
            .expect("runs")
            .status
            .code(),
        Some(5)
    );
    let answer = obey(&node, lab.sync(std::slice::from_ref(&hold), &[]));
    assert_eq!(
        answer.holds.len(),
        2,
        "the press made while locked stands too: {answer:?}"
    );
    assert_eq!(node.report().locked, "");
    let out = exec_command(&lab, "a_new", "id -u").output().expect("runs");
    let uid: u32 = String::from_utf8_lossy(&out.stdout)
        .trim()
        .parse()
        .expect("a uid");
    assert!(
        uid > 2_000_000 + 1_000,
        "uids of the lost table are not given again: {uid}"
    );
    assert_eq!(
        exec_command(&lab, "a_held", "true")
            .output()
            .expect("runs")
            .status
            .code(),
        Some(5)
    );
}

#[test]
fn on_a_full_disk_holds_are_durable_all_the_same() {
    let Some(lab) = Lab::new() else { return };
    let Some(disk) = Disk::new(1 << 20) else { return };
    let config = nodemgr::Config {
        state_dir: disk.0.path().to_owned(),
        ..lab.config()
    };
    let node = lab.start_with(config);
    let _door = Door::open(&node, &lab.config().socket);
    let mut started = Started::sleeper(&lab, "a_b");
    disk.fill();
    let answer = obey(&node, lab.impose(&lab.hold("a_b", HoldKind::Suspend)));
    assert_eq!(
        (answer.outcome(), answer.durable),
        (Outcome::Killed, true),
        "{}",
        answer.detail
    );
    assert_eq!(started.signal(), Some(9));
}

#[test]
fn where_the_state_cannot_be_written_the_kill_happens_and_says_so() {
    let Some(lab) = Lab::new() else { return };
    let Some(disk) = Disk::new(256 << 10) else { return };
    disk.fill();
    let config = nodemgr::Config {
        state_dir: disk.0.path().to_owned(),
        ..lab.config()
    };
    let node = lab.start_with(config);
    let _door = Door::open(&node, &lab.config().socket);
    // A new slice needs a uid that is recorded; it cannot be, so it does not start.
    let out = exec_command(&lab, "a_b", "true").output().expect("runs");
    assert_eq!(out.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&out.stderr).contains("user of slice a_b cannot be recorded"));
    // What runs already dies.
    fs::create_dir_all(lab.sliver("a_b")).expect("made");
    let mut child = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .expect("spawns");
    fs::write(lab.sliver("a_b").join("cgroup.procs"), child.id().to_string()).expect("moved");
    assert!(crate::support::eventually(crate::support::CAP, || !node
        .report()
        .slivers
        .is_empty()));
    let answer = obey(&node, lab.impose(&lab.hold("a_b", HoldKind::Suspend)));
    assert_eq!(
        (answer.outcome(), answer.durable),
        (Outcome::Killed, false),
        "{answer:?}"
    );
    assert!(
        answer.detail.contains("not durable") && answer.detail.contains("No space left"),
        "{}",
        answer.detail
    );
    assert!(child.wait().expect("waits").code().is_none());
    let durable = node
        .report()
        .capabilities
        .into_iter()
        .find(|c| c.name == "holds.durable")
        .expect("reported");
    assert_eq!(durable.assurance(), proto::v1::Assurance::NotEnforced);
    // The disk has room again: the next change heals it.
    fs::remove_file(disk.0.path().join("full")).expect("removed");
    assert!(obey(&node, lab.impose(&lab.hold("a_c", HoldKind::Suspend))).durable);
}

#[test]
fn two_node_managers_never_share_a_state() {
    let Some(lab) = Lab::new() else { return };
    let _first = lab.start();
    let restarter = Box::new(nodemgr::restart::Unavailable { why: "a test".into() });
    let setup = nodemgr::Setup {
        config: lab.config(),
        node: lab.id,
        prepared: Vec::new(),
        restarter,
    };
    let error = nodemgr::Node::start(setup).expect_err("taken").to_string();
    assert!(error.contains("another node manager is using it"), "{error}");
}

/// A small tmpfs, unmounted on every way out.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(bytes: usize) -> Option<Self> {
        let dir = tempfile::tempdir().expect("temp dir");
        let options = format!("size={bytes},mode=0700");
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "redbutton-test"])
            .arg(dir.path())
            .status();
        match status {
            Ok(status) if status.success() => Some(Self(dir)),
            other => skip(&format!("cannot mount a tmpfs: {other:?}")),
        }
    }

    fn fill(&self) {
        use std::io::Write;
        let mut file = fs::File::create(self.0.path().join("full")).expect("a file");
        while file.write_all(&[0; 4096]).is_ok() {}
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("--lazy")
            .arg(self.0.path())
            .status();
    }
}
