//! Serving gRPC on a connection that stands already: the controller for people, a daemon on what it dialled.
//!
//! hyper's HTTP/2 server, because its future ends when the connection dies, which is what re-dialling waits for
//! (tonic's `serve_with_incoming` detaches; LINK.md). When that future ends, is dropped or is cut, every handler that
//! runs for the connection is dropped at its next await: work that has to outlive the connection (a kill) belongs
//! into a task of its own.
//!
//! Bounded here: streams, header sizes, flow-control windows, reset floods, silent peers. Not bounded here, because
//! only the service knows: the size of a message (`max_decoding_message_size(proto::MAX_MESSAGE_BYTES)` on each
//! generated server, likewise for encoding) and the time of a call (neither end enforces `grpc-timeout` on such
//! connections: use `tokio::time::timeout` in the handler or a tower layer).

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::ServiceExt;

use crate::exec::LinkExecutor;
use crate::liveness::Watched;
use crate::{Accepted, Peer};

/// Bytes in flight that one stream may have. Small: everything that we send often fits into one frame.
pub(crate) const STREAM_WINDOW: u32 = 64 << 10;

/// Bounds of a served connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeConfig {
    /// Calls at a time; the peer has to wait with more.
    pub max_concurrent_streams: u32,
    /// All headers of one call, bytes as HPACK counts them.
    pub max_header_list_bytes: u32,
    /// Idle time before a ping.
    pub keepalive_interval: Duration,
    /// Time for its answer; then the connection is dead.
    pub keepalive_timeout: Duration,
    /// Streams that the peer opened and reset before they were looked at (“rapid reset”); one more ends the
    /// connection.
    pub max_pending_accept_reset_streams: usize,
    /// Streams that we reset because of the peer's errors; one more ends the connection.
    pub max_local_error_reset_streams: usize,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 128,
            max_header_list_bytes: 16 << 10,
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
            max_pending_accept_reset_streams: 20,
            max_local_error_reset_streams: 64,
        }
    }
}

/// Why a served connection ended, other than by the peer's closing it.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its token was cancelled, or a newer connection of the same identity took its place.
    #[error("connection was cut")]
    Cut,
    /// Nothing was heard of the peer, not even an answer to a ping.
    #[error("peer was silent for {0:?}")]
    Silent(Duration),
    /// The network or the protocol failed.
    #[error("connection failed")]
    Broken(#[source] hyper::Error),
}

/// Serves `routes` to an accepted peer until the connection ends or `cancel` cuts it.
///
/// # Errors
/// When it ended otherwise than by the peer's closing it.
pub async fn serve_accepted(
    accepted: Accepted,
    routes: Routes,
    config: ServeConfig,
    cancel: CancellationToken,
) -> Result<(), ServeError> {
    let Accepted { stream, peer, permit } = accepted;
    let token = permit.token().clone();
    let serving = run(stream, peer, routes, config, token, FirstCall::default());
    cancel
        .run_until_cancelled(serving)
        .await
        .unwrap_or(Err(ServeError::Cut))
}

/// Serves `routes` on `io` until the connection ends or `cancel` cuts it. Each request carries `peer` in its extensions.
///
/// # Errors
/// When it ended otherwise than by the peer's closing it.
pub async fn serve<IO>(
    io: IO,
    peer: Peer,
    routes: Routes,
    config: ServeConfig,
    cancel: CancellationToken,
) -> Result<(), ServeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    run(
        io,
        peer,
        routes,
        config,
        cancel.child_token(),
        FirstCall::default(),
    )
    .await
}

/// Whether the peer has made a call yet.
#[derive(Debug, Clone)]
pub(crate) struct FirstCall(Arc<Semaphore>);

impl Default for FirstCall {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl FirstCall {
    /// Waits for it.
    pub(crate) async fn made(&self) {
        // Never has a permit: ends when `note` closes it.
        let _ = self.0.acquire().await;
    }

    fn note(&self) {
        if !self.0.is_closed() {
            self.0.close();
        }
    }
}

/// A gRPC call is a POST of that type, whatever else would be taken for one.
fn is_call<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(http::header::CONTENT_TYPE);
    request.method() == http::Method::POST
        && kind.is_some_and(|kind| {
            let kind = kind.as_bytes();
            kind == b"application/grpc"
                || kind.starts_with(b"application/grpc+")
                || kind.starts_with(b"application/grpc;")
        })
}

/// Serves; everything of the connection runs under `token`, which is cancelled when this future ends or is dropped.
pub(crate) async fn run<IO>(
    io: IO,
    peer: Peer,
    routes: Routes,
    config: ServeConfig,
    token: CancellationToken,
    first_call: FirstCall,
) -> Result<(), ServeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _cut_all = token.clone().drop_guard();
    let service = routes
        .prepare()
        .map_request(move |mut request: Request<Incoming>| {
            first_call.note();
            // Tonic does not look. Nothing is served at this path, so that it is refused.
            if !is_call(&request) {
                *request.uri_mut() = http::Uri::from_static("/");
            }
            request.extensions_mut().insert(peer.clone());
            request
        });
    let (io, reads) = Watched::new(io);
    let connection = http2::Builder::new(LinkExecutor::new(token.clone()))
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_concurrent_streams)
        .max_header_list_size(config.max_header_list_bytes)
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout)
        .max_pending_accept_reset_streams(config.max_pending_accept_reset_streams)
        .max_local_error_reset_streams(config.max_local_error_reset_streams)
        .initial_stream_window_size(STREAM_WINDOW)
        // As large as all streams together: one that nobody reads cannot hold up the others.
        .initial_connection_window_size(STREAM_WINDOW.saturating_mul(config.max_concurrent_streams.max(1)))
        .max_send_buf_size(STREAM_WINDOW as usize)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(service));
    let patience = config.keepalive_interval + config.keepalive_timeout;
    tokio::select! {
        biased;
        () = token.cancelled() => Err(ServeError::Cut),
        () = reads.silence(patience) => Err(ServeError::Silent(patience)),
        ended = connection => match ended {
            Ok(()) => Ok(()),
            Err(error) if error.is_timeout() => Err(ServeError::Silent(patience)),
            Err(error) => Err(ServeError::Broken(error)),
        },
    }
}
