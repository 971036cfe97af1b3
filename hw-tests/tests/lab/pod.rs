//! The signed ping of death against real kernels: each state that lets nobody in, and one packet that ends it.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use hw_tests::lab::fault::Fault;
use hw_tests::lab::{self, CAP, Lab};
use lab::Spec;
use pod_sender::{Outcome, Patience};
use pod_wire::Action;

const SLICE: &str = "princeton_runaway";
/// What a person waits for a login before giving up.
const LOGIN: Duration = Duration::from_secs(5);
/// Under emulation a boot takes seconds; under a fault the packet may take some as well.
const PATIENCE: Patience = Patience {
    every_ms: 1_000,
    tries: 60,
    last_tries: 60,
    watch_ms: 120_000,
};

/// One packet must bring the node back, whatever is committed before.
fn restored(lab: &Lab, index: usize) -> Result<()> {
    let since = lab.at(index).console().mark();
    let report = lab.pod(index, Action::Reboot, PATIENCE)?;
    println!("{:?} after {:?}", report.outcome, report.took);
    let Outcome::Rebooted(_) = report.outcome else {
        bail!("{report:?}");
    };
    lab.at(index).ready_since(since)?;
    lab.fleet.attached(lab.at(index).name())?;
    ensure!(lab.can_log_in(index, CAP)?, "nobody can log in after the reboot");
    Ok(())
}

fn with_node(body: impl FnOnce(&mut Lab, usize) -> Result<()>) -> Result<()> {
    lab::test(&["princeton"], |lab| {
        lab.fleet.slice(SLICE)?;
        let index = lab.add(&Spec::small("planet1", "princeton"))?;
        lab.ready(index)?;
        body(lab, index)
    })
}

#[test]
fn pod_is_armed_and_reboots_a_well_node_over_both_families() -> Result<()> {
    with_node(|lab, index| {
        for to in [IpAddr::V4(lab.at(index).ip()), IpAddr::V6(lab.at(index).ip6())] {
            let armed = lab.pod_to(index, to, Action::DryRun, PATIENCE)?;
            ensure!(matches!(armed.outcome, Outcome::Armed(_)), "{armed:?}");
        }
        println!(
            "{}",
            lab.at(index)
                .run("redbutton-pod-listener check --keys /etc/redbutton/pod.toml")?
                .text
        );
        restored(lab, index)
    })
}

#[test]
fn pod_kill_slivers_kills_them_and_the_node_stays_up() -> Result<()> {
    with_node(|lab, index| {
        lab.at(index).exec(SLICE, "sleep 1000")?;
        let report = lab.pod(index, Action::KillSlivers, PATIENCE)?;
        ensure!(matches!(report.outcome, Outcome::Accepted(_)), "{report:?}");
        hw_tests::fleet::wait_for("a node without slivers", || {
            lab.at(index)
                .processes(SLICE)
                .is_ok_and(|left| left == 0)
                .then_some(())
        })?;
        lab.at(index)
            .must("pidof redbutton-nodemgr redbutton-pod-listener")?;
        Ok(())
    })
}

#[test]
fn pod_crash_leaves_the_panic_on_the_console_and_comes_back() -> Result<()> {
    with_node(|lab, index| {
        let since = lab.at(index).console().mark();
        let report = lab.pod(index, Action::Crash, PATIENCE)?;
        ensure!(matches!(report.outcome, Outcome::Rebooted(_)), "{report:?}");
        lab.at(index).console().wait_for(since, "Kernel panic", CAP)?;
        lab.at(index).ready_since(since)
    })
}

/// The state is real before the packet is sent: nobody gets in.
fn nobody_gets_in(lab: &Lab, index: usize) -> Result<()> {
    hw_tests::fleet::wait_for("a node that lets nobody in", || {
        lab.can_log_in(index, LOGIN)
            .is_ok_and(|inside| !inside)
            .then_some(())
    })
}

fn starved_by(fault: Fault) -> Result<()> {
    with_node(|lab, index| {
        println!("{}", fault.commit(lab, index, SLICE)?);
        if fault == Fault::Forkbomb {
            nobody_gets_in(lab, index)?;
        }
        restored(lab, index)
    })
}

#[test]
fn pod_ends_a_fork_bomb() -> Result<()> {
    starved_by(Fault::Forkbomb)
}

#[test]
fn pod_ends_a_memory_hog() -> Result<()> {
    starved_by(Fault::Memory)
}

#[test]
fn pod_ends_a_full_file_table() -> Result<()> {
    starved_by(Fault::Fds)
}

#[test]
fn pod_ends_a_full_disk() -> Result<()> {
    starved_by(Fault::Disk)
}

#[test]
fn pod_ends_a_real_time_loop_that_stops_everything_else() -> Result<()> {
    starved_by(Fault::Hang)
}
