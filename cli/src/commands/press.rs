//! Pressing the button: the reason, what will be hit, the press, the watch, the report.

use proto::v1;
use proto::v1::press_request::Wish;
use tokio::time::Instant;
use uuid::Uuid;

use super::Context;
use crate::args::{PressArgs, Waiting};
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::follow::{Until, follow};
use crate::press::{Pressed, press};
use crate::render;
use crate::view::order::{Ended, Report, Tracker};
use crate::when::Time;

/// Asks for what is missing, presses, waits for the nodes and reports. `hitting` says what will be hit.
pub(super) async fn run(
    context: &Context,
    wish: Wish,
    hitting: &str,
    args: PressArgs,
) -> Result<Exit, Failure> {
    let (request, waiting) = asked(context, wish, hitting, args)?;
    let Pressed { reply, client } =
        press(&context.dialer, request, context.global.timeout, context.out).await?;
    let v1::PressReply {
        order,
        created,
        durable,
        not_durable_reason,
        proposal: _,
    } = reply;
    let order = order.ok_or(Failure::Incomplete("the order"))?;
    let taken = Taken {
        created,
        durable,
        not_durable_reason,
    };
    follow_up(context, client, order, taken, &waiting).await
}

/// The request, with the reason asked for if it is missing.
pub(super) fn asked(
    context: &Context,
    wish: Wish,
    hitting: &str,
    args: PressArgs,
) -> Result<(v1::PressRequest, Waiting), Failure> {
    let PressArgs {
        reason,
        evidence,
        key,
        waiting,
    } = args;
    // Before the reason is asked for: the question makes no sense without it.
    context.out.note(hitting);
    let reason = match reason {
        Some(reason) => reason,
        None => ask(context)?,
    };
    let request = v1::PressRequest {
        idempotency_key: key.unwrap_or_else(|| Uuid::new_v4().to_string()),
        reason,
        evidence,
        wish: Some(wish),
    };
    Ok((request, waiting))
}

/// How the controller took an order.
pub(super) struct Taken {
    created: bool,
    durable: bool,
    not_durable_reason: String,
}

impl Taken {
    /// It is on the disk.
    pub(super) const fn durable(created: bool) -> Self {
        Self {
            created,
            durable: true,
            not_durable_reason: String::new(),
        }
    }
}

/// Waits for the nodes and reports.
pub(super) async fn follow_up(
    context: &Context,
    client: Client,
    order: v1::Order,
    taken: Taken,
    waiting: &Waiting,
) -> Result<Exit, Failure> {
    let Taken {
        created,
        durable,
        not_durable_reason,
    } = taken;
    let out = context.out;
    let mut tracker = Tracker::new(order.into());
    out.note(&format!("order {}", tracker.order.id));
    if !durable {
        out.warn(&format!(
            "NOT DURABLE: the controller's disk did not take the order: {not_durable_reason}"
        ));
    }
    let ended = if context.global.no_wait {
        Ended::NotWatched
    } else {
        let until = Until {
            deadline: Some(Instant::now() + waiting.wait),
            settled: true,
        };
        match follow(&context.dialer, client, &mut tracker, until, out, |_| Ok(())).await {
            Ok(ended) => ended,
            // The order stands whatever happens to the watching.
            Err(failure) => Ended::Lost {
                cause: failure.message(),
            },
        }
    };
    let exit = tracker.exit();
    let (order, nodes) = tracker.into_parts();
    let report = Report {
        next: render::order::next_step(&order, &nodes),
        order,
        nodes,
        durable: Some(durable),
        not_durable_reason: if durable { None } else { Some(not_durable_reason) },
        created: Some(created),
        ended,
        exit_code: exit.code(),
    };
    out.result(&report, |width| {
        render::order::report(&report, waiting.all, Time::now(), width)
    })?;
    Ok(exit)
}

fn ask(context: &Context) -> Result<String, Failure> {
    let missing = || Failure::Usage("a reason is required: --reason TEXT".to_owned());
    let answer = context.out.ask("reason: ").ok_or_else(missing)?;
    crate::args::reason(&answer).map_err(Failure::Usage)
}
