//! The front door: accepts, makes the TLS handshake under bounds, and hands over authenticated streams.
//!
//! ```text
//! accept ─▶ table (bounded; a flood evicts itself) ─▶ first bytes ─▶ turn ─▶ TLS, deadline ─▶ identity ─▶ Accepted
//!           └──────── costs a socket and a kilobyte ────────┘           └─ on `Workers` if there are ─┘
//! ```
//! - A newcomer is never refused; `handshakes.rs` says who goes for it when the table is full, `turns.rs` whose
//!   handshake is worked on. Waiting for a turn does not count against the peer: we are slow then.
//! - The TLS is made by the runtime that the listener is bound in, or by [`Workers`], which stand back for others.
//! - `accept` never ends the loop. Without descriptors (EMFILE) a handshake is evicted or, when there is none, one
//!   connection is taken with a spare descriptor and closed, so that it learns at once; then a short pause.
//! - What strangers do is counted, not logged above `debug`: a flood must not fill the journal.
//!
//! Turns: handshakes per second × round trip of a peer; 1,024 carry 3,400 a second over 300 ms, at some 30 KiB each.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::counts::{Counters, Counts, count};
use crate::handshakes::{Handshakes, Source, Ticket};
use crate::identities::{Identities, Permit};
use crate::turns::{Turn, Turns};
use crate::workers::Workers;
use crate::{Peer, socket, sys, tls};

/// Authenticated connections that wait for the caller.
const READY: usize = 1024;
/// Pause after a failed `accept`: doubles from the first to the last.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// At most one warning in this time, however often `accept` fails.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// A turn may be over after this, where it is wanted: time enough to answer from anywhere on earth.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Bounds of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenConfig {
    /// Connections that the kernel keeps until they are accepted.
    pub backlog: i32,
    /// Everybody who is connected and has not proven who they are. At most half of the descriptors that this
    /// process may have.
    pub max_handshakes: usize,
    /// Of these, whose handshake is worked on; the others wait for their turn.
    pub max_turns: usize,
    /// From `accept` to the first bytes, and from the turn to the end of the handshake.
    pub handshake_deadline: Duration,
    /// Established connections of one identity; one more cuts the oldest.
    pub max_per_identity: usize,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            backlog: 4096,
            max_handshakes: 16_384,
            max_turns: 1_024,
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
    turns: Turns,
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
    _workers: Option<Workers>,
}

impl Acceptor {
    /// Listens; must be called inside a tokio runtime, which makes the handshakes as well. Port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(
        address: SocketAddr,
        tls: Arc<ServerConfig>,
        config: ListenConfig,
    ) -> Result<Self, ListenError> {
        Self::listen(address, tls, config, None)
    }

    /// The same with the handshakes made by `workers`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind_on(
        workers: Workers,
        address: SocketAddr,
        tls: Arc<ServerConfig>,
        config: ListenConfig,
    ) -> Result<Self, ListenError> {
        Self::listen(address, tls, config, Some(workers))
    }

    fn listen(
        address: SocketAddr,
        tls: Arc<ServerConfig>,
        config: ListenConfig,
        workers: Option<Workers>,
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
            handshakes: Mutex::new(Handshakes::new(config.max_handshakes.min(sys::descriptors() / 2))),
            turns: Turns::new(config.max_turns),
            identities: Identities::new(config.max_per_identity),
            stop: stop.clone(),
        });
        let (sender, ready) = mpsc::channel(READY);
        let door = Door {
            listener,
            tls: tls.into(),
            workers: workers.as_ref().map_or_else(Handle::current, Workers::handle),
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
            _workers: workers,
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
    /// Who makes the handshakes.
    workers: Handle,
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
        let source = address.ip().into();
        let (ticket, evicted) = self.shared.handshakes().admit(source, token.clone());
        self.shared.evict(evicted);
        let handshake = Handshake {
            shared: self.shared.clone(),
            ticket,
            token,
        };
        let (tls, workers, ready) = (self.tls.clone(), self.workers.clone(), self.ready.clone());
        drop(tokio::spawn(async move {
            if let Some(turn) = handshake.wait(&stream, source).await {
                // Only now, so that whoever waits costs little.
                drop(workers.spawn(handshake.run(turn, tls, stream, address, ready)));
            }
        }));
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
    /// Until its first bytes are there and its turn has come. `None`: it is over.
    async fn wait(&self, stream: &TcpStream, source: Source) -> Option<Turn> {
        let counters = &self.shared.counters;
        let turn = async {
            // Looked at, not only asked for: readiness may be said of a stream that has nothing to read, and a peer
            // that says nothing must not take a turn.
            let mut first = [0];
            match tokio::time::timeout(self.shared.config.handshake_deadline, stream.peek(&mut first)).await {
                Ok(Ok(1..)) => self.shared.turns.turn(source).await,
                Ok(Ok(0) | Err(_)) => {
                    count(&counters.failed);
                    None
                }
                Err(_) => {
                    count(&counters.timed_out);
                    tracing::debug!("silent peer cut at its deadline");
                    socket::reset_on_close(stream);
                    None
                }
            }
        };
        let turn = self.token.run_until_cancelled(turn).await;
        if turn.is_none() {
            // Evicted, counted by who did it; or the listener is gone.
            socket::reset_on_close(stream);
        }
        turn.flatten()
    }

    async fn run(
        self,
        turn: Turn,
        tls: TlsAcceptor,
        stream: TcpStream,
        address: SocketAddr,
        ready: mpsc::Sender<Accepted>,
    ) {
        let accepted = self.shake(&turn, &tls, stream, address).await;
        turn.ended(accepted.is_some());
        let Some(accepted) = accepted else { return };
        // From here on it no longer takes a stranger's place; its turn lasts until somebody takes it over.
        let stop = self.shared.stop.clone();
        drop(self);
        // Fails when the acceptor was dropped; the stream closes with it.
        let _ = stop.run_until_cancelled(ready.send(accepted)).await;
        drop(turn);
    }

    /// Whether the peer has had its time.
    fn is_over(&self, turn: &Turn, since: Instant) -> bool {
        let taken = since.elapsed();
        taken >= self.shared.config.handshake_deadline || taken >= PATIENCE && turn.is_wanted()
    }

    async fn shake(
        &self,
        turn: &Turn,
        tls: &TlsAcceptor,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Option<Accepted> {
        let counters = &self.shared.counters;
        if let Err(error) = socket::tune(&stream) {
            // The peer has hung up already.
            tracing::debug!(%address, %error, "socket options refused");
            count(&counters.failed);
            return None;
        }
        let mut handshake = Box::pin(tls.accept(stream));
        let since = Instant::now();
        let look = LOOK.min(self.shared.config.handshake_deadline);
        let ended = loop {
            // The handshake is asked first: what the peer has said in time counts, however late we look.
            let ended = tokio::select! {
                biased;
                () = self.token.cancelled() => break None,
                ended = tokio::time::timeout(look, &mut handshake) => ended,
            };
            if ended.is_ok() || self.is_over(turn, since) {
                break Some(ended);
            }
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
