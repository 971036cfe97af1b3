//! The replays, one module for each. What they have in common is small: a fleet with its logs kept, and simulated
//! agents; what replays on lab nodes share is in `machines`.

mod berkeley_offline;
mod cron_hangage;
mod dos_attack;
mod e1000;
mod eating_cycles;
mod machines;
mod nodes_rebooted;
mod princeton_oops;
mod seattle_bootcd;
mod sydney1;
mod tcp_port_probe;
mod uiuc3;

use anyhow::{Context, Result, ensure};
use link::DialConfig;
use proto::bundle::Bundle;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::{Incident, Story};
use crate::agents::{Agent, Crowd, attach, enrol};
use crate::fleet::Fleet;

/// Every incident that can be replayed, in the order of the list.
#[must_use]
pub fn all() -> &'static [Incident] {
    const ALL: &[Incident] = &[
        e1000::INCIDENT,
        cron_hangage::INCIDENT,
        eating_cycles::INCIDENT,
        nodes_rebooted::INCIDENT,
        berkeley_offline::INCIDENT,
        uiuc3::INCIDENT,
        sydney1::INCIDENT,
        dos_attack::INCIDENT,
        tcp_port_probe::INCIDENT,
        princeton_oops::INCIDENT,
        seattle_bootcd::INCIDENT,
    ];
    ALL
}

/// A fleet with these sites; its logs are kept on failure.
fn fleet(story: &mut Story, sites: &[&str]) -> Result<Fleet> {
    fleet_with(story, sites, "")
}

/// The same with `more` at the end of the daemons' section of the controller's configuration.
fn fleet_with(story: &mut Story, sites: &[&str], more: &str) -> Result<Fleet> {
    // Silent links die within 2 s, as in any fleet of tests.
    let more = format!("{more}[nodes]\nkeepalive_interval_ms = 1000\nkeepalive_timeout_ms = 1000\n");
    let fleet = Fleet::start_with(&more)?;
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

    /// Enrols nodes `PREFIX-0` and on.
    fn enrol(&self, fleet: &Fleet, prefix: &str, site: &str, count: u32) -> Result<Vec<Bundle>> {
        let (state, daemons) = (fleet.state(), fleet.daemons());
        self.runtime
            .block_on(enrol(&state, prefix, site, count, &daemons))
    }

    /// Starts an agent for each, all in the same moment.
    fn start(&self, bundles: &[Bundle], dial: DialConfig) -> Result<Crowd> {
        let _inside = self.runtime.enter();
        Crowd::start(bundles, bundles.len(), dial, &self.end)
    }

    /// Enrols nodes and returns when all are attached.
    fn attach(&self, fleet: &Fleet, prefix: &str, site: &str, count: u32) -> Result<Vec<Agent>> {
        let bundles = self.enrol(fleet, prefix, site, count)?;
        self.runtime.block_on(attach(&bundles, &self.end))
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
