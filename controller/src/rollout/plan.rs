//! Who is in which wave, and when: pure, and the same for the same seed.
//!
//! PDN-03-015: “update only a portion of PlanetLab, wait to see if there [is a] problem, update to some more nodes,
//! evaluate success” (lesson of the Java kernel), and 130 nodes that all asked one server (“Cron hangage”); the e1000
//! driver went to “one node from each site” and took nearly 30 % of them. PlanetFlow: “at a randomized time to avoid
//! congestion”. So: shares of the fleet, random moments inside a wave, and a site keeps a node of the old kind as long
//! as it can: nodes are ordered by their place within their site, first the first of the largest sites.

use std::collections::HashMap;

use proto::{NodeId, SiteName};
use serde::{Deserialize, Serialize};

use super::model::{Item, Step};

/// How a rollout goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Cumulative shares in percent, rising, the last one 100.
    pub waves: Vec<u32>,
    /// Nodes of a wave begin at random moments within this time, milliseconds.
    pub spread_ms: u64,
    /// How long an updated node must stay well, milliseconds.
    pub soak_ms: u64,
    /// From the switch until it is attached again, milliseconds.
    pub deadline_ms: u64,
    /// Bad nodes that do not halt it yet.
    pub tolerate: u32,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            waves: vec![1, 10, 50, 100],
            spread_ms: 30 * 60 * 1_000,
            soak_ms: 60 * 1_000,
            deadline_ms: 120 * 1_000,
            tolerate: 0,
        }
    }
}

/// Why a plan is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Shares.
    #[error("waves are {0:?}, expected rising percentages that end with 100, as in 1%,10%,50%,100%")]
    Waves(Vec<u32>),
    /// A time.
    #[error("{what} is {got} ms, expected {least} to {most}")]
    Time {
        /// Which.
        what: &'static str,
        /// Given.
        got: u64,
        /// Allowed.
        least: u64,
        /// Allowed.
        most: u64,
    },
}

const HOUR: u64 = 3_600_000;

impl Plan {
    /// # Errors
    /// When it is no plan.
    pub fn check(&self) -> Result<(), PlanError> {
        let Self {
            waves,
            spread_ms,
            soak_ms,
            deadline_ms,
            tolerate: _,
        } = self;
        let rising = waves.windows(2).all(|two| two[0] < two[1]);
        if waves.len() > 20
            || waves.first().is_none_or(|first| *first == 0)
            || !rising
            || waves.last() != Some(&100)
        {
            return Err(PlanError::Waves(waves.iter().copied().take(20).collect()));
        }
        for (what, got, least, most) in [
            ("spread", *spread_ms, 0, 7 * 24 * HOUR),
            ("soak", *soak_ms, 0, 24 * HOUR),
            ("deadline", *deadline_ms, 1_000, HOUR),
        ] {
            if !(least..=most).contains(&got) {
                return Err(PlanError::Time {
                    what,
                    got,
                    least,
                    most,
                });
            }
        }
        Ok(())
    }

    /// How many of `nodes` may be touched up to a wave.
    #[must_use]
    pub fn share(&self, wave: usize, nodes: usize) -> usize {
        let percent = self.waves.get(wave).copied().unwrap_or(100) as usize;
        (nodes * percent).div_ceil(100)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): random enough for lots, and the same everywhere.
fn mix(seed: u64, salt: u64) -> u64 {
    let mut z = seed.wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn lot(seed: u64, node: NodeId, salt: u64) -> u64 {
    let (high, low) = node.uuid().as_u64_pair();
    mix(mix(mix(seed, high), low), salt)
}

/// Each node with its wave and its moment.
#[must_use]
pub fn assign(nodes: &[(NodeId, SiteName)], plan: &Plan, seed: u64) -> Vec<Item> {
    let mut by_site: HashMap<&SiteName, Vec<NodeId>> = HashMap::new();
    for (node, site) in nodes {
        by_site.entry(site).or_default().push(*node);
    }
    // The place within the site as a fraction: of two nodes one is at 1/4 and one at 3/4, a single one at 1/2.
    let mut order: Vec<(u64, u64, NodeId, SiteName)> = Vec::with_capacity(nodes.len());
    for (site, mut members) in by_site {
        members.sort_unstable_by_key(|node| lot(seed, *node, 1));
        let count = members.len() as u64;
        for (place, node) in members.into_iter().enumerate() {
            let fraction = (2 * place as u64 + 1) * 1_000_000 / (2 * count);
            order.push((fraction, lot(seed, node, 2), node, site.clone()));
        }
    }
    order.sort_unstable();
    let shares: Vec<usize> = (0..plan.waves.len())
        .map(|wave| plan.share(wave, nodes.len()))
        .collect();
    let item = |(place, (_, _, node, site)): (usize, (u64, u64, NodeId, SiteName))| Item {
        node,
        site,
        wave: shares
            .iter()
            .position(|share| place < *share)
            .unwrap_or(shares.len() - 1),
        offset_ms: lot(seed, node, 3) % plan.spread_ms.max(1),
        step: Step::Waiting,
        before: None,
        attempt: 0,
        tries: 0,
        noted: false,
        sent_back: false,
        at_ms: 0,
    };
    order.into_iter().enumerate().map(item).collect()
}
