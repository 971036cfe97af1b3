//! `redbutton order …`

use proto::{OrderId, v1};
use tokio::time::Instant;

use super::{Context, pages};
use crate::args::OrderCommand;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::follow::{Until, follow};
use crate::render;
use crate::view::order::{Ended, Order, Orders, Report, Tracker};
use crate::when::Time;

pub(super) async fn run(command: OrderCommand, context: &Context) -> Result<Exit, Failure> {
    match command {
        OrderCommand::Ls { slice, open, limit } => {
            let client = context.client().await?;
            let slice = slice.map(String::from).unwrap_or_default();
            let (orders, truncated) = pages(limit as usize, async |page_token, page_size| {
                let request = v1::ListOrdersRequest {
                    page_size,
                    page_token,
                    slice: slice.clone(),
                    open_only: open,
                };
                let reply = client
                    .call("listing orders", client.orders().list(request))
                    .await?;
                Ok((reply.orders, reply.next_page_token))
            })
            .await?;
            let view = Orders {
                orders: orders.into_iter().map(Order::from).collect(),
                truncated,
            };
            context.out.result(&view, |_| {
                render::order::orders(&view.orders, view.truncated, Time::now())
            })?;
            Ok(Exit::Done)
        }
        OrderCommand::Show { order, all } => {
            let tracker = look(order, context).await?;
            report(tracker, Ended::NotWatched, all, context)
        }
        OrderCommand::Watch {
            order,
            until_settled,
            wait,
            all,
        } => {
            let mut tracker = look(order, context).await?;
            let client = context.client().await?;
            let out = context.out;
            let until = Until {
                deadline: wait.map(|wait| Instant::now() + wait),
                settled: until_settled,
            };
            let ended = follow(&context.dialer, client, &mut tracker, until, out, |event| {
                if out.json { out.json_line(event) } else { Ok(()) }
            })
            .await?;
            if out.json {
                // Each event is a line already.
                return Ok(tracker.exit());
            }
            report(tracker, ended, all, context)
        }
    }
}

/// The order and all its nodes as they stand.
async fn look(order: OrderId, context: &Context) -> Result<Tracker, Failure> {
    let client = context.client().await?;
    let request = v1::GetOrderRequest {
        id: order.to_string(),
    };
    let detail = client
        .call("looking at the order", client.orders().get(request))
        .await?;
    let order = detail.order.ok_or(Failure::Incomplete("the order"))?;
    let mut tracker = Tracker::new(order.into());
    tracker.apply(v1::OrderEvent {
        order: None,
        changed: detail.nodes,
        last: false,
    });
    Ok(tracker)
}

fn report(tracker: Tracker, ended: Ended, all: bool, context: &Context) -> Result<Exit, Failure> {
    let exit = tracker.exit();
    let (order, nodes) = tracker.into_parts();
    let report = Report {
        next: render::order::next_step(&order, &nodes),
        order,
        nodes,
        durable: None,
        not_durable_reason: None,
        created: None,
        ended,
        exit_code: exit.code(),
    };
    context.out.result(&report, |width| {
        render::order::report(&report, all, Time::now(), width)
    })?;
    Ok(exit)
}
