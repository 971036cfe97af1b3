use std::fs;
use std::process::{Command, Stdio};

use super::*;
use crate::cgroup::testing::{Fixture, Ground};

#[test]
fn a_typo_makes_no_file_and_the_root_is_no_sliver() {
    let Some(ground) = Ground::new() else { return };
    let error = Sliver::open(&ground.mount, &ground.path().join("typo")).expect_err("not there");
    assert!(error.is_gone());
    assert!(error.to_string().ends_with("/typo does not exist"), "{error}");
    assert!(!ground.directory().join("typo").exists());
    assert!(Sliver::open(&ground.mount, Path::new("/")).is_err());
    let error = Sliver::open(&ground.mount, Path::new("a/../../b")).expect_err("climbs");
    assert_eq!(
        error.to_string(),
        "cgroup path a/../../b leads out of the hierarchy"
    );
}

#[test]
fn a_link_is_not_followed() {
    let fixture = Fixture::new();
    fixture.empty("real");
    let root = fixture.mount().root().to_owned();
    std::os::unix::fs::symlink(root.join("real"), root.join("link")).expect("a link");
    assert!(Sliver::open(&fixture.mount(), Path::new("real")).is_ok());
    assert!(Sliver::open(&fixture.mount(), Path::new("link")).is_err());
}

#[test]
fn a_sliver_knows_its_processes_and_its_end() {
    let Some(ground) = Ground::new() else { return };
    let sliver = ground.sliver("own");
    assert_eq!(sliver.events().expect("events"), Events::default());
    assert!(sliver.pids().expect("a list").is_empty());
    let mut child = Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .spawn()
        .expect("a process");
    let pid = i32::try_from(child.id()).expect("a pid");
    sliver.enter(pid).expect("moved");
    assert_eq!(sliver.pids().expect("a list"), [pid]);
    assert!(sliver.events().expect("events").populated);
    assert_eq!(sliver.descendants(), Some(0));
    child.kill().expect("killed");
    child.wait().expect("reaped");
    assert!(sliver.pids().expect("a list").is_empty());
    assert!(sliver.enter(pid).is_err(), "the process is gone");
    fs::remove_dir(ground.mount.root().join(sliver.path())).expect("removed");
    assert!(sliver.events().expect_err("removed").is_gone());
    assert!(sliver.set_frozen(true).expect_err("removed").is_gone());
    assert!(sliver.pids().expect_err("removed").is_gone());
}

#[test]
fn files_that_make_no_sense_are_named() {
    let fixture = Fixture::new();
    fixture.empty("odd");
    fixture.write("odd/cgroup.events", "nonsense\n");
    fixture.write("odd/pids.max", "many");
    let sliver = Sliver::open(&fixture.mount(), Path::new("odd")).expect("a sliver");
    assert_eq!(
        sliver.events().expect_err("odd").to_string(),
        "cannot understand cgroup.events of cgroup odd"
    );
    assert_eq!(
        sliver.pids_max().expect_err("odd").to_string(),
        "cannot understand pids.max of cgroup odd"
    );
    assert!(!sliver.pids_max().expect_err("odd").is_gone());
    assert_eq!(sliver.pids_current(), None);
}

#[test]
fn facts_decide_which_files_are_opened() {
    let fixture = Fixture::new();
    fixture.empty("s");
    let facts = crate::cgroup::Facts {
        kill: Some(false),
        freeze: Some(false),
        ..Default::default()
    };
    let old = Sliver::open(&fixture.mount().with_facts(facts), Path::new("s")).expect("a sliver");
    assert!(!old.has_kill() && !old.has_freeze() && !old.has_pids());
    assert!(!old.set_frozen(true).expect("no file, no error"));
    let new = Sliver::open(&fixture.mount(), Path::new("s")).expect("a sliver");
    assert!(new.has_kill() && new.has_freeze());
    assert!(new.set_frozen(true).expect("written"));
    assert_eq!(fixture.read("s/cgroup.freeze"), "1");
}

#[test]
fn digits() {
    for number in [0, 7, 10, 4_194_304, u64::MAX] {
        assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
    }
}
