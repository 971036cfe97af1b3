//! 26: a slice probes the TCP ports of hosts outside the fleet.
//!
//! Real slivers on real node managers; the hosts are addresses of loopback with open ports, each the goal of one
//! node, so that the count of a host is the count of a node. A slice that knocks at one port of a further host on
//! every node must go on: it is the witness that the others are silent.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};

use super::{all_came_to, fleet, node};
use crate::fleet::Fleet;
use crate::incident::victim::Ports;
use crate::incident::{Ask, Incident, Need, Story};

const KILLED: &str = "slice killed";
const GUILTY: &str = "princeton_probe";
const INNOCENT: &str = "princeton_quiet";
const SITES: [&str; 3] = ["princeton", "berkeley", "mit"];
/// Open ports of each host.
const PORTS: usize = 12;
/// Probes of one sliver, at most: it ends by itself should all else fail.
const PROBES: usize = 6_000;
/// Seconds between two probes of one sliver.
const PACE: f64 = 0.05;
/// What the witnesses knock at, one port for each node.
const WITNESSED: Ipv4Addr = Ipv4Addr::new(127, 0, 26, 100);

pub(super) const INCIDENT: Incident = Incident {
    number: 26,
    name: "tcp_port_probe",
    title: "TCP Port Probe",
    date: "15 and 27 May 2003",
    needs: &[Need::ROOT, Need::CGROUP2, Need::BASH],
    asks: &[
        Ask::shown(KILLED),
        Ask::missing("filter on all nodes in seconds", "there are no filters yet"),
    ],
    unprotected,
    protected,
};

/// The host that the sliver of a node probes.
fn host(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 26, u8::try_from(node + 1).unwrap_or(u8::MAX))
}

struct Stage {
    fleet: Fleet,
    victims: Ports,
    probed: Vec<SocketAddr>,
    witnessed: Vec<SocketAddr>,
}

impl Stage {
    fn set(story: &mut Story) -> Result<Self> {
        let mut fleet = fleet(story, &SITES)?;
        for slice in [GUILTY, INNOCENT] {
            fleet.slice(slice)?;
        }
        let hosts: Vec<Ipv4Addr> = (0..SITES.len()).map(host).chain([WITNESSED]).collect();
        let victims = Ports::open(&hosts, PORTS)?;
        let witnessed: Vec<SocketAddr> = victims.of(WITNESSED).into_iter().take(SITES.len()).collect();
        let mut probed = Vec::new();
        for (number, site) in SITES.iter().enumerate() {
            let index = node(story, &mut fleet, &format!("planet-{site}"), site)?;
            let ports = victims.of(host(number));
            let node = fleet.at(index);
            node.exec(GUILTY, &["/bin/bash", "-c", &script(&ports)])?;
            node.exec(
                INNOCENT,
                &["/bin/bash", "-c", &script(&witnessed[number..=number])],
            )?;
            story.tell(
                &format!("{GUILTY} on {}", node.name()),
                &format!("probes the ports of {}", host(number)),
            );
            probed.extend(ports);
        }
        Ok(Self {
            fleet,
            victims,
            probed,
            witnessed,
        })
    }

    fn probes(&self) -> u64 {
        let seen = self.victims.seen();
        self.probed.iter().filter_map(|port| seen.get(port)).sum()
    }
}

fn unprotected(story: &mut Story) -> Result<()> {
    let stage = Stage::set(story)?;
    stage.victims.hit(&stage.probed, 1)?;
    let first = stage.probes();
    story.tell("the victims", &format!("have {first} probes, at every port"));
    // Nobody presses.
    stage.victims.hit(&stage.probed, 2)?;
    let later = stage.probes();
    ensure!(later > first, "the probes stopped by themselves");
    story.tell("the victims", &format!("have {later} probes, and they go on"));
    Ok(())
}

fn protected(story: &mut Story) -> Result<()> {
    let mut stage = Stage::set(story)?;
    stage.victims.hit(&stage.probed, 1)?;
    story.tell(
        "the victims",
        &format!("have {} probes, and complain", stage.probes()),
    );
    let (code, order) = story.types(
        &stage.fleet,
        "alice",
        &["kill-slice", GUILTY, "--reason", "probes ports of a bank"],
    )?;
    ensure!(code == 0, "exit code {code}: {order}");
    all_came_to(&order, "killed", SITES.len())?;
    stage.victims.fall_silent(&stage.probed, &stage.witnessed)?;
    story.tell("the victims", "are probed no more; the other slice goes on");
    for index in 0..SITES.len() {
        let node = stage.fleet.at(index);
        let alive = node.processes(GUILTY);
        ensure!(alive.is_empty(), "alive on {}: {alive:?}", node.name());
        let (code, said) = node.try_exec(GUILTY, &["/bin/true"])?;
        ensure!(code == 5, "{} started it again: {said}", node.name());
    }
    story.tell("the slice's people", "start it again and are refused");
    story.shows(KILLED);
    Ok(())
}

/// Connects to one port after the other, over and over.
fn script(ports: &[SocketAddr]) -> String {
    let paths: Vec<String> = ports
        .iter()
        .map(|port| format!("/dev/tcp/{}/{}", port.ip(), port.port()))
        .collect();
    format!(
        "for round in $(seq {}); do for port in {}; do exec 3<>$port; exec 3>&-; sleep {PACE}; done; done",
        PROBES / ports.len().max(1),
        paths.join(" "),
    )
}
