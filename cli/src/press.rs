//! Pressing the button, however often the connection breaks: every attempt dials anew and carries the same key,
//! so that the controller makes one order of them.

use std::time::Duration;

use proto::v1;
use tokio::time::Instant;

use crate::client::{Client, Dialer};
use crate::failure::Failure;
use crate::out::Out;

/// Attempts at one press, at most.
const ATTEMPTS: u32 = 5;
/// Pause after the first broken attempt; doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A press that the controller took.
pub(crate) struct Pressed {
    pub(crate) reply: v1::PressReply,
    /// The connection on which it answered.
    pub(crate) client: Client,
}

/// Presses until the controller answers, an attempt cannot help, or `timeout` has passed.
///
/// # Errors
/// The controller's refusal; why it was not reached; or that nobody knows whether the press arrived.
pub(crate) async fn press(
    dialer: &Dialer,
    request: v1::PressRequest,
    timeout: Duration,
    out: Out,
) -> Result<Pressed, Failure> {
    let key = request.idempotency_key.clone();
    let deadline = Instant::now() + timeout;
    let attempts = tries(dialer, &request, deadline, timeout, out);
    tokio::select! {
        result = attempts => result,
        _ = tokio::signal::ctrl_c() => Err(Failure::FateUnknown { cause: "interrupted".to_owned(), key }),
    }
}

async fn tries(
    dialer: &Dialer,
    request: &v1::PressRequest,
    deadline: Instant,
    timeout: Duration,
    out: Out,
) -> Result<Pressed, Failure> {
    // Once an attempt may have reached the controller, no later failure to connect can take that back.
    let mut uncertain = false;
    let mut pause = FIRST_PAUSE;
    let mut attempt = 1;
    loop {
        let failure = match once(dialer, request, deadline, timeout).await {
            Ok(pressed) => return Ok(pressed),
            Err(failure) => failure,
        };
        uncertain |= matches!(&failure, Failure::Broken { trouble, .. } if trouble.may_pass());
        if !may_pass(&failure) || attempt >= ATTEMPTS || Instant::now() + pause >= deadline {
            let unheard =
                matches!(failure, Failure::Broken { .. } | Failure::Connect(_)) || may_pass(&failure);
            return Err(if uncertain && unheard {
                Failure::FateUnknown {
                    cause: failure.message(),
                    key: request.idempotency_key.clone(),
                }
            } else {
                failure
            });
        }
        out.note(&format!(
            "{}; pressing again with the same key",
            failure.message()
        ));
        tokio::time::sleep(pause).await;
        pause *= 2;
        attempt += 1;
    }
}

async fn once(
    dialer: &Dialer,
    request: &v1::PressRequest,
    deadline: Instant,
    timeout: Duration,
) -> Result<Pressed, Failure> {
    // A third of the time for each attempt: a controller that swallows the first must not use up all of it.
    let until = deadline.min(Instant::now() + (timeout / 3).max(Duration::from_secs(1)));
    let client = dialer.connect(until, timeout).await?;
    let left = until
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(100));
    let mut orders = client.orders();
    let reply = client
        .clone()
        .within(left)
        .call("pressing", orders.press(request.clone()))
        .await?;
    Ok(Pressed { reply, client })
}

/// Whether the same press may do better.
fn may_pass(failure: &Failure) -> bool {
    match failure {
        Failure::Connect(error) => error.may_pass(),
        Failure::Broken { trouble, .. } => trouble.may_pass(),
        Failure::Status { status } => status.code() == tonic::Code::Unavailable,
        _ => false,
    }
}
