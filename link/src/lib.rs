//! How a daemon at a site reaches the controller, and the guarded TLS front door of both of the controller's ports.
//!
//! ```text
//!   site                                             centre
//!   Dialer ──dials──▶ ─────────── TLS 1.3 ─────────▶ Acceptor ──▶ Accepted { stream, peer }
//!     │ serves its gRPC services                        │ daemons' port: attach() ─▶ Link (the controller calls)
//!     ▼ on the connection that it dialled               │ people's port: serve_accepted() (the controller answers)
//!   serve()                                             ▼ Registry: the newest link of each daemon
//! ```
//! Both ends prove who they are (one CA, client certificates required); a dialling daemon also insists that the
//! other end is *the controller*. Who may do what is the caller's business: this crate says who it is.
//!
//! Whatever is spawned for a connection runs under one cancellation token, so that cutting it ends everything of
//! it at once, also when the network has swallowed the peer. Half-open and unauthenticated peers are bounded and
//! evicted; they never delay an honest one.

mod attach;
mod backoff;
mod counts;
mod dial;
mod door;
mod exec;
mod floor;
mod handshakes;
mod identities;
mod listen;
mod liveness;
mod peer;
mod registry;
mod serve;
mod socket;
mod sys;
mod tls;
mod turns;
mod workers;

pub use attach::{AttachError, Ended, Link, LinkBody, LinkConfig, attach};
pub use backoff::Backoff;
pub use counts::Counts;
pub use dial::{Credentials, DialConfig, DialError, Dialer, LinkState};
pub use door::Door;
pub use floor::TimeFloor;
pub use listen::{Accepted, Acceptor, Gauge, ListenConfig, ListenError};
pub use peer::Peer;
pub use registry::{Cut, Generation, Registry};
pub use serve::{ServeConfig, ServeError, serve, serve_accepted};
pub use tls::{TlsError, client_config, server_config};
pub use trust::{CertificateError, identity_of};
pub use workers::Workers;
