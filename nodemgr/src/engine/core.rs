//! What the lock guards: the state, and the subtrees that are known.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use proto::SliceName;

use crate::cgroup::{PidsMax, Sliver};
use crate::holds::{State, Touched, Verdict};

/// One subtree of a slice, ready to be killed.
#[derive(Debug)]
pub(crate) struct Subtree {
    /// Whose it is.
    pub(crate) slice: SliceName,
    /// The prepared handle.
    pub(crate) handle: Arc<Sliver>,
    /// Ours, below the slivers' root; otherwise adopted.
    pub(crate) own: bool,
    /// Who starts it again; empty for our own.
    pub(crate) manager: &'static str,
    /// Times that it came back under a hold and was killed again.
    pub(crate) respawns: AtomicU32,
    /// Jobs about it that are waiting or running.
    jobs: AtomicU32,
    turn: Mutex<()>,
    /// The watcher leaves it alone until then: killing it again did not help.
    pub(crate) rest_until: Mutex<Option<Instant>>,
}

impl Subtree {
    pub(crate) fn new(slice: SliceName, handle: Sliver, own: bool) -> Self {
        let manager = if own {
            ""
        } else {
            crate::adopt::manager(&handle.path().to_string_lossy())
        };
        Self {
            slice,
            handle: Arc::new(handle),
            own,
            manager,
            respawns: AtomicU32::new(0),
            jobs: AtomicU32::new(0),
            turn: Mutex::default(),
            rest_until: Mutex::default(),
        }
    }

    /// Whether something lives in it. What cannot be told counts as life.
    pub(crate) fn populated(&self) -> bool {
        match self.handle.events() {
            Ok(events) => events.populated,
            Err(error) => !error.is_gone(),
        }
    }

    /// Whether the cgroup was removed.
    pub(crate) fn is_gone(&self) -> bool {
        self.handle.events().is_err_and(|error| error.is_gone())
    }

    /// Waits for the job before this one. Taken in the order of paths, so that two jobs never wait for each other.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether some job is about it.
    pub(super) fn is_busy(&self) -> bool {
        self.jobs.load(Ordering::SeqCst) > 0
    }
}

/// Subtrees of one job; they count as busy until it is dropped.
#[derive(Debug)]
pub(super) struct Batch(Vec<Arc<Subtree>>);

impl Batch {
    /// In the order of their paths.
    pub(super) fn new(mut subtrees: Vec<Arc<Subtree>>) -> Self {
        subtrees.sort_by(|a, b| a.handle.path().cmp(b.handle.path()));
        for subtree in &subtrees {
            subtree.jobs.fetch_add(1, Ordering::SeqCst);
        }
        Self(subtrees)
    }
}

impl std::ops::Deref for Batch {
    type Target = [Arc<Subtree>];
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        for subtree in &self.0 {
            subtree.jobs.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Known subtrees, by what the holds say of them.
#[derive(Debug, Default)]
pub(super) struct ByVerdict {
    pub(super) kill: Vec<Arc<Subtree>>,
    pub(super) freeze: Vec<Arc<Subtree>>,
    pub(super) thaw: Vec<Arc<Subtree>>,
}

/// Everything under the lock.
#[derive(Debug)]
pub(crate) struct Core {
    /// What must survive.
    pub(crate) state: State,
    /// By path below the mount.
    pub(crate) subtrees: BTreeMap<PathBuf, Arc<Subtree>>,
    /// What an adopt pattern matched and may not be adopted, and why.
    pub(crate) refused: BTreeMap<PathBuf, String>,
}

impl Core {
    pub(super) fn new(state: State) -> Self {
        Self {
            state,
            subtrees: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }

    /// The known subtrees that a hold on this slice (or on every slice) covers.
    pub(super) fn covered(&self, slice: Option<&SliceName>) -> Vec<Arc<Subtree>> {
        self.subtrees
            .values()
            .filter(|s| slice.is_none_or(|slice| s.slice == *slice))
            .cloned()
            .collect()
    }

    /// Remembers how a subtree was before a hold touches it, for the way back; survives a crash. What is already
    /// remembered stays: a second kill would see its own `pids.max` of 0.
    pub(super) fn remember(&mut self, subtree: &Subtree) {
        let path = subtree.handle.path().to_string_lossy().into_owned();
        let id = subtree.handle.id();
        if self
            .state
            .touched
            .get(&path)
            .is_some_and(|touched| touched.id == id)
        {
            return;
        }
        let pids_max = match subtree.handle.pids_max() {
            Ok(Some(limit)) => limit.to_string(),
            Ok(None) | Err(_) => String::new(),
        };
        self.state.touched.insert(path, Touched { id, pids_max });
    }

    /// What was remembered of a subtree: `None` when no hold of ours touched it.
    pub(super) fn remembered(&self, subtree: &Subtree) -> Option<Option<PidsMax>> {
        let path = subtree.handle.path().to_string_lossy();
        let touched = self
            .state
            .touched
            .get(path.as_ref())
            .filter(|t| t.id == subtree.handle.id())?;
        Some(PidsMax::parse(touched.pids_max.as_bytes()))
    }

    /// Whether a hold of ours touched it. In our own tree nobody else freezes, so there a frozen sliver is one that a
    /// daemon froze which died before it could write that down.
    fn must_be_given_back(&self, subtree: &Subtree) -> bool {
        self.remembered(subtree).is_some() || (subtree.own && subtree.handle.events().is_ok_and(|e| e.frozen))
    }

    /// The way back was gone.
    pub(super) fn forget(&mut self, subtree: &Subtree) {
        self.state
            .touched
            .remove(subtree.handle.path().to_string_lossy().as_ref());
    }

    /// Drops what was remembered of cgroups that are no more.
    pub(super) fn forget_gone(&mut self) {
        let Self { state, subtrees, .. } = self;
        state.touched.retain(|path, touched| {
            subtrees
                .get(Path::new(path))
                .is_some_and(|subtree| subtree.handle.id() == touched.id)
        });
    }

    /// What must be done so that every known subtree is as the holds say. Remembers what will be touched.
    pub(super) fn sort_by_verdict(&mut self) -> ByVerdict {
        let mut work = ByVerdict::default();
        // A hold that is not known may be why something stands still.
        let all_known = self.state.locked.is_empty();
        for subtree in self.subtrees.values().cloned().collect::<Vec<_>>() {
            match self.state.holds.verdict(&subtree.slice) {
                Verdict::Dead => {
                    self.remember(&subtree);
                    work.kill.push(subtree);
                }
                Verdict::Frozen => {
                    self.remember(&subtree);
                    work.freeze.push(subtree);
                }
                Verdict::Run if all_known && self.must_be_given_back(&subtree) => work.thaw.push(subtree),
                Verdict::Run => {}
            }
        }
        work
    }
}

/// A subtree, the holds that cover it, and the user of its slice.
type Described = (Arc<Subtree>, Vec<proto::HoldId>, Option<u32>);

impl super::Node {
    /// What a report needs, copied out of the lock.
    pub(crate) fn snapshot(&self) -> (Vec<Described>, crate::report::Snapshot) {
        let core = self.core();
        let describe = |subtree: &Arc<Subtree>| {
            let holds = core
                .state
                .holds
                .covering(&subtree.slice)
                .map(|hold| hold.id)
                .collect();
            let uid = core
                .state
                .uids
                .get(&subtree.slice)
                .copied()
                .filter(|_| subtree.own);
            (subtree.clone(), holds, uid)
        };
        let refused = core.refused.iter().map(|(path, why)| proto::v1::RefusedCgroup {
            cgroup: path.to_string_lossy().into_owned(),
            reason: why.clone(),
        });
        let snapshot = crate::report::Snapshot {
            seen: core.state.seen,
            holds: core.state.holds.iter().map(|hold| hold.id).collect(),
            tombstones: core
                .state
                .holds
                .tombstones()
                .unconfirmed(core.state.seen.incarnation),
            locked: core.state.locked.clone(),
            refused: refused.collect(),
        };
        (core.subtrees.values().map(describe).collect(), snapshot)
    }

    /// The known subtrees of a slice, or all.
    pub(crate) fn subtrees_of(&self, slice: Option<&SliceName>) -> Vec<Arc<Subtree>> {
        self.core().covered(slice)
    }
}
