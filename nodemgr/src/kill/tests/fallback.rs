//! Kernels without `cgroup.kill`, and without a freezer as well.

use super::super::Outcome;
use super::{bomb, kill_one, quick, reap};
use crate::cgroup::Facts;
use crate::cgroup::testing::{Ground, until};

fn before_5_14() -> Facts {
    Facts {
        kill: Some(false),
        freeze: Some(true),
        ..Facts::default()
    }
}

fn before_5_2() -> Facts {
    Facts {
        kill: Some(false),
        freeze: Some(false),
        ..Facts::default()
    }
}

#[test]
fn without_cgroup_kill_a_frozen_bomb_dies() {
    let Some(ground) = Ground::new() else { return };
    let sliver = ground.sliver_on(before_5_14(), "bomb");
    assert!(!sliver.has_kill() && sliver.has_freeze());
    let child = bomb(&ground, &sliver);
    let report = kill_one(&ground, sliver, &quick());
    assert_eq!(report.outcome, Outcome::Killed, "{report:?}");
    assert!(
        report.frozen && report.killed.is_some_and(|killed| killed > 8),
        "{report:?}"
    );
    reap(child);
}

#[test]
fn without_a_freezer_a_bomb_dies_in_rounds() {
    let Some(ground) = Ground::new() else { return };
    let sliver = ground.sliver_on(before_5_2(), "bomb");
    assert!(!sliver.has_kill() && !sliver.has_freeze());
    let child = bomb(&ground, &sliver);
    let report = kill_one(&ground, sliver, &quick());
    assert_eq!(
        (report.outcome, report.frozen),
        (Outcome::Killed, false),
        "{report:?}"
    );
    reap(child);
}

#[test]
fn without_cgroup_kill_nested_cgroups_die_as_well() {
    let Some(ground) = Ground::new() else { return };
    for (name, facts) in [("frozen", before_5_14()), ("running", before_5_2())] {
        let sliver = ground.sliver_on(facts, name);
        let inner = ground.sliver(&format!("{name}/inner"));
        let children = [
            ground.sleepers(&inner, 3),
            ground.shell(sliver.path(), "exec sleep 1000"),
        ];
        until("all are there", || sliver.pids().expect("a list").len() == 5);
        let report = kill_one(&ground, sliver, &quick());
        assert_eq!(
            (report.outcome, report.killed),
            (Outcome::Killed, Some(5)),
            "{report:?}"
        );
        children.into_iter().for_each(reap);
    }
}
