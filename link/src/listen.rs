//! The front door: accepts, makes the TLS handshake under bounds, and hands over authenticated streams.
//!
//! ```text
//! accept ─▶ table of handshakes (bounded; a flood evicts itself) ─▶ TLS, deadline ─▶ identity ─▶ channel ─▶ Accepted
//! ```
//! - A newcomer is never refused; `handshakes.rs` says who goes for it. The loop yields after each connection, so
//!   that handshakes that can go on do so before the next one comes in: what cannot be served waits in the kernel's
//!   backlog and not in memory.
//! - `accept` never ends the loop. Without descriptors (EMFILE) a handshake is evicted or, when there is none, one
//!   connection is taken with a spare descriptor and closed, so that it learns at once; then a short pause.
//! - What strangers do is counted, not logged above `debug`: a flood must not fill the journal.
//!
//! Size of the table: handshakes per second × round trip of a peer; 512 carry 1,500 a second over 300 ms. A listener
//! whose peers all come in one second from one address (a benchmark) wants as many as there are peers.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::counts::{Counters, Counts, count};
use crate::handshakes::{Handshakes, Ticket};
use crate::identities::{Identities, Permit};
use crate::{Peer, socket, tls};

/// Authenticated connections that wait for the caller.
const READY: usize = 1024;
/// Pause after a failed `accept`: doubles from the first to the last.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// At most one warning in this time, however often `accept` fails.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Bounds of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenConfig {
    /// Connections that the kernel keeps until they are accepted.
    pub backlog: i32,
    /// Handshakes in progress: everybody who is connected and has not proven who they are.
    pub max_handshakes: usize,
    /// From `accept` to the end of the handshake.
    pub handshake_deadline: Duration,
    /// Established connections of one identity; one more cuts the oldest.
    pub max_per_identity: usize,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            backlog: 4096,
            max_handshakes: 512,
            handshake_deadline: Duration::from_secs(5),
            max_per_identity: 64,
        }
    }
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// As asked for.
        address: SocketAddr,
        /// From the kernel.
        #[source]
        source: io::Error,
    },
    /// No descriptor left, not even for the spare one.
    #[error("cannot open /dev/null")]
    Spare(#[source] io::Error),
}

#[derive(Debug)]
struct Shared {
    config: ListenConfig,
    counters: Counters,
    handshakes: Mutex<Handshakes<CancellationToken>>,
    identities: Identities,
    stop: CancellationToken,
}

impl Shared {
    fn handshakes(&self) -> MutexGuard<'_, Handshakes<CancellationToken>> {
        self.handshakes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn evict(&self, evicted: Option<CancellationToken>) -> bool {
        let Some(evicted) = evicted else { return false };
        count(&self.counters.evicted);
        evicted.cancel();
        true
    }
}

/// Reads the counters of a listener, from anywhere.
#[derive(Debug, Clone)]
pub struct Gauge(Arc<Shared>);

impl Gauge {
    /// As of now.
    #[must_use]
    pub fn read(&self) -> Counts {
        let (in_progress, established) = (self.0.handshakes().len(), self.0.identities.len());
        self.0.counters.read(in_progress, established)
    }
}

/// An authenticated connection: for [`attach`](crate::attach()) or [`serve_accepted`](crate::serve_accepted). Dropping
/// it closes it.
#[derive(Debug)]
pub struct Accepted {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) peer: Peer,
    pub(crate) permit: Permit,
}

impl Accepted {
    /// Who it is. Signed by our CA and inside its validity; whether they may do anything here is for the caller.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

/// A listener with its handshakes. Dropping it closes the port and ends the handshakes; streams that were handed
/// over live on.
#[derive(Debug)]
pub struct Acceptor {
    ready: mpsc::Receiver<Accepted>,
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

impl Acceptor {
    /// Listens; must be called inside a tokio runtime. Port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(
        address: SocketAddr,
        tls: Arc<ServerConfig>,
        config: ListenConfig,
    ) -> Result<Self, ListenError> {
        let bind = |source| ListenError::Bind { address, source };
        let listener = socket::listen(address, config.backlog)
            .and_then(TcpListener::from_std)
            .map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let spare = open_spare().map_err(ListenError::Spare)?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            config,
            counters: Counters::default(),
            handshakes: Mutex::new(Handshakes::new(config.max_handshakes)),
            identities: Identities::new(config.max_per_identity),
            stop: stop.clone(),
        });
        let (sender, ready) = mpsc::channel(READY);
        let door = Door {
            listener,
            tls: tls.into(),
            shared: shared.clone(),
            ready: sender,
            spare: Some(spare),
            warned: None,
        };
        drop(tokio::spawn(stop.clone().run_until_cancelled_owned(door.run())));
        Ok(Self {
            ready,
            address,
            shared,
            _stop: stop.drop_guard(),
        })
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A handle on the counters that outlives the borrow.
    #[must_use]
    pub fn gauge(&self) -> Gauge {
        Gauge(self.shared.clone())
    }

    /// The next authenticated connection. `None` only when the runtime goes down. Cancel safe.
    pub async fn accept(&mut self) -> Option<Accepted> {
        self.ready.recv().await
    }
}

fn open_spare() -> io::Result<File> {
    File::open("/dev/null")
}

/// The accept loop.
struct Door {
    listener: TcpListener,
    tls: TlsAcceptor,
    shared: Arc<Shared>,
    ready: mpsc::Sender<Accepted>,
    /// Given up for a moment when there is no other descriptor.
    spare: Option<File>,
    warned: Option<Instant>,
}

impl Door {
    async fn run(mut self) {
        let mut pause = PAUSE.0;
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    pause = PAUSE.0;
                    self.admit(stream, address);
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    count(&self.shared.counters.accept_errors);
                    if self.relieve(&error).await {
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(PAUSE.1);
                    }
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, address: SocketAddr) {
        count(&self.shared.counters.accepted);
        let token = self.shared.stop.child_token();
        let (ticket, evicted) = self.shared.handshakes().admit(address.ip().into(), token.clone());
        self.shared.evict(evicted);
        let handshake = Handshake {
            shared: self.shared.clone(),
            ticket,
            token,
        };
        drop(tokio::spawn(handshake.run(
            self.tls.clone(),
            stream,
            address,
            self.ready.clone(),
        )));
    }

    /// Makes room after an error of `accept`; says whether a pause is due.
    async fn relieve(&mut self, error: &io::Error) -> bool {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            // That peer is gone; the next one is not concerned.
            return false;
        }
        if self.warned.is_none_or(|before| before.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            tracing::warn!(%error, "cannot accept connections");
        }
        if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
            let evicted = self.shared.handshakes().evict();
            if !self.shared.evict(evicted) {
                self.shed().await;
            }
        }
        true
    }

    async fn shed(&mut self) {
        self.spare = None;
        // Somebody else may have taken the descriptor, or the peer have left: then there is nothing to wait for.
        if let Ok(Ok((stream, _))) = tokio::time::timeout(PAUSE.0, self.listener.accept()).await {
            count(&self.shared.counters.shed);
            socket::reset_on_close(&stream);
        }
        self.spare = open_spare().ok();
    }
}

/// One handshake in progress; leaves the table when dropped.
struct Handshake {
    shared: Arc<Shared>,
    ticket: Ticket,
    token: CancellationToken,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.shared.handshakes().remove(self.ticket);
    }
}

impl Handshake {
    async fn run(
        self,
        tls: TlsAcceptor,
        stream: TcpStream,
        address: SocketAddr,
        ready: mpsc::Sender<Accepted>,
    ) {
        let Some(accepted) = self.shake(&tls, stream, address).await else {
            return;
        };
        // From here on it is authenticated and no longer takes a stranger's place.
        let stop = self.shared.stop.clone();
        drop(self);
        // Fails when the acceptor was dropped; the stream closes with it.
        let _ = stop.run_until_cancelled(ready.send(accepted)).await;
    }

    async fn shake(&self, tls: &TlsAcceptor, stream: TcpStream, address: SocketAddr) -> Option<Accepted> {
        let counters = &self.shared.counters;
        if let Err(error) = socket::tune(&stream) {
            // The peer has hung up already.
            tracing::debug!(%address, %error, "socket options refused");
            count(&counters.failed);
            return None;
        }
        let mut handshake = tls.accept(stream);
        let ended = tokio::select! {
            biased;
            () = self.token.cancelled() => None,
            ended = tokio::time::timeout(self.shared.config.handshake_deadline, &mut handshake) => Some(ended),
        };
        match ended {
            Some(Ok(Ok(stream))) => match authenticated(&stream, address) {
                Ok(peer) => {
                    count(&counters.completed);
                    let permit = self.shared.identities.admit(peer.identity.clone());
                    return Some(Accepted { stream, peer, permit });
                }
                Err(error) => {
                    count(&counters.failed);
                    tracing::debug!(%address, %error, "handshake refused");
                }
            },
            Some(Ok(Err(error))) => {
                count(&counters.failed);
                tracing::debug!(%address, %error, "handshake failed");
            }
            Some(Err(_)) => {
                count(&counters.timed_out);
                tracing::debug!(%address, "handshake cut at its deadline");
                if let Some(stream) = handshake.get_ref() {
                    socket::reset_on_close(stream);
                }
            }
            // Evicted, counted by who did it; or the listener is gone.
            None => {
                if let Some(stream) = handshake.get_ref() {
                    socket::reset_on_close(stream);
                }
            }
        }
        None
    }
}

/// Why a completed handshake is refused all the same.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("peer did not agree on HTTP/2")]
    Protocol,
    #[error(transparent)]
    Certificate(#[from] trust::CertificateError),
}

fn authenticated(stream: &TlsStream<TcpStream>, address: SocketAddr) -> Result<Peer, Refused> {
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(tls::ALPN) {
        return Err(Refused::Protocol);
    }
    let chain = session.peer_certificates().unwrap_or_default();
    Ok(Peer::of_chain(chain, address, std::time::SystemTime::now())?)
}
