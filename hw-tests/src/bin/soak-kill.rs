//! `cargo xtask soak kill`: thousands of presses on a simulated fleet while the controller is killed with -9 and nodes
//! lose their power, at random.
//!
//! What must be true whenever everybody has been left alone for a moment:
//! - a press that was acknowledged as durable was not forgotten: the controller's holds are those of our own books;
//! - every node holds exactly what the controller says, no more and no less.
//!
//! A press that was cut down by the controller's death is pressed again with its key, as a person would. One seed
//! gives one order of events (not their timing): it is in the first line. The last is `soak-kill: key=number …`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hw_tests::agents::{Agent, Crowd, enrol};
use hw_tests::fleet::{Fleet, program, wait_for};
use link::{Backoff, DialConfig};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

const SLICES: usize = 8;
/// Between two steps: a button, not a load generator.
const PACE: Duration = Duration::from_millis(50);
/// Steps between two checks.
const CHECK_EVERY: u64 = 100;
/// A press is sent again this often at most.
const AGAIN: usize = 50;

struct Options {
    minutes: u64,
    steps: u64,
    nodes: u32,
    seed: u64,
}

impl Options {
    fn parse(words: &[String]) -> Result<Self> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let mut options = Self {
            minutes: 60,
            steps: u64::MAX,
            nodes: 100,
            seed: now.as_secs(),
        };
        for pair in words.chunks(2) {
            let [key, value] = pair else {
                bail!("{} needs a number", pair[0]);
            };
            let number: u64 = value.parse().with_context(|| format!("{key} {value}"))?;
            match key.as_str() {
                "--minutes" => options.minutes = number,
                "--steps" => options.steps = number,
                "--nodes" => options.nodes = u32::try_from(number)?,
                "--seed" => options.seed = number,
                _ => bail!("{key}: there are --minutes, --steps, --nodes and --seed"),
            }
        }
        ensure!(options.nodes > 0, "--nodes 0: a fleet has nodes");
        Ok(options)
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let options = match Options::parse(&words) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("soak-kill: {error:#}");
            return ExitCode::from(64);
        }
    };
    match soak(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak-kill: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn soak(options: &Options) -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let fleet = Fleet::start_with("[log]\nfilter = \"warn\"\n")?;
    fleet.site("soak")?;
    for number in 0..SLICES {
        fleet.slice(&slice(number))?;
    }
    let config = DialConfig {
        // Back soon: half of what happens here is coming back.
        backoff: Backoff {
            base: Duration::from_millis(100),
            cap: Duration::from_secs(1),
        },
        ..DialConfig::default()
    };
    let end = CancellationToken::new();
    let agents = runtime.block_on(async {
        let bundles = enrol(&fleet.state(), "node", "soak", options.nodes, &fleet.daemons()).await?;
        let crowd = Crowd::start(&bundles, 16, config, &end)?;
        crowd.all_attached().await?;
        anyhow::Ok(crowd.agents)
    })?;
    println!("seed {}, {} nodes, {SLICES} slices", options.seed, agents.len());
    let mut soak = Soak {
        fleet,
        agents,
        random: Random(options.seed),
        books: BTreeMap::new(),
        counts: Counts::default(),
        begun: Instant::now(),
    };
    let done = soak.go_on(options);
    if done.is_err() {
        println!(
            "{}",
            std::fs::read_to_string(soak.fleet.path("controller.log")).unwrap_or_default()
        );
    }
    end.cancel();
    done
}

fn slice(number: usize) -> String {
    format!("soak_s{number}")
}

#[derive(Default)]
struct Counts {
    steps: u64,
    presses: u64,
    pressed_again: u64,
    controller_kills: u64,
    power_cycles: u64,
    checks: u64,
}

struct Soak {
    fleet: Fleet,
    agents: Vec<Agent>,
    random: Random,
    /// Holds that were acknowledged and not released since, by slice.
    books: BTreeMap<String, BTreeSet<String>>,
    counts: Counts,
    begun: Instant,
}

impl Soak {
    fn go_on(&mut self, options: &Options) -> Result<()> {
        let until = self.begun + Duration::from_secs(60 * options.minutes);
        let mut told = self.begun;
        while Instant::now() < until && self.counts.steps < options.steps {
            self.step()?;
            self.counts.steps += 1;
            if self.counts.steps.is_multiple_of(CHECK_EVERY) {
                self.check()?;
            }
            if told.elapsed() > Duration::from_secs(60) {
                told = Instant::now();
                println!("{}", self.sum());
            }
            std::thread::park_timeout(PACE);
        }
        self.check()?;
        ensure!(self.counts.presses > 0, "nothing was pressed");
        println!("{}", self.sum());
        Ok(())
    }

    fn sum(&self) -> String {
        let Counts {
            steps,
            presses,
            pressed_again,
            controller_kills,
            power_cycles,
            checks,
        } = self.counts;
        let holds: usize = self.books.values().map(BTreeSet::len).sum();
        format!(
            "soak-kill: seconds={} steps={steps} presses={presses} pressed_again={pressed_again} \
             controller_kills={controller_kills} power_cycles={power_cycles} checks={checks} holds={holds}",
            self.begun.elapsed().as_secs()
        )
    }

    fn step(&mut self) -> Result<()> {
        match self.random.below(100) {
            0..70 => self.press(false),
            70..85 => self.press(true),
            _ => {
                for _ in 0..=self.random.below(10) {
                    let index = self.random.below(self.agents.len() as u64) as usize;
                    self.agents[index].power_cycle();
                    self.counts.power_cycles += 1;
                }
                Ok(())
            }
        }
    }

    /// One press, by one key, until it is acknowledged; the controller dies in its midst or not.
    fn press(&mut self, deadly: bool) -> Result<()> {
        let slice = slice(self.random.below(SLICES as u64) as usize);
        let node = self.agents[self.random.below(self.agents.len() as u64) as usize].name();
        let (verb, on): (&str, &[&str]) = match self.random.below(10) {
            0..4 => ("kill", &[]),
            4..6 => ("kill", &["--node", node]),
            6 => ("freeze", &[]),
            _ => ("release", &[]),
        };
        let key = format!("soak-{}", self.counts.steps);
        let words = [
            &[
                "--json",
                "--no-wait",
                "--timeout",
                "5",
                "slice",
                verb,
                &slice,
                "--reason",
                "soak",
                "--key",
                &key,
            ],
            on,
        ]
        .concat();
        let mut pressing = Some(self.redbutton(&words)?);
        if deadly {
            // Anywhere from before it is heard to after it is answered.
            std::thread::park_timeout(Duration::from_millis(self.random.below(60)));
            self.fleet.kill_controller();
            self.counts.controller_kills += 1;
            self.fleet.start_controller()?;
        }
        for _ in 0..AGAIN {
            let child = match pressing.take() {
                Some(child) => child,
                None => {
                    self.counts.pressed_again += 1;
                    self.redbutton(&words)?
                }
            };
            let output = child.wait_with_output()?;
            let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if said["durable"] == true && said["order"]["id"].is_string() {
                self.counts.presses += 1;
                return self.note(verb, &slice, &said);
            }
            let error: Value = serde_json::from_slice(output.stderr.trim_ascii()).unwrap_or_default();
            let nothing = [&said, &error]
                .iter()
                .any(|said| said["error"]["code"] == "not-found");
            if nothing && verb == "release" {
                let booked = self.books.get(&slice).is_some_and(|holds| !holds.is_empty());
                ensure!(!booked, "nothing to release on {slice}: its holds were forgotten");
                return Ok(());
            }
            ensure!(
                deadly,
                "refused while the controller lives: {} {}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        bail!("{verb} {slice} was not acknowledged, pressed {AGAIN} times");
    }

    fn redbutton(&self, words: &[&str]) -> Result<Child> {
        Command::new(program("redbutton")?)
            .env("REDBUTTON_BUNDLE", self.fleet.bundle("alice"))
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("redbutton")
    }

    fn note(&mut self, verb: &str, slice: &str, said: &Value) -> Result<()> {
        let holds = self.books.entry(slice.to_owned()).or_default();
        if verb == "release" {
            holds.clear();
            return Ok(());
        }
        let ids = ids(&said["order"]["holds"]);
        ensure!(!ids.is_empty(), "{verb} {slice} made no hold: {said}");
        holds.extend(ids);
        Ok(())
    }

    /// Leaves everybody alone until all agree, and fails when they never do.
    fn check(&mut self) -> Result<()> {
        let mut owed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for number in 0..SLICES {
            let slice = slice(number);
            let (_, said) = self.fleet.json("alice", &["slice", "holds", &slice])?;
            let known = ids(&said["holds"]);
            let booked = self.books.get(&slice).cloned().unwrap_or_default();
            ensure!(
                known == booked,
                "{slice}: acknowledged and forgotten {:?}, there and not acknowledged {:?}",
                booked.difference(&known),
                known.difference(&booked)
            );
            for hold in said["holds"].as_array().into_iter().flatten() {
                let id = hold["id"].as_str().context("a hold's id")?.to_owned();
                let node = hold["scope"]["node"].as_str().map(str::to_owned);
                owed.entry(node.unwrap_or_default()).or_default().insert(id);
            }
        }
        let everywhere = owed.remove("").unwrap_or_default();
        let mut odd = Vec::new();
        let agreed = wait_for(
            "every node is attached and holds what the controller says",
            || {
                odd.clear();
                for agent in &self.agents {
                    let mut wanted = everywhere.clone();
                    wanted.extend(owed.get(&agent.node().to_string()).into_iter().flatten().cloned());
                    let has: BTreeSet<String> = agent.holds().into_iter().collect();
                    if !agent.is_attached() || has != wanted {
                        odd.push(format!(
                            "{} (attached: {}): misses {:?}, has beyond {:?}",
                            agent.name(),
                            agent.is_attached(),
                            wanted.difference(&has),
                            has.difference(&wanted)
                        ));
                    }
                }
                odd.is_empty().then_some(())
            },
        );
        agreed.with_context(|| odd.join("\n"))?;
        self.counts.checks += 1;
        Ok(())
    }
}

fn ids(holds: &Value) -> BTreeSet<String> {
    let holds = holds.as_array().into_iter().flatten();
    holds
        .filter_map(|hold| hold["id"].as_str().map(str::to_owned))
        .collect()
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
