//! Acts of people who stand at the node's own door: the same kill and the same release as by command, decided on
//! here. Nothing of it waits for the controller, and its version stays where it was seen last.

use std::sync::Arc;
use std::time::Instant;

use proto::v1::{Answer, Outcome};
use proto::{Hold, HoldId, HoldKind, OrderId, Version};
use tokio::sync::{broadcast, oneshot};

use super::orders::{Kind, Work};
use super::{Node, Subtree};
use crate::holds::writer::Saved;
use crate::holds::{HoldError, HoldSet, Releaser};
use crate::restart::Wish;

/// An act whose change of state is done, and whose killing has begun.
pub(crate) struct Begun {
    /// Comes when the holds are on the disk, or refused by it.
    pub(crate) saved: Option<oneshot::Receiver<Saved>>,
    work: Box<Work>,
}

impl Node {
    /// The highest version seen of the controller.
    pub(crate) fn seen(&self) -> Version {
        self.core().state.seen
    }

    /// Every hold that stands here.
    pub(crate) fn holds_here(&self) -> Vec<Hold> {
        self.core().state.holds.iter().cloned().collect()
    }

    /// Looks at what holds and what was released, and at the highest version seen, in one moment.
    pub(crate) fn with_holds<T>(&self, look: impl FnOnce(&HoldSet, Version) -> T) -> T {
        let core = self.core();
        look(&core.state.holds, core.state.seen)
    }

    /// Second answers from now on, of every order.
    pub(crate) fn second_answers(&self) -> broadcast::Receiver<Answer> {
        self.second.subscribe()
    }

    /// Sets a hold and begins what it asks for.
    pub(crate) fn impose_here(self: &Arc<Self>, order: OrderId, hold: Hold) -> Result<Begun, HoldError> {
        let kind = match hold.kind {
            HoldKind::Suspend => Kind::Suspend,
            HoldKind::Freeze => Kind::Freeze,
        };
        let mut work = self.work_here(order, kind);
        work.slice.clone_from(&hold.slice);
        let mut core = self.core();
        core.state.holds.impose(hold)?;
        self.begin_impose(&mut core, &mut work);
        let saved = self.writer.save(&core.state);
        drop(core);
        self.touch();
        Ok(Begun {
            saved: Some(saved),
            work: Box::new(work),
        })
    }

    /// Lifts holds on this node alone, remembers who did, and gives back what nothing else holds.
    ///
    /// # Errors
    /// When one more release cannot be remembered; those before it in `holds` are lifted then.
    pub(crate) fn release_here(
        self: &Arc<Self>,
        order: OrderId,
        holds: &[HoldId],
        by: &Releaser,
    ) -> Result<Begun, HoldError> {
        let mut work = self.work_here(order, Kind::Release);
        let mut core = self.core();
        let mut refused = None;
        for id in holds {
            match core.state.holds.release_local(*id, by.clone(), self.id) {
                Ok(Some(hold)) => self.begin_release(&mut core, &mut work, &hold),
                Ok(None) => {}
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        work.saved = Some(self.writer.save(&core.state));
        let saved = self.writer.save(&core.state);
        drop(core);
        self.touch();
        match refused {
            Some(error) => Err(error),
            None => Ok(Begun {
                saved: Some(saved),
                work: Box::new(work),
            }),
        }
    }

    /// Whether this machine can be restarted from here: by which means, or why not.
    pub(crate) fn may_restart(&self, wish: Wish) -> Result<String, String> {
        let verb = match wish {
            Wish::Reboot => "reboot",
            Wish::Halt => "halt",
        };
        match self.restarter.means() {
            Ok(means) => Ok(format!("{verb} by {means} begins")),
            Err(why) => Err(format!("{verb} orders cannot be carried out on this node: {why}")),
        }
    }

    /// The answer to a restart that is about to begin.
    pub(crate) fn restart_answer(&self, order: OrderId, detail: String) -> Answer {
        Answer {
            outcome: Outcome::Accepted.into(),
            detail,
            ..self.answer_here(order)
        }
    }

    /// What became of it, when it has.
    pub(crate) async fn finish_here(self: &Arc<Self>, begun: Begun) -> Answer {
        Box::pin(self.clone().finish(*begun.work)).await
    }

    fn answer_here(&self, order: OrderId) -> Answer {
        Answer {
            order: order.to_string(),
            version: Some(self.seen().into()),
            boot_id: self.boot_id.to_string(),
            ..Answer::default()
        }
    }

    fn work_here(&self, order: OrderId, kind: Kind) -> Work {
        Work {
            arrived: Instant::now(),
            answer: self.answer_here(order),
            kind,
            slice: None,
            remarks: Vec::new(),
            saved: None,
            jobs: Vec::new(),
            subtrees: Vec::<Arc<Subtree>>::new(),
            failed: false,
        }
    }
}
