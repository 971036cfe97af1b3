//! `cargo xtask bench attach`: 10,000 agents come up in the same second while support presses ("Cron hangage").
//!
//! ```text
//! this process ── presses: a hold on one site's three real node managers, until all three have proven it
//!      │ "go"                                │
//!      ▼                                     ▼
//! the crowd (a process of its own, nice 19) ─▶ the controller, release binary, durable as always
//! ```
//! - The crowd stands for 10,000 other machines, so it may have what the controller leaves of the processors; it dials
//!   all at once, each agent from a loopback address of its own. An agent counts as attached when it has obeyed its
//!   first command (the holds of the day), not when its handshake is through.
//! - A press is timed from the call until the last proof is back. At rest: before the storm, in the same run. The ratio
//!   of the two p99 is the number: both sides suffer alike from whoever else uses this machine.
//! - handshakes_per_s_per_core: agents, by the controller's CPU seconds from "go" until the last is attached.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use hw_tests::agents::{Crowd, enrol, prepare};
use hw_tests::fleet::Fleet;
use hw_tests::measure::{cpu_time, machine_busy, percentile};
use link::DialConfig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proto::bundle::Bundle;
use proto::v1::{self, orders_client::OrdersClient, press_request::Wish, release_wish::What, scope::Reach};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

const AGENTS: u32 = 10_000;
const SLICE: &str = "resident_crowd";
const SITE: &str = "resident";
const RESIDENTS: usize = 3;
/// Presses at rest, before the storm and after it.
const AT_REST: usize = 400;
/// By then each agent is attached, or the benchmark fails.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the crowd looks who has come up.
const LOOK: Duration = Duration::from_millis(10);

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut agents = AGENTS;
    while let Some(word) = arguments.next() {
        let value = arguments
            .next()
            .with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--agents" => agents = value.parse()?,
            "--crowd" => return crowd(&value),
            _ => bail!("unknown option {word}; there is --agents NUMBER"),
        }
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(
        hard > u64::from(agents) + 1_000,
        "only {hard} descriptors are allowed, {agents} agents need more"
    );
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    bench(agents)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

fn bench(agents: u32) -> Result<()> {
    let runtime = runtime()?;
    let mut fleet = Fleet::start_with("[log]\nfilter = \"warn\"\n")?;
    fleet.site("bench")?;
    fleet.site(SITE)?;
    fleet.slice(SLICE)?;
    for number in 0..RESIDENTS {
        fleet.node(&format!("real-{number}"), SITE, "")?;
    }
    let (state, daemons) = (fleet.state(), fleet.daemons());
    let bundles = runtime.block_on(enrol(&state, "agent", "bench", agents, &daemons))?;
    let mut crowd = CrowdProcess::start(&fleet, &bundles)?;
    let controller = fleet.controller().pid();
    let support = runtime.block_on(connect(&fleet))?;
    let mut presser = Presser { support };

    let before = runtime.block_on(presser.presses(AT_REST))?;
    before.show("at rest, nobody there");
    let (cpu, busy) = (cpu_time(controller)?, machine_busy()?);
    let storm = crowd.go()?;
    let (during, came) = runtime.block_on(presser.presses_until(storm))?;
    let cpu = cpu_time(controller)? - cpu;
    let busy = machine_busy()? - busy;
    during.show("during the storm");
    println!(
        "{agents} agents attached: first {:.2} s, half {:.2} s, slowest {:.2} s; {} dials failed and were repeated; \
         controller {:.2} s CPU, crowd {:.2} s, everybody {:.2} s",
        came.first,
        came.half,
        came.last,
        came.failures,
        cpu.as_secs_f64(),
        came.cpu,
        busy.as_secs_f64(),
    );
    let after = runtime.block_on(presser.presses(AT_REST))?;
    after.show("at rest, all there");
    drop(crowd);
    println!(
        "attach: agents={agents} all_attached_s={:.2} press_p99_ratio={:.2} handshakes_per_s_per_core={:.0}",
        came.last,
        during.p99_ms / before.p99_ms,
        f64::from(agents) / cpu.as_secs_f64(),
    );
    Ok(())
}

/// How the agents came up, as the crowd tells: seconds since "go".
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Came {
    first: f64,
    half: f64,
    last: f64,
    failures: u64,
    cpu: f64,
}

/// The crowd in its own process.
struct CrowdProcess {
    child: Child,
    stdin: ChildStdin,
    stdout: Option<BufReader<ChildStdout>>,
}

impl CrowdProcess {
    /// Starts it; returns when all of its agents only wait for the word.
    fn start(fleet: &Fleet, bundles: &[Bundle]) -> Result<Self> {
        let path = fleet.path("crowd");
        let text: Vec<String> = bundles.iter().map(Bundle::to_text).collect();
        std::fs::write(&path, text.join("\0"))?;
        let mut child = Command::new("nice")
            .args(["-n", "19"])
            .arg(std::env::current_exe()?)
            .arg("--crowd")
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().context("standard input")?;
        let mut stdout = BufReader::new(child.stdout.take().context("standard output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        ensure!(line == "ready\n", "the crowd said {line:?}");
        Ok(Self {
            child,
            stdin,
            stdout: Some(stdout),
        })
    }

    /// Gives the word; the channel carries what came of it.
    fn go(&mut self) -> Result<watch::Receiver<Option<Result<Came, String>>>> {
        let mut stdout = self.stdout.take().context("one storm")?;
        let (sender, storm) = watch::channel(None);
        self.stdin.write_all(b"go\n")?;
        self.stdin.flush()?;
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = stdout.read_line(&mut line);
            let came = match read {
                Ok(_) => {
                    serde_json::from_str(&line).map_err(|error| format!("the crowd said {line:?}: {error}"))
                }
                Err(error) => Err(error.to_string()),
            };
            sender.send_replace(Some(came));
        });
        Ok(storm)
    }
}

impl Drop for CrowdProcess {
    fn drop(&mut self) {
        // Ours, not reaped yet, so the id is still its own.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The crowd's process: parse, say "ready", wait for "go", tell how they came, stay until killed.
fn crowd(path: &str) -> Result<()> {
    let text = std::fs::read_to_string(path)?;
    let bundles = text
        .split('\0')
        .map(Bundle::parse)
        .collect::<Result<Vec<_>, _>>()?;
    let runtime = runtime()?;
    let end = CancellationToken::new();
    let mut line = String::new();
    let ready = prepare(&bundles, config_of)?;
    println!("ready");
    std::io::stdin().read_line(&mut line)?;
    ensure!(line == "go\n", "no word");
    let _in_runtime = runtime.enter();
    let begun = Instant::now();
    let crowd = Crowd::launch(ready, bundles.len(), &end);
    let came = come_up(&crowd, begun)?;
    println!("{}", serde_json::to_string(&came)?);
    complain(&crowd);
    // Attached until the other side has seen enough.
    let _ = std::io::stdin().read_line(&mut line);
    Ok(())
}

/// Every agent is a machine of its own: 127.1.0.0 and on.
fn config_of(number: usize) -> DialConfig {
    let number = u32::try_from(number).unwrap_or_default();
    let source = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number);
    DialConfig {
        source: Some(IpAddr::V4(source)),
        ..DialConfig::default()
    }
}

/// Says to standard error why dials failed, by kind.
fn complain(crowd: &Crowd) {
    let mut kinds = std::collections::BTreeMap::<String, usize>::new();
    for agent in &crowd.agents {
        let text = agent.last_failure();
        // Addresses differ from agent to agent.
        let kind: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
        if !kind.is_empty() {
            *kinds.entry(kind).or_default() += 1;
        }
    }
    for (kind, agents) in kinds {
        eprintln!("{agents} agents failed before: {kind}");
    }
}

fn come_up(crowd: &Crowd, begun: Instant) -> Result<Came> {
    let mut missing: Vec<&hw_tests::agents::Agent> = crowd.agents.iter().collect();
    let mut times = Vec::with_capacity(missing.len());
    while !missing.is_empty() {
        ensure!(
            begun.elapsed() < PATIENCE,
            "{} agents starve: not attached after {PATIENCE:?}",
            missing.len()
        );
        std::thread::sleep(LOOK);
        let at = begun.elapsed().as_secs_f64();
        missing.retain(|agent| {
            let here = agent.commands() > 0;
            if here {
                times.push(at);
            }
            !here
        });
    }
    Ok(Came {
        first: percentile(&mut times, 0.0),
        half: percentile(&mut times, 0.5),
        last: percentile(&mut times, 1.0),
        failures: crowd.agents.iter().map(hw_tests::agents::Agent::failures).sum(),
        cpu: cpu_time(std::process::id())?.as_secs_f64(),
    })
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
    Ok(OrdersClient::new(channel))
}

/// Support, one press after the other.
struct Presser {
    support: OrdersClient<Channel>,
}

struct Numbers {
    presses: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    taken_p99_ms: f64,
}

impl Numbers {
    /// Of pairs: until the controller had taken it, until all had proven it.
    fn of(samples: &[(f64, f64)]) -> Self {
        let mut proven: Vec<f64> = samples.iter().map(|(_, proven)| *proven).collect();
        let mut taken: Vec<f64> = samples.iter().map(|(taken, _)| *taken).collect();
        Self {
            presses: samples.len(),
            p50_ms: percentile(&mut proven, 0.5),
            p99_ms: percentile(&mut proven, 0.99),
            max_ms: percentile(&mut proven, 1.0),
            taken_p99_ms: percentile(&mut taken, 0.99),
        }
    }

    fn show(&self, when: &str) {
        println!(
            "{when}: {} presses until proven on {RESIDENTS} nodes: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms; \
             until taken: p99 {:.1} ms",
            self.presses, self.p50_ms, self.p99_ms, self.max_ms, self.taken_p99_ms
        );
    }
}

impl Presser {
    async fn presses(&mut self, count: usize) -> Result<Numbers> {
        let mut samples = Vec::with_capacity(count);
        for number in 0..count + 2 {
            let sample = self.press(number).await?;
            // The first two warm up and do not count.
            if number > 1 {
                samples.push(sample);
            }
        }
        Ok(Numbers::of(&samples))
    }

    async fn presses_until(
        &mut self,
        mut storm: watch::Receiver<Option<Result<Came, String>>>,
    ) -> Result<(Numbers, Came)> {
        let mut samples = Vec::new();
        let mut number = 0;
        loop {
            let over = storm.borrow_and_update().clone();
            if let Some(came) = over {
                let came = came.map_err(anyhow::Error::msg)?;
                // No hold is left behind for those who come later.
                if number % 2 == 1 {
                    self.press(number).await?;
                }
                return Ok((Numbers::of(&samples), came));
            }
            samples.push(self.press(number).await?);
            number += 1;
        }
    }

    /// Milliseconds until the controller has taken it, and until every resident has proven it.
    async fn press(&mut self, number: usize) -> Result<(f64, f64)> {
        let wish = if number.is_multiple_of(2) {
            kill()
        } else {
            release()
        };
        let request = v1::PressRequest {
            idempotency_key: uuid::Uuid::new_v4().to_string(),
            reason: "benchmark".into(),
            evidence: String::new(),
            wish: Some(wish),
        };
        let begun = Instant::now();
        let reply = self.support.press(request).await?.into_inner();
        let taken = begun.elapsed();
        ensure!(reply.durable, "not durable: {}", reply.not_durable_reason);
        let id = reply.order.context("an order")?.id;
        let watch = v1::WatchOrderRequest {
            id,
            until_settled: true,
        };
        let mut events = self.support.watch(watch).await?.into_inner();
        let mut proven = std::collections::HashSet::new();
        while let Some(event) = events.next().await {
            let event = event?;
            let answered = event.changed.iter().filter(|result| result.answered_at_ms > 0);
            proven.extend(answered.map(|result| result.node.clone()));
            if event.last {
                break;
            }
        }
        let all = begun.elapsed();
        ensure!(proven.len() >= RESIDENTS, "{} nodes answered", proven.len());
        let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
        Ok((ms(taken), ms(all)))
    }
}

fn kill() -> Wish {
    Wish::Hold(v1::HoldWish {
        slice: SLICE.into(),
        scope: Some(v1::Scope {
            reach: Some(Reach::Site(SITE.into())),
        }),
        kind: v1::HoldKind::Suspend.into(),
    })
}

fn release() -> Wish {
    Wish::Release(v1::ReleaseWish {
        what: Some(What::Slice(SLICE.into())),
    })
}
