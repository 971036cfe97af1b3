//! The controller's side of a daemon's link: calls go out on the connection that the daemon dialled.
//!
//! hyper's HTTP/2 client handshake on the accepted stream; no pool, no reconnecting: a dead link stays dead and says
//! so (`closed`), and the daemon dials a new one. Give it to a generated client:
//! `SliversClient::with_origin(link.clone(), Link::origin())`.
//!
//! - A call that fails because of the link fails with `Unavailable`; whether it ran at the other end is unknown, so
//!   what it asks for must be idempotent.
//! - There is no deadline here, and `grpc-timeout` is enforced by neither end: wrap calls in `tokio::time::timeout`.
//! - At most `max_in_flight` calls wait for the head of their answer; others queue. A stream counts until the other
//!   end has accepted it, then no more: `Obey` and `Watch` stay open beside any number of unary calls.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use proto::Identity;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::exec::LinkExecutor;
use crate::liveness::Watched;
use crate::serve::STREAM_WINDOW;
use crate::{Accepted, Cut, Peer};

/// Streams that the connection's window is made for; beyond them flow control begins to hold up.
const WINDOWED_STREAMS: u32 = 64;

/// Bounds of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkConfig {
    /// Idle time before a ping.
    pub keepalive_interval: Duration,
    /// Time for its answer; then the link is dead.
    pub keepalive_timeout: Duration,
    /// Calls that wait for the head of their answer.
    pub max_in_flight: usize,
    /// All headers of one answer, bytes as HPACK counts them.
    pub max_header_list_bytes: u32,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
            max_in_flight: 64,
            max_header_list_bytes: 16 << 10,
        }
    }
}

/// Why a connection did not become a link.
#[derive(Debug, thiserror::Error)]
#[error("cannot begin HTTP/2 with {identity} at {address}")]
pub struct AttachError {
    /// Who it is.
    pub identity: Identity,
    /// Where from.
    pub address: std::net::SocketAddr,
    /// What failed.
    #[source]
    pub source: hyper::Error,
}

/// How a link ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// By us: `cut`, or a newer connection of the same identity.
    Cut,
    /// The peer closed it, or nobody here held the link any more.
    Closed,
    /// Nothing was heard of the peer, not even an answer to a ping.
    Silent,
    /// The network or the protocol failed.
    Broken(Arc<str>),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Cut => f.write_str("cut"),
            Ended::Closed => f.write_str("closed by the peer"),
            Ended::Silent => f.write_str("peer fell silent"),
            Ended::Broken(why) => f.write_str(why),
        }
    }
}

/// A channel to one daemon. Clones share the connection; dropping the last one closes it.
#[derive(Debug, Clone)]
pub struct Link {
    sender: SendRequest<tonic::body::Body>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    peer: Peer,
    token: CancellationToken,
    in_flight: Semaphore,
    ended: watch::Receiver<Option<Ended>>,
}

/// Begins HTTP/2 as the client on an accepted stream. Says nothing about the daemon's health: it is attached when
/// its first answer has come.
///
/// # Errors
/// When the stream is dead already.
pub async fn attach(accepted: Accepted, config: LinkConfig) -> Result<Link, AttachError> {
    let Accepted { stream, peer, permit } = accepted;
    let token = permit.token().clone();
    let (io, reads) = Watched::new(stream);
    let begun = http2::Builder::new(LinkExecutor::new(token.clone()))
        .timer(TokioTimer::new())
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout)
        .keep_alive_while_idle(true)
        .max_header_list_size(config.max_header_list_bytes)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW * WINDOWED_STREAMS)
        .max_send_buf_size(STREAM_WINDOW as usize)
        .handshake(TokioIo::new(io))
        .await;
    let (sender, connection) = match begun {
        Ok(begun) => begun,
        Err(source) => {
            return Err(AttachError {
                identity: peer.identity,
                address: peer.address,
                source,
            });
        }
    };
    let (record, ended) = watch::channel(None);
    let patience = config.keepalive_interval + config.keepalive_timeout;
    drop(tokio::spawn(async move {
        let token = permit.token();
        let ended = tokio::select! {
            biased;
            () = token.cancelled() => Ended::Cut,
            () = reads.silence(patience) => Ended::Silent,
            ended = connection => match ended {
                Ok(()) => Ended::Closed,
                Err(error) if error.is_timeout() => Ended::Silent,
                Err(error) => Ended::Broken(chain(&error).into()),
            },
        };
        // First the reason, then the end: whoever is woken finds it.
        record.send_replace(Some(ended));
        token.cancel();
    }));
    let in_flight = Semaphore::new(config.max_in_flight.max(1));
    Ok(Link {
        sender,
        shared: Arc::new(Shared {
            peer,
            token,
            in_flight,
            ended,
        }),
    })
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

impl Link {
    /// The origin that every call needs (HTTP/2 wants an absolute URI) and nobody resolves.
    #[must_use]
    pub fn origin() -> Uri {
        Uri::from_static("http://node.invalid")
    }

    /// Who is at the other end. Answers are keyed by this, never by their content.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.shared.peer
    }

    /// Ends the link at once: calls in flight fail, streams end, the socket closes.
    pub fn cut(&self) {
        self.shared.token.cancel();
    }

    /// Whether it is dead. It never comes back.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.token.is_cancelled()
    }

    /// Waits for its end and says how it came. Does not keep the link alive.
    pub fn closed(&self) -> impl Future<Output = Ended> + Send + 'static + use<> {
        let mut ended = self.shared.ended.clone();
        async move {
            match ended.wait_for(Option::is_some).await {
                Ok(ended) => ended.clone().unwrap_or(Ended::Cut),
                // The runtime goes down.
                Err(_) => Ended::Cut,
            }
        }
    }
}

impl Cut for Link {
    fn cut(&self) {
        Link::cut(self);
    }
}

impl Shared {
    fn dead(&self) -> Status {
        let ended = self.ended.borrow().clone().unwrap_or(Ended::Cut);
        Status::unavailable(format!("link to {} is gone: {ended}", self.peer.identity))
    }

    /// An error of the transport (a status that the other end sent never comes this way).
    fn failed(&self, error: hyper::Error) -> Status {
        if self.token.is_cancelled() {
            return self.dead();
        }
        let text = chain(&error);
        let stream = error.is_user() || error.is_parse();
        let status = Status::from_error(Box::new(error));
        match status.code() {
            // The connection is dying, and its end not yet recorded.
            Code::Unknown if !stream => {
                Status::unavailable(format!("link to {} is failing: {text}", self.peer.identity))
            }
            _ => status,
        }
    }
}

impl tower::Service<Request<tonic::body::Body>> for Link {
    type Response = Response<LinkBody>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<LinkBody>, Status>> + Send>>;

    /// Always ready: of an error here tonic would make `Unknown`, while a call says `Unavailable`.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let Link { mut sender, shared } = self.clone();
        Box::pin(async move {
            let answer = async {
                // Never closed, so never an error; the permit is held until the head of the answer.
                let _permit = shared.in_flight.acquire().await;
                sender.send_request(request).await
            };
            match shared.token.run_until_cancelled(answer).await {
                Some(Ok(response)) => {
                    let shared = shared.clone();
                    Ok(response.map(|inner| LinkBody { inner, shared }))
                }
                Some(Err(error)) => Err(shared.failed(error)),
                None => Err(shared.dead()),
            }
        })
    }
}

/// The body of an answer; its errors say which link died of what.
#[derive(Debug)]
pub struct LinkBody {
    inner: Incoming,
    shared: Arc<Shared>,
}

impl Body for LinkBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        polled.map(|frame| frame.map(|frame| frame.map_err(|error| self.shared.failed(error))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
