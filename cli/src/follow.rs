//! Following an order: the controller's stream of events until nothing more is worth waiting for. A broken
//! stream is opened again; the order itself does not depend on anybody watching.

use std::time::Duration;

use proto::v1;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::Streaming;

use crate::client::{self, Client, Dialer};
use crate::failure::Failure;
use crate::out::Out;
use crate::progress::Progress;
use crate::view::order::{Ended, Event, Tracker};

/// Pause before a stream that broke is opened again; doubled until the controller is heard.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause before a broken stream is opened again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What to wait for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Until {
    /// The last moment; `None`: no limit.
    pub(crate) deadline: Option<Instant>,
    /// End once every attached node has answered and proven; otherwise at the order's close.
    pub(crate) settled: bool,
}

/// Follows an order until its end, `until`, or Ctrl-C; `each` sees every event. The tracker knows the rest.
///
/// # Errors
/// Only what `each` returns, and a refusal at the first opening: a controller that is lost later is an end
/// ([`Ended::Lost`]), not a failure.
pub(crate) async fn follow(
    dialer: &Dialer,
    mut client: Client,
    tracker: &mut Tracker,
    until: Until,
    out: Out,
    mut each: impl FnMut(&Event) -> Result<(), Failure>,
) -> Result<Ended, Failure> {
    let mut progress = Progress::new(out);
    let mut stop = std::pin::pin!(stop(until.deadline));
    let mut pause = FIRST_PAUSE;
    // Why the controller was lost, until it is heard again.
    let mut lost = None;
    let stopped = |ended, lost: Option<String>| match (ended, lost) {
        // Time that passes while the controller is away is told as what it is.
        (Ended::TimePassed, Some(cause)) => Ended::Lost { cause },
        (ended, _) => ended,
    };
    let ended = loop {
        let watched = tokio::select! {
            ended = &mut stop => break stopped(ended, lost),
            watched = watch(&client, tracker, until, &mut progress, &mut lost, &mut each) => watched?,
        };
        let cause = match watched {
            Watched::Ended(ended) => break ended,
            Watched::Refused(failure) => return Err(failure),
            Watched::Broken(cause) => cause,
        };
        if lost.is_none() {
            pause = FIRST_PAUSE;
        }
        progress.say(out, &format!("{cause}; the order goes on, looking again"));
        lost = Some(cause);
        let again = async {
            tokio::time::sleep(pause).await;
            dialer
                .connect(Instant::now() + LONGEST_PAUSE, client.timeout())
                .await
        };
        tokio::select! {
            ended = &mut stop => break stopped(ended, lost),
            dialled = again => match dialled {
                Ok(fresh) => client = fresh,
                Err(error) if !error.may_pass() => break Ended::Lost { cause: error.to_string() },
                Err(_) => {}
            },
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    };
    progress.finish();
    Ok(ended)
}

/// Ends when the time is up or a person has seen enough.
async fn stop(deadline: Option<Instant>) -> Ended {
    let time = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = time => Ended::TimePassed,
        // Where signals cannot be had, Ctrl-C ends the process the hard way: wait on.
        () = async { if tokio::signal::ctrl_c().await.is_err() { std::future::pending::<()>().await } } => Ended::Interrupted,
    }
}

/// How one stream ended.
enum Watched {
    Ended(Ended),
    /// The controller does not let us.
    Refused(Failure),
    /// Open it again.
    Broken(String),
}

async fn watch(
    client: &Client,
    tracker: &mut Tracker,
    until: Until,
    progress: &mut Progress,
    lost: &mut Option<String>,
    each: &mut impl FnMut(&Event) -> Result<(), Failure>,
) -> Result<Watched, Failure> {
    // Always to the close: whether to wait for proofs is decided here, from the nodes' results.
    let request = v1::WatchOrderRequest {
        id: tracker.order.id.clone(),
        until_settled: false,
    };
    let mut orders = client.orders();
    let mut events: Streaming<v1::OrderEvent> =
        match client.call("watching the order", orders.watch(request)).await {
            Ok(events) => events,
            Err(Failure::Broken { doing, trouble }) if trouble.may_pass() => {
                return Ok(Watched::Broken(format!("{doing}: {trouble}")));
            }
            Err(Failure::Status { status }) if status.code() == tonic::Code::Unavailable => {
                return Ok(Watched::Broken(status.message().to_owned()));
            }
            Err(failure) => return Ok(Watched::Refused(failure)),
        };
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let message = tokio::select! {
            message = events.message() => message,
            now = tick.tick() => {
                progress.tick(now);
                continue;
            }
        };
        let cause = match message {
            Ok(Some(event)) => {
                *lost = None;
                let event = tracker.apply(event);
                progress.show(&tracker.order, Instant::now());
                each(&event)?;
                if event.last {
                    return Ok(Watched::Ended(Ended::Closed));
                }
                if until.settled && tracker.is_settled() {
                    return Ok(Watched::Ended(Ended::Settled));
                }
                continue;
            }
            Ok(None) => "the controller ended the stream".to_owned(),
            Err(status) => client::failure("watching the order", status).message(),
        };
        return Ok(Watched::Broken(cause));
    }
}
