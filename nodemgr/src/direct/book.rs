//! Orders that were pressed here: in memory, the newest of them. What must survive stands in the diary.

use std::collections::VecDeque;

use proto::v1::{self, Answer, NodeResult, OrderState, Outcome, OutcomeCounts};
use proto::{OrderId, PersonName};

use super::wish::Wish;

/// Orders that are kept.
const KEPT: usize = 1_024;

/// One order.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) id: OrderId,
    pub(crate) person: PersonName,
    pub(crate) key: String,
    pub(crate) wish: Wish,
    /// Why it is not durable; empty: it is.
    pub(crate) not_durable: String,
    /// As pressed; state and counts come from the answer.
    pub(crate) order: v1::Order,
    /// This node, with what it answered.
    pub(crate) result: NodeResult,
}

impl Kept {
    /// Whether the node has answered.
    pub(crate) fn is_answered(&self) -> bool {
        self.result.answer.is_some()
    }

    /// Whether nothing more is to come.
    pub(crate) fn is_closed(&self) -> bool {
        self.result.proven
    }

    /// As the order stands.
    pub(crate) fn order(&self) -> v1::Order {
        let state = match (self.is_answered(), self.is_closed()) {
            (_, true) => OrderState::Closed,
            (true, false) => OrderState::Answered,
            (false, false) => OrderState::Open,
        };
        v1::Order {
            state: state.into(),
            counts: Some(counts(self.result.outcome(), self.result.proven)),
            ..self.order.clone()
        }
    }

    /// Takes what the node says of it; after the proof nothing counts.
    fn hear(&mut self, answer: Answer, at_ms: i64) {
        if self.is_closed() {
            return;
        }
        let mut outcome = answer.outcome();
        // Those who were killed were killed, whatever a second answer finds.
        if self.result.outcome() == Outcome::Killed && outcome == Outcome::AlreadyDead {
            outcome = Outcome::Killed;
        }
        self.result.outcome = outcome.into();
        self.result.proven = match outcome {
            Outcome::Killed | Outcome::AlreadyDead => answer.proven,
            Outcome::Frozen | Outcome::Released => true,
            // A machine that halts says nothing more; one that reboots is proven by its next boot alone.
            Outcome::Accepted => self.order.kind == "stop-node",
            _ => false,
        };
        self.result.answered_at_ms = at_ms;
        match &mut self.result.answer {
            // Evidence came with the first.
            Some(first) => {
                first.detail.clone_from(&answer.detail);
                first.outcome = answer.outcome;
                first.proven = answer.proven;
                for proof in answer.slivers {
                    match first.slivers.iter_mut().find(|old| old.cgroup == proof.cgroup) {
                        Some(old) => {
                            let evidence = old.evidence.take();
                            *old = v1::SliverProof { evidence, ..proof };
                        }
                        None => first.slivers.push(proof),
                    }
                }
            }
            none => *none = Some(answer),
        }
    }
}

fn counts(outcome: Outcome, proven: bool) -> OutcomeCounts {
    let mut counts = OutcomeCounts {
        nodes: 1,
        proven: u32::from(proven),
        ..OutcomeCounts::default()
    };
    match outcome {
        Outcome::Unspecified | Outcome::Pending => counts.pending = 1,
        Outcome::Offline => counts.offline = 1,
        Outcome::Sent => counts.sent = 1,
        Outcome::Killed => counts.killed = 1,
        Outcome::AlreadyDead => counts.already_dead = 1,
        Outcome::Partial => counts.partial = 1,
        Outcome::Respawning => counts.respawning = 1,
        Outcome::Failed => counts.failed = 1,
        Outcome::Frozen => counts.frozen = 1,
        Outcome::Released => counts.released = 1,
        Outcome::Superseded => counts.superseded = 1,
        Outcome::Accepted => counts.accepted = 1,
        Outcome::Rebooted => counts.rebooted = 1,
    }
    counts
}

/// The orders, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Book(VecDeque<Kept>);

impl Book {
    pub(crate) fn enter(&mut self, kept: Kept) {
        if self.0.len() >= KEPT {
            self.0.pop_front();
        }
        self.0.push_back(kept);
    }

    pub(crate) fn get(&self, id: OrderId) -> Option<&Kept> {
        self.0.iter().rev().find(|kept| kept.id == id)
    }

    /// The order that this key of this person made.
    pub(crate) fn by_key(&self, person: &PersonName, key: &str) -> Option<&Kept> {
        self.0
            .iter()
            .rev()
            .find(|kept| kept.person == *person && kept.key == key)
    }

    /// Newest first.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &Kept> {
        self.0.iter().rev()
    }

    /// Notes why an order is not durable; empty: it is.
    pub(crate) fn note(&mut self, id: OrderId, not_durable: String) -> Option<&Kept> {
        let kept = self.0.iter_mut().rev().find(|kept| kept.id == id)?;
        kept.not_durable = not_durable;
        Some(kept)
    }

    /// Notes an answer. Whether the order is one of ours.
    pub(crate) fn hear(&mut self, id: OrderId, answer: Answer, at_ms: i64) -> bool {
        match self.0.iter_mut().rev().find(|kept| kept.id == id) {
            Some(kept) => {
                kept.hear(answer, at_ms);
                true
            }
            None => false,
        }
    }
}
