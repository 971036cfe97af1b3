//! 23: a slice on 76 nodes asks one web server for pages, a few a second from each node: no node does much, the
//! server drowns.
//!
//! The 76 are simulated agents over the real link: where their slice may run, real GETs leave from an address of
//! each node's own. Three more nodes are real node managers with real processes. Another slice does the same
//! everywhere and must go on: it is the witness that the others are silent.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::{Simulated, all_came_to, fleet, node};
use crate::agents::Agent;
use crate::fleet::Fleet;
use crate::incident::victim::Web;
use crate::incident::{Ask, Incident, Need, Story};

const KILLED: &str = "killed everywhere";
const GUILTY: &str = "princeton_dos";
const INNOCENT: &str = "princeton_quiet";
const SIMULATED: u32 = 76;
const REAL: usize = 3;
/// Between two requests of one slice on one node.
const PACE: Duration = Duration::from_millis(400);
/// Requests of a real sliver, at most: it ends by itself should all else fail.
const ROUNDS: u32 = 3_000;

pub(super) const INCIDENT: Incident = Incident {
    number: 23,
    name: "dos_attack",
    title: "DOS attack, 2 DOS",
    date: "24 Apr and 1 May 2003",
    needs: &[Need::ROOT, Need::CGROUP2, Need::BASH],
    asks: &[
        Ask::missing("the fleet view names the slice", "there is no flow auditor yet"),
        Ask::shown(KILLED),
    ],
    unprotected,
    protected,
};

struct Stage {
    fleet: Fleet,
    victim: Web,
    _simulated: Simulated,
    /// What the victim's log says of each node's guilty and innocent sliver.
    guilty: Vec<String>,
    innocent: Vec<String>,
}

impl Stage {
    fn set(story: &mut Story) -> Result<Self> {
        let mut fleet = fleet(story, &["princeton"])?;
        for slice in [GUILTY, INNOCENT] {
            fleet.slice(slice)?;
        }
        let victim = Web::start()?;
        let simulated = Simulated::new()?;
        let agents = simulated.attach(&fleet, "sim", "princeton", SIMULATED)?;
        let mut names: Vec<String> = agents.iter().map(|agent| agent.name().to_owned()).collect();
        for (number, agent) in agents.into_iter().enumerate() {
            let address = Ipv4Addr::new(127, 0, 23, u8::try_from(number + 1)?);
            simulated.spawn(ask(agent, address, victim.address()));
        }
        for number in 0..REAL {
            let name = format!("real-{number}");
            let index = node(story, &mut fleet, &name, "princeton")?;
            for slice in [GUILTY, INNOCENT] {
                let script = script(&format!("{name}/{slice}"), victim.address());
                fleet.at(index).exec(slice, &["/bin/bash", "-c", &script])?;
            }
            names.push(name);
        }
        let keys = |slice: &str| names.iter().map(|name| format!("{name}/{slice}")).collect();
        story.tell(
            GUILTY,
            &format!("asks a web server for pages from {} nodes", names.len()),
        );
        Ok(Self {
            guilty: keys(GUILTY),
            innocent: keys(INNOCENT),
            fleet,
            victim,
            _simulated: simulated,
        })
    }

    /// What the victim has counted of the guilty slice: in all, and of the busiest node.
    fn counted(&self) -> (u64, u64) {
        let seen = self.victim.seen();
        let counts = || self.guilty.iter().filter_map(|key| seen.get(key));
        (counts().sum(), counts().max().copied().unwrap_or(0))
    }
}

fn unprotected(story: &mut Story) -> Result<()> {
    let stage = Stage::set(story)?;
    stage.victim.hit_by(&stage.guilty, 3)?;
    let (all, busiest) = stage.counted();
    story.tell("the victim", &format!("has {all} requests, from every node"));
    story.fact(
        "share of the busiest node",
        format!("{busiest} of {all}: none stands out"),
    );
    ensure!(busiest * 5 < all, "one node makes {busiest} of {all} requests");
    // Nobody presses.
    stage.victim.hit_by(&stage.guilty, 5)?;
    let (later, _) = stage.counted();
    ensure!(later > all, "the flood stopped by itself");
    story.tell("the victim", &format!("has {later} requests, and they go on"));
    Ok(())
}

fn protected(story: &mut Story) -> Result<()> {
    let mut stage = Stage::set(story)?;
    stage.victim.hit_by(&stage.guilty, 3)?;
    story.tell(
        "the victim",
        &format!("has {} requests, and calls", stage.counted().0),
    );
    let (code, order) = story.types(
        &stage.fleet,
        "alice",
        &["kill-slice", GUILTY, "--reason", "floods a web server"],
    )?;
    ensure!(code == 0, "exit code {code}: {order}");
    all_came_to(&order, "killed", stage.guilty.len())?;
    story.tell("the order", &format!("is proven on {} nodes", stage.guilty.len()));
    stage.victim.fall_silent(&stage.guilty, &stage.innocent)?;
    story.tell(
        "the victim",
        &format!(
            "hears of {GUILTY} no more; {INNOCENT} goes on from {} nodes",
            stage.innocent.len()
        ),
    );
    for index in 0..REAL {
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

/// The slivers of a simulated node: each asks while it may run, as long as the simulation. One after the other: a
/// request of the innocent one that has come shows that the guilty one has none under way from before.
async fn ask(agent: Agent, from: Ipv4Addr, victim: SocketAddr) {
    let mut pace = tokio::time::interval(PACE);
    loop {
        pace.tick().await;
        for slice in [GUILTY, INNOCENT] {
            if agent.may_run(slice) {
                let line = format!("GET /{}/{slice} HTTP/1.0\r\n\r\n", agent.name());
                // A victim that drowns refuses some: that is its business.
                let _ = get(from, victim, &line).await;
            }
        }
    }
}

async fn get(from: Ipv4Addr, victim: SocketAddr, line: &str) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::V4(SocketAddrV4::new(from, 0)))?;
    let mut stream = socket.connect(victim).await?;
    stream.write_all(line.as_bytes()).await?;
    stream.read_to_end(&mut Vec::new()).await.map(drop)
}

/// A sliver on a real node: the same as a script.
fn script(key: &str, victim: SocketAddr) -> String {
    format!(
        "for round in $(seq {ROUNDS}); do exec 3<>/dev/tcp/{}/{}; printf 'GET /{key} HTTP/1.0\\r\\n\\r\\n' >&3; \
         cat <&3 >/dev/null 2>&1; exec 3>&-; sleep {}; done",
        victim.ip(),
        victim.port(),
        PACE.as_secs_f64(),
    )
}
