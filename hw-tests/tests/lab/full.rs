//! Nodes with a whole distribution: our Debian package under systemd, and slivers that other managers start again.

use anyhow::{Context, Result, ensure};
use hw_tests::fleet::wait_for_at_most;
use hw_tests::lab::{self, CAP, Lab, Spec};
use serde_json::Value;

const PODS: &str = "princeton_pods";
const UNITS: &str = "princeton_units";

const ADOPT: &str = r#"
[[adopt]]
cgroup = "princeton_pods.slice/libpod-*.scope"
slice = "princeton_pods"

[[adopt]]
cgroup = "system.slice/system-sliver.slice/sliver@*.service"
slice = "{1}"
"#;

/// A container that systemd starts again whenever it is gone.
const CONTAINER: &str = "[Service]\n\
    ExecStart=/usr/bin/podman run --rm --replace --name web --network=none --cgroup-parent=princeton_pods.slice \
    localhost/busybox sleep 100000\n\
    Restart=always\nRestartSec=1\n";

/// A service that systemd starts again five times within ten seconds, and then no more.
const SERVICE: &str = "[Service]\nExecStart=/bin/sleep 100000\nRestart=always\nRestartSec=100ms\n";

fn write(lab: &Lab, index: usize, path: &str, text: &str) -> Result<()> {
    lab.at(index)
        .must(&format!("printf '%b' '{}' > {path}", text.replace('\n', "\\n")))
        .map(drop)
}

fn outcome(order: &Value) -> &str {
    order["nodes"][0]["outcome"].as_str().unwrap_or("none")
}

fn containers(lab: &Lab, index: usize) -> Result<usize> {
    let text = lab.at(index).must(
        "cat /sys/fs/cgroup/princeton_pods.slice/libpod-*.scope/container/cgroup.procs 2>/dev/null | wc -l",
    )?;
    text.trim().parse().with_context(|| format!("a count: {text:?}"))
}

/// One machine for all of it: it takes half a minute to boot.
#[test]
fn the_package_runs_under_systemd_and_managers_cannot_resurrect_what_is_held() -> Result<()> {
    if let Some(reason) = lab::no_full_node() {
        println!("skipped: {reason}");
        return Ok(());
    }
    lab::test(&["princeton"], |lab| {
        for slice in [PODS, UNITS] {
            lab.fleet.slice(slice)?;
        }
        let spec = Spec {
            nodemgr: ADOPT.into(),
            ..Spec::full("planet1", "princeton")
        };
        let index = lab.add(&spec)?;
        lab.ready(index)?;
        let node = lab.at(index);
        let status = node.must("systemctl is-active redbutton-nodemgr redbutton-slivers")?;
        ensure!(status.split_whitespace().eq(["active", "active"]), "{status}");
        let unit = node.must("systemctl show -p NRestarts -p Type -p MainPID redbutton-nodemgr")?;
        ensure!(
            unit.contains("NRestarts=0") && unit.contains("Type=notify"),
            "{unit}"
        );

        // Our own sliver, in the delegated subtree.
        node.exec(PODS, "sleep 1000")?;
        // Somebody else's.
        write(lab, index, "/etc/systemd/system/web.service", CONTAINER)?;
        write(lab, index, "/etc/systemd/system/sliver@.service", SERVICE)?;
        node.must(&format!(
            "systemctl daemon-reload; systemctl start --no-block web sliver@{UNITS}"
        ))?;
        wait_for_at_most(CAP, "a container", || {
            (containers(lab, index).ok()? == 1).then_some(())
        })?;

        // What people do today: it is back at once.
        let before = node.must(&format!("systemctl show -p MainPID --value sliver@{UNITS}"))?;
        node.must(&format!("systemctl kill --signal=KILL sliver@{UNITS}"))?;
        wait_for_at_most(CAP, "the service's return", || {
            let now = node
                .must(&format!("systemctl show -p MainPID --value sliver@{UNITS}"))
                .ok()?;
            (now != before && now.trim() != "0").then_some(())
        })?;

        let (code, order) = lab
            .fleet
            .json("alice", &["kill-slice", UNITS, "--reason", "spins"])?;
        ensure!(matches!(code, 0 | 3), "{order}");
        ensure!(matches!(outcome(&order), "killed" | "respawning"), "{order}");
        let id = order["order"]["id"].as_str().context("an order")?.to_owned();
        let closed = wait_for_at_most(CAP, "a proof: nothing came back for 5 s", || {
            let (code, order) = lab.fleet.json("alice", &["order", "show", &id]).ok()?;
            (code == 0 && order["order"]["state"] == "closed").then_some(order)
        })?;
        ensure!(
            closed["nodes"][0]["respawns"].as_u64() >= Some(1),
            "systemd did not even try: {closed}"
        );
        ensure!(node.run(&format!("systemctl is-active sliver@{UNITS}"))?.status != 0);

        let (code, order) = lab
            .fleet
            .json("alice", &["kill-slice", PODS, "--reason", "floods"])?;
        ensure!(matches!(code, 0 | 3), "{order}");
        ensure!(node.processes(PODS)? == 0, "our own sliver lives");
        // systemd starts the container again and again; each time it dies as it appears.
        let tries = |text: String| text.trim().parse::<u64>().ok();
        let restarts = || {
            node.must("systemctl show -p NRestarts --value web")
                .ok()
                .and_then(tries)
        };
        wait_for_at_most(2 * CAP, "three starts in vain", || {
            (restarts()? >= 3).then_some(())
        })?;
        node.must("systemctl stop web")?;
        let id = order["order"]["id"].as_str().context("an order")?.to_owned();
        wait_for_at_most(CAP, "the order's end", || {
            let (code, order) = lab.fleet.json("alice", &["order", "show", &id]).ok()?;
            (code == 0 && order["order"]["state"] == "closed").then_some(())
        })?;
        ensure!(containers(lab, index)? == 0, "a container lives");

        // The orderly reboot of a real init.
        let since = node.console().mark();
        let (_, reboot) = lab
            .fleet
            .json("alice", &["node", "reboot", "planet1", "--reason", "new kernel"])?;
        node.ready_since(since)?;
        let id = reboot["order"]["id"].as_str().context("an order")?.to_owned();
        wait_for_at_most(CAP, "the reboot's proof", || {
            let (code, order) = lab.fleet.json("alice", &["order", "show", &id]).ok()?;
            (code == 0 && order["order"]["state"] == "closed").then_some(())
        })?;
        let refused = node.run(&format!("redbutton-nodemgr exec {PODS} -- sleep 1"))?;
        ensure!(refused.status == 5, "{}", refused.text);
        Ok(())
    })
}
