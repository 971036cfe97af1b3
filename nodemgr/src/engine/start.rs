//! Letting something start: the check against the holds, and the move into the cgroup, under the lock that orders
//! also take.

use std::sync::Arc;

use proto::{Scope, SliceName};

use super::Node;
use super::core::{Core, Subtree};
use crate::exec::{Granted, Peer};
use crate::holds::Verdict;

/// Why a start is refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotStarted {
    /// A hold, a locked state, the wrong caller.
    #[error("{0}")]
    Refused(String),
    /// It was allowed and could not be done.
    #[error("{0}")]
    Failed(String),
}

impl Node {
    /// Moves the peer into the slice's sliver, unless something holds it.
    pub(crate) async fn admit(&self, slice: &SliceName, peer: &Peer) -> Result<Granted, NotStarted> {
        let (uid, recorded) = {
            let mut core = self.core();
            allowed(&core, slice)?;
            let (uid, new) = core
                .state
                .uid(slice)
                .ok_or_else(|| NotStarted::Failed("no uid is left for a new slice".into()))?;
            (uid, new.then(|| self.writer.save(&core.state)))
        };
        if let Some(saved) = recorded {
            // A uid that a crash forgets would be given to another slice, with all the files of this one.
            let error = match saved.await {
                Ok(saved) => saved.error,
                Err(_) => Some("the writer has ended".into()),
            };
            if let Some(why) = error {
                return Err(NotStarted::Failed(format!(
                    "the user of slice {slice} cannot be recorded: {why}"
                )));
            }
        }
        let granted = self.move_in(slice, uid, peer)?;
        tracing::info!(%slice, uid, pid = peer.pid(), "a sliver starts");
        self.touch();
        Ok(granted)
    }

    fn move_in(&self, slice: &SliceName, uid: u32, peer: &Peer) -> Result<Granted, NotStarted> {
        let failed = |error: &dyn std::error::Error| NotStarted::Failed(in_one_line(error));
        let mut core = self.core();
        // Again: an order may have come while the uid was written.
        allowed(&core, slice)?;
        let path = self.tree.path(slice);
        let known = core
            .subtrees
            .get(&path)
            .filter(|subtree| !subtree.is_gone())
            .cloned();
        let subtree = match known {
            Some(subtree) => subtree,
            None => {
                let made = self.tree.make(slice).map_err(|e| failed(&e))?;
                let subtree = Arc::new(Subtree::new(slice.clone(), made.sliver, true));
                core.subtrees.insert(path.clone(), subtree.clone());
                subtree
            }
        };
        self.guard
            .check_now(&subtree.handle)
            .map_err(|e| NotStarted::Refused(e.to_string()))?;
        if !peer.is_alive() {
            return Err(NotStarted::Failed("the process that asked has ended".into()));
        }
        subtree.handle.enter(peer.pid()).map_err(|e| failed(&e))?;
        // Alive after the move as well: so it was this process that was moved, not another with its number.
        if !peer.is_alive() {
            return Err(NotStarted::Failed("the process that asked has ended".into()));
        }
        Ok(Granted {
            uid,
            cgroup: path.to_string_lossy().into_owned(),
        })
    }
}

fn allowed(core: &Core, slice: &SliceName) -> Result<(), NotStarted> {
    if !core.state.locked.is_empty() {
        return Err(NotStarted::Refused(format!(
            "nothing may start on this node until the controller has sent every hold: {}",
            core.state.locked
        )));
    }
    match (core.state.holds.verdict(slice), core.state.holds.foremost(slice)) {
        (Verdict::Run, _) | (_, None) => Ok(()),
        (_, Some(hold)) => {
            let what = match (&hold.slice, &hold.scope) {
                (Some(slice), _) => format!("slice {slice}"),
                (None, Scope::Node(_)) => "this node".into(),
                (None, Scope::Site(site)) => format!("every slice at {site}"),
                (None, Scope::Fleet) => "every slice everywhere".into(),
            };
            let proto::Hold {
                kind,
                holder,
                role,
                reason,
                id,
                ..
            } = hold;
            Err(NotStarted::Refused(format!(
                "{what} is held: {kind} by {holder} ({role}): {reason} [hold {id}]"
            )))
        }
    }
}

/// An error with its causes.
pub(crate) fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
