//! What two people agreed to is carried out, once: after the approval, or after the crash that came in between.
//!
//! Carrying out an order twice makes one order: its key is made of the proposal's id, with a blank in it, which no
//! client's key may have. Orders go through the gate like every press.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use authz::{Actor, Grant};
use proto::{Hold, HoldId, HoldKind, OrderId, PersonName, Scope, Version};
use trust::Kind;

use super::press::Decided;
use super::{Aim, Fleet, Pressed, now_ms};
use crate::approvals::{Act, Life, Refusal, Terms, approval_bytes, life, may_carry_out};
use crate::error::Error;
use crate::orders::{Press, Reach, Wish};
use crate::store::{self, About, Approval, OrderKind, ProposalRecord};

/// What carrying out came to.
struct Done {
    order: Option<OrderId>,
    outcome: String,
    not_durable: Option<String>,
}

impl Fleet {
    /// Carries out what was approved and is not finished: after a crash, or when the disk took something late.
    pub async fn resume_approved(self: &Arc<Self>) {
        self.agreeing.unfinished.store(false, Ordering::Relaxed);
        let now = now_ms();
        let records = match self.store.proposals(true, 1_000).await {
            Ok(records) => records,
            Err(error) => {
                self.agreeing.unfinished.store(true, Ordering::Relaxed);
                return tracing::warn!(%error, "cannot look for what was approved");
            }
        };
        for record in records {
            if life(record.life, &record.terms, self.now().incarnation, now) == Life::Approved
                && let Err(error) = Box::pin(self.fulfil(&record, now)).await
            {
                tracing::error!(proposal = %record.terms.id, %error, "approved, and not carried out yet");
            }
        }
    }

    /// Once a second: what is left to be carried out.
    pub(super) async fn retry_approved(self: &Arc<Self>) {
        if self.agreeing.unfinished.load(Ordering::Relaxed) {
            self.resume_approved().await;
        }
    }

    /// Carries out an approved proposal and says so in the store. Why the order is not durable is returned.
    pub(super) async fn fulfil(
        self: &Arc<Self>,
        record: &ProposalRecord,
        at_ms: i64,
    ) -> Result<Option<String>, Error> {
        let id = record.terms.id;
        let done = match self.may_fulfil(record, at_ms) {
            Ok(()) => match self.carry_out_act(record, at_ms).await {
                // Nothing was begun; the next second may do better.
                Err(error @ (Error::NotDurable(_) | Error::Store(_))) => {
                    self.agreeing.unfinished.store(true, Ordering::Relaxed);
                    return Err(error);
                }
                other => other,
            },
            Err(why) => Err(Error::Precondition(why)),
        };
        crate::crash::point("controller.before-finish");
        let (written, not_durable) = match done {
            Ok(Done {
                order,
                outcome,
                not_durable,
            }) => {
                let note = match order {
                    Some(_) => None,
                    None => Some(self.note_of(
                        None,
                        record.terms.act.action().as_str(),
                        record,
                        audit::Outcome::Done,
                        &outcome,
                        at_ms,
                    )),
                };
                let written = self.store.finish_proposal(id, true, order, &outcome, note).await;
                (written, not_durable)
            }
            Err(error) => {
                let why = error.to_string();
                tracing::error!(proposal = %id, %why, "approved, and came to nothing");
                let note = self.note_of(
                    None,
                    record.terms.act.action().as_str(),
                    record,
                    audit::Outcome::Failed,
                    &why,
                    at_ms,
                );
                let written = self
                    .store
                    .finish_proposal(id, false, None, &why, Some(note))
                    .await;
                (written, None)
            }
        };
        match written {
            Ok(_) => {}
            Err(error) if not_durable.is_some() => {
                tracing::warn!(%error, proposal = %id, "carried out, not written yet");
                self.agreeing.unfinished.store(true, Ordering::Relaxed);
            }
            Err(error) => {
                self.agreeing.unfinished.store(true, Ordering::Relaxed);
                return Err(error.into());
            }
        }
        crate::crash::point("controller.after-finish");
        self.proposal_changed();
        Ok(not_durable)
    }

    /// Whether what the store says was approved really was: somebody may have written into it by hand.
    fn may_fulfil(&self, record: &ProposalRecord, at_ms: i64) -> Result<(), String> {
        let Some(Approval {
            by,
            at_ms: then,
            signature,
        }) = &record.approved
        else {
            return Err("nobody approved it".into());
        };
        let Some(digest) = self.vouched(record) else {
            return Err(Refusal::Changed(record.terms.id).to_string());
        };
        let bytes = approval_bytes(&digest, by, *then);
        if !self.keyring().verify_short(Kind::Approval, &bytes, signature) {
            return Err(format!(
                "the approval of proposal {} was written into the database by hand",
                record.terms.id
            ));
        }
        if !may_carry_out(*then, at_ms) {
            return Err("the controller was away for too long after the approval: propose it again".into());
        }
        Ok(())
    }

    async fn carry_out_act(self: &Arc<Self>, record: &ProposalRecord, at_ms: i64) -> Result<Done, Error> {
        let wish = match &record.terms.act {
            Act::StopEverySlice => Wish::Hold {
                slice: None,
                reach: Reach::Fleet,
                kind: HoldKind::Suspend,
            },
            Act::StopEveryNode { no_way_back } => Wish::StopEveryNode {
                no_way_back: *no_way_back,
            },
            Act::RollOut {
                version,
                sha256,
                plan,
            } => {
                let outcome = self.roll_out(record, version, sha256, plan).await?;
                return Ok(Done {
                    order: None,
                    outcome,
                    not_durable: None,
                });
            }
            Act::RotateCa => {
                return Err(Error::Unimplemented(
                    "this controller cannot rotate its CA while it runs".into(),
                ));
            }
        };
        let pressed = self.press_for_two(record, wish, at_ms).await?;
        Ok(Done {
            order: Some(pressed.order.record.id),
            outcome: String::new(),
            not_durable: pressed.not_durable,
        })
    }

    /// Makes the order of a proposal, or finds the one that was made before.
    async fn press_for_two(
        self: &Arc<Self>,
        record: &ProposalRecord,
        wish: Wish,
        at_ms: i64,
    ) -> Result<Pressed, Error> {
        let Terms {
            id,
            person,
            role,
            reason,
            evidence,
            ..
        } = &record.terms;
        let approver = record
            .approved
            .as_ref()
            .map_or_else(String::new, |approval| approval.by.to_string());
        let (kind, kept, text, sets) = match &wish {
            Wish::StopEveryNode { no_way_back } => (
                OrderKind::StopEveryNode,
                store::Wish::StopEveryNode {
                    no_way_back: *no_way_back,
                },
                "every node",
                Vec::new(),
            ),
            _ => {
                let hold = Hold {
                    id: HoldId::new(),
                    slice: None,
                    scope: Scope::Fleet,
                    kind: HoldKind::Suspend,
                    holder: person.clone(),
                    role: *role,
                    reason: reason.clone(),
                    evidence: evidence.clone(),
                    set_at_ms: at_ms,
                    // Filled in with the order's.
                    version: Version::default(),
                };
                let kept = store::Wish::Hold {
                    slice: None,
                    scope: Scope::Fleet,
                    kind: HoldKind::Suspend,
                };
                (
                    OrderKind::StopEverySlice,
                    kept,
                    "every slice everywhere",
                    vec![hold],
                )
            }
        };
        let rule = format!(
            "proposal {id} by {person}, approved by {approver}, digest {}",
            record.digest
        );
        let press = Press {
            key: format!("proposal {id}"),
            reason: reason.clone(),
            evidence: evidence.clone(),
            wish,
        };
        let decided = Decided {
            aim: Aim {
                kind,
                slice: None,
                scope: Scope::Fleet,
                text: text.to_owned(),
                about: About::default(),
                node: None,
                role: *role,
                rule: rule.clone(),
            },
            wish: kept,
            sets,
            lifts: Vec::new(),
            detail: rule,
        };
        let actor = Actor {
            name: person.clone(),
            grants: vec![Grant::Support],
        };
        let mut gate = self.gate.lock().await;
        if let Some(before) = self.made_before(&actor.name, &press.key).await? {
            return Ok(before);
        }
        self.carry_out(&mut gate, &actor, &press, decided, at_ms).await
    }

    /// The order that this key made, in memory or on the disk.
    async fn made_before(&self, person: &PersonName, key: &str) -> Result<Option<Pressed>, Error> {
        let kept = {
            let state = self.lock();
            let mut records = state.book.values().map(|open| (&open.record, open.stored));
            records
                .find(|(record, _)| record.person == *person && record.key == key)
                .map(|(record, stored)| (record.clone(), stored))
        };
        let (record, stored) = match kept {
            Some(kept) => kept,
            None => match self.store.order_by_key(person, key).await? {
                Some(record) => (Arc::new(record), true),
                None => return Ok(None),
            },
        };
        Ok(Some(Pressed {
            order: self.view(record),
            created: false,
            not_durable: (!stored).then(|| "the disk has not taken it yet".to_owned()),
        }))
    }
}
