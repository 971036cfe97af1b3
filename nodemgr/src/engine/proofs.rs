//! Second answers: an adopted sliver is proven dead when nothing came back for five seconds; a partial one when its
//! last process is gone. Pure but for reading `populated`; `now` is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::SliceName;
use proto::v1::{Answer, Outcome, SliverProof};
use tokio::sync::mpsc;

use super::core::Subtree;
use super::{Node, Verdict};

/// Without respawn for so long: proven.
pub(super) const QUIET: Duration = Duration::from_secs(5);
/// Orders whose proof is outstanding at most; the oldest give way.
const MOST: usize = 1_024;
/// Second answers that a new link is told again, and for how long: the old link may have lost them.
const KEPT: usize = 256;
const KEPT_FOR: Duration = Duration::from_secs(600);

/// One order that is not proven yet.
#[derive(Debug)]
pub(super) struct Proof {
    answer: Answer,
    slice: Option<SliceName>,
    subtrees: Vec<Arc<Subtree>>,
    freeze: bool,
    adopted: bool,
    began: Instant,
    quiet_since: Instant,
    respawns: BTreeMap<String, u32>,
    told: bool,
}

impl Proof {
    pub(super) fn new(
        mut answer: Answer,
        slice: Option<SliceName>,
        subtrees: Vec<Arc<Subtree>>,
        freeze: bool,
        adopted: bool,
    ) -> Self {
        // The first answer carried it.
        answer.slivers.iter_mut().for_each(|proof| proof.evidence = None);
        let now = Instant::now();
        Self {
            answer,
            slice,
            subtrees,
            freeze,
            adopted,
            began: now,
            quiet_since: now,
            respawns: BTreeMap::new(),
            told: false,
        }
    }

    fn respawned(&mut self, subtree: &Subtree, now: Instant) {
        self.quiet_since = now;
        let cgroup = subtree.handle.path().to_string_lossy().into_owned();
        if !self.answer.slivers.iter().any(|proof| proof.cgroup == cgroup) && self.answer.slivers.len() < 64 {
            self.answer.slivers.push(SliverProof {
                slice: subtree.slice.to_string(),
                cgroup: cgroup.clone(),
                cgroup_id: subtree.handle.id(),
                manager: subtree.manager.to_owned(),
                ..SliverProof::default()
            });
        }
        *self.respawns.entry(cgroup).or_default() += 1;
    }

    /// Whether everything is as the order wants it, as far as can be seen now.
    fn is_so(&self) -> bool {
        self.subtrees.iter().all(|subtree| match subtree.handle.events() {
            Ok(events) if self.freeze => events.frozen,
            Ok(events) => !events.populated,
            Err(error) => error.is_gone(),
        })
    }

    /// The answer that is due now. The flag: it is the last one.
    fn due(&mut self, now: Instant) -> Option<(Answer, bool)> {
        if !self.is_so() {
            self.quiet_since = now;
        }
        let quiet_for = if self.adopted { QUIET } else { Duration::ZERO };
        let respawned = !self.respawns.is_empty();
        if self.quiet_since != now && now - self.quiet_since >= quiet_for {
            return Some((
                self.words(
                    if self.freeze {
                        Outcome::Frozen
                    } else {
                        Outcome::Killed
                    },
                    true,
                ),
                true,
            ));
        }
        if respawned && !self.told && now - self.began >= QUIET {
            self.told = true;
            return Some((self.words(Outcome::Respawning, false), false));
        }
        None
    }

    fn words(&self, outcome: Outcome, proven: bool) -> Answer {
        let mut answer = self.answer.clone();
        let died_at_first = !matches!(answer.outcome(), Outcome::Partial | Outcome::Respawning);
        if !proven || !died_at_first || !self.respawns.is_empty() {
            answer.outcome = outcome.into();
        }
        answer.proven = proven;
        for proof in &mut answer.slivers {
            proof.respawns = self
                .respawns
                .get(&proof.cgroup)
                .copied()
                .unwrap_or(proof.respawns);
            let came_back = self.respawns.contains_key(&proof.cgroup);
            if proven && (proof.outcome() == Outcome::Partial || came_back) {
                proof.outcome = outcome.into();
                proof.detail.clear();
                proof.stuck = Some(0);
            } else if came_back {
                proof.outcome = Outcome::Respawning.into();
            }
        }
        let total: u32 = self.respawns.values().sum();
        if total > 0 {
            let who: Vec<&str> = answer
                .slivers
                .iter()
                .filter(|p| p.respawns > 0)
                .map(|p| p.manager.as_str())
                .collect();
            let who = who.first().copied().unwrap_or("something");
            answer.detail = match proven {
                true => format!(
                    "{who} started it again {total} times; quiet for {} s now",
                    QUIET.as_secs()
                ),
                false => format!("{who} has started it again {total} times, killed each time"),
            };
        } else if proven && self.answer.outcome() == Outcome::Partial {
            answer.detail = "the last process is gone".into();
        }
        answer
    }
}

/// All that are outstanding, and where second answers go.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    open: VecDeque<Proof>,
    recent: VecDeque<(Instant, Answer)>,
    link: Option<mpsc::WeakSender<Answer>>,
}

impl Proofs {
    fn deliver(&mut self, now: Instant, answer: Answer) {
        self.recent.retain(|(_, old)| old.order != answer.order);
        if self.recent.len() >= KEPT {
            self.recent.pop_front();
        }
        if let Some(link) = self.link.as_ref().and_then(mpsc::WeakSender::upgrade) {
            // A full or dead link loses it; the next one is told again.
            let _ = link.try_send(answer.clone());
        }
        self.recent.push_back((now, answer));
    }
}

impl Node {
    /// Follows an order until it is proven. Given again, it is followed anew.
    pub(super) fn follow(&self, proof: Proof) {
        let mut proofs = self.proofs();
        proofs.open.retain(|old| old.answer.order != proof.answer.order);
        if proofs.open.len() >= MOST {
            proofs.open.pop_front();
        }
        proofs.open.push_back(proof);
        drop(proofs);
        self.wake.now();
    }

    /// Where second answers go from now on; the recent ones at once.
    pub(crate) fn attach(&self, link: &mpsc::Sender<Answer>) {
        let now = Instant::now();
        let mut proofs = self.proofs();
        proofs.recent.retain(|(at, _)| now - *at < KEPT_FOR);
        for (_, answer) in &proofs.recent {
            let _ = link.try_send(answer.clone());
        }
        // Weak: the stream ends when its orders are answered, not when the next link comes.
        proofs.link = Some(link.downgrade());
    }

    /// Something came back under a hold and is being killed again.
    pub(super) fn note_respawn(&self, subtree: &Subtree, now: Instant) {
        for proof in &mut self.proofs().open {
            if proof.slice.as_ref().is_none_or(|slice| *slice == subtree.slice) {
                proof.respawned(subtree, now);
            }
        }
    }

    /// Sends what is due. Gives whether anything is outstanding.
    pub(super) fn check_proofs(&self, now: Instant) -> bool {
        let mut proofs = self.proofs();
        if proofs.open.is_empty() {
            return false;
        }
        let mut open = std::mem::take(&mut proofs.open);
        // Released meanwhile: what comes back is no respawn, and nothing more is to be proven.
        open.retain(|proof| match (&proof.slice, proof.freeze) {
            (Some(slice), false) => self.verdict(slice) == Verdict::Dead,
            (Some(slice), true) => self.verdict(slice) != Verdict::Run,
            (None, _) => self.holds_the_node(),
        });
        open.retain_mut(|proof| match proof.due(now) {
            Some((answer, last)) => {
                tracing::info!(order = answer.order, outcome = ?answer.outcome(), proven = answer.proven, "second answer");
                // Nobody listening is fine.
                let _ = self.second.send(answer.clone());
                proofs.deliver(now, answer);
                !last
            }
            None => true,
        });
        proofs.open = open;
        !proofs.open.is_empty()
    }

    fn holds_the_node(&self) -> bool {
        self.core().state.holds.iter().any(|hold| hold.slice.is_none())
    }
}
