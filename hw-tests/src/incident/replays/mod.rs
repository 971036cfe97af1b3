//! The replays, one module for each. What they have in common is small: a fleet with its logs kept, and simulated
//! agents.

mod dos_attack;
mod nodes_rebooted;
mod tcp_port_probe;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::{Incident, Story};
use crate::agents::{Agent, attach, enrol};
use crate::fleet::Fleet;

/// Every incident that can be replayed, in the order of the list.
#[must_use]
pub fn all() -> &'static [Incident] {
    const ALL: &[Incident] = &[
        nodes_rebooted::INCIDENT,
        dos_attack::INCIDENT,
        tcp_port_probe::INCIDENT,
    ];
    ALL
}

/// A fleet with these sites; its logs are kept on failure.
fn fleet(story: &mut Story, sites: &[&str]) -> Result<Fleet> {
    let fleet = Fleet::start()?;
    story.keep_fleet(&fleet);
    for site in sites {
        fleet.site(site)?;
    }
    Ok(fleet)
}

/// Enrols a node and starts its node manager; its log is kept on failure.
fn node(story: &mut Story, fleet: &mut Fleet, name: &str, site: &str) -> Result<usize> {
    let index = fleet.node(name, site, "")?;
    let log = fleet.at(index).log().to_owned();
    story.keep(log);
    Ok(index)
}

/// Simulated agents and what they do; dropped, all of it is gone.
struct Simulated {
    runtime: Runtime,
    end: CancellationToken,
}

impl Simulated {
    fn new() -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("a runtime for the simulated agents")?;
        Ok(Self {
            runtime,
            end: CancellationToken::new(),
        })
    }

    /// Enrols nodes `PREFIX-0` and on, and returns when all are attached.
    fn attach(&self, fleet: &Fleet, prefix: &str, site: &str, count: u32) -> Result<Vec<Agent>> {
        self.runtime.block_on(async {
            let bundles = enrol(&fleet.state(), prefix, site, count, &fleet.daemons()).await?;
            attach(&bundles, &self.end).await
        })
    }

    fn spawn(&self, what: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(what));
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// Checks that an order came to `outcome` on `count` nodes, proven on each, and on no other.
fn all_came_to(order: &Value, outcome: &str, count: usize) -> Result<()> {
    let nodes = order["nodes"].as_array().context("nodes of the order")?;
    let so: Vec<&Value> = nodes
        .iter()
        .filter(|node| node["outcome"] == outcome && node["proven"] == true)
        .collect();
    ensure!(
        so.len() == count && nodes.len() == count,
        "{} of {} nodes {outcome} and proven, expected all {count}: {order}",
        so.len(),
        nodes.len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_each_given_once_and_in_order() {
        let numbers: Vec<u8> = all().iter().map(|incident| incident.number).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        let names: std::collections::BTreeSet<_> = all().iter().map(|incident| incident.name).collect();
        assert_eq!(names.len(), numbers.len());
        for incident in all() {
            assert!(!incident.asks.is_empty(), "{}", incident.name);
        }
    }

    #[test]
    fn every_replay_is_a_test() {
        let tests = include_str!("../../../tests/incidents/main.rs");
        for incident in all() {
            let line = format!("    {} = {};\n", incident.name, incident.number);
            assert!(tests.contains(&line), "tests/incidents/main.rs has no {line}");
        }
    }
}
