//! What people press the button for.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::super::{Outcome, thaw};
use super::{bomb, engine, helper, is_empty, kill_one, quick, reap};
use crate::cgroup::testing::{Fixture, Ground, until};
use crate::cgroup::{PidsMax, Sliver};
use crate::guard::Guard;

#[test]
fn sleepers_die_and_are_counted() {
    let Some(ground) = Ground::new() else { return };
    let sliver = Arc::new(ground.sliver("sleepers"));
    let child = ground.sleepers(&sliver, 20);
    let report = engine()
        .kill(&[Arc::clone(&sliver)], &ground.guard(&[]), &quick())
        .pop()
        .expect("a report");
    assert_eq!(report.outcome, Outcome::Killed, "{report:?}");
    assert_eq!((report.killed, report.stuck), (Some(21), Some(0)), "{report:?}");
    assert_eq!((report.path.as_path(), report.id), (sliver.path(), sliver.id()));
    assert_eq!(report.evidence, None);
    assert!(is_empty(&sliver));
    assert!(
        sliver.events().expect("events").frozen,
        "whoever comes later stands still"
    );
    reap(child);
}

#[test]
fn a_fork_bomb_dies_while_it_forks() {
    let Some(ground) = Ground::new() else { return };
    let sliver = Arc::new(ground.sliver("bomb"));
    let child = bomb(&ground, &sliver);
    let report = engine()
        .kill(&[Arc::clone(&sliver)], &ground.guard(&[]), &quick())
        .pop()
        .expect("a report");
    assert_eq!(report.outcome, Outcome::Killed, "{report:?}");
    assert!(report.killed.is_some_and(|killed| killed > 8), "{report:?}");
    assert!(is_empty(&sliver));
    reap(child);
}

#[test]
fn nested_cgroups_die_with_it() {
    let Some(ground) = Ground::new() else { return };
    let sliver = ground.sliver("outer");
    let inner = [
        ground.sliver("outer/inner"),
        ground.sliver("outer/inner/most"),
        ground.sliver("outer/other"),
    ];
    let children = [ground.sleepers(&inner[1], 3), ground.sleepers(&inner[2], 2)];
    assert_eq!(sliver.descendants(), Some(3));
    assert_eq!(sliver.pids().expect("a list").len(), 7);
    let report = kill_one(&ground, sliver, &quick());
    assert_eq!(
        (report.outcome, report.killed),
        (Outcome::Killed, Some(7)),
        "{report:?}"
    );
    assert!(inner.iter().all(is_empty));
    children.into_iter().for_each(reap);
}

#[test]
fn threaded_children_die_with_their_domain() {
    let Some(ground) = Ground::new() else { return };
    let sliver = ground.sliver("domain");
    let threaded = ground.mount.root().join(ground.make("domain/threads"));
    let child = helper::start("threads", &sliver, &[]);
    until("threads started", || {
        sliver.pids().is_ok_and(|pids| pids.len() == 1)
            && fs::read_to_string(sliver_file(&ground, &sliver, "cgroup.threads"))
                .is_ok_and(|text| text.lines().count() > 3)
    });
    fs::write(threaded.join("cgroup.type"), "threaded").expect("threaded");
    let threads = fs::read_to_string(sliver_file(&ground, &sliver, "cgroup.threads")).expect("threads");
    let last = threads.lines().last().expect("a thread");
    fs::write(threaded.join("cgroup.threads"), last).expect("a thread moved");

    assert_eq!(
        sliver.pids().expect("a list").len(),
        1,
        "listed once, at the domain"
    );
    let report = kill_one(&ground, sliver, &quick());
    assert_eq!(
        (report.outcome, report.killed),
        (Outcome::Killed, Some(1)),
        "{report:?}"
    );
    reap(child);
}

fn sliver_file(ground: &Ground, sliver: &Sliver, name: &str) -> std::path::PathBuf {
    ground.mount.root().join(sliver.path()).join(name)
}

#[test]
fn the_dead_are_not_killed_twice() {
    let Some(ground) = Ground::new() else { return };
    let guard = ground.guard(&[]);
    let empty = Arc::new(ground.sliver("empty"));
    let gone = Arc::new(ground.sliver("gone"));
    fs::remove_dir(ground.mount.root().join(gone.path())).expect("removed");
    let reports = engine().kill(&[empty, gone], &guard, &quick());
    assert_eq!(reports[0].outcome, Outcome::AlreadyDead, "{reports:?}");
    assert_eq!(reports[0].killed, Some(0));
    assert_eq!(reports[1].outcome, Outcome::AlreadyDead, "{reports:?}");
    assert_eq!(reports[1].detail, "the cgroup is gone");
}

/// As systemd does: the cgroup is removed as soon as it is empty.
#[test]
fn a_manager_that_removes_the_cgroup_meanwhile_is_no_failure() {
    let Some(ground) = Ground::new() else { return };
    let sliver = Arc::new(ground.sliver("removed"));
    let child = ground.sleepers(&sliver, 2);
    let directory = ground.mount.root().join(sliver.path());
    let mut engine = engine();
    let guard = ground.guard(&[]);
    let mut press = engine.begin(&[sliver], &guard);
    press.strike(&quick());
    until("it is removed", || fs::remove_dir(&directory).is_ok());
    assert!(press.wait());
    let report = press.finish().pop().expect("a report");
    assert_eq!(
        (report.outcome, report.killed, report.stuck),
        (Outcome::Killed, Some(3), Some(0)),
        "{report:?}"
    );
    assert_eq!(report.detail, "the cgroup is gone");
    assert!(
        report.zombies.is_some_and(|zombies| zombies > 0),
        "the shell is ours to reap: {report:?}"
    );
    reap(child);
}

#[test]
fn a_cgroup_made_again_under_the_same_path_is_left_alone() {
    let Some(ground) = Ground::new() else { return };
    let old = Arc::new(ground.sliver("again"));
    fs::remove_dir(ground.mount.root().join(old.path())).expect("removed");
    let new = ground.sliver("again");
    let child = ground.sleepers(&new, 1);
    let wrong = Sliver::open_expecting(&ground.mount, new.path(), old.id()).expect_err("another one");
    assert!(
        wrong.to_string().ends_with("it was removed and made again"),
        "{wrong}"
    );
    let report = engine()
        .kill(&[old], &ground.guard(&[]), &quick())
        .pop()
        .expect("a report");
    assert_eq!(report.outcome, Outcome::AlreadyDead, "{report:?}");
    assert_eq!(new.pids().expect("a list").len(), 2, "the new one lives");
    assert!(!new.events().expect("events").frozen);
    kill_one(&ground, new, &quick());
    reap(child);
}

#[test]
fn zombies_are_told_apart_from_the_reaped() {
    let Some(ground) = Ground::new() else { return };
    let sliver = ground.sliver("zombies");
    // Three children of this process, which does not reap them; one of a shell that dies with it.
    let children: Vec<_> = (0..3)
        .map(|_| ground.shell(sliver.path(), "exec sleep 1000"))
        .collect();
    let shell = ground.sleepers_beside(&sliver, 1, 3);
    let report = kill_one(&ground, sliver, &quick());
    assert_eq!(
        (report.outcome, report.killed),
        (Outcome::Killed, Some(5)),
        "{report:?}"
    );
    let orphans = report.zombies.expect("counted") - 4;
    assert!(
        orphans <= 1,
        "the shell and the three are zombies, its orphan is init's: {report:?}"
    );
    children.into_iter().for_each(reap);
    reap(shell);
}

#[test]
fn many_slivers_are_one_press() {
    let Some(ground) = Ground::new() else { return };
    let slivers: Vec<_> = (0..12)
        .map(|number| Arc::new(ground.sliver(&format!("s{number}"))))
        .collect();
    let children: Vec<_> = slivers
        .iter()
        .skip(2)
        .map(|sliver| ground.sleepers(sliver, 2))
        .collect();
    let guard = ground.guard(&[slivers[5].path().to_owned()]);
    let reports = engine().kill(&slivers, &guard, &quick());
    for (number, (sliver, report)) in slivers.iter().zip(&reports).enumerate() {
        assert_eq!(
            report.path,
            sliver.path(),
            "reports stand in the order of the slivers"
        );
        let expected = match number {
            0 | 1 => Outcome::AlreadyDead,
            5 => Outcome::Failed,
            _ => Outcome::Killed,
        };
        assert_eq!(report.outcome, expected, "{report:?}");
    }
    assert!(
        reports[5].detail.contains("is the home of the configured list"),
        "{:?}",
        reports[5]
    );
    let spared = slivers[5].events().expect("events");
    assert!(
        spared.populated && !spared.frozen,
        "refused: neither killed nor frozen"
    );
    engine().kill(&slivers[5..6], &ground.guard(&[]), &quick());
    children.into_iter().for_each(reap);
}

#[test]
fn freezing_is_not_killing_and_thawing_gives_back() {
    let Some(ground) = Ground::new() else { return };
    let sliver = Arc::new(ground.sliver("frozen"));
    let child = ground.sleepers(&sliver, 3);
    let guard = ground.guard(&[]);
    let frozen = engine()
        .freeze(&[Arc::clone(&sliver)], &guard, Duration::from_secs(2))
        .pop()
        .expect("a report");
    assert_eq!(
        (frozen.outcome, frozen.frozen),
        (Outcome::Frozen, true),
        "{frozen:?}"
    );
    assert_eq!(sliver.pids().expect("a list").len(), 4);
    assert!(sliver.events().expect("events").frozen);
    thaw(&sliver, frozen.pids_max_before).expect("thawed");
    until("it runs again", || !sliver.events().expect("events").frozen);
    engine().kill(&[sliver], &guard, &quick());
    reap(child);
}

#[test]
fn what_moves_in_after_a_kill_stands_still() {
    let Some(ground) = Ground::new() else { return };
    let sliver = Arc::new(ground.sliver("held"));
    engine().kill(&[Arc::clone(&sliver)], &ground.guard(&[]), &quick());
    let mut late = Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .spawn()
        .expect("a process");
    sliver
        .enter(i32::try_from(late.id()).expect("a pid"))
        .expect("moved");
    until("it is frozen", || {
        sliver
            .events()
            .is_ok_and(|events| events.populated && events.frozen)
    });
    let report = engine()
        .kill(&[Arc::clone(&sliver)], &ground.guard(&[]), &quick())
        .pop()
        .expect("a report");
    assert_eq!(
        (report.outcome, report.killed),
        (Outcome::Killed, Some(1)),
        "{report:?}"
    );
    late.wait().expect("reaped");
}

/// This machine's v2 has no pids controller, so its files are a fixture.
#[test]
fn the_limit_of_tasks_is_closed_once_and_given_back() {
    let fixture = Fixture::new();
    fixture.empty("s");
    fixture.write("s/pids.max", "7");
    fixture.write("s/pids.current", "0\n");
    let proc = tempfile::tempdir().expect("a directory");
    for pid in ["1", "2"] {
        fs::create_dir(proc.path().join(pid)).expect("made");
        fs::write(proc.path().join(pid).join("cgroup"), "0::/home\n").expect("written");
    }
    let guard = Guard::record(&fixture.mount(), proc.path(), 2, &[]).expect("a guard");
    let sliver = Arc::new(Sliver::open(&fixture.mount(), "s".as_ref()).expect("a sliver"));
    let mut engine = engine();
    let first = engine
        .kill(&[Arc::clone(&sliver)], &guard, &quick())
        .pop()
        .expect("a report");
    assert_eq!(first.pids_max_before, Some(PidsMax::At(7)), "{first:?}");
    assert_eq!(
        (
            fixture.read("s/pids.max").as_str(),
            fixture.read("s/cgroup.freeze").as_str()
        ),
        ("0", "1")
    );
    assert_eq!(first.zombies, Some(0), "counted by the controller");
    let second = engine
        .kill(&[Arc::clone(&sliver)], &guard, &quick())
        .pop()
        .expect("a report");
    assert_eq!(second.pids_max_before, None, "0 is ours, not what stood before");
    thaw(&sliver, first.pids_max_before).expect("thawed");
    assert_eq!(
        (
            fixture.read("s/pids.max").as_str(),
            fixture.read("s/cgroup.freeze").as_str()
        ),
        ("7", "0")
    );
}
