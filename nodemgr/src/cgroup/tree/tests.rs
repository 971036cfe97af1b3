use std::process::{Command, Stdio};

use super::*;
use crate::cgroup::testing::{Fixture, Ground, until};

fn slice(name: &str) -> SliceName {
    name.parse().expect("a slice name")
}

#[test]
fn a_sliver_is_made_filled_and_removed() {
    let Some(ground) = Ground::new() else { return };
    let tree = Tree::new(&ground.mount, &ground.path().join("redbutton.slice")).expect("a tree");
    let name = slice("princeton_codeen");
    assert!(tree.existing(&name).expect("looked").is_none());
    assert_eq!(tree.slices(), []);
    let made = tree.make(&name).expect("made");
    assert_eq!(made.sliver.path(), tree.path(&name));
    if ground.mount.facts().controllers.is_empty() {
        let absent = |(_, state): &(_, ControllerState)| *state == ControllerState::Absent;
        assert!(made.controllers.iter().all(absent), "{:?}", made.controllers);
    } else {
        println!(
            "skipped: not a hybrid host, what became of the controllers is {:?}",
            made.controllers
        );
    }
    let again = tree.make(&name).expect("found");
    assert_eq!(again.sliver.id(), made.sliver.id());
    assert_eq!(tree.slices(), std::slice::from_ref(&name));

    let mut child = Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .spawn()
        .expect("a process");
    let pid = i32::try_from(child.id()).expect("a pid");
    tree.enter(&name, pid).expect("moved");
    assert_eq!(made.sliver.pids().expect("a list"), [pid]);
    let busy = tree.remove(&name).expect_err("somebody lives there").to_string();
    assert!(busy.starts_with("cannot remove cgroup redbutton-test-"), "{busy}");
    assert!(!tree.remove_root());
    child.kill().expect("killed");
    child.wait().expect("reaped");
    fs::create_dir(ground.mount.root().join(tree.path(&name)).join("nested")).expect("nested");
    until("it can be removed", || tree.remove(&name).is_ok());
    assert!(tree.existing(&name).expect("looked").is_none());
    assert!(tree.enter(&name, pid).is_err());
    tree.remove(&name).expect("removing twice is fine");
    assert!(tree.remove_root());
}

#[test]
fn roots_that_cannot_be_ours() {
    let fixture = Fixture::new();
    for bad in ["", "/", ".", "../other", "a/../.."] {
        assert!(
            Tree::new(&fixture.mount(), Path::new(bad)).is_err(),
            "{bad:?} was taken"
        );
    }
    let bytes = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff");
    assert!(Tree::new(&fixture.mount(), Path::new(bytes)).is_err());
}

/// Plain files keep what is written, so a controller that was not there before is not read back as enabled.
#[test]
fn a_controller_counts_when_it_is_read_back() {
    let fixture = Fixture::new();
    for level in ["", "redbutton.slice/"] {
        fixture.write(&format!("{level}cgroup.controllers"), "cpu memory pids\n");
        fixture.write(&format!("{level}cgroup.subtree_control"), "pids memory\n");
    }
    fixture.write("redbutton.slice/cgroup.controllers", "memory pids\n");
    fixture.write("redbutton.slice/cgroup.subtree_control", "pids\n");
    let tree = Tree::new(&fixture.mount(), Path::new("redbutton.slice")).expect("a tree");
    let states = tree.enable_controllers();
    let of = |name| &states.iter().find(|(of, _)| *of == name).expect("wanted").1;
    assert_eq!(of("pids"), &ControllerState::Enabled);
    assert_eq!(of("io"), &ControllerState::Absent);
    let ControllerState::Refused(why) = of("memory") else {
        panic!("{states:?}")
    };
    assert!(
        why.ends_with("redbutton.slice/cgroup.subtree_control: written, but not there when read back"),
        "{why}"
    );
    assert!(matches!(of("cpu"), ControllerState::Refused(_)), "{states:?}");
}
