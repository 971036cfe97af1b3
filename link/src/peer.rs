//! Who is at the other end of a connection.

use std::net::SocketAddr;
use std::time::SystemTime;

use proto::Identity;
use rustls_pki_types::CertificateDer;
use trust::{CertificateError, Spki, identity_of};

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
    /// The key that it proved to hold: what it is known by, whatever its certificate.
    pub key: Spki,
    /// Its certificate had ended at the handshake: it may only have its key certified anew. A listener that is not
    /// told to let such peers in refuses them inside the handshake.
    pub expired: bool,
    /// Its certificate hangs directly below a root: issued before there were issuing CAs.
    pub direct: bool,
}

impl Peer {
    /// Of the other end's chain, which TLS has checked.
    pub(crate) fn of_chain(
        chain: &[CertificateDer<'_>],
        address: SocketAddr,
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let (identity, certificate_expires) = identity_of(chain)?;
        let key = Spki::of_certificate(chain.first().ok_or(CertificateError::None)?)?;
        Ok(Self {
            identity,
            address,
            certificate_expires,
            key,
            expired: certificate_expires <= now,
            direct: chain.len() == 1,
        })
    }
}
