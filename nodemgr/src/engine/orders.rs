//! From a command to its answer. The change of state happens at once, in the order of arrival; what takes time is a
//! future that any number of may run beside each other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::v1::{self, Answer, Command, Outcome, command::Action};
use proto::{
    BootId, Hold, HoldId, HoldKind, PROTOCOL, Scope, SliceName, Tombstone, Version, WireError, canonical,
};
use tokio::sync::oneshot;

use super::answers::{badness, bounded, fit};
use super::core::{Core, Subtree};
use super::kills::Done;
use super::proofs::Proof;
use super::{Node, Verdict};
use crate::crash;
use crate::holds::writer::Saved;
use crate::holds::{Signed, Sync};
use crate::restart::Wish;

/// Said when a release takes effect and cannot be remembered.
const FORGOTTEN: &str = "released, and not remembered: this node keeps too many releases of its own that the \
                         controller has not confirmed";

/// An answer, and what to do once it is on its way.
#[derive(Debug)]
pub struct Reply {
    /// For the controller.
    pub answer: Answer,
    /// Reboot or halt, after the answer was sent.
    pub after: Option<Wish>,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self { answer, after: None }
    }
}

/// What an order is, when it comes to its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Suspend,
    Freeze,
    Release,
    Sync,
}

/// An order whose state change is done.
pub(super) struct Work {
    pub(super) arrived: Instant,
    pub(super) answer: Answer,
    pub(super) kind: Kind,
    pub(super) slice: Option<SliceName>,
    /// Words for `detail` that are known already.
    pub(super) remarks: Vec<String>,
    pub(super) saved: Option<oneshot::Receiver<Saved>>,
    pub(super) jobs: Vec<oneshot::Receiver<Done>>,
    pub(super) subtrees: Vec<Arc<Subtree>>,
    pub(super) failed: bool,
}

/// Why a command is refused as a whole.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("{0}")]
    Hold(#[from] crate::holds::HoldError),
    #[error("hold {hold} is for node {named}, this is node {own}")]
    OtherNode {
        hold: HoldId,
        named: proto::NodeId,
        own: proto::NodeId,
    },
    /// It has a field that a newer controller knows and we do not: to us it is empty.
    #[error(
        "this node does not know this order: version {} speaks protocol {PROTOCOL}, the controller may be newer",
        crate::software::version()
    )]
    Unknown,
    #[error("{0} orders cannot be carried out on this node: {1}")]
    NoMeans(&'static str, String),
    #[error("{0} is no order")]
    NoOrder(&'static str),
}

enum Taken {
    Work(Box<Work>),
    Ready(Box<Reply>),
}

impl Node {
    /// Takes a command: its change of state has happened when this returns, killing has begun, and the future gives
    /// the answer. Dropping the future stops nothing.
    pub fn take(self: &Arc<Self>, command: Command) -> impl Future<Output = Reply> + Send + 'static {
        let arrived = Instant::now();
        let answer = Answer {
            order: command.order.chars().take(64).collect(),
            version: command.given.or(command.now),
            boot_id: self.boot_id.to_string(),
            ..Answer::default()
        };
        let taken = self
            .take_at(arrived, answer.clone(), command)
            .unwrap_or_else(|refused| {
                let detail = refused.to_string();
                tracing::warn!(order = answer.order, %detail, "order refused");
                let answer = Answer {
                    outcome: Outcome::Failed.into(),
                    detail,
                    ..answer
                };
                Taken::Ready(Box::new(answer.into()))
            });
        let node = self.clone();
        async move {
            match taken {
                Taken::Ready(reply) => *reply,
                Taken::Work(work) => node.finish(*work).await.into(),
            }
        }
    }

    fn take_at(
        self: &Arc<Self>,
        arrived: Instant,
        answer: Answer,
        command: Command,
    ) -> Result<Taken, Refused> {
        let now: Version = command.now.ok_or(WireError::Missing { field: "now" })?.into();
        let given = command.given.map(Version::from);
        let word = canonical::signature(&command.release_signature);
        let action = command.action.ok_or(Refused::Unknown)?;
        let work = |kind, slice| Work {
            arrived,
            answer: answer.clone(),
            kind,
            slice,
            remarks: Vec::new(),
            saved: None,
            jobs: Vec::new(),
            subtrees: Vec::new(),
            failed: false,
        };
        // Checked before anything changes: a malformed hold must not raise the version either.
        let mut work = match action {
            Action::Impose(hold) => {
                let signed = self.ours(hold)?;
                let kind = match signed.hold.kind {
                    HoldKind::Suspend => Kind::Suspend,
                    HoldKind::Freeze => Kind::Freeze,
                };
                let mut work = work(kind, signed.hold.slice.clone());
                let mut core = self.core();
                core.state.witness(now)?;
                core.state.holds.impose(signed)?;
                self.begin_impose(&mut core, &mut work);
                work
            }
            Action::Release(id) => {
                let id: HoldId = id.parse().map_err(WireError::id("release"))?;
                let mut work = work(Kind::Release, None);
                let mut core = self.core();
                core.state.witness(now)?;
                let lifted = match (given, word) {
                    (Some(given), Some(word)) => {
                        let (lifted, kept) = core.state.holds.release_signed(id, given, word);
                        if !kept {
                            work.remarks.push(FORGOTTEN.into());
                        }
                        lifted
                    }
                    // From a controller of before there were signatures.
                    _ => core.state.holds.release(id),
                };
                match lifted {
                    Some(hold) => self.begin_release(&mut core, &mut work, &hold),
                    None => work.remarks.push("no such hold stands here".into()),
                }
                work.saved = Some(self.writer.save(&core.state));
                work
            }
            Action::Sync(sync) => {
                let mut work = work(Kind::Sync, None);
                work.answer.version = Some(now.into());
                self.begin_sync(&mut work, now, sync)?;
                work
            }
            // The agent keeps it; it is no order.
            Action::Witness(_) => {
                return Err(WireError::Missing { field: "action" }.into());
            }
            Action::Reboot(v1::Reboot { boot_id }) => {
                return self.restart(now, answer, &boot_id, Wish::Reboot);
            }
            Action::Halt(v1::Halt { boot_id }) => return self.restart(now, answer, &boot_id, Wish::Halt),
            // The agent keeps it, and answers nothing.
            Action::Policy(_) => return Err(Refused::NoOrder("policy")),
        };
        work.answer.holds.sort_unstable();
        self.touch();
        Ok(Taken::Work(Box::new(work)))
    }

    /// A hold that names another node has been sent to the wrong one.
    fn ours(&self, hold: v1::Hold) -> Result<Signed, Refused> {
        let signature = canonical::signature(&hold.signature);
        let hold = Hold::try_from(hold)?;
        match hold.scope {
            Scope::Node(named) if named != self.id => Err(Refused::OtherNode {
                hold: hold.id,
                named,
                own: self.id,
            }),
            _ => Ok(Signed { hold, signature }),
        }
    }

    pub(super) fn begin_impose(self: &Arc<Self>, core: &mut Core, work: &mut Work) {
        work.subtrees = core.covered(work.slice.as_ref());
        for subtree in &work.subtrees {
            core.remember(subtree);
            *subtree
                .rest_until
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner) = None;
        }
        work.saved = Some(self.writer.save(&core.state));
        if work.subtrees.is_empty() {
            return;
        }
        let job = match work.kind {
            Kind::Freeze => self.submit_freeze(work.subtrees.clone()),
            _ => self.submit_kill(work.subtrees.clone()),
        };
        match job {
            Some(job) => work.jobs.push(job),
            None => {
                work.failed = true;
                work.remarks
                    .push("too many kills wait on this node; the hold stands and is enforced".into());
            }
        }
    }

    pub(super) fn begin_release(self: &Arc<Self>, core: &mut Core, work: &mut Work, hold: &Hold) {
        let lighter: Vec<_> = core
            .covered(hold.slice.as_ref())
            .into_iter()
            .filter(|s| core.state.holds.verdict(&s.slice) < Verdict::from(hold.kind))
            .collect();
        if !lighter.is_empty() {
            work.jobs.extend(self.submit_thaw(lighter));
        }
    }

    fn begin_sync(self: &Arc<Self>, work: &mut Work, now: Version, sync: v1::Sync) -> Result<(), Refused> {
        let v1::Sync {
            holds,
            released,
            tombstones,
            recorded,
        } = sync;
        let mut wanted = Vec::new();
        for hold in holds {
            let id = hold.id.chars().take(64).collect::<String>();
            // One hold that cannot be read must not keep the others from being obeyed.
            match self.ours(hold) {
                Ok(hold) => wanted.push(hold),
                Err(error) => work.refuse(format!("hold {id:?}: {error}")),
            }
        }
        let mut gone = Vec::new();
        for id in released {
            match id.parse::<HoldId>().map_err(WireError::id("released")) {
                Ok(id) => gone.push(id),
                Err(error) => work.refuse(error.to_string()),
            }
        }
        let mut stones = Vec::new();
        for stone in tombstones {
            match Tombstone::try_from(stone) {
                Ok(stone) => stones.push(stone),
                Err(error) => work.refuse(format!("tombstone: {error}")),
            }
        }
        let mut core = self.core();
        core.state.witness(now)?;
        let change = core.state.holds.sync(Sync {
            holds: wanted,
            released: gone,
            tombstones: stones,
            recorded: recorded.iter().filter_map(|id| id.parse().ok()).collect(),
            incarnation: now.incarnation,
        });
        for error in change.refused {
            work.refuse(error.to_string());
        }
        if let [first, rest @ ..] = &*change.buried {
            let more = match rest.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            work.remarks
                .push(format!("released before, and not set again: hold {first}{more}"));
        }
        if !core.state.locked.is_empty() {
            if work.failed {
                work.remarks.push(format!("still locked: {}", core.state.locked));
            } else {
                tracing::info!(was = %core.state.locked, "unlocked by a full sync");
                core.state.locked.clear();
            }
        }
        let mut todo = core.sort_by_verdict();
        // What is as it should be already needs no job: a sync comes with every new link.
        todo.kill.retain(|subtree| subtree.populated());
        todo.freeze
            .retain(|subtree| subtree.handle.events().is_ok_and(|e| !e.frozen));
        work.subtrees = todo.kill.clone();
        work.answer.holds = core.state.holds.iter().map(|hold| hold.id.to_string()).collect();
        work.saved = Some(self.writer.save(&core.state));
        work.jobs = self.converge(todo);
        Ok(())
    }

    fn restart(&self, now: Version, answer: Answer, boot_id: &str, wish: Wish) -> Result<Taken, Refused> {
        let (verb, field) = match wish {
            Wish::Reboot => ("reboot", "reboot.boot_id"),
            Wish::Halt => ("halt", "halt.boot_id"),
        };
        let wanted: BootId = boot_id.parse().map_err(WireError::id(field))?;
        self.core().state.witness(now)?;
        let accepted = Answer {
            outcome: Outcome::Accepted.into(),
            ..answer
        };
        if wanted != self.boot_id {
            let detail = format!(
                "already rebooted: this is boot {}, the order is for {wanted}",
                self.boot_id
            );
            return Ok(Taken::Ready(Box::new(Answer { detail, ..accepted }.into())));
        }
        let means = self
            .restarter
            .means()
            .map_err(|why| Refused::NoMeans(verb, why))?;
        let answer = Answer {
            detail: format!("{verb} by {means} begins"),
            ..accepted
        };
        Ok(Taken::Ready(Box::new(Reply {
            answer,
            after: Some(wish),
        })))
    }

    /// Waits for the disk and for the last process, and says what became of it.
    pub(super) async fn finish(self: Arc<Self>, work: Work) -> Answer {
        let Work {
            arrived,
            mut answer,
            kind,
            slice,
            mut remarks,
            saved,
            jobs,
            subtrees,
            mut failed,
        } = work;
        let (mut dead_at, mut proofs) = (None, Vec::new());
        for job in jobs {
            match job.await {
                Ok(done) => {
                    dead_at = dead_at.max(Some(done.at));
                    proofs.extend(done.proofs);
                }
                Err(_) => {
                    failed = true;
                    remarks.push("a job ended without a word; see the node's log".into());
                }
            }
        }
        if let Some(saved) = saved {
            let saved = saved.await.unwrap_or_else(|_| Saved {
                at: Instant::now(),
                error: Some("the writer has ended".into()),
            });
            answer.durable = saved.error.is_none();
            answer.durable_us = micros(saved.at - arrived);
            remarks.extend(saved.error.map(|why| format!("not durable: {why}")));
        }
        let worst = proofs
            .iter()
            .map(v1::SliverProof::outcome)
            .max_by_key(|o| badness(*o));
        let nothing_there = match kind {
            Kind::Suspend | Kind::Sync => Outcome::AlreadyDead,
            Kind::Freeze => Outcome::Frozen,
            Kind::Release => Outcome::Released,
        };
        let outcome = if failed {
            Outcome::Failed
        } else {
            worst.unwrap_or(nothing_there)
        };
        for proof in proofs
            .iter()
            .filter(|p| matches!(p.outcome(), Outcome::Failed | Outcome::Partial))
        {
            remarks.push(format!("{}: {}", proof.cgroup, proof.detail));
        }
        answer.outcome = outcome.into();
        answer.detail = bounded(remarks.join("; "));
        answer.dead_us = micros(dead_at.map_or(Duration::ZERO, |at| at - arrived));
        answer.slivers = proofs;
        answer.proven = match kind {
            Kind::Release | Kind::Sync => outcome != Outcome::Failed,
            Kind::Suspend | Kind::Freeze => {
                let adopted = kind == Kind::Suspend && self.may_be_adopted(slice.as_ref(), &subtrees);
                let settled = !matches!(outcome, Outcome::Failed | Outcome::Partial);
                if outcome != Outcome::Failed && (adopted || !settled) {
                    self.follow(Proof::new(
                        answer.clone(),
                        slice,
                        subtrees,
                        kind == Kind::Freeze,
                        adopted,
                    ));
                }
                settled && !adopted
            }
        };
        crash::point("nodemgr.before-answer");
        fit(answer)
    }

    /// Whether a manager outside may start the slice again.
    fn may_be_adopted(&self, slice: Option<&SliceName>, subtrees: &[Arc<Subtree>]) -> bool {
        subtrees.iter().any(|subtree| !subtree.own)
            || self
                .config
                .adopt
                .iter()
                .any(|rule| slice.is_none_or(|slice| rule.may_give(slice)))
    }
}

impl Work {
    fn refuse(&mut self, why: String) {
        self.failed = true;
        self.remarks.push(why);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
