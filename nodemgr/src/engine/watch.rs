//! The loop that sees what nobody told us: cgroups that appear, processes that come back, slivers that change. It wakes
//! by inotify where a cgroup may appear, and every second anyway.
//!
//! It has a kill engine of its own, so that a respawning manager never takes a thread from the orders.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::core::Subtree;
use super::{Node, Verdict};
use crate::adopt;
use crate::cgroup::{self, Sliver};
use crate::guard::Refusal;
use crate::kill::{Engine, Outcome, Plan};

/// How long nothing needs to happen before we look all the same.
const IDLE: u16 = 1_000;
/// The same while a proof is outstanding.
const WATCHFUL: u16 = 100;
/// How long the watcher waits for what it kills; then it goes on and comes back later.
const QUICK: Duration = Duration::from_millis(500);
/// How long a subtree that would not die is left alone.
const REST: Duration = Duration::from_secs(10);
/// Its niceness: before everything ordinary.
const FIRST: i32 = -20;
/// At least so long between two looks, however much happens.
const BREATH: Duration = Duration::from_millis(5);
/// Refused cgroups that are shown.
const REFUSED_SHOWN: usize = 256;

/// Wakes the loop.
#[derive(Debug)]
pub(super) struct Wake(Arc<EventFd>);

/// The loop, before it runs.
pub(super) struct Watcher {
    wake: Arc<EventFd>,
    inotify: Inotify,
    engine: Engine,
}

impl Wake {
    /// Makes everything that the loop will need.
    pub(super) fn new() -> io::Result<(Self, Watcher)> {
        let wake = Arc::new(EventFd::from_flags(
            EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
        )?);
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let engine = Engine::new(Path::new(super::PROC))?;
        Ok((
            Self(wake.clone()),
            Watcher {
                wake,
                inotify,
                engine,
            },
        ))
    }

    /// Makes the loop go round now.
    pub(super) fn now(&self) {
        // Full means that it is awake already.
        let _ = self.0.write(1);
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        self.now();
    }
}

impl Watcher {
    pub(super) fn run(mut self, node: &Arc<Node>) -> io::Result<()> {
        let weak = Arc::downgrade(node);
        std::thread::Builder::new()
            .name("watcher".into())
            .stack_size(crate::worker::STACK)
            .spawn(move || {
                // Nice, not real-time: what it has to look at is as much as others like to make.
                let _ = crate::sys::nice(FIRST);
                let mut seen = Fingerprint::default();
                while let Some(patience) = self.round(&weak, &mut seen) {
                    self.sleep(patience);
                }
            })?;
        Ok(())
    }

    /// One look at everything. `None`: the node is gone.
    fn round(&mut self, node: &Weak<Node>, seen: &mut Fingerprint) -> Option<u16> {
        let node = node.upgrade()?;
        let parents = node.refresh();
        node.enforce(&mut self.engine);
        self.watch(&node, &parents);
        let outstanding = node.check_proofs(Instant::now());
        let now = node.fingerprint();
        if now != *seen {
            *seen = now;
            node.touch();
        }
        node.alive.send_replace(Instant::now());
        Some(if outstanding { WATCHFUL } else { IDLE })
    }

    /// Asks to be woken when a cgroup appears where one may match, or when a held one changes. Asking again for the
    /// same place changes nothing, and a place that went away is no longer watched.
    fn watch(&self, node: &Node, parents: &BTreeSet<PathBuf>) {
        let appears = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ONLYDIR;
        for parent in parents {
            let _ = self.inotify.add_watch(&node.mount.root().join(parent), appears);
        }
        for subtree in node.held() {
            let events = node
                .mount
                .root()
                .join(subtree.handle.path())
                .join("cgroup.events");
            let _ = self.inotify.add_watch(&events, AddWatchFlags::IN_MODIFY);
        }
    }

    fn sleep(&self, patience: u16) {
        std::thread::sleep(BREATH);
        let mut fds = [
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
        ];
        let _ = poll(&mut fds, PollTimeout::from(patience));
        let _ = self.wake.read();
        // What happened does not matter, only that it did: everything is looked at again.
        while self.inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
    }
}

/// What a person would see change.
type Fingerprint = BTreeMap<PathBuf, (bool, bool)>;

impl Node {
    /// Looks for subtrees that appeared or went away. Gives the directories in which more may appear.
    pub(super) fn refresh(&self) -> BTreeSet<PathBuf> {
        let found = adopt::scan(&self.config.adopt, |pattern| cgroup::find(&self.mount, pattern));
        let mut refused: BTreeMap<PathBuf, String> = BTreeMap::new();
        let mut present: BTreeMap<PathBuf, (proto::SliceName, u64)> = BTreeMap::new();
        for (path, slice) in &found.matches {
            match self.may_adopt(path, slice, &present) {
                Ok(Some(subtree)) => drop(present.insert(path.clone(), subtree)),
                // Gone between two looks.
                Ok(None) => {}
                Err(why) => drop(refused.insert(path.clone(), why)),
            }
        }
        for path in &found.only_v1 {
            if let Err(why) = self.guard.check_adoption(&self.mount, path) {
                refused.insert(path.clone(), why.to_string());
            }
        }
        if found.truncated {
            let why = format!(
                "more than {} cgroups match the adopt patterns; the rest is not adopted",
                adopt::MAX_MATCHES
            );
            refused.insert(PathBuf::from("*"), why);
        }
        while refused.len() > REFUSED_SHOWN {
            refused.pop_last();
        }

        let own = self.tree.slices();
        let mut core = self.core();
        for (path, why) in &refused {
            if core.refused.get(path) != Some(why) {
                tracing::warn!(cgroup = %path.display(), why, "not adopted");
            }
        }
        core.refused = refused;
        core.subtrees.retain(|path, subtree| {
            !subtree.is_gone()
                && (subtree.own
                    || present
                        .get(path)
                        .is_some_and(|(_, id)| *id == subtree.handle.id()))
        });
        for (path, (slice, id)) in present {
            if core.subtrees.contains_key(&path) {
                continue;
            }
            match Sliver::open_expecting(&self.mount, &path, id) {
                Ok(sliver) => drop(
                    core.subtrees
                        .insert(path, Arc::new(Subtree::new(slice, sliver, false))),
                ),
                Err(error) if error.is_gone() => {}
                Err(error) => drop(core.refused.insert(path, super::start::in_one_line(&error))),
            }
        }
        for slice in own {
            let path = self.tree.path(&slice);
            if !core.subtrees.contains_key(&path)
                && let Ok(Some(sliver)) = self.tree.existing(&slice)
            {
                core.subtrees
                    .insert(path, Arc::new(Subtree::new(slice, sliver, true)));
            }
        }
        found.parents
    }

    /// The slice and id of a match that may be adopted; `None` when it is no more.
    fn may_adopt(
        &self,
        path: &Path,
        slice: &Result<proto::SliceName, String>,
        present: &BTreeMap<PathBuf, (proto::SliceName, u64)>,
    ) -> Result<Option<(proto::SliceName, u64)>, String> {
        let id = match self.guard.check_adoption(&self.mount, path) {
            Ok(id) => id,
            Err(Refusal::Gone { .. }) => return Ok(None),
            Err(refusal) => return Err(refusal.to_string()),
        };
        if path.starts_with(self.tree.root()) || self.tree.root().starts_with(path) {
            return Err(format!("{} is Redbutton's own tree", self.tree.root().display()));
        }
        if let Some(outer) = path
            .ancestors()
            .skip(1)
            .find(|above| present.contains_key(*above))
        {
            return Err(format!(
                "it lies in {}, which is adopted already",
                outer.display()
            ));
        }
        match slice {
            Ok(slice) => Ok(Some((slice.clone(), id))),
            Err(why) => Err(format!("its name gives no slice: {why}")),
        }
    }

    /// Makes what came back, or appeared, as the holds say.
    fn enforce(&self, engine: &mut Engine) {
        let now = Instant::now();
        let (mut back, mut loose) = (Vec::new(), Vec::new());
        {
            let mut core = self.core();
            for subtree in core.subtrees.values().cloned().collect::<Vec<_>>() {
                if subtree.is_busy() || subtree.rests(now) {
                    continue;
                }
                match core.state.holds.verdict(&subtree.slice) {
                    Verdict::Run => {}
                    Verdict::Dead if subtree.populated() => {
                        core.remember(&subtree);
                        back.push(subtree);
                    }
                    Verdict::Frozen if subtree.handle.events().is_ok_and(|e| e.populated && !e.frozen) => {
                        core.remember(&subtree);
                        loose.push(subtree);
                    }
                    Verdict::Dead | Verdict::Frozen => {}
                }
            }
            if !back.is_empty() || !loose.is_empty() {
                // For the way back, if we die before it is needed. Nobody waits for it.
                drop(self.writer.save(&core.state));
            }
        }
        for subtree in &back {
            if !subtree.own {
                subtree.respawns.fetch_add(1, Ordering::Relaxed);
                self.note_respawn(subtree, now);
            }
            tracing::warn!(slice = %subtree.slice, cgroup = %subtree.handle.path().display(), "held, and alive: killed");
        }
        let plan = Plan {
            evidence: false,
            census: false,
            kill: QUICK,
            ..self.plan()
        };
        let kills = act(&back, |handles| engine.kill(handles, &self.guard, &plan));
        let freezes = act(&loose, |handles| {
            engine.freeze(handles, &self.guard, self.config.kill.freeze)
        });
        for (subtree, outcome) in kills.into_iter().chain(freezes) {
            if matches!(outcome, Outcome::Partial | Outcome::Failed) {
                *subtree.rest_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(now + REST);
            }
            // A release may have come while this ran.
            let _turn = subtree.turn();
            if let Err(why) = self.settle(&subtree) {
                tracing::error!(slice = %subtree.slice, %why, "cannot be given back");
            }
        }
    }

    /// Subtrees under a hold.
    fn held(&self) -> Vec<Arc<Subtree>> {
        let core = self.core();
        let held = |s: &&Arc<Subtree>| core.state.holds.verdict(&s.slice) != Verdict::Run;
        core.subtrees.values().filter(held).cloned().collect()
    }

    fn fingerprint(&self) -> Fingerprint {
        let core = self.core();
        let state = |s: &Arc<Subtree>| {
            s.handle
                .events()
                .map(|e| (e.populated, e.frozen))
                .unwrap_or_default()
        };
        core.subtrees
            .iter()
            .map(|(path, subtree)| (path.clone(), state(subtree)))
            .collect()
    }
}

/// Acts on subtrees, each in its turn.
fn act(
    subtrees: &[Arc<Subtree>],
    mut kill: impl FnMut(&[Arc<Sliver>]) -> Vec<crate::kill::Report>,
) -> Vec<(Arc<Subtree>, Outcome)> {
    if subtrees.is_empty() {
        return Vec::new();
    }
    let _turns: Vec<_> = subtrees.iter().map(|subtree| subtree.turn()).collect();
    let handles: Vec<_> = subtrees.iter().map(|subtree| subtree.handle.clone()).collect();
    kill(&handles)
        .into_iter()
        .zip(subtrees)
        .map(|(report, subtree)| (subtree.clone(), report.outcome))
        .collect()
}

impl Subtree {
    fn rests(&self, now: Instant) -> bool {
        self.rest_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| now < until)
    }
}
