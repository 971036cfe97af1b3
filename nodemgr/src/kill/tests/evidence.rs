//! What is written down before the kill, and what happens when it cannot be.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;

use super::super::{Engine, Outcome, Plan};
use super::{kill_one, patient, reap};
use crate::cgroup::testing::{Ground, until};

#[test]
fn evidence_names_the_processes() {
    let Some(ground) = Ground::new() else { return };
    let sliver = ground.sliver("evidence");
    let path = sliver.path().to_owned();
    let child = ground.sleepers(&sliver, 4);
    until("sleep runs", || {
        let pids = sliver.pids().expect("a list");
        pids.iter()
            .filter(|pid| fs::read(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == b"sleep\n"))
            .count()
            == 4
    });
    let report = kill_one(&ground, sliver, &patient());
    let evidence = report.evidence.expect("asked for");
    assert_eq!(evidence.incomplete, "");
    assert_eq!(evidence.processes.len(), 5);
    let sleeper = evidence
        .processes
        .iter()
        .find(|process| process.comm == "sleep")
        .expect("a sleeper");
    assert_eq!(sleeper.command_line, "sleep 1000");
    assert_eq!(sleeper.cgroup, path);
    assert!(
        sleeper.files.is_some() && sleeper.sockets == Some(0),
        "{sleeper:?}"
    );
    assert!(report.frozen && report.evidence_us > 0);
    reap(child);
}

/// A command line that hangs: the file is a pipe that nobody writes to.
#[test]
fn the_kill_does_not_wait_for_a_reading_that_hangs() {
    let Some(ground) = Ground::new() else { return };
    let (first, second) = (
        Arc::new(ground.sliver("first")),
        Arc::new(ground.sliver("second")),
    );
    let children = [
        ground.shell(first.path(), "exec sleep 1000"),
        ground.shell(second.path(), "exec sleep 1000"),
    ];
    until("both run", || {
        [&first, &second]
            .iter()
            .all(|sliver| sliver.pids().is_ok_and(|pids| pids.len() == 1))
    });
    let pid = first.pids().expect("a list")[0];
    let proc = tempfile::tempdir().expect("a directory");
    let directory = proc.path().join(pid.to_string());
    fs::create_dir(&directory).expect("made");
    for name in ["stat", "status", "cgroup"] {
        fs::copy(format!("/proc/{pid}/{name}"), directory.join(name)).expect("copied");
    }
    let pipe = directory.join("cmdline");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).expect("a pipe");

    let guard = ground.guard(&[]);
    let mut engine = Engine::new(proc.path()).expect("an engine");
    let plan = Plan {
        census: false,
        ..Plan::default()
    };
    let began = Instant::now();
    let report = engine.kill(&[first], &guard, &plan).pop().expect("a report");
    assert_eq!(report.outcome, Outcome::Killed, "{report:?}");
    assert_eq!(
        report.evidence.expect("asked for").incomplete,
        "1 processes not read in time"
    );
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "it waited for the reading"
    );

    let report = engine.kill(&[second], &guard, &plan).pop().expect("a report");
    assert_eq!(report.outcome, Outcome::Killed, "{report:?}");
    assert_eq!(
        report.evidence.expect("asked for").incomplete,
        "skipped: an earlier reading still hangs"
    );
    fs::write(&pipe, "").expect("the reading ends");
    children.into_iter().for_each(reap);
}

#[test]
fn evidence_is_bounded_by_count() {
    let Some(ground) = Ground::new() else { return };
    let slivers: Vec<_> = (0..2)
        .map(|number| Arc::new(ground.sliver(&format!("many{number}"))))
        .collect();
    let children: Vec<_> = slivers
        .iter()
        .map(|sliver| ground.sleepers(sliver, 260))
        .collect();
    let reports =
        Engine::new(Path::new("/proc"))
            .expect("an engine")
            .kill(&slivers, &ground.guard(&[]), &patient());
    for report in reports {
        assert_eq!(
            (report.outcome, report.killed),
            (Outcome::Killed, Some(261)),
            "{:?}",
            report.detail
        );
        let evidence = report.evidence.expect("asked for");
        assert_eq!(evidence.processes.len(), 256);
        assert_eq!(evidence.incomplete, "5 more processes were not read");
    }
    children.into_iter().for_each(reap);
}
