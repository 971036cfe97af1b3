//! 8: cron started the same job on every node in the same second, and the centre that all of them asked hung.
//!
//! Simulated agents, all dialling at once. Unprotected is a centre as it was: few are let in at a time, and who is
//! thrown out comes back at once, in step with all the others. Protected is the front door as it comes: enough
//! handshakes at once, jitter between two dials, and a port of their own for people.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use link::{Backoff, DialConfig};

use super::{Simulated, fleet_with};
use crate::agents::{Agent, Crowd};
use crate::fleet::{Fleet, wait_for};
use crate::incident::{Ask, Incident, Need, Story};

const ATTACHED: &str = "130 nodes of the same second attached inside a bounded time";
const RESPONSIVE: &str = "controller stays responsive";
const SLICE: &str = "princeton_cron";
/// The row says 130.
const NODES: u32 = 300;

pub(super) const INCIDENT: Incident = Incident {
    number: 8,
    name: "cron_hangage",
    title: "Cron hangage",
    date: "30 Dec 2002",
    needs: &[Need::ROOT, Need::CGROUP2],
    asks: &[
        Ask::shown(ATTACHED),
        Ask::shown(RESPONSIVE),
        Ask::missing("the same with 10,000 nodes", "there is no attach benchmark yet"),
    ],
    unprotected,
    protected,
};

struct Stage {
    fleet: Fleet,
    crowd: Crowd,
    began: Instant,
    _simulated: Simulated,
}

impl Stage {
    /// `door` goes into the daemons' section of the controller's configuration.
    fn set(story: &mut Story, door: &str, dial: DialConfig) -> Result<Self> {
        let fleet = fleet_with(story, &["princeton"], door)?;
        fleet.slice(SLICE)?;
        let simulated = Simulated::new()?;
        let bundles = simulated.enrol(&fleet, "planet", "princeton", NODES)?;
        let began = Instant::now();
        let crowd = simulated.start(&bundles, dial)?;
        story.tell("cron", &format!("wakes {NODES} nodes in the same second"));
        Ok(Self {
            fleet,
            crowd,
            began,
            _simulated: simulated,
        })
    }

    fn attached(&self) -> usize {
        self.crowd
            .agents
            .iter()
            .filter(|agent| agent.is_attached())
            .count()
    }

    fn failures(&self) -> u64 {
        self.crowd.agents.iter().map(Agent::failures).sum()
    }
}

fn unprotected(story: &mut Story) -> Result<()> {
    let at_once = DialConfig {
        backoff: Backoff {
            base: Duration::from_millis(20),
            cap: Duration::from_millis(20),
        },
        ..DialConfig::default()
    };
    let stage = Stage::set(story, "max_handshakes = 2\n", at_once)?;
    // Each node was thrown out three times on average, and most are still outside.
    let thrown = u64::from(NODES) * 3;
    wait_for("nodes are thrown out", || {
        (stage.failures() >= thrown).then_some(())
    })?;
    let (inside, failures) = (stage.attached(), stage.failures());
    story.tell(
        "the centre",
        &format!("has thrown nodes out {failures} times; {inside} of {NODES} are in"),
    );
    ensure!(
        inside * 2 < stage.crowd.agents.len(),
        "{inside} of {NODES} got in all the same"
    );
    Ok(())
}

fn protected(story: &mut Story) -> Result<()> {
    let stage = Stage::set(story, "", DialConfig::default())?;
    let before = stage.attached();
    let (code, order) = story.types(
        &stage.fleet,
        "alice",
        &["--no-wait", "kill-slice", SLICE, "--reason", "in the midst of it"],
    )?;
    ensure!(
        before < stage.crowd.agents.len(),
        "all were attached before the press: it was not in the midst"
    );
    let after = stage.attached();
    story.fact(
        "nodes attached",
        format!("{before} of {NODES} at the press, {after} when it was acknowledged"),
    );
    // 2: nobody waited for the nodes.
    ensure!(matches!(code, 0 | 2), "exit code {code}: {order}");
    ensure!(order["durable"] == true, "not durable: {order}");
    story.shows(RESPONSIVE);
    wait_for("all nodes are attached", || {
        (stage.attached() == stage.crowd.agents.len()).then_some(())
    })?;
    story.tell("the controller", &format!("has all {NODES} nodes attached"));
    story.fact(
        "seconds since they woke",
        format!("{:.1}", stage.began.elapsed().as_secs_f64()),
    );
    story.fact("dials that failed", stage.failures());
    let id = order["order"]["id"].as_str().context("the order's id")?;
    let order = wait_for("a closed order", || {
        let (_, order) = stage.fleet.json("alice", &["order", "show", id, "--all"]).ok()?;
        (order["order"]["state"] == "closed").then_some(order)
    })?;
    // Who came later learned of the hold when it attached, which is as good.
    ensure!(
        stage.crowd.agents.iter().all(|agent| !agent.may_run(SLICE)),
        "the slice may run somewhere: {order}"
    );
    story.tell("the press", "has reached every one of them");
    story.shows(ATTACHED);
    Ok(())
}
