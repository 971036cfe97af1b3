//! A press: decide, commit, send, answer. One at a time: versions go out in the order in which they are taken,
//! and a release sees every hold that was set before it.

use std::sync::Arc;

use authz::{Action, Actor};
use proto::v1::OutcomeCounts;
use proto::{BootId, Hold, HoldId, OrderId, Scope, Version, canonical};
use tokio::sync::MutexGuard;
use trust::Kind;

use super::aim::NotAimed;
use super::epochs::Epochs;
use super::unwritten::Written;
use super::{Aim, Fleet, LiveOrder, Member};
use crate::error::Error;
use crate::orders::{NodeRef, Press, ReleaseOf, Wish};
use crate::store::{self, Committed, NewOrder, Note, OrderKind, OrderRecord, OrderState, Signatures};

/// What came of a press.
#[derive(Debug, Clone)]
pub struct Pressed {
    /// The order as it stands.
    pub order: LiveOrder,
    /// False: this key was pressed before and this is that order.
    pub created: bool,
    /// Why it is not on the disk; `None`: it is.
    pub not_durable: Option<String>,
}

/// An allowed press, ready to become an order.
pub(super) struct Decided {
    pub(super) aim: Aim,
    pub(super) wish: store::Wish,
    pub(super) sets: Vec<Hold>,
    pub(super) lifts: Vec<Hold>,
    /// For the audit.
    pub(super) detail: String,
}

impl Fleet {
    /// Presses the button. Runs to its end also when the caller goes away.
    ///
    /// # Errors
    /// When it is refused, names what is not there, or no version is left. All of it is audited.
    pub async fn press(self: &Arc<Self>, actor: Actor, press: Press, at_ms: i64) -> Result<Pressed, Error> {
        let fleet = self.clone();
        let task = tokio::spawn(async move { Box::pin(fleet.press_here(&actor, &press, at_ms)).await });
        task.await
            .map_err(|e| Error::Internal(format!("the press broke off: {e}")))?
    }

    async fn press_here(
        self: &Arc<Self>,
        actor: &Actor,
        press: &Press,
        at_ms: i64,
    ) -> Result<Pressed, Error> {
        let mut gate = self.gate.lock().await;
        if let Some(before) = self.pressed_before(actor, press).await? {
            return Ok(before);
        }
        let decided = match self.decide(actor, press, at_ms).await {
            Ok(decided) => decided,
            Err(not) => {
                self.note_refusal(actor, press, &not, at_ms).await;
                return Err(not.error);
            }
        };
        self.carry_out(&mut gate, actor, press, decided, at_ms).await
    }

    /// The order that this key made before. A store that cannot be read does not stop the button.
    async fn pressed_before(&self, actor: &Actor, press: &Press) -> Result<Option<Pressed>, Error> {
        let kept = {
            let state = self.lock();
            let mine = |record: &&Arc<OrderRecord>| record.person == actor.name && record.key == press.key;
            state.book.values().map(|open| &open.record).find(mine).cloned()
        };
        let record = match kept {
            Some(record) => record,
            None => match self.store.order_by_key(&actor.name, &press.key).await {
                Ok(Some(record)) => Arc::new(record),
                Ok(None) => return Ok(None),
                Err(error) => {
                    tracing::warn!(%error, "pressed without looking for an earlier press");
                    return Ok(None);
                }
            },
        };
        if !self.same_wish(&record, &press.wish) {
            return Err(Error::Exists(format!(
                "idempotency_key was used for another wish: order {}, {} {}",
                record.id, record.kind, record.target
            )));
        }
        let stored = self.lock().open(record.id).is_none_or(|open| open.stored);
        let not_durable = (!stored).then(|| "the disk has not taken it yet".to_owned());
        Ok(Some(Pressed {
            order: self.view(record),
            created: false,
            not_durable,
        }))
    }

    fn same_wish(&self, record: &OrderRecord, wish: &Wish) -> bool {
        let id = |node: &NodeRef| self.find(node).map(|(_, member)| member.id);
        let on = |node: &NodeRef| id(node).is_some_and(|id| record.scope == Scope::Node(id));
        if OrderKind::of(wish) != Some(record.kind) {
            return false;
        }
        match wish {
            Wish::Hold { slice, reach, .. } => {
                *slice == record.slice
                    && match reach {
                        crate::orders::Reach::Fleet => record.scope == Scope::Fleet,
                        crate::orders::Reach::Site(site) => record.scope == Scope::Site(site.clone()),
                        crate::orders::Reach::Node(node) => on(node),
                    }
            }
            Wish::Release(ReleaseOf::Hold(hold)) => record.holds.iter().any(|lifted| lifted.id == *hold),
            Wish::Release(ReleaseOf::Slice(slice)) => record.slice.as_ref() == Some(slice),
            Wish::Release(ReleaseOf::Node(node)) | Wish::Reboot { node } | Wish::Stop { node, .. } => {
                on(node)
            }
            Wish::StopEveryNode { .. } => true,
        }
    }

    async fn decide(&self, actor: &Actor, press: &Press, at_ms: i64) -> Result<Decided, Box<NotAimed>> {
        if let Wish::Release(of) = &press.wish {
            return self.plan(actor, of).await;
        }
        let aim = self.aim(actor, &press.wish).await?;
        let boot = aim.node.as_ref().and_then(|member| self.boot_of(member));
        let (wish, sets) = match (&press.wish, &aim.node) {
            (Wish::Reboot { .. }, Some(node)) => (
                store::Wish::Reboot {
                    node: node.id,
                    boot_id: boot,
                },
                Vec::new(),
            ),
            (Wish::Stop { no_way_back, .. }, Some(node)) => {
                let no_way_back = *no_way_back;
                (
                    store::Wish::Stop {
                        node: node.id,
                        boot_id: boot,
                        no_way_back,
                    },
                    Vec::new(),
                )
            }
            (Wish::Hold { kind, .. }, _) => {
                let hold = Hold {
                    id: HoldId::new(),
                    slice: aim.slice.clone(),
                    scope: aim.scope.clone(),
                    kind: *kind,
                    holder: actor.name.clone(),
                    role: aim.role,
                    reason: press.reason.clone(),
                    evidence: press.evidence.clone(),
                    set_at_ms: at_ms,
                    // Filled in with the order's.
                    version: Version::default(),
                };
                let wish = store::Wish::Hold {
                    slice: aim.slice.clone(),
                    scope: aim.scope.clone(),
                    kind: *kind,
                };
                (wish, vec![hold])
            }
            (Wish::Release(_) | Wish::Reboot { .. } | Wish::Stop { .. } | Wish::StopEveryNode { .. }, _) => {
                return Err(Box::new(NotAimed {
                    action: Action::RebootNode,
                    text: aim.text,
                    about: aim.about,
                    error: Error::Internal("an order for a node without a node".into()),
                }));
            }
        };
        let detail = aim.rule.clone();
        Ok(Decided {
            aim,
            wish,
            sets,
            lifts: Vec::new(),
            detail,
        })
    }

    fn boot_of(&self, member: &Member) -> Option<BootId> {
        let state = self.lock();
        state
            .roster
            .index(member.id)
            .and_then(|index| state.node(index))
            .and_then(|node| node.facts.boot)
    }

    pub(super) async fn carry_out(
        self: &Arc<Self>,
        gate: &mut MutexGuard<'_, Epochs>,
        actor: &Actor,
        press: &Press,
        decided: Decided,
        at_ms: i64,
    ) -> Result<Pressed, Error> {
        let Decided {
            aim,
            wish,
            mut sets,
            lifts,
            detail,
        } = decided;
        let epoch = gate.next(&*self.store).await?;
        let version = Version {
            incarnation: self.now().incarnation,
            epoch,
        };
        for hold in &mut sets {
            hold.version = version;
        }
        let signatures = self.give_word(&sets, &lifts, version);
        let order = NewOrder {
            id: OrderId::new(),
            key: press.key.clone(),
            person: actor.name.clone(),
            role: aim.role,
            kind: aim.kind,
            slice: aim.slice.clone(),
            scope: aim.scope.clone(),
            target: aim.text.clone(),
            reason: press.reason.clone(),
            evidence: press.evidence.clone(),
            pressed_at_ms: at_ms,
            version,
            wish,
            sets,
            lifts: lifts.iter().map(|hold| hold.id).collect(),
            signatures,
        };
        let note = Note {
            draft: audit::Draft {
                at_ms,
                version,
                person: Some(actor.name.clone()),
                role: Some(aim.role),
                action: aim.kind.as_str().to_owned(),
                target: audit_target(&aim),
                reason: press.reason.clone(),
                evidence: press.evidence.clone(),
                outcome: audit::Outcome::Allowed,
                detail,
                order: Some(order.id),
            },
            about: aim.about,
        };
        let kept = in_memory(&order, &lifts);
        let (record, not_durable) = match self.unwritten.order(order, note).await? {
            Written::Stored(committed) => match *committed {
                Committed::Created(record) => (record, None),
                Committed::Existing(record) => {
                    return Ok(Pressed {
                        order: self.view(Arc::new(record)),
                        created: false,
                        not_durable: None,
                    });
                }
            },
            Written::Kept(why) => {
                tracing::error!(order = %kept.id, %why, "order is not durable; it is sent all the same");
                (kept, Some(why))
            }
        };
        let order = self.put_out(record, not_durable.is_none()).await;
        crate::crash::point("controller.after-send");
        Ok(Pressed {
            order,
            created: true,
            not_durable,
        })
    }

    /// Signs what an order sets, or what it lifts: once, however many nodes there are.
    fn give_word(&self, sets: &[Hold], lifts: &[Hold], version: Version) -> Signatures {
        let set = |hold: &Hold| {
            let word = self.signer().sign_short(Kind::Hold, &canonical::hold(hold));
            (hold.id, word)
        };
        let lift = |hold: &Hold| {
            let body = canonical::release(hold.id, version);
            (hold.id, self.signer().sign_short(Kind::Release, &body))
        };
        sets.iter().map(set).chain(lifts.iter().map(lift)).collect()
    }

    /// Enters the order and writes it into every attached link.
    async fn put_out(&self, record: OrderRecord, stored: bool) -> LiveOrder {
        let record = Arc::new(record);
        let (stuck, missing) = {
            let mut state = self.lock();
            state.now = state.now.max(record.version);
            for hold in &record.holds {
                if record.kind == OrderKind::Release {
                    state.lift(hold.id);
                } else {
                    state.hold(hold.clone(), record.signatures.get(&hold.id).copied());
                }
            }
            state.enter(&record, stored, &[]);
            let stuck = state.send(record.id);
            (
                stuck,
                stored && state.open(record.id).is_some_and(|open| !open.whole),
            )
        };
        for link in stuck {
            tracing::warn!(node = %link.peer().identity, "link takes nothing: cut; the node obeys when it returns");
            link.cut();
        }
        if missing && let Err(error) = self.refresh().await {
            tracing::warn!(%error, order = %record.id, "cannot look for new nodes; trying again");
        }
        // Taken before it may be closed: a record says nothing about what came after the press.
        let order = self.view(record);
        self.close(order.record.id);
        order
    }

    /// An order as it stands: from memory while it is open, else as it was recorded.
    pub(crate) fn view(&self, record: Arc<OrderRecord>) -> LiveOrder {
        self.lock().live(record.id).unwrap_or_else(|| LiveOrder {
            state: record.state,
            counts: record.counts,
            settled: record.state != OrderState::Open,
            record,
        })
    }

    async fn note_refusal(&self, actor: &Actor, press: &Press, not: &NotAimed, at_ms: i64) {
        let outcome = match not.error {
            Error::Refused { .. } | Error::Unimplemented(_) | Error::Precondition(_) => {
                audit::Outcome::Refused
            }
            _ => audit::Outcome::Failed,
        };
        let draft = audit::Draft {
            at_ms,
            version: self.now(),
            person: Some(actor.name.clone()),
            role: None,
            action: not.action.as_str().to_owned(),
            target: not.text.clone(),
            reason: press.reason.clone(),
            evidence: press.evidence.clone(),
            outcome,
            detail: not.error.to_string(),
            order: None,
        };
        self.note(Note {
            draft,
            about: not.about.clone(),
        })
        .await;
    }
}

/// A slice everywhere is called by its name alone, so that the audit is found by it.
fn audit_target(aim: &Aim) -> String {
    match (&aim.slice, &aim.scope) {
        (Some(slice), Scope::Fleet) if aim.kind.imposes() => slice.to_string(),
        _ => aim.text.clone(),
    }
}

/// The order as the store would return it, for when the store does not take it.
fn in_memory(order: &NewOrder, lifts: &[Hold]) -> OrderRecord {
    let order = order.clone();
    OrderRecord {
        id: order.id,
        key: order.key,
        person: order.person,
        role: order.role,
        kind: order.kind,
        slice: order.slice,
        scope: order.scope,
        target: order.target,
        reason: order.reason,
        evidence: order.evidence,
        pressed_at_ms: order.pressed_at_ms,
        version: order.version,
        wish: order.wish,
        state: OrderState::Open,
        counts: OutcomeCounts::default(),
        holds: if order.sets.is_empty() {
            lifts.to_vec()
        } else {
            order.sets
        },
        signatures: order.signatures,
    }
}
