//! Power behind the devices that a site has, driven by the clients that people use.

use std::process::{Command, Output, Stdio};

use ::lab::power::model::{Restore, Switch};
use anyhow::{Context, Result, ensure};
use hw_tests::lab::power::{self, PASSWORD, Power, USER};
use hw_tests::lab::{self, Lab};

const SITES: [&str; 2] = ["princeton", "berkeley"];

/// `ipmitool` against a node's BMC; the password is in its environment.
fn ipmitool(lab: &Lab, index: usize, words: &[&str]) -> Result<Output> {
    let mut command = Command::new("ipmitool");
    command
        .args(["-I", "lanplus", "-C", "3", "-U", USER, "-E", "-H"])
        .arg(power::bmc(index).to_string())
        .args(words)
        .env("IPMI_PASSWORD", PASSWORD)
        .stdin(Stdio::null());
    lab.net()
        .enter(|| command.output())?
        .context("ipmitool (Debian package ipmitool)")
}

fn boot_id(lab: &Lab, index: usize) -> Result<String> {
    lab.at(index).must("cat /proc/sys/kernel/random/boot_id")
}

#[test]
fn a_bmc_takes_a_node_down_and_up_and_a_swapped_outlet_takes_down_another() -> Result<()> {
    if let Some(reason) = power::unable() {
        println!("skipped: {reason}");
        return Ok(());
    }
    lab::test(&SITES, |lab| {
        let (one, two) = (
            lab.add(&lab::Spec::small("planet1", SITES[0]))?,
            lab.add(&lab::Spec::small("planet2", SITES[0]))?,
        );
        lab.ready(one)?;
        lab.ready(two)?;
        let power = Power::start(lab, &SITES, Restore::LastState)?;

        let before = boot_id(lab, one)?;
        let said = ipmitool(lab, one, &["chassis", "power", "off"])?;
        ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        lab.fleet.away("planet1")?;
        let said = ipmitool(lab, one, &["chassis", "power", "status"])?;
        ensure!(
            String::from_utf8_lossy(&said.stdout).contains("is off"),
            "{}",
            String::from_utf8_lossy(&said.stdout)
        );
        let since = lab.at(one).console().mark();
        ipmitool(lab, one, &["chassis", "power", "on"])?;
        lab.at(one).ready_since(since)?;
        lab.fleet.attached("planet1")?;
        ensure!(boot_id(lab, one)? != before);

        // Somebody plugged the two into each other's outlets: switching one takes the other down.
        let before = boot_id(lab, one)?;
        power
            .room()
            .faults(|faults| faults.swap(power.outlet(one), power.outlet(two)))?;
        let since = lab.at(two).console().mark();
        power.room().outlet(power.outlet(one), Switch::Off)?;
        lab.fleet.away("planet2")?;
        ensure!(lab.pings(one, 3)?, "planet1 went down");
        power.room().outlet(power.outlet(one), Switch::On)?;
        lab.at(two).ready_since(since)?;
        lab.fleet.attached("planet2")?;
        ensure!(boot_id(lab, one)? == before, "planet1 blinked");
        Ok(())
    })
}
