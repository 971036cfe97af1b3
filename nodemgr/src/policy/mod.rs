//! What this node decides by when a person stands at its own door: the controller's signed word, kept on disk.
//!
//! ```text
//! link ── Command.policy ─▶ take: signed? not older? our site? ─▶ disk ─▶ current() ─▶ direct: authz::decide
//! boot ── files ──────────▶ the same checks                                     └────▶ report: version, age
//! ```
//! Invariants: without a snapshot nobody may act directly; an older one never replaces a newer one, also not by
//! way of the disk; a snapshot that the disk does not take counts all the same until we end, and that is said.
//!
//! What it does not do: judge by a clock. A snapshot does not run out: on the day on which it is needed it may be
//! months old. Its age is shown instead.

mod file;
mod snapshot;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::v1::SignedStatement;
use tokio::sync::watch;
use trust::{Roots, RootsError};

pub use snapshot::{Floor, PolicyError, Snapshot};

#[derive(Debug)]
struct Held {
    roots: Roots,
    /// The node's own, PEM.
    own: String,
    floor: Option<Floor>,
    snapshot: Option<Arc<Snapshot>>,
    /// Why there is no snapshot, or why the one there is is not on the disk; empty: well.
    trouble: String,
}

/// The node's policy.
#[derive(Debug)]
pub struct Policy {
    dir: PathBuf,
    held: Mutex<Held>,
    changed: watch::Sender<u64>,
}

impl Policy {
    /// Takes up what is on the disk. Never fails for what stands there: that is said, and nobody may act.
    ///
    /// # Errors
    /// When `roots` (the bundle's CA, PEM) are none.
    pub fn load(dir: &Path, roots: &str) -> Result<Self, RootsError> {
        let mut held = Held {
            roots: Roots::from_pem(roots)?,
            own: roots.to_owned(),
            floor: None,
            snapshot: None,
            trouble: String::new(),
        };
        let found = file::load(dir);
        held.floor = found.floor;
        held.trouble = found.why;
        if let Some(statement) = found.statement {
            match Snapshot::accept(&statement, &held.roots, held.floor.as_ref()) {
                Ok(snapshot) => held.hold(snapshot),
                Err(error) => held.trouble = error.to_string(),
            }
        }
        if held.snapshot.is_none() {
            let why = &held.trouble;
            tracing::warn!(%why, "no policy: nobody may act directly on this node");
        }
        Ok(Self {
            dir: dir.to_owned(),
            held: Mutex::new(held),
            changed: watch::Sender::new(0),
        })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a snapshot from the controller. Blocking: it waits for the disk.
    ///
    /// # Errors
    /// When it does not count, and nothing has changed; or [`PolicyError::File`]: it counts, but only until we end.
    pub fn take(&self, statement: &SignedStatement) -> Result<Arc<Snapshot>, PolicyError> {
        let (snapshot, floor) = {
            let mut held = self.held();
            let snapshot = Snapshot::accept(statement, &held.roots, held.floor.as_ref())?;
            if held.trouble.is_empty()
                && let Some(same) = held.snapshot.as_ref().filter(|old| ***old == snapshot)
            {
                return Ok(same.clone());
            }
            let floor = snapshot.floor();
            // In force before it is on the disk: a revocation does not wait.
            held.hold(snapshot);
            let snapshot = held.snapshot.clone();
            (snapshot, floor)
        };
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
        let saved = file::save(&self.dir, &floor, statement);
        let mut held = self.held();
        if held.floor.as_ref() == Some(&floor) {
            held.trouble = saved
                .clone()
                .err()
                .map_or_else(String::new, |why| format!("the policy is not on the disk: {why}"));
        }
        drop(held);
        saved.map_err(PolicyError::File)?;
        snapshot.ok_or_else(|| PolicyError::File("nothing is held".into()))
    }

    /// The snapshot in force; `None`: nobody may act directly.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.held().snapshot.clone()
    }

    /// Why there is no snapshot, or why it is not on the disk; empty: well, or none was ever sent.
    #[must_use]
    pub fn trouble(&self) -> String {
        self.held().trouble.clone()
    }

    /// Every root that counts now: the node's own, and those of the snapshot. PEM.
    #[must_use]
    pub fn roots(&self) -> String {
        let held = self.held();
        let further = held.snapshot.as_ref().map_or("", |snapshot| &snapshot.roots);
        join(&held.own, further)
    }

    /// The node got new roots of its own.
    ///
    /// # Errors
    /// When they are none; then those before stay.
    pub fn trust(&self, roots: &str) -> Result<(), RootsError> {
        let mut held = self.held();
        held.roots = Roots::from_pem(roots)?;
        roots.clone_into(&mut held.own);
        held.widen();
        drop(held);
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
        Ok(())
    }

    /// Changes when what is in force changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl Held {
    fn hold(&mut self, snapshot: Snapshot) {
        self.floor = Some(snapshot.floor());
        self.snapshot = Some(Arc::new(snapshot));
        self.widen();
    }

    /// Roots that the snapshot brings count from then on: the next one may be signed under them.
    fn widen(&mut self) {
        let further = self.snapshot.as_ref().map_or("", |snapshot| &snapshot.roots);
        match Roots::from_pem(&join(&self.own, further)) {
            Ok(roots) => self.roots = roots,
            Err(error) => tracing::warn!(%error, "the policy's roots are unusable"),
        }
    }
}

/// Two lists of certificates in PEM as one, each certificate once.
fn join(own: &str, further: &str) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    let mut all = own.trim_end().to_owned();
    for one in further.split_inclusive(END) {
        let one = one.trim();
        if one.ends_with(END) && !all.contains(one) {
            all.push('\n');
            all.push_str(one);
        }
    }
    all.push('\n');
    all
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
