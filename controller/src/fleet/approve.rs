//! Two people: a proposal is made, agreed to, and carried out once.
//!
//! ```text
//! propose ─▶ signed, durable ─▶ approve: rule ─▶ signed, durable ─▶ carry out (carry_out.rs) ─▶ finished
//!                                                    └── the controller died: resume, at the next start or second
//! ```
//! Concurrency: of several approvals the store takes one.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use authz::{Action, Actor, Verdict, decide};
use proto::{HoldKind, PersonName, ProposalId};
use tokio::sync::watch;
use trust::{Keyring, Kind};

use super::{Fleet, now_ms};
use crate::approvals::{
    Act, Case, Digest, Life, OPEN_FOR_MS, Refusal, TIED_FOR_MS, Terms, Tie, approval_bytes, life, may_approve,
};
use crate::error::Error;
use crate::orders::{Reach, Wish};
use crate::store::{About, Approval, Note, ProposalRecord, Proposed};

/// Most proposals that wait at once.
const MOST_OPEN: usize = 100;
/// Nodes that are named where none has a way back.
const NAMED: usize = 20;

/// Who looks at proposals, and whether one is left to be carried out.
#[derive(Debug, Default)]
pub(super) struct Agreeing {
    changed: watch::Sender<u64>,
    pub(super) unfinished: AtomicBool,
}

/// What came of an approval.
#[derive(Debug, Clone)]
pub struct Agreed {
    /// As it stands.
    pub proposal: ProposalRecord,
    /// Why the order that came of it is not on the disk; `None`: it is, or there is none.
    pub not_durable: Option<String>,
}

/// What a wish is if it takes two people.
pub(crate) const fn act_of(wish: &Wish) -> Option<Act> {
    match wish {
        Wish::Hold {
            slice: None,
            reach: Reach::Fleet,
            kind: HoldKind::Suspend,
        } => Some(Act::StopEverySlice),
        Wish::StopEveryNode { no_way_back } => Some(Act::StopEveryNode {
            no_way_back: *no_way_back,
        }),
        _ => None,
    }
}

impl Fleet {
    /// Changes when anything becomes of a proposal.
    pub(crate) fn proposals_changed(&self) -> watch::Receiver<u64> {
        self.agreeing.changed.subscribe()
    }

    pub(super) fn proposal_changed(&self) {
        self.agreeing.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Proposes what takes two people. The same key from the same person is the same proposal; the flag says
    /// whether this call made it.
    ///
    /// # Errors
    /// When the table says no, nothing could be done, or the disk takes nothing. Audited.
    pub async fn propose(
        &self,
        actor: &Actor,
        act: Act,
        key: String,
        reason: String,
        evidence: String,
        at_ms: i64,
    ) -> Result<(ProposalRecord, bool), Error> {
        if let Some(before) = self.store.proposal_by_key(&actor.name, &key).await? {
            return same(self.alive(before, at_ms), &act);
        }
        if let Some(order) = self.store.order_by_key(&actor.name, &key).await? {
            return Err(Error::Exists(format!(
                "idempotency_key was used for another wish: order {}, {} {}",
                order.id, order.kind, order.target
            )));
        }
        // The numbers that people agree to count nodes that another process enrolled a moment ago.
        if let Err(error) = self.refresh().await {
            tracing::warn!(%error, "proposed without looking for new nodes");
        }
        let (role, rule) = match self.may_propose(actor, &act, at_ms).await {
            Ok(entitled) => entitled,
            Err(error) => {
                self.note_about(Some(&actor.name), "propose", &act, &reason, at_ms, &error)
                    .await;
                return Err(error);
            }
        };
        let terms = Terms {
            id: ProposalId::new(),
            incarnation: self.now().incarnation,
            person: actor.name.clone(),
            role,
            act: act.clone(),
            reason,
            evidence,
            proposed_at_ms: at_ms,
            expires_at_ms: at_ms.saturating_add(OPEN_FOR_MS),
        };
        let record = ProposalRecord {
            digest: terms.digest(),
            signature: self.signer().sign_short(Kind::Approval, &terms.encode()).to_vec(),
            terms,
            key,
            life: Life::Open,
            approved: None,
            order: None,
            outcome: String::new(),
        };
        let note = self.note_of(
            Some(&actor.name),
            "propose",
            &record,
            audit::Outcome::Allowed,
            &rule,
            at_ms,
        );
        let record = match self.store.propose(&record, note).await? {
            Proposed::Created(record) => record,
            Proposed::Existing(record) => return same(record, &act),
        };
        self.proposal_changed();
        Ok((record, true))
    }

    async fn may_propose(
        &self,
        actor: &Actor,
        act: &Act,
        at_ms: i64,
    ) -> Result<(proto::Role, String), Error> {
        let entitled = match decide(actor, act.action(), &act.target()) {
            Verdict::NeedsSecondPerson { role, rule } => (role, rule),
            Verdict::Deny { rule } => return Err(Error::Refused { rule }),
            // The table changed and this code did not: whoever changed it must say what that means.
            Verdict::Allow { rule, .. } | Verdict::Anyone { rule } => {
                return Err(Error::Internal(format!("{rule}: needs no second person")));
            }
        };
        match act {
            Act::StopEveryNode { no_way_back: false } => {
                let (count, names) = self.no_way_back();
                if count > 0 {
                    return Err(Error::Precondition(format!(
                        "{count} nodes have no commissioned outlet to power them on again from afar: {}; \
                         `--no-way-back` stops them all the same",
                        listed(&names, count)
                    )));
                }
            }
            Act::RotateCa => {
                return Err(Error::Unimplemented(
                    "this controller cannot rotate its CA while it runs".into(),
                ));
            }
            Act::RollOut { sha256, plan, .. } => {
                self.rollouts()?.check(sha256, plan).await?;
            }
            Act::StopEverySlice | Act::StopEveryNode { no_way_back: true } => {}
        }
        let incarnation = self.now().incarnation;
        let open = self.store.proposals(true, 1_000).await?;
        let waiting = open
            .iter()
            .filter(|record| life(record.life, &record.terms, incarnation, at_ms) == Life::Open)
            .count();
        if waiting >= MOST_OPEN {
            return Err(Error::Precondition(format!(
                "{waiting} proposals wait already: approve or withdraw some (redbutton approvals ls)"
            )));
        }
        Ok(entitled)
    }

    /// Nodes that nothing could power on again from afar, and the names of the first of them. No outlet of any
    /// node is commissioned yet, so these are all.
    pub(crate) fn no_way_back(&self) -> (u32, Vec<String>) {
        let state = self.lock();
        let names = state.roster.iter().map(|(_, member)| member.name.to_string());
        (
            u32::try_from(state.roster.len()).unwrap_or(u32::MAX),
            names.take(NAMED).collect(),
        )
    }

    /// A proposal as it stands, with what follows from time and incarnation.
    ///
    /// # Errors
    /// When there is none.
    pub async fn proposal(&self, id: ProposalId) -> Result<ProposalRecord, Error> {
        let record = self.store.proposal(id).await?;
        Ok(self.alive(record, now_ms()))
    }

    fn alive(&self, mut record: ProposalRecord, at_ms: i64) -> ProposalRecord {
        record.life = life(record.life, &record.terms, self.now().incarnation, at_ms);
        record
    }

    /// The newest proposals, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn proposals(&self, unfinished: bool, limit: u32) -> Result<Vec<ProposalRecord>, Error> {
        let now = now_ms();
        let records = self.store.proposals(unfinished, limit).await?;
        let alive = records.into_iter().map(|record| self.alive(record, now));
        let wanted =
            |record: &ProposalRecord| !unfinished || matches!(record.life, Life::Open | Life::Approved);
        Ok(alive.filter(wanted).collect())
    }

    /// The digest of what the store holds, if the controller signed exactly that.
    pub(super) fn vouched(&self, record: &ProposalRecord) -> Option<Digest> {
        let digest = record.terms.digest();
        let signed = self
            .keyring()
            .verify_short(Kind::Approval, &record.terms.encode(), &record.signature);
        (signed && digest == record.digest).then_some(digest)
    }

    pub(super) fn keyring(&self) -> Keyring {
        let mut keyring = Keyring::new();
        if let Some(own) = self.signer().chain().first()
            && let Err(error) = keyring.add(own)
        {
            tracing::error!(%error, "our own signer is none");
        }
        keyring
    }

    /// Whether somebody could agree to this now.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn could_approve(
        &self,
        record: &ProposalRecord,
        approver: &PersonName,
        seen: Digest,
        at_ms: i64,
    ) -> Result<Result<(), Refusal>, Error> {
        let terms = &record.terms;
        let since = at_ms.saturating_sub(TIED_FOR_MS);
        let ties = self.store.ties(&terms.person, approver, since).await?;
        let ties: Vec<Tie> = ties.into_iter().map(Tie::from).collect();
        let decided = match (&record.approved, record.order) {
            (Some(approval), Some(order)) => format!("by {}, order {order}", approval.by),
            (Some(approval), None) => format!("by {}", approval.by),
            (None, _) => record.outcome.clone(),
        };
        let case = Case {
            terms,
            life: life(record.life, terms, self.now().incarnation, at_ms),
            decided: &decided,
            digest: self.vouched(record),
            seen,
            proposer_since_ms: self.store.support_since(&terms.person).await?,
            approver,
            approver_since_ms: self.store.support_since(approver).await?,
            ties: &ties,
            now_ms: at_ms,
        };
        Ok(may_approve(&case))
    }

    /// Agrees to a proposal and carries it out. Runs to its end also when the caller goes away.
    ///
    /// # Errors
    /// When a rule forbids it, which is audited, or the disk does not take it. A proposal that was approved and
    /// could not be carried out says so in its outcome.
    pub async fn approve(
        self: &Arc<Self>,
        actor: Actor,
        id: ProposalId,
        seen: Digest,
        at_ms: i64,
    ) -> Result<Agreed, Error> {
        let fleet = self.clone();
        let task = tokio::spawn(async move { Box::pin(fleet.approve_here(&actor, id, seen, at_ms)).await });
        task.await
            .map_err(|e| Error::Internal(format!("the approval broke off: {e}")))?
    }

    async fn approve_here(
        self: &Arc<Self>,
        actor: &Actor,
        id: ProposalId,
        seen: Digest,
        at_ms: i64,
    ) -> Result<Agreed, Error> {
        let record = self.store.proposal(id).await?;
        let refused = match decide(actor, record.terms.act.action(), &record.terms.act.target()) {
            Verdict::NeedsSecondPerson { .. } => self
                .could_approve(&record, &actor.name, seen, at_ms)
                .await?
                .err()
                .map(|refusal| refusal.to_string()),
            verdict => Some(verdict.rule().to_owned()),
        };
        if let Some(rule) = refused {
            return self.refuse_approval(actor, &record, rule, at_ms).await;
        }
        let bytes = approval_bytes(&record.digest, &actor.name, at_ms);
        let approval = Approval {
            by: actor.name.clone(),
            at_ms,
            signature: self.signer().sign_short(Kind::Approval, &bytes).to_vec(),
        };
        let detail = format!("proposed by {}, approved by {}", record.terms.person, actor.name);
        let note = self.note_of(
            Some(&actor.name),
            "approve",
            &record,
            audit::Outcome::Allowed,
            &detail,
            at_ms,
        );
        if !self.store.approve_proposal(id, &approval, note).await? {
            // Somebody was faster: say what has become of it.
            let record = self.store.proposal(id).await?;
            let rule = match self.could_approve(&record, &actor.name, seen, at_ms).await? {
                Err(refusal) => refusal.to_string(),
                Ok(()) => format!("proposal {id} is being changed: look again"),
            };
            return self.refuse_approval(actor, &record, rule, at_ms).await;
        }
        crate::crash::point("controller.after-approval");
        self.proposal_changed();
        let record = self.store.proposal(id).await?;
        let not_durable = self.fulfil(&record, at_ms).await?;
        Ok(Agreed {
            proposal: self.proposal(id).await?,
            not_durable,
        })
    }

    async fn refuse_approval<T>(
        &self,
        actor: &Actor,
        record: &ProposalRecord,
        rule: String,
        at_ms: i64,
    ) -> Result<T, Error> {
        if self.vouched(record).is_none() {
            tracing::error!(proposal = %record.terms.id, "a proposal in the database is not what was signed");
        }
        let note = self.note_of(
            Some(&actor.name),
            "approve",
            record,
            audit::Outcome::Refused,
            &rule,
            at_ms,
        );
        self.note(note).await;
        Err(Error::Refused { rule })
    }

    /// Takes a proposal back: its proposer, or anybody who could have made it.
    ///
    /// # Errors
    /// When it is not the caller's to take back, or nothing waits any more. Audited.
    pub async fn withdraw(
        &self,
        actor: &Actor,
        id: ProposalId,
        why: &str,
        at_ms: i64,
    ) -> Result<ProposalRecord, Error> {
        let record = self.store.proposal(id).await?;
        let verdict = decide(actor, record.terms.act.action(), &record.terms.act.target());
        let refused = match verdict {
            _ if actor.name == record.terms.person => None,
            Verdict::NeedsSecondPerson { .. } => None,
            verdict => Some(verdict.rule().to_owned()),
        };
        let outcome = if why.is_empty() {
            format!("by {}", actor.name)
        } else {
            format!("by {}: {why}", actor.name)
        };
        let detail = refused.clone().unwrap_or_else(|| outcome.clone());
        let result = |refused: bool| {
            if refused {
                audit::Outcome::Refused
            } else {
                audit::Outcome::Allowed
            }
        };
        let note = |detail: &str, refused: bool| {
            self.note_of(
                Some(&actor.name),
                "withdraw",
                &record,
                result(refused),
                detail,
                at_ms,
            )
        };
        if let Some(rule) = refused {
            self.note(note(&detail, true)).await;
            return Err(Error::Refused { rule });
        }
        let waits = life(record.life, &record.terms, self.now().incarnation, at_ms) == Life::Open;
        if !waits
            || !self
                .store
                .withdraw_proposal(id, &outcome, note(&detail, false))
                .await?
        {
            let rule = format!("proposal {id} does not wait any more: redbutton approvals show {id}");
            self.note(note(&rule, true)).await;
            return Err(Error::Precondition(rule));
        }
        self.proposal_changed();
        self.proposal(id).await
    }

    pub(super) fn note_of(
        &self,
        person: Option<&PersonName>,
        action: &str,
        record: &ProposalRecord,
        outcome: audit::Outcome,
        detail: &str,
        at_ms: i64,
    ) -> Note {
        let Terms {
            id,
            role,
            act,
            reason,
            evidence,
            ..
        } = &record.terms;
        let draft = audit::Draft {
            at_ms,
            version: self.now(),
            person: person.cloned(),
            role: person
                .filter(|_| outcome == audit::Outcome::Allowed)
                .map(|_| *role),
            action: action.to_owned(),
            target: target_of(act.action()),
            reason: reason.clone(),
            evidence: evidence.clone(),
            outcome,
            detail: format!("{detail}; proposal {id}, digest {}", record.digest),
            order: record.order,
        };
        Note {
            draft,
            about: About::default(),
        }
    }

    async fn note_about(
        &self,
        person: Option<&PersonName>,
        action: &str,
        act: &Act,
        reason: &str,
        at_ms: i64,
        error: &Error,
    ) {
        let outcome = match error {
            Error::Refused { .. } | Error::Unimplemented(_) | Error::Precondition(_) => {
                audit::Outcome::Refused
            }
            _ => audit::Outcome::Failed,
        };
        let draft = audit::Draft {
            at_ms,
            version: self.now(),
            person: person.cloned(),
            role: None,
            action: action.to_owned(),
            target: target_of(act.action()),
            reason: reason.to_owned(),
            evidence: String::new(),
            outcome,
            detail: error.to_string(),
            order: None,
        };
        let about = About::default();
        self.note(Note { draft, about }).await;
    }
}

fn target_of(action: Action) -> String {
    action.as_str().to_owned()
}

fn same(before: ProposalRecord, act: &Act) -> Result<(ProposalRecord, bool), Error> {
    if before.terms.act == *act {
        return Ok((before, false));
    }
    Err(Error::Exists(format!(
        "idempotency_key was used for another wish: proposal {}, {}",
        before.terms.id, before.terms.act
    )))
}

/// `n1, n2 and 3 more`
fn listed(names: &[String], all: u32) -> String {
    let shown = names.join(", ");
    match (all as usize).saturating_sub(names.len()) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
