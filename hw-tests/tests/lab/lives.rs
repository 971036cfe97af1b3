//! Boots, reboots and outages: orders and holds survive them.

use anyhow::{Context, Result, ensure};
use hw_tests::fleet::wait_for;
use hw_tests::lab::{self, Lab};
use serde_json::Value;

const SLICE: &str = "princeton_codeen";
const PRESS: &[&str] = &["kill-slice", SLICE, "--reason", "floods"];

fn outcome<'a>(order: &'a Value, node: &str) -> &'a str {
    let nodes = order["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = nodes.iter().find(|result| result["name"] == node);
    found
        .and_then(|result| result["outcome"].as_str())
        .unwrap_or("no such node")
}

fn closed(lab: &Lab, order: &Value) -> Result<(i32, Value)> {
    let id = order["order"]["id"].as_str().context("an order")?;
    wait_for("the order's end", || {
        let (code, order) = lab.fleet.json("alice", &["order", "show", id]).ok()?;
        (order["order"]["state"] == "closed").then_some((code, order))
    })
}

fn boot_id(lab: &Lab, index: usize) -> Result<String> {
    Ok(lab
        .at(index)
        .must("cat /proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

#[test]
fn a_slice_dies_on_a_real_kernel_and_stays_dead_over_a_reboot() -> Result<()> {
    lab::test(&["princeton"], |lab| {
        lab.fleet.slice(SLICE)?;
        let index = lab.node("planet1", "princeton")?;
        let node = lab.at(index);
        node.exec(SLICE, "sh -c 'sleep 1000 & sleep 1000 & wait'")?;
        wait_for("three processes", || {
            (node.processes(SLICE).ok()? == 3).then_some(())
        })?;
        // A whole cgroup v2: what a hybrid test machine cannot show.
        ensure!(
            node.must("cat /sys/fs/cgroup/cgroup.controllers")?
                .contains("pids")
        );
        let (code, order) = lab.fleet.json("alice", PRESS)?;
        ensure!((code, outcome(&order, "planet1")) == (0, "killed"), "{order}");
        ensure!(order["nodes"][0]["killed"] == 3, "{order}");
        ensure!(node.processes(SLICE)? == 0);

        let (before, since) = (boot_id(lab, index)?, node.console().mark());
        let (_, reboot) = lab
            .fleet
            .json("alice", &["node", "reboot", "planet1", "--reason", "new kernel"])?;
        node.ready_since(since)?;
        let (code, reboot) = closed(lab, &reboot)?;
        ensure!(code == 0, "{reboot}");
        ensure!(boot_id(lab, index)? != before, "the same boot");
        let refused = node.run(&format!("redbutton-nodemgr exec {SLICE} -- sleep 1"))?;
        ensure!(
            refused.status == 5 && refused.text.contains("floods"),
            "{}",
            refused.text
        );
        Ok(())
    })
}

#[test]
fn a_node_without_power_obeys_when_it_has_power_again() -> Result<()> {
    lab::test(&["princeton"], |lab| {
        lab.fleet.slice(SLICE)?;
        let index = lab.node("planet1", "princeton")?;
        let node = lab.at(index);
        node.exec(SLICE, "sleep 1000")?;
        node.guest().power_off()?;
        lab.fleet.away("planet1")?;
        let (code, order) = lab.fleet.json("alice", PRESS)?;
        ensure!((code, outcome(&order, "planet1")) == (2, "offline"), "{order}");
        let since = node.console().mark();
        node.guest().power_on()?;
        node.ready_since(since)?;
        let (code, order) = closed(lab, &order)?;
        // Its processes died with its power.
        ensure!(
            (code, outcome(&order, "planet1")) == (0, "already_dead"),
            "{order}"
        );
        let refused = node.run(&format!("redbutton-nodemgr exec {SLICE} -- sleep 1"))?;
        ensure!(refused.status == 5, "resurrected: {}", refused.text);
        Ok(())
    })
}

#[test]
fn a_panic_leaves_its_words_on_the_console_and_in_the_firmware() -> Result<()> {
    lab::test(&["princeton"], |lab| {
        let index = lab.node("planet1", "princeton")?;
        let node = lab.at(index);
        let since = node.console().mark();
        node.send("echo c > /proc/sysrq-trigger")?;
        node.console().wait_for(
            since,
            "Kernel panic - not syncing: sysrq triggered crash",
            lab::CAP,
        )?;
        node.ready_since(since)?;
        lab.fleet.attached("planet1")?;
        let kept = node.must("cat /sys/fs/pstore/*")?;
        ensure!(kept.contains("sysrq triggered crash"), "pstore has {kept:?}");
        Ok(())
    })
}

#[test]
fn a_watchdog_that_nobody_feeds_resets_the_node() -> Result<()> {
    lab::test(&["princeton"], |lab| {
        let index = lab.node("planet1", "princeton")?;
        let node = lab.at(index);
        let (before, since) = (boot_id(lab, index)?, node.console().mark());
        node.must("modprobe softdog soft_margin=2")?;
        // Opened and never fed: closing without the magic word does not stop it.
        node.must("echo start > /dev/watchdog")?;
        node.ready_since(since)?;
        lab.fleet.attached("planet1")?;
        ensure!(boot_id(lab, index)? != before);
        Ok(())
    })
}
