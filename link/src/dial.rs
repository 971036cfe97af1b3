//! A daemon's side: dial a controller, serve on that connection, dial again when it dies.
//!
//! ```text
//! Connecting ──TCP, TLS, first bytes, first call──▶ Attached ──dies──▶ BackingOff ──wait──▶ Connecting …
//!     └──────────── any failure: next controller; after the last one: BackingOff ─┘
//! ```
//! - In TLS 1.3 the dialler's handshake ends before the controller has looked at its certificate. So nothing is
//!   written until the controller's first bytes have come (a refusal is read as what it is, never lost behind a
//!   failed write), and the link counts as attached only when the controller has made its first call.
//! - The wait grows with each failure and starts over only after a link that was attached and lived for a while: a
//!   controller that takes us and drops us at once is not hammered.
//! - Names are resolved at every dial.

mod error;
mod target;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use proto::bundle::Bundle;
use rustls::ClientConfig;
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use error::DialError;
use error::failure;
use target::Target;

use crate::attach::chain;
use crate::serve::{self, FirstCall};
use crate::{Backoff, Peer, ServeConfig, TimeFloor, socket, tls};

/// Addresses of one name that are tried.
const ADDRESSES: usize = 8;

/// Times and bounds of a dialler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialConfig {
    /// For resolving the name, and again for each TCP connection.
    pub connect_deadline: Duration,
    /// For TLS.
    pub handshake_deadline: Duration,
    /// From the end of TLS to the controller's first bytes, and again from there to its first call.
    pub attach_deadline: Duration,
    /// How long an attached link has to live for the backoff to start over.
    pub settled_after: Duration,
    /// Waits between dials.
    pub backoff: Backoff,
    /// What the controller may do on the link.
    pub serve: ServeConfig,
    /// Own address to dial from; the kernel chooses when there is none. Controllers of the other family are then not
    /// reachable.
    pub source: Option<IpAddr>,
}

impl Default for DialConfig {
    fn default() -> Self {
        Self {
            connect_deadline: Duration::from_secs(10),
            // When all come up at once the controller may take a while to get to us: it gives nobody up half way.
            handshake_deadline: Duration::from_secs(20),
            attach_deadline: Duration::from_secs(30),
            settled_after: Duration::from_secs(10),
            backoff: Backoff::default(),
            serve: ServeConfig::default(),
            source: None,
        }
    }
}

/// Where a dialler stands, for health reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// Dials, or waits for the controller's first call.
    Connecting {
        /// As in the bundle.
        controller: String,
    },
    /// The controller has made its first call.
    Attached {
        /// As in the bundle.
        controller: String,
    },
    /// Waits before it dials again.
    BackingOff {
        /// How long.
        wait: Duration,
        /// Failures since the last link that settled.
        failures: u32,
        /// Why the last dial or link failed, with its causes.
        error: String,
    },
}

/// Dials the controllers of a bundle, over and over.
#[derive(Debug)]
pub struct Dialer {
    credentials: Credentials,
    config: DialConfig,
}

#[derive(Debug)]
struct Current {
    tls: Arc<ClientConfig>,
    targets: Vec<Target>,
}

/// What a dialler dials with; for whoever renews it. Clones are the same.
#[derive(Debug, Clone)]
pub struct Credentials {
    current: Arc<RwLock<Arc<Current>>>,
    floor: Option<Arc<TimeFloor>>,
}

impl Credentials {
    fn new(bundle: &Bundle, floor: Option<Arc<TimeFloor>>) -> Result<Self, DialError> {
        let current = Arc::new(Current::of(bundle, floor.clone())?);
        Ok(Self {
            current: Arc::new(RwLock::new(current)),
            floor,
        })
    }

    /// Dials with this bundle from the next dial on; the link that stands stays.
    ///
    /// # Errors
    /// When it is unusable; then nothing changes.
    pub fn replace(&self, bundle: &Bundle) -> Result<(), DialError> {
        let new = Arc::new(Current::of(bundle, self.floor.clone())?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    fn get(&self) -> Arc<Current> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Current {
    fn of(bundle: &Bundle, floor: Option<Arc<TimeFloor>>) -> Result<Self, DialError> {
        let tls = tls::client_config_by(bundle, floor)?;
        let targets: Vec<_> = bundle
            .controllers
            .iter()
            .map(|text| Target::parse(text))
            .collect::<Result<_, _>>()?;
        if targets.is_empty() {
            return Err(DialError::NoController);
        }
        Ok(Self { tls, targets })
    }
}

/// How one dial ended.
struct Attempt {
    error: DialError,
    /// Attached, and for long enough.
    settled: bool,
}

impl From<DialError> for Attempt {
    fn from(error: DialError) -> Self {
        Self {
            error,
            settled: false,
        }
    }
}

impl Dialer {
    /// Checks the bundle; dials nothing.
    ///
    /// # Errors
    /// When the bundle's certificate, key, CA or an address is unusable.
    pub fn new(bundle: &Bundle, config: DialConfig) -> Result<Self, DialError> {
        Ok(Self {
            credentials: Credentials::new(bundle, None)?,
            config,
        })
    }

    /// The same on a machine whose clock may be wrong: [`TimeFloor`] says what that costs.
    ///
    /// # Errors
    /// As [`Dialer::new`].
    pub fn with_floor(bundle: &Bundle, config: DialConfig, floor: Arc<TimeFloor>) -> Result<Self, DialError> {
        Ok(Self {
            credentials: Credentials::new(bundle, Some(floor))?,
            config,
        })
    }

    /// For renewing what it dials with.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.credentials.clone()
    }

    /// Keeps a link to one of the controllers and serves `routes` on it, until `shutdown` is cancelled; that cuts
    /// what is open. Every change of state goes to `on_state`, which must not block.
    pub async fn run<F>(&self, routes: Routes, shutdown: CancellationToken, on_state: F)
    where
        F: Fn(LinkState) + Send + Sync,
    {
        // Boxed: a connection's worth of state, which would otherwise sit in every caller's future.
        shutdown
            .run_until_cancelled(Box::pin(self.forever(&routes, &on_state)))
            .await;
    }

    async fn forever<F>(&self, routes: &Routes, on_state: &F)
    where
        F: Fn(LinkState) + Send + Sync,
    {
        let mut failures = 0_u32;
        loop {
            let mut error = String::new();
            for target in &self.credentials.get().targets {
                on_state(LinkState::Connecting {
                    controller: target.text.clone(),
                });
                let attempt = self.once(target, routes.clone(), on_state).await;
                error = chain(&attempt.error);
                tracing::info!(controller = target.text, %error, settled = attempt.settled, "dial failed or link ended");
                if attempt.settled {
                    failures = 0;
                    break;
                }
            }
            let wait = self.config.backoff.delay(failures, rand::random());
            failures = failures.saturating_add(1);
            on_state(LinkState::BackingOff {
                wait,
                failures,
                error,
            });
            tokio::time::sleep(wait).await;
        }
    }

    /// One dial and the link that came of it.
    async fn once<F>(&self, target: &Target, routes: Routes, on_state: &F) -> Attempt
    where
        F: Fn(LinkState) + Send + Sync,
    {
        let (stream, peer) = match self.connect(target).await {
            Ok(connected) => connected,
            Err(error) => return error.into(),
        };
        let controller = target.text.clone();
        let first_call = FirstCall::default();
        let token = CancellationToken::new();
        let serving = serve::run(stream, peer, routes, self.config.serve, token, first_call.clone());
        tokio::pin!(serving);
        let after = self.config.attach_deadline;
        tokio::select! {
            biased;
            made = timeout(after, first_call.made()) => if made.is_err() {
                return DialError::Deadline { controller, step: "the controller's first call", after }.into();
            },
            ended = &mut serving => return DialError::Dropped { controller, source: ended.err() }.into(),
        }
        let since = Instant::now();
        on_state(LinkState::Attached {
            controller: controller.clone(),
        });
        let ended = serving.await;
        Attempt {
            error: DialError::Ended {
                controller,
                source: ended.err(),
            },
            settled: since.elapsed() >= self.config.settled_after,
        }
    }

    /// Tries the addresses of one controller in turn, up to the first bytes of its HTTP/2.
    async fn connect(&self, target: &Target) -> Result<(TlsStream<TcpStream>, Peer), DialError> {
        let controller = || target.text.clone();
        let after = self.config.connect_deadline;
        let resolved = timeout(
            after,
            tokio::net::lookup_host((target.host.as_str(), target.port)),
        )
        .await
        .map_err(|_| DialError::Deadline {
            controller: controller(),
            step: "resolving",
            after,
        })?
        .map_err(|source| DialError::Resolve {
            controller: controller(),
            source,
        })?;
        let mut last = DialError::Resolve {
            controller: controller(),
            source: io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
        };
        for address in resolved.take(ADDRESSES) {
            match self.connect_to(target, address).await {
                Ok(connected) => return Ok(connected),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_to(
        &self,
        target: &Target,
        address: SocketAddr,
    ) -> Result<(TlsStream<TcpStream>, Peer), DialError> {
        let controller = || target.text.clone();
        let late = |step, after| {
            move |_| DialError::Deadline {
                controller: target.text.clone(),
                step,
                after,
            }
        };
        let DialConfig {
            connect_deadline,
            handshake_deadline,
            attach_deadline,
            source,
            ..
        } = self.config;

        let connect = |source| DialError::Connect {
            controller: controller(),
            address,
            source,
        };
        let stream = timeout(connect_deadline, socket::connect(source, address))
            .await
            .map_err(late("connecting", connect_deadline))?
            .map_err(connect)?;
        socket::tune(&stream).map_err(connect)?;

        let connector = TlsConnector::from(self.credentials.get().tls.clone());
        let mut stream = timeout(handshake_deadline, connector.connect(target.name.clone(), stream))
            .await
            .map_err(late("the TLS handshake", handshake_deadline))?
            .map_err(|source| failure(controller(), address, source))?;

        let (_, session) = stream.get_ref();
        let impostor = |e| DialError::Impostor {
            controller: controller(),
            address,
            source: Box::new(e),
        };
        let chain = session.peer_certificates().unwrap_or_default();
        let peer = Peer::of_chain(chain, address, std::time::SystemTime::now()).map_err(impostor)?;

        let first = timeout(attach_deadline, stream.fill_buf())
            .await
            .map_err(late("the controller's first word", attach_deadline))?;
        match first {
            Ok([]) => Err(DialError::Dropped {
                controller: controller(),
                source: None,
            }),
            Ok(_) => Ok((stream, peer)),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                Err(DialError::Dropped {
                    controller: controller(),
                    source: None,
                })
            }
            Err(source) => Err(failure(controller(), address, source)),
        }
    }
}
