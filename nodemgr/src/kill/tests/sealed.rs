//! The kill works when nothing else does: proven by taking everything else away from the thread that kills.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::super::{Engine, Outcome, Plan};
use super::{engine, helper, is_empty, patient, reap};
use crate::cgroup::testing::{Ground, until};
use crate::cgroup::{Mount, Sliver};
use crate::guard::Guard;
use crate::{prepare, sys};

/// All that the kill path asks of the kernel. No open, no clone, no execve, no mmap, no brk, no socket.
/// The last three are for leaving the process.
const ALLOWED: [libc::c_long; 14] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_ppoll,
    libc::SYS_kill,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_sigaltstack,
    libc::SYS_munmap,
    libc::SYS_exit_group,
];

/// Tells the test by its exit status; prints nothing, for printing may allocate.
const KILLED: i32 = 42;

#[test]
fn nothing_but_reads_writes_and_polls_on_the_kill_path() {
    let Some(ground) = Ground::new() else { return };
    for (role, fallback) in [("cgroup.kill", "0"), ("a loop of kill(2)", "1")] {
        let sliver = ground.sliver(if fallback == "1" { "loop" } else { "kill" });
        let child = ground.sleepers(&sliver, 50);
        let helper = helper::start("sealed", &sliver, &[("REDBUTTON_TEST_FALLBACK", fallback)]);
        let done = helper.wait_with_output().expect("a status");
        assert_eq!(done.status.code(), Some(KILLED), "{role}: {done:?}");
        assert!(is_empty(&sliver), "{role}");
        reap(child);
    }
}

/// The filter does bite: without this, the test above could not fail.
#[test]
fn the_filter_bites() {
    let Some(ground) = Ground::new() else { return };
    let done = helper::start("sealed-open", &ground.sliver("none"), &[])
        .wait_with_output()
        .expect("a status");
    assert_eq!(done.status.signal(), Some(libc::SIGSYS), "{done:?}");
}

#[test]
fn preparation_is_what_it_says() {
    let Some(ground) = Ground::new() else { return };
    let done = helper::start("prepare", &ground.sliver("none"), &[])
        .wait_with_output()
        .expect("a status");
    assert_eq!(done.status.code(), Some(KILLED), "{done:?}");
}

fn prepared() -> (Engine, Guard, Arc<Sliver>) {
    let mut mount = Mount::discover("/proc/self/mountinfo".as_ref()).expect("a mount");
    if std::env::var("REDBUTTON_TEST_FALLBACK").as_deref() == Ok("1") {
        let facts = crate::cgroup::Facts {
            kill: Some(false),
            ..mount.facts().clone()
        };
        mount = mount.with_facts(facts);
    }
    let sliver = Arc::new(Sliver::open(&mount, &helper::cgroup()).expect("a sliver"));
    let own = i32::try_from(std::process::id()).expect("a pid");
    let guard = Guard::record(&mount, "/proc".as_ref(), own, &[]).expect("a guard");
    let _ = prepare::process("/proc".as_ref());
    let engine = engine();
    let _ = prepare::kill_thread(&mount, "/proc".as_ref());
    (engine, guard, sliver)
}

/// In the second process: kills a sliver under the filter, then leaves with the answer.
pub(super) fn kill_under_the_filter() {
    let (mut engine, guard, sliver) = prepared();
    sys::allow_only(&ALLOWED).expect("a filter");
    let plan = Plan {
        evidence: false,
        census: false,
        ..Plan::default()
    };
    let slivers = [sliver];
    let reports = engine.kill(&slivers, &guard, &plan);
    let well = reports[0].outcome == Outcome::Killed && reports[0].killed == Some(51);
    helper::leave(if well { KILLED } else { 1 });
}

/// In the second process: proves that the filter ends who opens.
pub(super) fn open_under_the_filter() {
    sys::allow_only(&ALLOWED).expect("a filter");
    let opened = File::open("/dev/null").is_ok();
    helper::leave(if opened { 2 } else { 3 });
}

#[test]
fn a_node_without_descriptors_is_killed_with_evidence() {
    let Some(ground) = Ground::new() else { return };
    let sliver = ground.sliver("starved");
    let child = ground.sleepers(&sliver, 5);
    until("they sleep", || sliver.pids().is_ok_and(|pids| pids.len() == 6));
    let done = helper::start("starved", &sliver, &[])
        .wait_with_output()
        .expect("a status");
    assert_eq!(done.status.code(), Some(KILLED), "{done:?}");
    assert!(is_empty(&sliver));
    reap(child);
}

/// In the second process: every descriptor is taken by a hog; the spare ones serve the evidence.
pub(super) fn kill_without_descriptors() {
    let (mut engine, guard, sliver) = prepared();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
    setrlimit(Resource::RLIMIT_NOFILE, 256, hard).expect("a limit");
    let mut hog = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hog.push(file);
    }
    assert!(File::open("/dev/null").is_err(), "no descriptor is left");
    let report = engine
        .kill(&[sliver], &guard, &patient())
        .pop()
        .expect("a report");
    let evidence = report.evidence.as_ref().expect("asked for");
    assert_eq!(
        (report.outcome, report.killed),
        (Outcome::Killed, Some(6)),
        "{report:?}"
    );
    assert_eq!(
        (evidence.incomplete.as_str(), evidence.processes.len()),
        ("", 6),
        "{report:?}"
    );
    assert!(report.zombies.is_some(), "{report:?}");
    drop(hog);
    helper::leave(KILLED);
}
