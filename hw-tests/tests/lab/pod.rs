//! The signed ping of death against real kernels: each state that lets nobody in, and one packet that ends it. The long
//! run of it is `cargo xtask soak pod`.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use hw_tests::fleet::wait_for;
use hw_tests::lab::fault::Fault;
use hw_tests::lab::{self, CAP, Lab};
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

/// One packet brings the node back, whatever was committed before.
fn restored(lab: &Lab, index: usize) -> Result<()> {
    let since = lab.at(index).console().mark();
    let report = lab.pod(index, Action::Reboot, PATIENCE)?;
    println!("{:?} after {:?}", report.outcome, report.took);
    let Outcome::Rebooted(_) = report.outcome else {
        bail!("{report:?}");
    };
    lab.at(index).ready_since(since)?;
    lab.fleet.attached(lab.at(index).name())
}

fn with_node(body: impl FnOnce(&mut Lab, usize) -> Result<()>) -> Result<()> {
    lab::test(&["princeton"], |lab| {
        lab.fleet.slice(SLICE)?;
        let index = lab.node("planet1", "princeton")?;
        body(lab, index)
    })
}

#[test]
fn pod_is_armed_kills_slivers_and_crashes_with_a_panic_on_the_console() -> Result<()> {
    with_node(|lab, index| {
        let node = lab.at(index);
        for to in [IpAddr::V4(node.ip()), IpAddr::V6(node.ip6())] {
            let armed = lab.pod_to(index, to, Action::DryRun, PATIENCE)?;
            ensure!(matches!(armed.outcome, Outcome::Armed(_)), "{armed:?}");
        }
        let told = node
            .run("redbutton-pod-listener check --keys /etc/redbutton/pod.toml")?
            .text;
        println!("{told}");
        for prepared in [
            "pod.memory",
            "pod.priority",
            "pod.softirq",
            "pod.napi",
            "pod.console",
            "pod.seccomp",
        ] {
            let line = told
                .lines()
                .find(|line| line.contains(prepared))
                .unwrap_or_default();
            ensure!(line.contains(" exact "), "{prepared}: {line:?}");
        }

        node.exec(SLICE, "sleep 1000")?;
        let report = lab.pod(index, Action::KillSlivers, PATIENCE)?;
        ensure!(matches!(report.outcome, Outcome::Accepted(_)), "{report:?}");
        wait_for("a node without slivers", || {
            node.processes(SLICE).is_ok_and(|left| left == 0).then_some(())
        })?;
        node.must("pidof redbutton-nodemgr && pidof redbutton-pod-listener")?;

        let since = node.console().mark();
        let report = lab.pod(index, Action::Crash, PATIENCE)?;
        ensure!(matches!(report.outcome, Outcome::Rebooted(_)), "{report:?}");
        node.console().wait_for(since, "Kernel panic", CAP)?;
        node.ready_since(since)?;
        ensure!(lab.can_log_in(index, CAP)?, "nobody can log in after the crash");
        Ok(())
    })
}

/// Each by itself, one after the other, on one node; the fork bomb and the real-time loop let nobody in.
#[test]
fn pod_ends_every_state_that_starves_a_node() -> Result<()> {
    with_node(|lab, index| {
        for fault in [
            Fault::Forkbomb,
            Fault::Memory,
            Fault::Fds,
            Fault::Disk,
            Fault::Hang,
        ] {
            println!("{}", fault.commit(lab, index, SLICE)?);
            if fault == Fault::Forkbomb {
                wait_for("a node that lets nobody in", || {
                    lab.can_log_in(index, LOGIN)
                        .is_ok_and(|inside| !inside)
                        .then_some(())
                })?;
            }
            restored(lab, index)?;
        }
        ensure!(lab.can_log_in(index, CAP)?, "nobody can log in at the end");
        Ok(())
    })
}
