//! A stolen node: a good certificate in bad hands, at the daemons' port. There the controller is the HTTP/2 client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use futures_util::stream;
use hw_tests::agents::attach;
use hw_tests::fleet::{Fleet, wait_for};
use link::{DialConfig, Dialer};
use proto::bundle::Bundle;
use proto::v1::slivers_server::{Slivers, SliversServer};
use proto::v1::{self, NodeReport};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::wire::*;

/// A fleet with a stolen node and an honest one, which is attached.
struct World {
    fleet: Fleet,
    stolen: Bundle,
    honest: hw_tests::agents::Agent,
    end: CancellationToken,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> Result<Self> {
        let fleet = controller()?;
        let stolen = read(&fleet.enrol("stolen", "princeton")?)?;
        let good = read(&fleet.enrol("honest", "princeton")?)?;
        let (runtime, end) = (runtime(), CancellationToken::new());
        let honest = runtime.block_on(attach(&[good], &end))?.remove(0);
        Ok(Self {
            fleet,
            stolen,
            honest,
            end,
            runtime,
        })
    }

    /// The honest node is killed on, whatever the stolen one does.
    fn the_honest_one_obeys(&self) -> Result<()> {
        let before = self.honest.commands();
        let press = [
            "kill-slice",
            "princeton_codeen",
            "--node",
            "honest",
            "--reason",
            "worm",
        ];
        let (code, order) = self.fleet.json("alice", &press)?;
        ensure!(code == 0, "exit code {code}: {order}");
        ensure!(self.honest.commands() > before, "nothing arrived: {order}");
        ensure!(order.to_string().contains("killed"), "{order}");
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

#[test]
fn a_node_that_floods_its_link_is_cut_or_borne_and_grows_nothing() -> Result<()> {
    let mut world = World::new()?;
    let memory = Memory::of(&mut world.fleet)?;
    let address = world.fleet.daemons();
    let push = {
        let mut payload = 2_u32.to_be_bytes().to_vec();
        payload.extend(head(WHO));
        frame(PUSH_PROMISE, END_HEADERS, 1, &payload)
    };
    let floods: Vec<(&str, Vec<u8>, usize)> = vec![
        (
            "settings",
            frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
            200_000,
        ),
        ("pings", frame(PING, 0, 0, &[7; 8]), 200_000),
        ("answers to no ping", frame(PING, 1, 0, &[7; 8]), 200_000),
        ("priorities", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]), 200_000),
        ("pushes", push, 10_000),
        (
            "answers to no call",
            frame(HEADERS, END_HEADERS, 99, &header(":status", "200")),
            50_000,
        ),
        (
            "continuations",
            frame(CONTINUATION, 0, 1, &header("x", &"v".repeat(1_000))),
            20_000,
        ),
        (
            "windows",
            frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()),
            50_000,
        ),
        ("data for nobody", frame(DATA, 0, 1, &[0; 8 << 10]), 8_000),
        (
            "a head without end",
            frame(HEADERS, 0, 1, &header("x", &"v".repeat(10_000))),
            1_000,
        ),
        ("rubbish", vec![0xa5; 1 << 10], 4_000),
    ];
    for (case, one, times) in floods {
        let config = honest(&world.stolen)?;
        let mut wire = world.runtime.block_on(Wire::daemon(config, &address))?;
        world.runtime.block_on(wire.flood(&one, times));
        world
            .the_honest_one_obeys()
            .map_err(|error| error.context(case))?;
        memory.grew_less_than(48).map_err(|error| error.context(case))?;
    }
    Ok(())
}

#[test]
fn a_node_that_says_nothing_or_drips_holds_up_nobody() -> Result<()> {
    let mut world = World::new()?;
    let memory = Memory::of(&mut world.fleet)?;
    let address = world.fleet.daemons();
    // More than one identity may have: the oldest of its own are cut.
    let mut wires = Vec::new();
    for _ in 0..32 {
        let config = honest(&world.stolen)?;
        wires.push(world.runtime.block_on(Wire::daemon(config, &address))?);
    }
    world.the_honest_one_obeys()?;
    for wire in &mut wires {
        // The beginning of a frame, byte for byte. Those that were cut cannot say it any more.
        let _ = world.runtime.block_on(wire.say(&[0]));
    }
    world.the_honest_one_obeys()?;
    memory.grew_less_than(32)
}

/// Says whatever its report is set to; obeys nothing.
#[derive(Clone)]
struct Liar {
    report: NodeReport,
    asked: Arc<AtomicUsize>,
}

type Reply<T> = std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Slivers for Liar {
    async fn merge(
        &self,
        _: tonic::Request<proto::v1::MergeRequest>,
    ) -> Result<tonic::Response<proto::v1::MergeReply>, Status> {
        Err(Status::unimplemented("it tells nothing more"))
    }

    type ObeyStream = Reply<v1::Answer>;
    type WatchStream = Reply<NodeReport>;
    type JournalStream = Reply<v1::JournalLines>;

    async fn report(&self, _: Request<v1::ReportRequest>) -> Result<Response<NodeReport>, Status> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(self.report.clone()))
    }

    async fn obey(&self, _: Request<Streaming<v1::Command>>) -> Result<Response<Self::ObeyStream>, Status> {
        Ok(Response::new(Box::pin(stream::pending())))
    }

    async fn watch(&self, _: Request<v1::WatchNodeRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(Box::pin(stream::pending())))
    }

    async fn processes(
        &self,
        _: Request<v1::ProcessesRequest>,
    ) -> Result<Response<v1::ProcessesReply>, Status> {
        Err(Status::unimplemented("a liar"))
    }

    async fn journal(&self, _: Request<v1::JournalRequest>) -> Result<Response<Self::JournalStream>, Status> {
        Err(Status::unimplemented("a liar"))
    }
}

#[test]
fn a_node_that_lies_about_its_version_and_holds_concerns_nobody_else() -> Result<()> {
    let mut world = World::new()?;
    let memory = Memory::of(&mut world.fleet)?;
    let proto::Identity::Daemon(id, _) = world.stolen.identity()? else {
        anyhow::bail!("no node")
    };
    let true_report = NodeReport {
        node: id.to_string(),
        protocol: proto::PROTOCOL,
        boot_id: uuid::Uuid::new_v4().to_string(),
        ..NodeReport::default()
    };
    let end_of_time = v1::Version {
        incarnation: u64::MAX,
        epoch: u64::MAX,
    };
    let lies: Vec<(&str, NodeReport)> = vec![
        (
            "it has seen the end of time",
            NodeReport {
                seen: Some(end_of_time),
                ..true_report.clone()
            },
        ),
        (
            "holds without number",
            NodeReport {
                holds: (0..50_000).map(|_| uuid::Uuid::now_v7().to_string()).collect(),
                ..true_report.clone()
            },
        ),
        (
            "it is the honest one",
            NodeReport {
                node: world.honest.node().to_string(),
                boot_id: world.honest.boot_id(),
                ..true_report.clone()
            },
        ),
        (
            "the honest one's boot",
            NodeReport {
                boot_id: world.honest.boot_id(),
                ..true_report.clone()
            },
        ),
        (
            "texts without end",
            NodeReport {
                kernel: "k".repeat(2 << 20),
                hostname: "\u{1b}[2J\u{7}".repeat(100_000),
                ..true_report.clone()
            },
        ),
    ];
    for (case, report) in lies {
        let liar = Liar {
            report,
            asked: Arc::default(),
        };
        let end = CancellationToken::new();
        let dialer = Dialer::new(&world.stolen, DialConfig::default())?;
        let routes = Routes::new(SliversServer::new(liar.clone()));
        let running = world.runtime.spawn({
            let end = end.clone();
            async move { dialer.run(routes, end, |_| {}).await }
        });
        wait_for("the lie to be heard", || {
            (liar.asked.load(Ordering::SeqCst) > 0).then_some(())
        })?;
        world
            .the_honest_one_obeys()
            .map_err(|error| error.context(case))?;
        ensure!(world.honest.is_attached(), "{case}: the honest one was cut off");
        // What is shown to people has no control characters and an end.
        let shown = world.fleet.redbutton("alice", &["node", "show", "stolen"])?;
        ensure!(
            !shown.stdout.contains(&0x1b) && shown.stdout.len() < 64 << 10,
            "{case}"
        );
        end.cancel();
        world.runtime.block_on(within("the liar's end", running))??;
    }
    // Orders go on as if nothing had been said of the end of time.
    let (_, orders) = world.fleet.json("alice", &["order", "ls"])?;
    ensure!(
        !orders.to_string().contains(&u64::MAX.to_string()),
        "the lie was believed: {orders}"
    );
    memory.grew_less_than(64)
}
