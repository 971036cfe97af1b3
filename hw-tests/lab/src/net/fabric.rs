//! Everything between the ports, without any I/O: the switch of each segment, the router, and the links that impair.
//!
//! ```text
//! port ─from─▸ middle ─▸ switch ─┬─────────────────────────────────────────▸ switch ─to─▸ port
//!                                └─uplink from─▸ router ─uplink to─▸ switch ──┘
//! ```
//!
//! Each arrow with a name is a link with its own fate and its own random numbers, so that what one link does to the
//! n-th frame over it depends on the seed alone. "Middle" is one link that every frame passes once. Frames that are late
//! wait in one heap, ordered by time and then by who came first; what waits is bounded in bytes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::net::IpAddr;

use anyhow::{Context, Result, bail};

use super::frame::{ETHERNET, Ethernet};
use super::impair::{Arrival, Fate, Impairment, Link, Moment};
use super::plan::{self, Mac};
use super::router::Router;
use super::{LinkStats, Spot, Way, Where};

/// How many bytes may be on their way at once.
const MAX_WAITING: usize = 64 << 20;
/// How many addresses the switch of a segment remembers.
const MAX_MACS: usize = 1024;

pub(super) type PortId = usize;

/// Where a frame is about to go; the order is also the numbering for seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Hop {
    FromPort(PortId),
    Middle(PortId),
    FromSite(u8),
    ToSite(u8),
    ToPort(PortId),
}

struct Wire {
    link: Link,
    stats: LinkStats,
}

struct Member {
    name: String,
    segment: u8,
}

struct Late {
    due: Reverse<(Moment, u64)>,
    hop: Hop,
    frame: Vec<u8>,
}

impl PartialEq for Late {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}
impl Eq for Late {}
impl PartialOrd for Late {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Late {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}

pub(super) struct Fabric {
    seed: u64,
    segments: Vec<String>,
    ports: Vec<Member>,
    macs: Vec<HashMap<Mac, PortId>>,
    router: Router,
    /// Keyed by hop; the middle's is `Middle(0)` for all.
    wires: BTreeMap<Hop, Wire>,
    late: BinaryHeap<Late>,
    late_bytes: usize,
    sequence: u64,
    arrivals: VecDeque<(Hop, Vec<u8>)>,
}

impl Fabric {
    /// With segments of these names, the centre first.
    pub(super) fn new(segments: Vec<String>, seed: u64) -> Self {
        let count = u8::try_from(segments.len()).unwrap_or(u8::MAX);
        let mut fabric = Self {
            seed,
            macs: segments.iter().map(|_| HashMap::new()).collect(),
            segments,
            ports: vec![],
            router: Router::new(count),
            wires: BTreeMap::new(),
            late: BinaryHeap::new(),
            late_bytes: 0,
            sequence: 0,
            arrivals: VecDeque::new(),
        };
        fabric.add_wire(Hop::Middle(0));
        for segment in 0..count {
            fabric.add_wire(Hop::FromSite(segment));
            fabric.add_wire(Hop::ToSite(segment));
        }
        fabric
    }

    fn add_wire(&mut self, hop: Hop) {
        self.wires.insert(
            hop,
            Wire {
                link: Link::new(seed(self.seed, hop)),
                stats: LinkStats::default(),
            },
        );
    }

    pub(super) fn add_port(&mut self, name: &str, segment: u8, number: u8) -> PortId {
        let id = self.ports.len();
        self.ports.push(Member {
            name: name.to_owned(),
            segment,
        });
        self.add_wire(Hop::FromPort(id));
        self.add_wire(Hop::ToPort(id));
        let addresses: [IpAddr; 2] = [
            plan::ip(segment, number).into(),
            plan::ip6(segment, number).into(),
        ];
        for address in addresses {
            self.router
                .introduce(segment, address, plan::mac(segment, number));
        }
        id
    }

    fn segment(&self, site: &str) -> Result<u8> {
        let found = self.segments.iter().position(|name| name == site);
        found
            .and_then(|i| u8::try_from(i).ok())
            .with_context(|| format!("no site is called {site}: {:?}", self.segments))
    }

    fn links(&self, place: &Where) -> Result<Vec<Hop>> {
        let (to, from) = match &place.spot {
            Spot::Everything => return Ok(vec![Hop::Middle(0)]),
            Spot::Uplink(site) => {
                let segment = self.segment(site)?;
                (Hop::ToSite(segment), Hop::FromSite(segment))
            }
            Spot::Port(name) => {
                let Some(id) = self.ports.iter().position(|port| port.name == *name) else {
                    bail!("no port is called {name}");
                };
                (Hop::ToPort(id), Hop::FromPort(id))
            }
        };
        Ok(match place.way {
            Way::To => vec![to],
            Way::From => vec![from],
            Way::Both => vec![to, from],
        })
    }

    fn each(&mut self, place: &Where, change: impl Fn(&mut Link)) -> Result<()> {
        for hop in self.links(place)? {
            if let Some(wire) = self.wires.get_mut(&hop) {
                change(&mut wire.link);
            }
        }
        Ok(())
    }

    pub(super) fn impair(&mut self, place: &Where, impairment: &Impairment) -> Result<()> {
        impairment.check()?;
        self.each(place, |link| link.impair(impairment.clone()))
    }

    pub(super) fn cut(&mut self, place: &Where) -> Result<()> {
        self.each(place, |link| link.cut = true)
    }

    pub(super) fn heal(&mut self, place: &Where) -> Result<()> {
        self.each(place, Link::heal)
    }

    pub(super) fn heal_all(&mut self) {
        self.wires.values_mut().for_each(|wire| wire.link.heal());
        self.router.join_all();
    }

    pub(super) fn partition(&mut self, a: &str, b: &str) -> Result<()> {
        let (a, b) = (self.segment(a)?, self.segment(b)?);
        self.router.partition(a, b);
        Ok(())
    }

    pub(super) fn join(&mut self, a: &str, b: &str) -> Result<()> {
        let (a, b) = (self.segment(a)?, self.segment(b)?);
        self.router.join(a, b);
        Ok(())
    }

    pub(super) fn reseed(&mut self, new: u64) {
        self.seed = new;
        for (hop, wire) in &mut self.wires {
            wire.link.reseed(seed(new, *hop));
        }
    }

    /// What happened on the links to and from a port.
    pub(super) fn port_stats(&self, id: PortId) -> (LinkStats, LinkStats) {
        (
            self.wire_stats(Hop::ToPort(id)),
            self.wire_stats(Hop::FromPort(id)),
        )
    }

    /// The name of each site, and what happened on the links to and from it.
    pub(super) fn site_stats(&self) -> impl Iterator<Item = (String, LinkStats, LinkStats)> + '_ {
        self.segments.iter().zip(0_u8..).map(|(name, segment)| {
            (
                name.clone(),
                self.wire_stats(Hop::ToSite(segment)),
                self.wire_stats(Hop::FromSite(segment)),
            )
        })
    }

    pub(super) fn middle_stats(&self) -> LinkStats {
        self.wire_stats(Hop::Middle(0))
    }

    pub(super) fn partitioned(&self) -> u64 {
        self.router.partitioned
    }

    fn wire_stats(&self, hop: Hop) -> LinkStats {
        self.wires
            .get(&hop)
            .map(|wire| wire.stats.clone())
            .unwrap_or_default()
    }

    /// A frame that a port has sent. What comes out now is added to `out`.
    pub(super) fn input(
        &mut self,
        port: PortId,
        frame: Vec<u8>,
        now: Moment,
        out: &mut Vec<(PortId, Vec<u8>)>,
    ) {
        // What was due before it comes before it.
        self.run(now, out);
        self.go(Hop::FromPort(port), frame, now);
        self.settle(now, out);
    }

    /// When [`Fabric::run`] has something to do next.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.late.peek().map(|late| late.due.0.0)
    }

    /// Lets everything arrive that is due.
    pub(super) fn run(&mut self, now: Moment, out: &mut Vec<(PortId, Vec<u8>)>) {
        while self.next_due().is_some_and(|due| due <= now) {
            let Some(Late { hop, frame, .. }) = self.late.pop() else {
                break;
            };
            self.late_bytes -= frame.len();
            self.arrivals.push_back((hop, frame));
            // One at a time: what it leads to comes before what was due later.
            self.settle(now, out);
        }
    }

    fn settle(&mut self, now: Moment, out: &mut Vec<(PortId, Vec<u8>)>) {
        while let Some((hop, frame)) = self.arrivals.pop_front() {
            match hop {
                Hop::FromPort(port) => self.go(Hop::Middle(port), frame, now),
                Hop::Middle(port) => self.switch(self.ports[port].segment, Some(port), frame, now),
                Hop::FromSite(segment) => {
                    let mut routed = vec![];
                    self.router.receive(segment, frame, &mut routed);
                    for (segment, frame) in routed {
                        self.go(Hop::ToSite(segment), frame, now);
                    }
                }
                Hop::ToSite(segment) => self.switch(segment, None, frame, now),
                Hop::ToPort(port) => out.push((port, frame)),
            }
        }
    }

    /// Over the link of `hop`: arrives now, later, twice or never.
    fn go(&mut self, hop: Hop, frame: Vec<u8>, now: Moment) {
        let key = if let Hop::Middle(_) = hop {
            Hop::Middle(0)
        } else {
            hop
        };
        let Some(Wire { link, stats }) = self.wires.get_mut(&key) else {
            return;
        };
        stats.frames += 1;
        let (first, second) = match link.pass(frame.len(), now) {
            Fate::Passes(first) => (first, None),
            Fate::PassesTwice(first, second) => (first, Some(second)),
            Fate::Cut => return stats.cut += 1,
            Fate::Lost => return stats.lost += 1,
            Fate::Full => return stats.full += 1,
        };
        if let Some(second) = second {
            stats.duplicated += 1;
            let copy = frame.clone();
            self.arrive(hop, key, frame, first, now);
            self.arrive(hop, key, copy, second, now);
        } else {
            self.arrive(hop, key, frame, first, now);
        }
    }

    fn arrive(&mut self, hop: Hop, key: Hop, mut frame: Vec<u8>, arrival: Arrival, now: Moment) {
        let Some(Wire { stats, .. }) = self.wires.get_mut(&key) else {
            return;
        };
        if let Some(random) = arrival.flip {
            stats.corrupted += 1;
            flip(&mut frame, random);
        }
        if arrival.at <= now {
            self.arrivals.push_back((hop, frame));
        } else if self.late_bytes + frame.len() > MAX_WAITING {
            stats.full += 1;
        } else {
            self.late_bytes += frame.len();
            self.sequence += 1;
            self.late.push(Late {
                due: Reverse((arrival.at, self.sequence)),
                hop,
                frame,
            });
        }
    }

    /// `from` is the port on which it came; none for the router's.
    fn switch(&mut self, segment: u8, from: Option<PortId>, frame: Vec<u8>, now: Moment) {
        let Some(Ethernet { to, from: sender, .. }) = Ethernet::parse(&frame) else {
            return;
        };
        let router = plan::router_mac(segment);
        let macs = &mut self.macs[usize::from(segment)];
        if let Some(port) = from
            && !sender.is_group()
            && sender != router
        {
            if macs.len() >= MAX_MACS && !macs.contains_key(&sender) {
                // Unknown ones are flooded to, so nothing is lost.
                macs.clear();
            }
            macs.insert(sender, port);
        }
        if to == router {
            if from.is_some() {
                self.go(Hop::FromSite(segment), frame, now);
            }
        } else if let Some(port) = macs.get(&to).copied() {
            if Some(port) != from {
                self.go(Hop::ToPort(port), frame, now);
            }
        } else {
            for port in 0..self.ports.len() {
                if self.ports[port].segment == segment && Some(port) != from {
                    self.go(Hop::ToPort(port), frame.clone(), now);
                }
            }
            if to.is_group() && from.is_some() {
                self.go(Hop::FromSite(segment), frame, now);
            }
        }
    }
}

/// Each link has random numbers of its own.
fn seed(seed: u64, hop: Hop) -> u64 {
    let (kind, index) = match hop {
        Hop::FromPort(port) => (0, port as u64),
        Hop::Middle(_) => (1, 0),
        Hop::FromSite(segment) => (2, u64::from(segment)),
        Hop::ToSite(segment) => (3, u64::from(segment)),
        Hop::ToPort(port) => (4, port as u64),
    };
    seed ^ (index << 3 | kind).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// Behind the Ethernet header, so that it reaches somebody: with its addresses wrong it would only be lost.
fn flip(frame: &mut [u8], random: u64) {
    let body = if frame.len() > ETHERNET {
        &mut frame[ETHERNET..]
    } else {
        frame
    };
    if body.is_empty() {
        return;
    }
    let bit = usize::try_from(random % (body.len() as u64 * 8)).unwrap_or(0);
    body[bit / 8] ^= 1 << (bit % 8);
}

#[cfg(test)]
mod tests;
