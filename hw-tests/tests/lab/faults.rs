//! Every fault really does its harm, seen from outside, and `mend` undoes it.

use std::time::Duration;

use anyhow::{Result, ensure};
use hw_tests::fleet::wait_for;
use hw_tests::lab::fault::Fault;
use hw_tests::lab::{self, CAP, Lab, Spec};

const SLICE: &str = "princeton_runaway";
const PATIENCE: Duration = Duration::from_secs(5);

fn broken(fault: Fault, harm: impl FnOnce(&Lab, usize) -> Result<()>) -> Result<()> {
    lab::test(&["princeton"], |lab| {
        lab.fleet.slice(SLICE)?;
        lab.fleet.slice("princeton_quiet")?;
        let spec = Spec {
            mirror: fault == Fault::Raid,
            ..Spec::small("planet1", "princeton")
        };
        let index = lab.add(&spec)?;
        lab.ready(index)?;
        ensure!(
            lab.can_log_in(index, CAP)?,
            "nobody could log in before the fault"
        );
        println!("{}", fault.commit(lab, index, SLICE)?);
        harm(lab, index)?;
        lab.mend(index)?;
        ensure!(lab.can_log_in(index, CAP)?, "nobody can log in after the mending");
        Ok(())
    })
}

/// The kernel answers, and people do not get in: the paper's “pingable but not sshable”.
fn starved(lab: &Lab, index: usize) -> Result<()> {
    wait_for("a node that lets nobody in", || {
        lab.can_log_in(index, PATIENCE)
            .is_ok_and(|inside| !inside)
            .then_some(())
    })?;
    ensure!(lab.pings(index, 10)?, "it does not ping any more");
    ensure!(!lab.can_log_in(index, PATIENCE)?, "it recovered by itself");
    Ok(())
}

#[test]
fn fds_a_slice_takes_every_descriptor_and_its_neighbour_can_open_nothing() -> Result<()> {
    broken(Fault::Fds, |lab, index| {
        // Root is exempt from the bound on open files; everybody else's work is over.
        let node = lab.at(index);
        let neighbour = "redbutton-nodemgr exec princeton_quiet -- cat /etc/hosts";
        wait_for("a neighbour that can open nothing", || {
            let said = node.run(neighbour).ok()?;
            said.text.contains("Too many open files in system").then_some(())
        })?;
        ensure!(lab.pings(index, 2)?);
        let (code, order) = lab
            .fleet
            .json("alice", &["kill-slice", SLICE, "--reason", "takes all files"])?;
        ensure!(code == 0 && order["nodes"][0]["outcome"] == "killed", "{order}");
        let said = node.run(neighbour)?;
        ensure!(said.status == 0, "after the kill: {}", said.text);
        Ok(())
    })
}

#[test]
fn forkbomb_nobody_can_log_in() -> Result<()> {
    broken(Fault::Forkbomb, starved)
}

#[test]
fn hang_nothing_runs_any_more() -> Result<()> {
    broken(Fault::Hang, |lab, index| {
        lab.fleet.away("planet1")?;
        // It may ping or not, as the kernel's deferred work is starved or not.
        ensure!(!lab.can_log_in(index, PATIENCE)?, "somebody could log in");
        Ok(())
    })
}

#[test]
fn network_no_ping_and_away() -> Result<()> {
    broken(Fault::Network, |lab, index| {
        ensure!(!lab.pings(index, 2)?);
        lab.fleet.away("planet1")
    })
}

#[test]
fn disk_full_for_everybody() -> Result<()> {
    broken(Fault::Disk, |lab, index| {
        let node = lab.at(index);
        wait_for("a full disk", || {
            // A new file each time: an old one's blocks would be used again.
            let written = node
                .run("dd if=/dev/zero of=$(mktemp /var/lib/redbutton/probe.XXXXXX) bs=64k count=8")
                .ok()?;
            written.text.contains("No space left on device").then_some(())
        })?;
        // The hold does not need a byte more: the button works.
        node.exec(SLICE, "sleep 1000")?;
        let (code, order) = lab
            .fleet
            .json("alice", &["kill-slice", SLICE, "--reason", "fills disks"])?;
        ensure!(code == 0 && order["nodes"][0]["outcome"] == "killed", "{order}");
        Ok(())
    })
}

#[test]
fn memory_other_processes_starve() -> Result<()> {
    broken(Fault::Memory, |lab, index| {
        lab.at(index)
            .console()
            .wait_for(lab::START, "Out of memory", CAP)
            .map(drop)
    })
}

#[test]
fn raid_a_degraded_mirror_stops_the_boot() -> Result<()> {
    broken(Fault::Raid, |lab, index| {
        let console = lab.at(index).console();
        console.wait_for(lab::START, "LAB: RAID degraded", CAP)?;
        // Its address is there before its disks; nothing else is.
        ensure!(!lab.can_log_in(index, PATIENCE)?, "it went on booting");
        lab.fleet.away("planet1")?;
        Ok(())
    })
}

#[test]
fn fsck_a_damaged_file_system_stops_the_boot() -> Result<()> {
    broken(Fault::Fsck, |lab, index| {
        let console = lab.at(index).console();
        console.wait_for(lab::START, "LAB: fsck failed", CAP)?;
        lab.fleet.away("planet1")
    })
}
