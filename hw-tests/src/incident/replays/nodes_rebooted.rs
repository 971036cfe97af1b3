//! 14: several nodes went down and came back, and nobody could say who had done it, when and why.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Simulated, all_came_to, fleet};
use crate::agents::Agent;
use crate::fleet::{Fleet, wait_for};
use crate::incident::{Ask, Incident, Need, Story};

const WHO_WHEN_WHY: &str = "the audit answers who, when, why";
const REASON: &str = "new kernel, ticket 2901";
/// Rebooted; the others of the site are not.
const REBOOTED: [usize; 3] = [0, 2, 5];
const NODES: u32 = 8;

pub(super) const INCIDENT: Incident = Incident {
    number: 14,
    name: "nodes_rebooted",
    title: "nodes rebooted",
    date: "29 Jan 2003",
    needs: &[Need::ROOT, Need::CGROUP2],
    asks: &[Ask::shown(WHO_WHEN_WHY)],
    unprotected,
    protected,
};

/// Two sites; `princeton` with simulated nodes and its own administrator, `berkeley` with an administrator.
struct Stage {
    fleet: Fleet,
    agents: Vec<Agent>,
    _simulated: Simulated,
}

impl Stage {
    fn set(story: &mut Story) -> Result<Self> {
        let fleet = fleet(story, &["princeton", "berkeley"])?;
        for site in ["princeton", "berkeley"] {
            fleet.person(
                &format!("admin-{site}"),
                &["--role", "site-admin", "--site", site],
            )?;
        }
        let simulated = Simulated::new()?;
        let agents = simulated.attach(&fleet, "planet", "princeton", NODES)?;
        story.tell("the fleet", &format!("is up: {NODES} nodes at princeton"));
        Ok(Self {
            fleet,
            agents,
            _simulated: simulated,
        })
    }

    fn boots(&self) -> Vec<String> {
        self.agents.iter().map(Agent::boot_id).collect()
    }

    /// Waits until the controller knows the boot that runs now on each node.
    fn settled(&self) -> Result<()> {
        for agent in &self.agents {
            wait_for(&format!("the boot of {} is known", agent.name()), || {
                let (_, shown) = self.fleet.json("alice", &["node", "show", agent.name()]).ok()?;
                (shown["node"]["attached"] == true && shown["node"]["boot_id"] == agent.boot_id())
                    .then_some(())
            })?;
        }
        Ok(())
    }

    /// What the audit has to say about reboots, of this node or at all, to somebody who asks.
    fn audit(&self, person: &str, node: Option<&str>) -> Result<Vec<Value>> {
        let target = node.map(|node| format!("node {node}"));
        let mut words = vec!["audit", "log", "--json", "--limit", "1000"];
        words.extend(target.iter().flat_map(|target| ["--target", target.as_str()]));
        let text = self.fleet.ask(person, &words)?;
        let mut entries = Vec::new();
        for line in text.lines() {
            let entry: Value = serde_json::from_str(line).with_context(|| format!("audit line {line:?}"))?;
            if entry["action"] == "reboot-node" {
                entries.push(entry);
            }
        }
        Ok(entries)
    }
}

/// Somebody with the key of a machine room, or a root shell, needs no Redbutton.
fn unprotected(story: &mut Story) -> Result<()> {
    let stage = Stage::set(story)?;
    let before = stage.boots();
    story.tell("somebody", "cycles the power of three nodes");
    for index in REBOOTED {
        stage.agents[index].power_cycle();
    }
    for index in REBOOTED {
        wait_for("another boot", || {
            (stage.agents[index].boot_id() != before[index]).then_some(())
        })?;
    }
    stage.settled()?;
    story.tell(
        "the site",
        "sees three nodes that went down and came back, and asks why",
    );
    let said = stage.audit("alice", None)?;
    ensure!(said.is_empty(), "somebody is named after all: {said:?}");
    story.fact("nodes of which anybody can say who, when or why", 0);
    Ok(())
}

fn protected(story: &mut Story) -> Result<()> {
    let stage = Stage::set(story)?;
    let fleet = &stage.fleet;
    let before = stage.boots();
    let begun = SystemTime::now();
    let mut orders = Vec::new();
    for index in REBOOTED {
        let name = stage.agents[index].name();
        let (code, order) = story.types(fleet, "alice", &["node", "reboot", name, "--reason", REASON])?;
        // 2: it is on its way down.
        ensure!(matches!(code, 0 | 2), "exit code {code}: {order}");
        orders.push(
            order["order"]["id"]
                .as_str()
                .context("the order's id")?
                .to_owned(),
        );
    }
    let ended = SystemTime::now();
    let bystander = stage.agents[1].name();
    let (code, said) = story.types(
        fleet,
        "admin-berkeley",
        &["node", "reboot", bystander, "--reason", "curious"],
    )?;
    ensure!(
        code == 5,
        "the admin of another site was not refused: {code}, {said}"
    );

    for id in &orders {
        let order = wait_for("a closed order", || {
            let (code, order) = fleet.json("alice", &["order", "show", id]).ok()?;
            (code == 0 && order["order"]["state"] == "closed").then_some(order)
        })?;
        all_came_to(&order, "rebooted", 1)?;
    }
    // From outside: these and no others have another boot.
    stage.settled()?;
    for (index, (old, new)) in before.iter().zip(stage.boots()).enumerate() {
        ensure!(
            (*old != new) == REBOOTED.contains(&index),
            "{}: boot {old} before, {new} after",
            stage.agents[index].name()
        );
    }
    story.tell("the site", "asks who rebooted its nodes, when and why");
    for index in REBOOTED {
        let name = stage.agents[index].name();
        for asking in ["alice", "admin-princeton"] {
            let said = stage.audit(asking, Some(name))?;
            let presses: Vec<&Value> = said.iter().filter(|entry| entry["outcome"] != "done").collect();
            let [press] = presses.as_slice() else {
                anyhow::bail!("{asking} sees not one press but {}: {said:?}", presses.len());
            };
            for (key, expected) in [("person", "alice"), ("outcome", "allowed"), ("reason", REASON)] {
                ensure!(press[key] == expected, "{asking}, {name}: {key} of {press}");
            }
            let at = when(press)?;
            ensure!(
                (millis(begun)?..=millis(ended)?).contains(&at),
                "{asking}, {name}: not when it happened: {press}"
            );
            ensure!(
                press["order"]
                    .as_str()
                    .is_some_and(|id| orders.iter().any(|order| order == id)),
                "{asking}, {name}: of none of the orders: {press}"
            );
            if asking == "admin-princeton" {
                let (at, who, why) = (&press["at"], &press["person"], &press["reason"]);
                story.tell("the audit", &format!("answers: {name}, {at}, by {who}: {why}"));
            }
        }
        // Written once the order is closed, by nobody in particular.
        for asking in ["alice", "admin-princeton"] {
            wait_for(&format!("the audit tells {asking} what became of {name}"), || {
                let said = stage.audit(asking, Some(name)).ok()?;
                said.iter().any(|entry| entry["outcome"] == "done").then_some(())
            })?;
        }
        let elsewhere = stage.audit("admin-berkeley", Some(name))?;
        ensure!(
            elsewhere.is_empty(),
            "berkeley reads princeton's audit: {elsewhere:?}"
        );
    }
    let refused = stage.audit("alice", Some(bystander))?;
    ensure!(
        refused.len() == 1 && refused[0]["outcome"] == "refused" && refused[0]["person"] == "admin-berkeley",
        "the refusal is not in the audit: {refused:?}"
    );
    cannot_be_forged(story, fleet)?;
    story.shows(WHO_WHEN_WHY);
    Ok(())
}

/// What the audit answers is worth as much as its chain.
fn cannot_be_forged(story: &mut Story, fleet: &Fleet) -> Result<()> {
    let file = fleet.path("audit.jsonl");
    let path = file.display().to_string();
    fleet.ask("alice", &["audit", "export", "--output", &path])?;
    story.keep(&file);
    fleet.ask("alice", &["audit", "verify", &path])?;
    story.tell("alice", "exports the audit, which verifies");
    let text = std::fs::read_to_string(&file)?;
    let forged = text.replace(REASON, "nobody knows");
    ensure!(forged != text, "the reason is not in the export");
    let path = fleet.path("forged.jsonl");
    std::fs::write(&path, forged)?;
    let verdict = fleet.redbutton("alice", &["audit", "verify", &path.display().to_string()])?;
    ensure!(
        verdict.status.code() == Some(4),
        "a forged reason verifies: {verdict:?}"
    );
    story.tell("alice", "changes a reason in the copy, which verifies no more");
    Ok(())
}

fn when(entry: &Value) -> Result<u128> {
    let text = entry["at"].as_str().context("an entry's time")?;
    let at = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)
        .with_context(|| format!("an entry's time {text:?}"))?;
    millis(at.into())
}

/// Whole milliseconds: the audit keeps no more.
fn millis(at: SystemTime) -> Result<u128> {
    let since: Duration = at.duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(since.as_millis())
}
