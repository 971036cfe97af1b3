//! `cargo xtask demo --lab`: the story of PDN-03-015 in two minutes, on three machines with kernels of their own.
//!
//! What is told was checked before it is told.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::fleet::wait_for;
use crate::lab::fault::Fault;
use crate::lab::{Lab, Spec};

const RUNAWAY: &str = "princeton_runaway";
const QUIET: &str = "princeton_quiet";
const SITES: [&str; 2] = ["princeton", "berkeley"];

/// Who tells, and since when.
struct Teller(Instant);

impl Teller {
    fn act(&self, title: &str) {
        println!("\n━━ {title}");
    }

    fn tell(&self, what: &str) {
        println!("{:6.1} s  {what}", self.0.elapsed().as_secs_f64());
    }
}

/// Plays it.
///
/// # Errors
/// When something went otherwise than the story says.
pub fn play() -> Result<()> {
    let teller = Teller(Instant::now());
    teller.act("Three machines at two sites");
    let mut lab = Lab::start(&SITES)?;
    for slice in [RUNAWAY, QUIET] {
        lab.fleet.slice(slice)?;
    }
    for (number, site) in [SITES[0], SITES[1], SITES[0]].into_iter().enumerate() {
        lab.add(&Spec::small(&format!("planet{}", number + 1), site))?;
    }
    for index in 0..3 {
        lab.ready(index)?;
        let node = lab.at(index);
        node.exec(QUIET, "sleep 1000000")?;
        let kernel = node.must("uname -r")?;
        teller.tell(&format!(
            "{} at {} is up: Linux {}, attached to the controller",
            node.name(),
            node.site(),
            kernel.trim()
        ));
    }
    let result = tell(&teller, &lab);
    if result.is_err() {
        lab.show();
    }
    result
}

fn tell(teller: &Teller, lab: &Lab) -> Result<()> {
    teller.act("A slice runs away on all of them (7 April 2003, “sydney1”: fork bomb, thirteen nodes)");
    for (index, fault) in [
        (0, Fault::Forkbomb),
        (1, Fault::Forkbomb),
        (2, Fault::Cpu),
        (2, Fault::Hang),
    ] {
        teller.tell(&fault.commit(lab, index, RUNAWAY)?);
    }
    let patience = Duration::from_secs(5);
    wait_for("a node that lets nobody in", || {
        (0..3)
            .all(|index| lab.can_log_in(index, patience).is_ok_and(|inside| !inside))
            .then_some(())
    })?;
    teller.tell("ssh to planet1, planet2, planet3: nobody gets in any more");
    for index in 0..2 {
        ensure!(lab.pings(index, 10)?, "{} does not ping", lab.at(index).name());
    }
    teller.tell("planet1 and planet2 still answer pings: their kernels live, as the paper says");
    lab.fleet.away("planet3")?;
    teller.tell("planet3 is too starved to answer even its controller, which shows it as away");

    teller.act("Support presses the button");
    teller.tell(&format!(
        "alice$ redbutton kill-slice {RUNAWAY} --reason 'forks without end'"
    ));
    let pressed = Instant::now();
    let (code, order) = lab
        .fleet
        .json("alice", &["kill-slice", RUNAWAY, "--reason", "forks without end"])?;
    for name in ["planet1", "planet2"] {
        let result = of(&order, name)?;
        ensure!(result["outcome"] == "killed", "{name}: {result}");
        teller.tell(&format!(
            "{name}: killed {} processes, proven and on its disk",
            result["killed"]
        ));
    }
    ensure!(of(&order, "planet3")?["outcome"] == "offline", "{order}");
    ensure!(code == 2, "exit code {code}: {order}");
    teller.tell(&format!(
        "planet3: offline; the order stands and waits for it (exit code 2, {:.1} s after the press)",
        pressed.elapsed().as_secs_f64()
    ));
    for index in 0..2 {
        let node = lab.at(index);
        wait_for(&format!("a login on {}", node.name()), || {
            lab.can_log_in(index, patience)
                .ok()
                .filter(|inside| *inside)
                .map(drop)
        })?;
        ensure!(node.processes(RUNAWAY)? == 0, "{} still runs it", node.name());
        ensure!(
            node.processes(QUIET)? == 1,
            "{}: the quiet slice was hit",
            node.name()
        );
    }
    teller.tell("ssh lets people in again on planet1 and planet2; the quiet slice never noticed");

    teller.act("planet3 is power-cycled, and obeys when it is back");
    let node = lab.at(2);
    let since = node.console().mark();
    node.guest().power_off()?;
    node.guest().power_on()?;
    node.ready_since(since)?;
    teller.tell("planet3 has booted");
    let id = order["order"]["id"].as_str().context("an order without an id")?;
    let (code, order) = wait_for("the order's end", || {
        let (code, order) = lab.fleet.json("alice", &["order", "show", id]).ok()?;
        (order["order"]["state"] == "closed").then_some((code, order))
    })?;
    ensure!(code == 0, "exit code {code}: {order}");
    let outcome = of(&order, "planet3")?["outcome"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    teller.tell(&format!(
        "planet3: {}; the order is closed: dead everywhere",
        outcome.replace('_', " ")
    ));
    let refused = node.run(&format!("redbutton-nodemgr exec {RUNAWAY} -- sleep 1"))?;
    ensure!(refused.status == 5, "it was started again: {}", refused.text);
    teller.tell(&format!(
        "whoever starts it there again is told: {}",
        refused.text.lines().last().unwrap_or_default().trim()
    ));

    teller.act("Who did that?");
    let log = lab.fleet.ask("alice", &["audit", "log", "--limit", "3"])?;
    log.trim_end()
        .lines()
        .for_each(|line| println!("          {line}"));
    let file = lab.folder().join("audit.jsonl").display().to_string();
    lab.fleet.ask("alice", &["audit", "export", "--output", &file])?;
    lab.fleet.ask("alice", &["audit", "verify", &file])?;
    teller.tell("the audit's chain is whole; now the machines, their network and every file go");
    Ok(())
}

fn of<'a>(order: &'a Value, node: &str) -> Result<&'a Value> {
    order["nodes"]
        .as_array()
        .and_then(|nodes| nodes.iter().find(|result| result["name"] == node))
        .with_context(|| format!("no result of {node} in {order}"))
}
