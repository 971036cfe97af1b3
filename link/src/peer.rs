//! Who is at the other end of a connection.

use std::net::SocketAddr;
use std::time::SystemTime;

use proto::Identity;

/// The authenticated other end. In the extensions of every request that [`serve`](crate::serve()) hands to a service:
/// `request.extensions().get::<link::Peer>()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Whom its certificate speaks for.
    pub identity: Identity,
    /// Where it connected from (or where we dialled).
    pub address: SocketAddr,
    /// The end of its certificate's validity. TLS checks it once, at the handshake; a caller that keeps
    /// connections for longer than certificates live has to check it again.
    pub certificate_expires: SystemTime,
}
