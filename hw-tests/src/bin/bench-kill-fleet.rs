//! `cargo xtask bench kill-fleet`: one press, 1,000 and 10,000 nodes.
//!
//! The controller is the release binary in a process of its own, with full mTLS, its audit and orders fsynced. The
//! nodes are simulated agents in this process over the real link ([`hw_tests::agents`]), and three real node
//! managers that really kill. A press is timed from the call until the controller has each node's answer (its own
//! stamp, whole milliseconds): the way back of the proof is inside. Between two presses the holds are released.
//!
//! Wall times are judged on the quietest third of the presses, CPU on all of them. The peer is OpenSSH: parallel
//! logins that kill by hand, measured for 50 and scaled by node; a comparison, no bar.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use hw_tests::agents::{attach, enrol};
use hw_tests::fleet::Fleet;
use hw_tests::measure::{Round, cpu_time, machine_busy, median, percentile, quietest_third, resident_kib};
use hw_tests::ssh::SshPeer;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proto::bundle::Bundle;
use proto::v1::{self, orders_client::OrdersClient, press_request::Wish, release_wish::What, scope::Reach};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

const SLICE: &str = "bench_crowd";
const SMALL: u32 = 1_000;
const LARGE: u32 = 10_000;
/// Kills and releases at 1,000 agents: 1,000 presses.
const SMALL_ROUNDS: usize = 500;
const LARGE_ROUNDS: usize = 100;
/// Real slivers are started before every this many presses.
const REAL_EVERY: usize = 25;
const REAL_NODES: usize = 3;
const LOGINS: usize = 50;

fn main() -> Result<()> {
    // One descriptor for each agent, here and in the controller, which inherits the limit.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(
        hard > u64::from(LARGE) + 1_000,
        "only {hard} descriptors are allowed, {LARGE} agents need more"
    );
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut fleet = Fleet::start_with("[log]\nfilter = \"warn\"\n")?;
    fleet.site("bench")?;
    fleet.slice(SLICE)?;
    for number in 0..REAL_NODES {
        fleet.node(&format!("real-{number}"), "bench", "")?;
    }
    let controller = fleet.controller().pid();
    let end = CancellationToken::new();
    let support = runtime.block_on(connect(&fleet))?;
    let mut bench = Bench {
        fleet,
        controller,
        support,
    };

    let before = resident_kib(controller)?;
    let _small = runtime.block_on(bench.grow("small", SMALL, &end))?;
    let kib_idle = kib_each(before, resident_kib(controller)?, SMALL);
    let small = runtime.block_on(bench.rounds(SMALL_ROUNDS))?;
    let kib_after = kib_each(before, resident_kib(controller)?, SMALL);
    small.show(SMALL);
    println!(
        "memory of the controller for each node at {SMALL}: idle {kib_idle:.1} KiB, after 1,000 presses {kib_after:.1} KiB"
    );

    let _large = runtime.block_on(bench.grow("large", LARGE - SMALL, &end))?;
    let large = runtime.block_on(bench.rounds(LARGE_ROUNDS))?;
    large.show(LARGE);
    end.cancel();
    drop(bench);

    let ssh = ssh_ms_for_one_node()?;
    println!(
        "ssh: {LOGINS} parallel logins that kill by hand: {ssh:.1} ms a node, so {:.0} s for {LARGE}",
        ssh * f64::from(LARGE) / 1_000.0
    );
    println!(
        "kill-fleet: agents={LARGE} p99_ms_1000={:.1} p99_ms={:.1} cpu_us_per_node={:.1} kib_idle={kib_idle:.1} \
         kib_after={kib_after:.1} ssh_ratio={:.0}",
        small.p99_ms,
        large.p99_ms,
        small.cpu_us.max(large.cpu_us),
        ssh * f64::from(LARGE) / large.p99_ms,
    );
    Ok(())
}

fn kib_each(before: u64, after: u64, nodes: u32) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "KiB of one process")]
    let grown = after.saturating_sub(before) as f64;
    grown / f64::from(nodes)
}

async fn connect(fleet: &Fleet) -> Result<OrdersClient<Channel>> {
    let bundle = Bundle::parse(&std::fs::read_to_string(fleet.bundle("alice"))?)?;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&bundle.ca))
        .identity(Identity::from_pem(&bundle.certificate, bundle.key.expose()));
    let channel = Channel::from_shared(format!("https://{}", fleet.people()))?
        .tls_config(tls)?
        .connect()
        .await?;
    Ok(OrdersClient::new(channel).max_decoding_message_size(64 << 20))
}

struct Bench {
    fleet: Fleet,
    controller: u32,
    support: OrdersClient<Channel>,
}

/// What a number of rounds came to.
struct Numbers {
    p50_ms: f64,
    p99_ms: f64,
    all_p99_ms: f64,
    cpu_us: f64,
    presses: usize,
    real: usize,
}

impl Numbers {
    fn show(&self, nodes: u32) {
        println!(
            "{nodes} agents, {} presses: p50 {:.1} ms, p99 {:.1} ms (all rounds {:.1}), controller {:.1} us CPU a node and press, {} real kills",
            self.presses, self.p50_ms, self.p99_ms, self.all_p99_ms, self.cpu_us, self.real
        );
    }
}

/// One press and what it cost.
struct Pressed {
    /// Milliseconds from the call to each node's answer.
    answered: Vec<f64>,
    results: Vec<v1::NodeResult>,
    cpu: Duration,
    stolen: Duration,
}

impl Bench {
    async fn grow(
        &mut self,
        prefix: &str,
        count: u32,
        end: &CancellationToken,
    ) -> Result<Vec<hw_tests::agents::Agent>> {
        let begun = Instant::now();
        let bundles = enrol(&self.fleet.state(), prefix, "bench", count, &self.fleet.daemons()).await?;
        let enrolled = begun.elapsed();
        let agents = attach(&bundles, end).await?;
        println!(
            "{count} agents: enrolled in {enrolled:.1?}, attached in {:.1?}",
            begun.elapsed() - enrolled
        );
        Ok(agents)
    }

    async fn rounds(&mut self, rounds: usize) -> Result<Numbers> {
        let (mut p50, mut p99, mut cpu, mut real) = (vec![], vec![], vec![], 0);
        for round in 0..=rounds {
            let starts = round % REAL_EVERY == 0;
            if starts {
                for node in 0..REAL_NODES {
                    self.fleet.at(node).exec(SLICE, &["/bin/sleep", "600"])?;
                }
            }
            let mut pressed = self.press(kill()).await?;
            if starts {
                let names = |outcome| {
                    pressed.results.iter().filter(move |result| {
                        result.node_name.starts_with("real-") && result.outcome() == outcome
                    })
                };
                ensure!(
                    names(v1::Outcome::Killed).count() == REAL_NODES,
                    "a real node did not kill"
                );
                real += REAL_NODES;
            }
            let nodes = pressed.answered.len();
            self.press(release()).await?;
            // The first round warms up and does not count.
            if round > 0 {
                p50.push(Round {
                    value: percentile(&mut pressed.answered, 0.5),
                    stolen: pressed.stolen,
                });
                p99.push(Round {
                    value: percentile(&mut pressed.answered, 0.99),
                    stolen: pressed.stolen,
                });
                #[expect(clippy::cast_precision_loss, reason = "a count of nodes")]
                cpu.push(pressed.cpu.as_secs_f64() * 1e6 / nodes as f64);
            }
        }
        Ok(Numbers {
            p50_ms: median(&mut quietest_third(&p50)),
            p99_ms: median(&mut quietest_third(&p99)),
            all_p99_ms: median(&mut p99.iter().map(|round| round.value).collect::<Vec<_>>()),
            cpu_us: median(&mut cpu),
            presses: rounds,
            real,
        })
    }

    async fn press(&mut self, wish: Wish) -> Result<Pressed> {
        let (cpu, own, busy) = (
            cpu_time(self.controller)?,
            cpu_time(std::process::id())?,
            machine_busy()?,
        );
        let begun = unix_ms()?;
        let request = v1::PressRequest {
            idempotency_key: uuid::Uuid::new_v4().to_string(),
            reason: "benchmark".into(),
            evidence: String::new(),
            wish: Some(wish),
        };
        let reply = self.support.press(request).await?.into_inner();
        ensure!(reply.durable, "not durable: {}", reply.not_durable_reason);
        let id = reply.order.context("an order")?.id;
        let watch = v1::WatchOrderRequest {
            id,
            until_settled: true,
        };
        let mut events = self.support.watch(watch).await?.into_inner();
        let mut answered = std::collections::HashMap::new();
        while let Some(event) = events.next().await {
            let event = event?;
            answered.extend(
                event
                    .changed
                    .into_iter()
                    .map(|result| (result.node.clone(), result)),
            );
            if event.last {
                break;
            }
        }
        let results: Vec<v1::NodeResult> = answered.into_values().collect();
        ensure!(
            results.iter().all(|result| result.answered_at_ms > 0),
            "a node did not answer"
        );
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of one press")]
        let answered = results
            .iter()
            .map(|result| result.answered_at_ms as f64 - begun)
            .collect();
        let cpu = cpu_time(self.controller)? - cpu;
        let ours = cpu + (cpu_time(std::process::id())? - own);
        Ok(Pressed {
            answered,
            results,
            cpu,
            stolen: (machine_busy()? - busy).saturating_sub(ours),
        })
    }
}

fn unix_ms() -> Result<f64> {
    Ok(SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs_f64()
        * 1_000.0)
}

fn kill() -> Wish {
    Wish::Hold(v1::HoldWish {
        slice: SLICE.into(),
        scope: Some(v1::Scope {
            reach: Some(Reach::Fleet(true)),
        }),
        kind: v1::HoldKind::Suspend.into(),
    })
}

fn release() -> Wish {
    Wish::Release(v1::ReleaseWish {
        what: Some(What::Slice(SLICE.into())),
    })
}

/// Milliseconds for each node when logging in to many at once.
fn ssh_ms_for_one_node() -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let peer = SshPeer::start(folder.path())?;
    let mut victims = Vec::new();
    for _ in 0..LOGINS {
        victims.push(std::process::Command::new("/bin/sleep").arg("600").spawn()?);
    }
    let pids: Vec<u32> = victims.iter().map(std::process::Child::id).collect();
    let took = peer.kill_by_hand(&pids);
    for victim in &mut victims {
        let _ = victim.kill();
        victim.wait()?;
    }
    #[expect(clippy::cast_precision_loss, reason = "fifty")]
    let logins = LOGINS as f64;
    Ok(took?.as_secs_f64() * 1_000.0 / logins)
}
