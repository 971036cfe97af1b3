//! `cargo xtask bench kill-local`: one node kills a slice of 1,000 and of 10,000 processes.
//!
//! Ours: a command handed to the node manager's engine as the link would hand it over, until dead and durable (the
//! stamps in its answer; the answer itself, with the zombies counted, is in a column of its own). Peer: a bare write to cgroup.kill, the wait for `populated 0`, then the same fsync. In turn,
//! A B A B; the ratio is the median of the pairs, and the worse of the two sizes counts. Evidence is left out
//! of the ratio (PERFORMANCE.md) and measured apart.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hw_tests::measure::median;
use hw_tests::sleepers::{become_crowd, start_crowd};
use nix::poll::{PollFd, PollFlags, poll};
use nodemgr::cgroup::{Mount, Tree};
use nodemgr::config::Restart;
use nodemgr::{Config, Node, Setup, prepare, restart};
use proto::v1::{self, command::Action};
use proto::{Hold, HoldId, HoldKind, NodeId, OrderId, Role, Scope, SliceName, Version};

const SIZES: [(u32, usize); 2] = [(1_000, 15), (10_000, 7)];
const EVIDENCE_ROUNDS: usize = 3;
/// What the node writes for one hold, rounded up to a block.
const RECORD: usize = 4_096;

struct Numbers {
    processes: u32,
    ratio: f64,
    p50_ms: f64,
    answered_ms: f64,
    bare_ms: f64,
    evidence_ms: f64,
    fsync_ms: f64,
}

fn main() -> Result<()> {
    become_crowd();
    let prepared = prepare::process(Path::new("/proc"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut all = Vec::new();
    println!(
        "{:>9} {:>10} {:>10} {:>7} {:>12} {:>12} {:>9}",
        "processes", "ours ms", "bare ms", "ratio", "answered ms", "evidence ms", "fsync ms"
    );
    let mut prepared = Some(prepared);
    for (processes, rounds) in SIZES {
        let numbers = runtime.block_on(size(processes, rounds, prepared.take().unwrap_or_default()))?;
        println!(
            "{processes:>9} {:>10.2} {:>10.2} {:>7.3} {:>12.2} {:>12.2} {:>9.2}",
            numbers.p50_ms,
            numbers.bare_ms,
            numbers.ratio,
            numbers.answered_ms,
            numbers.evidence_ms,
            numbers.fsync_ms
        );
        all.push(numbers);
    }
    let worst = all
        .iter()
        .max_by(|a, b| a.ratio.total_cmp(&b.ratio))
        .context("no size was measured")?;
    println!(
        "kill-local: ratio={:.3} p50_ms={:.2} evidence_ms={:.2} fsync_ms={:.2} processes={}",
        worst.ratio, worst.p50_ms, worst.evidence_ms, worst.fsync_ms, worst.processes
    );
    Ok(())
}

async fn size(processes: u32, rounds: usize, prepared: Vec<prepare::Step>) -> Result<Numbers> {
    let bench = Bench::start(prepared, Duration::ZERO)?;
    let (mut ours, mut answered, mut bare, mut ratios, mut fsyncs) = (vec![], vec![], vec![], vec![], vec![]);
    // The first pair warms both up and does not count.
    for round in 0..=rounds {
        let mine = bench.kill(processes).await?;
        let (theirs, fsync) = bench.bare_kill(processes)?;
        if round > 0 {
            ours.push(mine.done);
            answered.push(mine.answered);
            bare.push(theirs);
            ratios.push(mine.done / theirs);
            fsyncs.push(fsync);
        }
    }
    drop(bench);
    let bench = Bench::start(Vec::new(), Duration::from_millis(200))?;
    let mut evidence = vec![];
    for _ in 0..EVIDENCE_ROUNDS {
        evidence.push(bench.kill(processes).await?.evidence);
    }
    Ok(Numbers {
        processes,
        ratio: median(&mut ratios),
        p50_ms: median(&mut ours),
        answered_ms: median(&mut answered),
        bare_ms: median(&mut bare),
        evidence_ms: median(&mut evidence),
        fsync_ms: median(&mut fsyncs),
    })
}

struct Killed {
    /// From the order's arrival until dead and durable, milliseconds.
    done: f64,
    /// Until the answer, which has the zombies counted, was there.
    answered: f64,
    evidence: f64,
}

struct Bench {
    node: Arc<Node>,
    slice: SliceName,
    sliver: PathBuf,
    other: PathBuf,
    tree: Tree,
    state: tempfile::TempDir,
}

impl Bench {
    fn start(prepared: Vec<prepare::Step>, evidence: Duration) -> Result<Self> {
        let mount = Mount::discover(Path::new("/proc/self/mountinfo"))?;
        static ROOTS: AtomicU32 = AtomicU32::new(0);
        let root = format!(
            "redbutton-bench-{}-{}",
            std::process::id(),
            ROOTS.fetch_add(1, Ordering::Relaxed)
        );
        let slice: SliceName = "bench_crowd".parse()?;
        let other: SliceName = "bench_bare".parse()?;
        let tree = Tree::new(&mount, Path::new(&root))?;
        // Both exist before the node starts, which takes over what it finds.
        tree.make(&slice)?;
        tree.make(&other)?;
        let state = tempfile::tempdir()?;
        let mut config = Config {
            state_dir: state.path().join("nodemgr"),
            socket: state.path().join("sock"),
            slivers_root: root,
            ..Config::default()
        };
        config.kill.evidence = evidence;
        config.kill.populated = Duration::from_secs(30);
        std::fs::create_dir_all(&config.state_dir)?;
        let place = |slice: &SliceName| mount.root().join(tree.path(slice));
        let (sliver, other) = (place(&slice), place(&other));
        let restarter = restart::restarter(Restart::None);
        let node = Node::start(Setup {
            config,
            node: NodeId::random(),
            prepared,
            restarter,
        })?;
        Ok(Self {
            node,
            slice,
            sliver,
            other,
            tree,
            state,
        })
    }

    /// A press as it arrives, until dead and durable.
    async fn kill(&self, processes: u32) -> Result<Killed> {
        let mut crowd = start_crowd(&self.sliver, processes)?;
        let hold = HoldId::new();
        let command = self.command(Action::Impose(v1::Hold::from(Hold {
            id: hold,
            slice: Some(self.slice.clone()),
            scope: Scope::Fleet,
            kind: HoldKind::Suspend,
            holder: "alice".parse()?,
            role: Role::Support,
            reason: "benchmark".into(),
            evidence: String::new(),
            set_at_ms: 0,
            version: Version {
                incarnation: 1,
                epoch: 1,
            },
        })));
        let begun = Instant::now();
        let answer = self.node.take(command).await.answer;
        let answered = ms(begun.elapsed());
        crowd.wait()?;
        ensure!(answer.durable, "not durable: {}", answer.detail);
        ensure!(
            answer.outcome() == v1::Outcome::Killed,
            "outcome {:?}: {}",
            answer.outcome(),
            answer.detail
        );
        let evidence = answer
            .slivers
            .first()
            .map_or(0.0, |sliver| ms(Duration::from_micros(sliver.evidence_us)));
        let released = self
            .node
            .take(self.command(Action::Release(hold.to_string())))
            .await
            .answer;
        ensure!(
            released.outcome() == v1::Outcome::Released,
            "not released: {}",
            released.detail
        );
        // The node's own stamps: the answer itself comes a little later, with the zombies counted.
        let done = ms(Duration::from_micros(answer.dead_us.max(answer.durable_us)));
        Ok(Killed {
            done,
            answered,
            evidence,
        })
    }

    fn command(&self, action: Action) -> v1::Command {
        let version = Some(
            Version {
                incarnation: 1,
                epoch: 1,
            }
            .into(),
        );
        v1::Command {
            now: version,
            order: OrderId::new().to_string(),
            given: version,
            action: Some(action),
            ..v1::Command::default()
        }
    }

    /// What a shell would do, without the shell: milliseconds in all, and of the fsync alone.
    fn bare_kill(&self, processes: u32) -> Result<(f64, f64)> {
        let mut record = preallocated(&self.state.path().join("bare"))?;
        let mut crowd = start_crowd(&self.other, processes)?;
        let mut kill = OpenOptions::new()
            .write(true)
            .open(self.other.join("cgroup.kill"))?;
        let mut events = File::open(self.other.join("cgroup.events"))?;
        let begun = Instant::now();
        kill.write_all(b"1")?;
        wait_empty(&mut events)?;
        let dead = Instant::now();
        record.seek(SeekFrom::Start(0))?;
        record.write_all(&[7; RECORD])?;
        record.sync_data()?;
        let (total, fsync) = (ms(begun.elapsed()), ms(dead.elapsed()));
        crowd.wait()?;
        Ok((total, fsync))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for folder in [&self.sliver, &self.other] {
            let _ = std::fs::write(folder.join("cgroup.kill"), "1");
            let _ = std::fs::remove_dir(folder);
        }
        let _ = self.tree.remove_root();
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

fn preallocated(path: &Path) -> Result<File> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(path)?;
    file.write_all(&[0; RECORD])?;
    file.sync_all()?;
    Ok(file)
}

fn wait_empty(events: &mut File) -> Result<()> {
    let mut text = String::new();
    loop {
        text.clear();
        events.seek(SeekFrom::Start(0))?;
        events.read_to_string(&mut text)?;
        if text.lines().any(|line| line == "populated 0") {
            return Ok(());
        }
        let mut waiting = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        ensure!(poll(&mut waiting, 30_000u16)? > 0, "not empty after 30 s");
    }
}
