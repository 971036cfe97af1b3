//! The button at the node's door. The kill comes first: it has begun before the diary is asked to write.

use audit::Outcome as Came;
use authz::{may_see_audit, may_see_slice};
use proto::v1::orders_server::Orders;
use proto::v1::{
    self, Answer, GetOrderRequest, ListHoldsReply, ListHoldsRequest, ListOrdersReply, ListOrdersRequest,
    NodeResult, OrderDetail, OrderEvent, Outcome, PressReply, PressRequest, WatchOrderRequest,
};
use proto::{Hold, HoldId, OrderId, Scope, WireError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Desk;
use super::book::Kept;
use super::caller::{Caller, Said, now_ms};
use super::decide::{Act, Aim, aim};
use super::no::No;
use super::wish::{NodeRef, Press, slice_field};
use super::{LEAVE, fitting};
use crate::engine::Begun;
use crate::holds::Releaser;
use crate::restart::Wish as Restart;

/// Most orders in one list.
const LISTED: u32 = 1_000;
/// Events that a watcher may be behind.
const EVENTS: usize = 2;

/// What goes on after the press was answered.
enum Then {
    Finish(Begun),
    Restart(Restart, Answer),
}

impl Desk {
    fn sees(caller: &Caller, kept: &Kept) -> bool {
        let slice = kept.order.slice.parse().ok();
        may_see_audit(
            &caller.actor,
            Some(&kept.person),
            slice.as_ref(),
            Some(&caller.here.site),
        )
    }

    async fn visible_order(&self, caller: &Caller, id: &str) -> Result<Kept, No> {
        let id: OrderId = id.parse().map_err(WireError::id("id"))?;
        let found = self.book().get(id).cloned();
        match found {
            Some(kept) if Self::sees(caller, &kept) => Ok(kept),
            _ => Err(No::NotFound(format!(
                "order {id} was not pressed at node {} since its daemon started",
                self.name
            ))),
        }
    }

    /// Runs to its end also when the caller goes away.
    async fn press_button(&self, request: Request<PressRequest>) -> Result<PressReply, No> {
        let caller = self.caller(&request).await?;
        let press = Press::try_from(request.into_inner())?;
        let desk = self.clone();
        let pressed = tokio::spawn(async move { desk.press_here(caller, press).await });
        pressed
            .await
            .unwrap_or_else(|e| Err(No::Busy(format!("the press broke off: {e}"))))
    }

    async fn press_here(&self, caller: Caller, press: Press) -> Result<PressReply, No> {
        // One at a time: the same key twice at once is one order.
        let turn = self.turn.lock().await;
        if let Some(kept) = self.book().by_key(&caller.actor.name, &press.key) {
            if kept.wish != press.wish {
                return Err(No::Exists(format!(
                    "idempotency_key was used for another wish: order {}, {} {}",
                    kept.id, kept.order.kind, kept.order.target
                )));
            }
            return Ok(reply(kept, false));
        }
        let holds = self.node.holds_here();
        let known = |slice: &proto::SliceName| {
            caller.snapshot.slices.contains(slice) || !self.node.subtrees_of(Some(slice)).is_empty()
        };
        let aimed = aim(&caller.actor, &press.wish, &caller.here, &holds, known)
            .map_err(|refusal| (refusal.action, refusal.target, refusal.no))
            .and_then(|aim| match aim.act {
                Act::Restart(wish) => match self.node.may_restart(wish) {
                    Ok(means) => Ok((aim, means)),
                    Err(why) => Err((aim.kind, aim.target, No::Precondition(why))),
                },
                Act::Impose { .. } | Act::Release(_) => Ok((aim, String::new())),
            });
        let (aim, means) = match aimed {
            Ok(aimed) => aimed,
            Err((action, target, no)) => {
                let outcome = match no {
                    No::Refused(_) | No::Precondition(_) => Came::Refused,
                    _ => Came::Failed,
                };
                let said = Said {
                    outcome,
                    reason: &press.reason,
                    evidence: &press.evidence,
                    ..Said::refused(action, &target, no.to_string())
                };
                self.note(Some(&caller.actor.name), caller.breakglass, said).await;
                return Err(no);
            }
        };
        self.carry_out(&caller, press, aim, means, turn).await
    }

    async fn carry_out(
        &self,
        caller: &Caller,
        press: Press,
        aim: Aim,
        means: String,
        turn: tokio::sync::MutexGuard<'_, ()>,
    ) -> Result<PressReply, No> {
        let (id, at_ms) = (OrderId::new(), now_ms());
        let (holds, mut saved, then) = match &aim.act {
            Act::Impose { slice, kind } => {
                let hold = Hold {
                    id: HoldId::new(),
                    slice: slice.clone(),
                    scope: Scope::Node(self.node.id),
                    kind: *kind,
                    holder: caller.actor.name.clone(),
                    role: aim.role,
                    reason: press.reason.clone(),
                    evidence: press.evidence.clone(),
                    set_at_ms: at_ms,
                    version: self.node.seen(),
                };
                let mut begun = self
                    .node
                    .impose_here(id, hold.clone())
                    .map_err(|e| No::Busy(e.to_string()))?;
                (vec![hold], begun.saved.take(), Then::Finish(begun))
            }
            Act::Release(lifted) => {
                let ids: Vec<HoldId> = lifted.iter().map(|hold| hold.id).collect();
                let by = Releaser {
                    person: caller.actor.name.clone(),
                    role: aim.role,
                    at_ms,
                };
                let mut begun = self
                    .node
                    .release_here(id, &ids, &by)
                    .map_err(|e| No::Busy(e.to_string()))?;
                (lifted.clone(), begun.saved.take(), Then::Finish(begun))
            }
            Act::Restart(wish) => {
                let answer = self.node.restart_answer(id, means);
                (Vec::new(), None, Then::Restart(*wish, answer))
            }
        };
        let written = self.begin_note(
            Some(&caller.actor.name),
            caller.breakglass,
            Said {
                action: aim.kind,
                target: &aim.target,
                role: Some(aim.role),
                outcome: Came::Allowed,
                detail: aim.rule.clone(),
                reason: &press.reason,
                evidence: &press.evidence,
                order: Some(id),
            },
        );
        self.book()
            .enter(self.kept(id, at_ms, caller, press, &aim, holds));
        drop(turn);
        let mut trouble = Vec::new();
        if let Some(saved) = saved.take() {
            match saved.await {
                Ok(saved) => trouble.extend(saved.error),
                Err(_) => trouble.push("the writer of the holds has ended".into()),
            }
        }
        match written.await {
            Ok(written) if written.not_durable.is_empty() => {}
            Ok(written) => trouble.push(written.not_durable),
            Err(_) => trouble.push("the diary's thread has ended".into()),
        }
        let reply = self
            .book()
            .note(id, trouble.join("; "))
            .map(|kept| reply(kept, true));
        let desk = self.clone();
        let caller = (caller.actor.name.clone(), caller.breakglass, aim);
        drop(tokio::spawn(
            async move { desk.see_through(id, then, caller).await },
        ));
        reply.ok_or_else(|| No::Busy(format!("order {id} was begun and is not kept: too many orders")))
    }

    fn kept(
        &self,
        id: OrderId,
        at_ms: i64,
        caller: &Caller,
        press: Press,
        aim: &Aim,
        holds: Vec<Hold>,
    ) -> Kept {
        let Press {
            key,
            reason,
            evidence,
            wish,
        } = press;
        let order = v1::Order {
            id: id.to_string(),
            version: Some(self.node.seen().into()),
            person: caller.actor.name.to_string(),
            role: v1::Role::from(aim.role).into(),
            kind: aim.kind.to_owned(),
            target: aim.target.clone(),
            reason,
            evidence,
            pressed_at_ms: at_ms,
            holds: fitting(holds.into_iter().map(v1::Hold::from), 256 << 10),
            slice: aim.slice.as_ref().map(ToString::to_string).unwrap_or_default(),
            scope: Some(Scope::Node(self.node.id).into()),
            ..v1::Order::default()
        };
        Kept {
            id,
            person: caller.actor.name.clone(),
            key,
            wish,
            not_durable: String::new(),
            order,
            result: NodeResult {
                node: self.node.id.to_string(),
                node_name: self.name.clone(),
                site: caller.here.site.to_string(),
                outcome: Outcome::Sent.into(),
                answer: None,
                answered_at_ms: 0,
                proven: false,
            },
        }
    }

    /// Waits for what was begun, and writes down what came of it.
    async fn see_through(&self, id: OrderId, then: Then, caller: (proto::PersonName, bool, Aim)) {
        let (person, breakglass, aim) = caller;
        let (answer, restart) = match then {
            Then::Finish(begun) => (self.node.finish_here(begun).await, None),
            Then::Restart(wish, answer) => (answer, Some(wish)),
        };
        let outcome = answer.outcome();
        let word = outcome
            .as_str_name()
            .trim_start_matches("OUTCOME_")
            .to_lowercase();
        let detail = match answer.detail.as_str() {
            "" => word.replace('_', " "),
            detail => format!("{}: {detail}", word.replace('_', " ")),
        };
        self.hear(id, answer);
        let said = Said {
            action: aim.kind,
            target: &aim.target,
            role: Some(aim.role),
            outcome: match outcome {
                Outcome::Failed => Came::Failed,
                _ => Came::Done,
            },
            detail,
            reason: "",
            evidence: "",
            order: Some(id),
        };
        self.note(Some(&person), breakglass, said).await;
        if let Some(wish) = restart {
            tokio::time::sleep(LEAVE).await;
            tracing::warn!(?wish, %person, "obeying a direct order");
            if let Err(error) = self.node.restarter.begin(wish) {
                tracing::error!(%error, ?wish, "could not begin");
                let failed = Answer {
                    outcome: Outcome::Failed.into(),
                    detail: error.to_string(),
                    ..self.node.restart_answer(id, String::new())
                };
                self.hear(id, failed);
            }
        }
    }

    async fn list_orders(&self, request: Request<ListOrdersRequest>) -> Result<ListOrdersReply, No> {
        let caller = self.caller(&request).await?;
        let ListOrdersRequest {
            page_size,
            page_token: _,
            slice,
            open_only,
        } = request.into_inner();
        let slice = slice_field("slice", &slice)?;
        let most = if page_size == 0 { 50 } else { page_size.min(LISTED) };
        let wanted = |kept: &&Kept| {
            Self::sees(&caller, kept)
                && slice
                    .as_ref()
                    .is_none_or(|slice| kept.order.slice == slice.as_str())
                && !(open_only && kept.is_closed())
        };
        let book = self.book();
        let newest = book.newest().filter(wanted).take(most as usize).map(Kept::order);
        Ok(ListOrdersReply {
            orders: fitting(newest, super::MAX_ROWS),
            next_page_token: String::new(),
        })
    }

    async fn list_holds(&self, request: Request<ListHoldsRequest>) -> Result<ListHoldsReply, No> {
        let caller = self.caller(&request).await?;
        let ListHoldsRequest { slice, node } = request.into_inner();
        let slice = slice_field("slice", &slice)?;
        let here = match node.as_str() {
            "" => true,
            node => caller.here.is(&NodeRef::parse("node", node)?),
        };
        let wanted = |hold: &Hold| {
            here && slice
                .as_ref()
                .is_none_or(|slice| hold.slice.as_ref() == Some(slice))
                && caller.here.may_see(&caller.actor, hold)
        };
        let holds = self.node.holds_here().into_iter().filter(wanted);
        Ok(ListHoldsReply {
            holds: fitting(holds.map(v1::Hold::from), super::MAX_ROWS),
            // What was released here does not stand here.
            exemptions: Vec::new(),
        })
    }

    /// Sends the order as it stands, and again whenever it has changed.
    async fn follow(&self, id: OrderId, settled: bool, events: &mpsc::Sender<Result<OrderEvent, Status>>) {
        let mut changes = self.changed.subscribe();
        let mut told = None;
        loop {
            changes.mark_unchanged();
            let Some(kept) = self.book().get(id).cloned() else {
                return;
            };
            let last = kept.is_closed() || settled && kept.is_answered();
            if told.as_ref() != Some(&kept.result) {
                let event = OrderEvent {
                    order: Some(kept.order()),
                    changed: vec![kept.result.clone()],
                    last,
                };
                if events.send(Ok(event)).await.is_err() {
                    return;
                }
                told = Some(kept.result);
            }
            if last || changes.changed().await.is_err() {
                return;
            }
        }
    }
}

fn reply(kept: &Kept, created: bool) -> PressReply {
    PressReply {
        order: Some(kept.order()),
        created,
        durable: kept.not_durable.is_empty(),
        not_durable_reason: kept.not_durable.clone(),
        proposal: None,
    }
}

#[tonic::async_trait]
impl Orders for Desk {
    type WatchStream = ReceiverStream<Result<OrderEvent, Status>>;

    async fn press(&self, request: Request<PressRequest>) -> Result<Response<PressReply>, Status> {
        Ok(Response::new(self.press_button(request).await?))
    }

    async fn get(&self, request: Request<GetOrderRequest>) -> Result<Response<OrderDetail>, Status> {
        let caller = self.caller(&request).await?;
        let kept = self.visible_order(&caller, &request.get_ref().id).await?;
        Ok(Response::new(OrderDetail {
            order: Some(kept.order()),
            nodes: vec![kept.result],
        }))
    }

    async fn list(&self, request: Request<ListOrdersRequest>) -> Result<Response<ListOrdersReply>, Status> {
        Ok(Response::new(self.list_orders(request).await?))
    }

    async fn watch(
        &self,
        request: Request<WatchOrderRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = self.caller(&request).await?;
        let WatchOrderRequest { id, until_settled } = request.into_inner();
        let kept = self.visible_order(&caller, &id).await?;
        let (events, stream) = mpsc::channel(EVENTS);
        let desk = self.clone();
        drop(tokio::spawn(async move {
            tokio::select! {
                () = desk.follow(kept.id, until_settled, &events) => {}
                () = events.closed() => {}
            }
        }));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn holds(&self, request: Request<ListHoldsRequest>) -> Result<Response<ListHoldsReply>, Status> {
        Ok(Response::new(self.list_holds(request).await?))
    }
}

/// Whether somebody may see a slice that is known to this node.
pub(super) fn sees_slice(caller: &Caller, slice: &proto::SliceName, runs_here: bool) -> bool {
    may_see_slice(&caller.actor, slice, runs_here.then_some(&caller.here.site))
}
