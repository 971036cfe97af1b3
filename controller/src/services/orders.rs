//! Orders: press, look, watch.

use std::sync::Arc;

use authz::{may_see_audit, may_see_hold};
use proto::v1::orders_server::Orders;
use proto::v1::{
    GetOrderRequest, ListHoldsReply, ListHoldsRequest, ListOrdersReply, ListOrdersRequest, OrderDetail,
    OrderEvent, PressReply, PressRequest, WatchOrderRequest,
};
use proto::{OrderId, Scope, SiteName, SliceName, WireError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::{Desk, pages, visible, wire};
use crate::approvals::Act;
use crate::error::Error;
use crate::fleet::{LiveOrder, act_of, now_ms};
use crate::orders::{NodeRef, Press};
use crate::store::{About, OrderFilter, OrderRecord};

/// Events that a watcher may be behind; then it gets fewer and larger ones.
const EVENTS: usize = 2;

/// An optional slice in a request.
pub(crate) fn slice_field(field: &'static str, text: &str) -> Result<Option<SliceName>, Error> {
    match text {
        "" => Ok(None),
        name => Ok(Some(name.parse().map_err(WireError::id(field))?)),
    }
}

/// An optional site in a request.
pub(crate) fn site_field(field: &'static str, text: &str) -> Result<Option<SiteName>, Error> {
    match text {
        "" => Ok(None),
        name => Ok(Some(name.parse().map_err(WireError::id(field))?)),
    }
}

impl Desk {
    fn order_site(&self, record: &OrderRecord) -> Option<SiteName> {
        match &record.scope {
            Scope::Fleet => None,
            Scope::Site(site) => Some(site.clone()),
            Scope::Node(node) => self.fleet.site_of(*node),
        }
    }

    fn sees_order(&self, caller: &Caller, record: &OrderRecord) -> bool {
        let site = self.order_site(record);
        may_see_audit(
            &caller.actor,
            Some(&record.person),
            record.slice.as_ref(),
            site.as_ref(),
        )
    }

    /// The order, for who may see it; the others do not learn whether it is there.
    async fn visible_order(&self, caller: &Caller, id: &str) -> Result<LiveOrder, Error> {
        let id: OrderId = id.parse().map_err(WireError::id("id"))?;
        match self.fleet.order(id).await {
            Ok(order) if self.sees_order(caller, &order.record) => Ok(order),
            Err(Error::NotFound(text)) if visible::of(&caller.actor) == crate::store::Visible::All => {
                Err(Error::NotFound(text))
            }
            Ok(_) | Err(Error::NotFound(_)) => {
                let rule = format!("order {id} needs: to have pressed it, or to see what it is aimed at");
                self.refuse(
                    caller,
                    "see-order",
                    &format!("order {id}"),
                    About::default(),
                    rule,
                )
                .await
            }
            Err(error) => Err(error),
        }
    }

    async fn press_button(&self, request: Request<PressRequest>) -> Result<PressReply, Error> {
        let caller = self.caller(&request).await?;
        let press = Press::try_from(request.into_inner())?;
        if let Some(act) = act_of(&press.wish) {
            return self.press_for_two(&caller, act, press).await;
        }
        let pressed = self.fleet.press(caller.actor, press, now_ms()).await?;
        Ok(PressReply {
            order: Some(wire::order(&pressed.order)),
            created: pressed.created,
            durable: pressed.not_durable.is_none(),
            not_durable_reason: pressed.not_durable.unwrap_or_default(),
            proposal: None,
        })
    }

    /// A press that a second person must agree to: the proposal, and the order once there is one.
    async fn press_for_two(&self, caller: &Caller, act: Act, press: Press) -> Result<PressReply, Error> {
        let (proposal, created) = self.propose_press(caller, act, press).await?;
        let order = match proposal.order.as_str() {
            "" => None,
            id => {
                let id: OrderId = id.parse().map_err(WireError::id("order"))?;
                Some(wire::order(&self.fleet.order(id).await?))
            }
        };
        Ok(PressReply {
            order,
            created,
            durable: true,
            not_durable_reason: String::new(),
            proposal: Some(proposal),
        })
    }

    async fn list_orders(&self, request: Request<ListOrdersRequest>) -> Result<ListOrdersReply, Error> {
        let caller = self.caller(&request).await?;
        let ListOrdersRequest {
            page_size,
            page_token,
            slice,
            open_only,
        } = request.into_inner();
        let slice = slice_field("slice", &slice)?;
        let filter = OrderFilter {
            slice: slice.clone(),
            open_only,
            visible: visible::of(&caller.actor),
        };
        // What only memory has is newer than everything on the disk.
        let mut unstored = Vec::new();
        if page_token.is_empty() {
            let wanted = |record: &Arc<OrderRecord>| {
                (slice.is_none() || record.slice == slice) && self.sees_order(&caller, record)
            };
            unstored.extend(self.fleet.unstored_orders().into_iter().filter(wanted).take(100));
        }
        let read = |page| {
            let filter = &filter;
            async move { self.fleet.store().orders(filter, &page).await }
        };
        let show = |record: OrderRecord| Some(wire::order(&self.fleet.view(Arc::new(record))));
        let (stored, next_page_token) = pages::collect(page_size, page_token, read, show).await?;
        let unstored = unstored
            .into_iter()
            .map(|record| wire::order(&self.fleet.view(record)));
        let mut orders = wire::fitting(unstored, 16 << 10);
        orders.extend(stored);
        Ok(ListOrdersReply {
            orders,
            next_page_token,
        })
    }

    async fn list_holds(&self, request: Request<ListHoldsRequest>) -> Result<ListHoldsReply, Error> {
        let caller = self.caller(&request).await?;
        let ListHoldsRequest { slice, node } = request.into_inner();
        let slice = slice_field("slice", &slice)?;
        let node = match node.as_str() {
            "" => None,
            text => Some(NodeRef::parse("node", text)?),
        };
        // A node that is not there holds nothing that anybody may see.
        let found = node.as_ref().map(|node| self.fleet.find(node));
        let runs_at = slice
            .as_ref()
            .map(|slice| self.fleet.runs_at(slice))
            .unwrap_or_default();
        let holds = self.fleet.holds(|hold, member| {
            let on_node = match &found {
                None => true,
                Some(None) => false,
                Some(Some((_, node))) => hold.reaches(node.id, &node.site),
            };
            on_node
                && slice
                    .as_ref()
                    .is_none_or(|slice| hold.slice.as_ref() == Some(slice))
                && may_see_hold(&caller.actor, hold, member.map(|member| &member.site), &runs_at)
        });
        let exemptions = self
            .fleet
            .exemptions(&holds, found.flatten().map(|(_, node)| node.id));
        let holds = holds.into_iter().map(proto::v1::Hold::from);
        Ok(ListHoldsReply {
            holds: wire::fitting(holds, pages::MAX_ROWS_BYTES / 4 * 3),
            exemptions: wire::fitting(exemptions.into_iter(), pages::MAX_ROWS_BYTES / 4),
        })
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
        let order = self.visible_order(&caller, &request.get_ref().id).await?;
        let nodes = wire::fit_results(self.fleet.node_results(&order).await?);
        Ok(Response::new(OrderDetail {
            order: Some(wire::order(&order)),
            nodes,
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
        let order = self.visible_order(&caller, &id).await?;
        let (events, stream) = mpsc::channel(EVENTS);
        let fleet = self.fleet.clone();
        drop(tokio::spawn(async move {
            let watching = Box::pin(fleet.watch(order.record.id, until_settled, &events));
            let ended = tokio::select! {
                ended = watching => ended,
                () = events.closed() => return,
            };
            if let Err(error) = ended {
                // Nobody may read any more.
                let _ = events.send(Err(error.into())).await;
            }
        }));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn holds(&self, request: Request<ListHoldsRequest>) -> Result<Response<ListHoldsReply>, Status> {
        Ok(Response::new(self.list_holds(request).await?))
    }
}
