//! Makes the kill path survive a node that has run dry: no memory, no descriptors, no CPU.
//!
//! [`process`] once at start, before any thread; [`kill_thread`] on the thread that will kill. Each step says what was
//! got; none is fatal: a daemon that cannot lock its memory still kills, only less surely. Which scheduling to ask
//! for is decided apart from asking ([`choose_schedule`]).

use std::fs;
use std::hint::black_box;
use std::io;
use std::path::Path;

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::cgroup::Mount;
use crate::sys;

/// Heap that is grown, touched and kept.
pub const HEAP: usize = 16 << 20;
/// Stack of the kill thread that is touched: far more than the path needs.
const STACK: usize = 256 << 10;
/// Descriptors wanted: some ten for each sliver.
const DESCRIPTORS: u64 = 65_536;
/// Nice value where real-time scheduling cannot be had.
const NICE: i32 = -20;

/// How far something holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assurance {
    /// As wanted.
    Exact,
    /// Partly: the reason says how far.
    Bounded,
    /// Not at all.
    NotEnforced,
}

/// One preparation, and what was got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Stable name, `kill.memory`.
    pub name: &'static str,
    /// How far it holds.
    pub assurance: Assurance,
    /// What was got, or why not.
    pub reason: String,
}

impl Step {
    fn new(name: &'static str, assurance: Assurance, reason: impl Into<String>) -> Self {
        Self {
            name,
            assurance,
            reason: reason.into(),
        }
    }
}

impl From<Step> for proto::v1::Capability {
    fn from(step: Step) -> Self {
        let assurance = match step.assurance {
            Assurance::Exact => proto::v1::Assurance::Exact,
            Assurance::Bounded => proto::v1::Assurance::Bounded,
            Assurance::NotEnforced => proto::v1::Assurance::NotEnforced,
        };
        Self {
            name: step.name.to_owned(),
            assurance: assurance.into(),
            reason: step.reason,
        }
    }
}

/// Prepares the process. `proc_root` is `/proc`.
#[must_use]
pub fn process(proc_root: &Path) -> Vec<Step> {
    // Secrets last: files of a process that may not be looked into belong to root.
    vec![descriptors(), oom_score(proc_root), memory(), secrets()]
}

/// Prepares the calling thread: stack touched, scheduled before the slivers' processes.
#[must_use]
pub fn kill_thread(mount: &Mount, proc_root: &Path) -> Vec<Step> {
    touch_stack();
    vec![priority(&ScheduleFacts::probe(mount, proc_root))]
}

fn descriptors() -> Step {
    const NAME: &str = "kill.descriptors";
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(errno) => return Step::new(NAME, Assurance::NotEnforced, format!("getrlimit: {errno}")),
    };
    if soft >= DESCRIPTORS {
        return Step::new(NAME, Assurance::Exact, format!("{soft} descriptors"));
    }
    // Root may raise the hard limit; anybody else gets up to it.
    for wanted in [DESCRIPTORS, hard.min(DESCRIPTORS)] {
        if setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).is_ok() {
            let assurance = if wanted >= DESCRIPTORS {
                Assurance::Exact
            } else {
                Assurance::Bounded
            };
            return Step::new(NAME, assurance, format!("{wanted} descriptors"));
        }
    }
    Step::new(
        NAME,
        Assurance::NotEnforced,
        format!("{soft} descriptors, and the limit cannot be raised"),
    )
}

/// The key of this node is in memory: it is not dumped, and nobody of our own user reads it. What the daemon starts
/// inherits the limit; slivers are not started by it (see `exec`).
fn secrets() -> Step {
    const NAME: &str = "secrets.memory";
    let closed = setrlimit(Resource::RLIMIT_CORE, 0, 0).and_then(|()| nix::sys::prctl::set_dumpable(false));
    match closed {
        Ok(()) => Step::new(
            NAME,
            Assurance::Exact,
            "never dumped, and closed to other processes of the user",
        ),
        Err(errno) => Step::new(
            NAME,
            Assurance::NotEnforced,
            format!("core dumps stay possible: {errno}"),
        ),
    }
}

fn oom_score(proc_root: &Path) -> Step {
    const NAME: &str = "kill.oom";
    let path = proc_root.join("self/oom_score_adj");
    let written = fs::OpenOptions::new().write(true).create(false).open(&path);
    match written.and_then(|mut file| io::Write::write_all(&mut file, b"-1000")) {
        Ok(()) => Step::new(
            NAME,
            Assurance::Exact,
            "the kernel never picks this process when memory runs out",
        ),
        Err(error) => Step::new(
            NAME,
            Assurance::NotEnforced,
            format!("{}: {error}", path.display()),
        ),
    }
}

/// Grows the heap, makes the allocator keep it, then locks everything there is and will be.
fn memory() -> Step {
    const NAME: &str = "kill.memory";
    let kept = sys::keep_the_heap();
    grow_heap();
    match mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
        Ok(()) if kept => Step::new(
            NAME,
            Assurance::Exact,
            format!("locked, {} MiB of heap in reserve", HEAP >> 20),
        ),
        Ok(()) => Step::new(
            NAME,
            Assurance::Bounded,
            "locked, but the allocator may give heap back",
        ),
        Err(errno) => Step::new(NAME, Assurance::NotEnforced, format!("mlockall: {errno}")),
    }
}

/// In pieces, so that no single free block of that size is needed, and every page written once.
fn grow_heap() {
    const PIECE: usize = 64 << 10;
    let mut pieces: Vec<Vec<u8>> = Vec::with_capacity(HEAP / PIECE);
    for _ in 0..HEAP / PIECE {
        let mut piece = vec![0_u8; PIECE];
        for page in piece.chunks_mut(4096) {
            page[0] = 1;
        }
        pieces.push(black_box(piece));
    }
}

#[inline(never)]
fn touch_stack() {
    let mut stack = [0_u8; STACK];
    for page in stack.chunks_mut(4096) {
        page[0] = 1;
    }
    black_box(&stack);
}

/// What decides between real-time scheduling and niceness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduleFacts {
    /// The kernel was built with CONFIG_RT_GROUP_SCHED. None: could not tell.
    pub rt_groups: Option<bool>,
    /// The v2 hierarchy has the cpu controller, enabled or not (on hybrid hosts v1 has it).
    pub v2_cpu: bool,
    /// This process lives in the root of cgroup2.
    pub in_root: bool,
}

impl ScheduleFacts {
    fn probe(mount: &Mount, proc_root: &Path) -> Self {
        let home = fs::read(proc_root.join("self/cgroup"))
            .ok()
            .and_then(|text| crate::procfs::home_of(&text));
        Self {
            rt_groups: rt_groups(mount),
            v2_cpu: mount.facts().controllers.contains("cpu"),
            in_root: home.is_some_and(|home| home.as_os_str().is_empty()),
        }
    }
}

/// v1 shows it as a file; otherwise the configuration that Debian and others leave in /boot.
fn rt_groups(mount: &Mount) -> Option<bool> {
    if mount
        .v1()
        .iter()
        .any(|point| point.join("cpu.rt_runtime_us").exists())
    {
        return Some(true);
    }
    let release = nix::sys::utsname::uname().ok()?;
    let configuration = fs::read_to_string(format!("/boot/config-{}", release.release().to_str()?)).ok()?;
    Some(
        configuration
            .lines()
            .any(|line| line == "CONFIG_RT_GROUP_SCHED=y"),
    )
}

/// How the kill thread is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// SCHED_FIFO at its lowest priority: before everything ordinary, after everything real-time.
    Fifo,
    /// An ordinary thread, as nice to itself as can be.
    Nice(&'static str),
}

/// A real-time thread outside the root cgroup keeps a kernel with RT_GROUP_SCHED from ever enabling the v2 cpu
/// controller, for everybody. Not being able to tell counts as such a kernel.
#[must_use]
pub fn choose_schedule(facts: &ScheduleFacts) -> Schedule {
    match facts {
        ScheduleFacts {
            rt_groups: Some(false),
            ..
        }
        | ScheduleFacts { in_root: true, .. }
        | ScheduleFacts { v2_cpu: false, .. } => Schedule::Fifo,
        ScheduleFacts {
            rt_groups: Some(true),
            ..
        } => Schedule::Nice("a real-time thread here would block the cpu controller (RT_GROUP_SCHED)"),
        ScheduleFacts { rt_groups: None, .. } => Schedule::Nice(
            "cannot tell whether a real-time thread would block the cpu controller (RT_GROUP_SCHED)",
        ),
    }
}

fn priority(facts: &ScheduleFacts) -> Step {
    const NAME: &str = "kill.priority";
    let why = match choose_schedule(facts) {
        Schedule::Fifo => match sys::schedule_fifo().and_then(|()| sys::schedule()) {
            Ok(libc::SCHED_FIFO) => return Step::new(NAME, Assurance::Exact, "SCHED_FIFO, priority 1"),
            Ok(other) => format!("policy is {other} after SCHED_FIFO was set"),
            Err(error) => format!("SCHED_FIFO: {error}"),
        },
        Schedule::Nice(why) => why.to_owned(),
    };
    match sys::nice(NICE) {
        Ok(()) => Step::new(NAME, Assurance::Bounded, format!("nice {NICE}: {why}")),
        Err(error) => Step::new(
            NAME,
            Assurance::NotEnforced,
            format!("{why}; nice {NICE}: {error}"),
        ),
    }
}

/// Descriptors kept back, so that what wants to read a little can do so when none is left.
#[derive(Debug)]
pub struct Spare {
    wanted: usize,
    kept: Vec<fs::File>,
}

impl Spare {
    /// Keeps `count` descriptors.
    #[must_use]
    pub fn keep(count: usize) -> Self {
        let mut spare = Self {
            wanted: count,
            kept: Vec::with_capacity(count),
        };
        spare.refill();
        spare
    }

    /// How many are kept now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.kept.len()
    }

    /// Gives them up for now.
    pub fn release(&mut self) {
        self.kept.clear();
    }

    /// Takes them again, as far as there are any.
    pub fn refill(&mut self) {
        while self.kept.len() < self.wanted {
            match fs::File::open("/dev/null") {
                Ok(file) => self.kept.push(file),
                Err(_) => break,
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
