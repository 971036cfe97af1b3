//! The node: what holds say, made so.
//!
//! ```text
//!  agent (orders) ─┐            ┌──▶ Writer        the hold to disk          (thread "state-writer")
//!                  ├─▶ Core ────┤
//!  exec (starts) ──┘   lock     └──▶ Kills         freeze, kill, thaw        (threads "kill-0" …)
//!                       ▲
//!  Watcher ─────────────┘   cgroups that appear, respawns, second proofs     (thread "watcher")
//! ```
//!
//! The core's lock orders everything: an order changes the set, hands the bytes to the writer and the slivers to a
//! kill thread under it, and a start is checked and moved into its cgroup under it. Nobody waits for disk or for a
//! death while holding it. Both then run at once, and the answer comes after both.
//!
//! Every subtree has a turn of its own: two jobs about one sliver follow each other, and whoever is last looks at
//! the holds as they stand then. So a release that overtakes a kill still ends thawed, and never the reverse.
//! All threads exist from the start.

mod answers;
mod core;
mod direct;
mod kills;
mod lockfile;
mod orders;
mod proofs;
mod start;
mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use proto::{BootId, NodeId, v1};
use tokio::sync::{broadcast, watch as signal};

use self::core::Core;
use self::kills::Kills;
use self::lockfile::DirLock;
use self::proofs::Proofs;
use self::watch::Wake;
use crate::cgroup::{Mount, MountError, Tree, TreeError};
use crate::config::Config;
use crate::guard::{Guard, GuardError};
use crate::heads::{self, Heads};
use crate::holds::writer::Writer;
use crate::holds::{Verdict, file};
use crate::kill::Plan;
use crate::prepare;
use crate::restart::Restarter;

pub(crate) use self::core::Subtree;
pub(crate) use self::direct::Begun;
pub use self::orders::Reply;
pub(crate) use self::start::{NotStarted, in_one_line};

/// Why a node manager cannot start. Anything less is reported and lived with.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no cgroup2.
    #[error("no cgroup2 to work in")]
    Mount(#[from] MountError),
    /// It cannot be told what must be spared.
    #[error("cannot record which cgroups must be spared")]
    Guard(#[from] GuardError),
    /// The slivers' root is unusable.
    #[error("the slivers' root is unusable")]
    Tree(#[from] TreeError),
    /// Another node manager works here, or the directory is unusable.
    #[error("state directory {path}: {source}", path = path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// What the kernel said, or who holds it.
        source: io::Error,
    },
    /// A thread or a descriptor that is needed from the start.
    #[error("cannot prepare {what}: {source}")]
    Prepare {
        /// What.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Who this boot is.
    #[error("cannot read the boot id: {0}")]
    BootId(String),
}

/// What a node manager is made from.
pub struct Setup {
    /// The configuration.
    pub config: Config,
    /// Who this node is.
    pub node: NodeId,
    /// What [`prepare::process`] gave, if it was called; reported.
    pub prepared: Vec<prepare::Step>,
    /// How reboot and halt orders are carried out.
    pub restarter: Box<dyn Restarter>,
}

/// A running node manager, without a link. [`crate::Agent`] speaks for it.
pub struct Node {
    pub(crate) id: NodeId,
    pub(crate) config: Config,
    pub(crate) mount: Mount,
    pub(crate) tree: Tree,
    pub(crate) guard: Guard,
    pub(crate) boot_id: BootId,
    pub(crate) restarter: Box<dyn Restarter>,
    pub(crate) capabilities: Vec<v1::Capability>,
    pub(crate) writer: Writer,
    core: Mutex<Core>,
    heads: Mutex<Heads>,
    kills: Kills,
    proofs: Mutex<Proofs>,
    changed: signal::Sender<u64>,
    /// Second answers, for whoever pressed here.
    second: broadcast::Sender<v1::Answer>,
    alive: signal::Sender<Instant>,
    wake: Wake,
    _only_one: DirLock,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

const PROC: &str = "/proc";
/// Second answers that a reader may be behind.
const SECOND_ANSWERS: usize = 256;

impl Node {
    /// Reads the state, makes what is there obey it, and only then returns: nothing may be adopted or started before
    /// the holds are in force.
    ///
    /// # Errors
    /// When there is nothing to work with. A state that is corrupt or cannot be written is no such case.
    pub fn start(setup: Setup) -> Result<Arc<Self>, StartError> {
        let Setup {
            config,
            node,
            prepared,
            restarter,
        } = setup;
        let proc_root = Path::new(PROC);
        let mount = match &config.cgroup_mount {
            Some(root) => Mount::at(root)?,
            None => Mount::discover(&proc_root.join("self/mountinfo"))?,
        };
        let tree = Tree::new(&mount, Path::new(&config.slivers_root))?;
        let protect: Vec<PathBuf> = config.protect.iter().map(PathBuf::from).collect();
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let guard = Guard::record(&mount, proc_root, own, &protect)?;
        let boot_id = read_boot_id(proc_root)?;

        let state_dir = |source| StartError::StateDir {
            path: config.state_dir.clone(),
            source,
        };
        let only_one = DirLock::take(&config.state_dir).map_err(state_dir)?;
        let salt = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let loaded = file::load(&config.state_dir, config.state_bytes, salt);
        if let Some(note) = &loaded.note {
            tracing::warn!(%note, "state file");
        }
        if !loaded.state.locked.is_empty() {
            tracing::error!(why = %loaded.state.locked, "nothing may start until the controller has sent every hold");
        }

        let needed = |what| move |source| StartError::Prepare { what, source };
        let writer = Writer::start(config.state_dir.clone(), config.state_bytes, loaded.file, || {
            drop(crate::sys::nice(-20))
        })
        .map_err(needed("the thread that writes the state"))?;
        let (kills, steps) = Kills::start(&mount, proc_root).map_err(needed("the kill threads"))?;
        let (wake, watching) = Wake::new().map_err(needed("the watcher"))?;
        let mut capabilities: Vec<v1::Capability> = Vec::new();
        capabilities.extend(crate::report::kernel_capabilities(mount.facts()));
        capabilities.extend(prepared.into_iter().chain(steps).map(Into::into));

        let node = Arc::new(Self {
            id: node,
            mount,
            tree,
            guard,
            boot_id,
            restarter,
            capabilities,
            writer,
            core: Mutex::new(Core::new(loaded.state)),
            heads: Mutex::new(Heads::load(&config.state_dir)),
            kills,
            proofs: Mutex::default(),
            changed: signal::Sender::new(0),
            second: broadcast::Sender::new(SECOND_ANSWERS),
            alive: signal::Sender::new(Instant::now()),
            wake,
            config,
            _only_one: only_one,
        });
        node.refresh();
        node.obey_at_boot();
        watching.run(&node).map_err(needed("the watcher thread"))?;
        Ok(node)
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn proofs(&self) -> MutexGuard<'_, Proofs> {
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heads(&self) -> MutexGuard<'_, Heads> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen of the controller's audit.
    pub(crate) fn witnessed(&self) -> v1::Witnessed {
        self.heads().witnessed()
    }

    /// Keeps a head of the controller's audit. Blocks while the disk writes: never on a kill's way.
    pub(crate) fn witness(&self, statement: v1::SignedStatement) {
        if let Err(error) = heads::hear(&self.heads, statement) {
            let why = start::in_one_line(&error);
            tracing::warn!(%why, "an audit head is not kept");
        }
    }

    /// Whose signatures count from now on.
    pub fn trust_roots(&self, roots: trust::Roots) {
        self.heads().trust(roots);
    }

    fn plan(&self) -> Plan {
        let times = self.config.kill;
        Plan {
            evidence: !times.evidence.is_zero(),
            census: true,
            freeze: times.freeze,
            evidence_for: times.evidence,
            kill: times.populated,
        }
    }

    /// Looks for work that came from outside: tells everybody who watches that something changed.
    pub(crate) fn touch(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Changes when a sliver changes its state.
    pub(crate) fn changes(&self) -> signal::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether the loop that enforces the holds goes round and no kill thread hangs: what the watchdog is fed by.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.alive.borrow().elapsed() < Duration::from_secs(15)
            && self.kills.longest_job() < Duration::from_secs(120)
    }

    /// Applies the holds to what exists, without any order: at boot, before anything else may happen. With a locked
    /// state some holds are not known, so what runs without a known one is left alone, and nothing may start.
    fn obey_at_boot(self: &Arc<Self>) {
        let work = {
            let mut core = self.core();
            core.forget_gone();
            core.sort_by_verdict()
        };
        let jobs = self.converge(work);
        // On a thread of its own: whoever starts a node may be inside a runtime, where nothing may block.
        let proofs = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                jobs.into_iter()
                    .filter_map(|job| job.blocking_recv().ok())
                    .flat_map(|done| done.proofs)
                    .collect()
            });
            waiting.join().unwrap_or_else(|_| Vec::new())
        });
        for proof in proofs {
            tracing::warn!(slice = proof.slice, cgroup = proof.cgroup, outcome = ?proof.outcome(), "held at boot");
        }
    }

    /// What the holds say of a slice now.
    #[must_use]
    pub fn verdict(&self, slice: &proto::SliceName) -> Verdict {
        self.core().state.holds.verdict(slice)
    }

    /// Why nothing may start; empty when things may.
    #[must_use]
    pub fn locked(&self) -> String {
        self.core().state.locked.clone()
    }
}

fn read_boot_id(proc_root: &Path) -> Result<BootId, StartError> {
    let path = proc_root.join("sys/kernel/random/boot_id");
    let text =
        std::fs::read_to_string(&path).map_err(|e| StartError::BootId(format!("{}: {e}", path.display())))?;
    text.trim()
        .parse()
        .map_err(|e: proto::IdError| StartError::BootId(e.to_string()))
}
