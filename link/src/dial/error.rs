//! Why there is no link: errors that name the controller, and who refused whom.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::AlertDescription;

use crate::{CertificateError, ServeError, TlsError};

/// Why there is no link, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The bundle holds no usable certificate, key or CA.
    #[error("bundle")]
    Tls(#[from] TlsError),
    /// The bundle lists none.
    #[error("bundle lists no controller")]
    NoController,
    /// An entry of the bundle is no address.
    #[error("controller {0:?} is not host:port")]
    Address(String),
    /// The name did not resolve.
    #[error("cannot resolve {controller}")]
    Resolve {
        /// As in the bundle.
        controller: String,
        /// From the resolver.
        #[source]
        source: io::Error,
    },
    /// No TCP connection.
    #[error("cannot connect to {controller} at {address}")]
    Connect {
        /// As in the bundle.
        controller: String,
        /// What it resolved to.
        address: SocketAddr,
        /// From the kernel.
        #[source]
        source: io::Error,
    },
    /// Signed by our CA and of the right name, but not the controller: a stolen or misplaced certificate.
    #[error("{controller} at {address} is not the controller")]
    Impostor {
        /// As in the bundle.
        controller: String,
        /// What it resolved to.
        address: SocketAddr,
        /// Who it is.
        #[source]
        source: Box<CertificateError>,
    },
    /// TLS failed, or the certificate is not valid for that name.
    #[error("TLS handshake with {controller} at {address} failed")]
    Handshake {
        /// As in the bundle.
        controller: String,
        /// What it resolved to.
        address: SocketAddr,
        /// From rustls.
        #[source]
        source: io::Error,
    },
    /// The controller does not want our certificate: expired, revoked, signed by another CA, or naming nobody.
    #[error("controller {controller} refused our certificate: {alert:?}")]
    Refused {
        /// As in the bundle.
        controller: String,
        /// What it said.
        alert: AlertDescription,
    },
    /// Took too long.
    #[error("{controller}: {step} took longer than {after:?}")]
    Deadline {
        /// As in the bundle.
        controller: String,
        /// What did.
        step: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// The controller took the connection and ended it without a call: it does not know us, or is going down.
    #[error("controller {controller} ended the connection before its first call")]
    Dropped {
        /// As in the bundle.
        controller: String,
        /// How, if it did not just close it.
        #[source]
        source: Option<ServeError>,
    },
    /// A link that was attached ended.
    #[error("link to {controller} ended")]
    Ended {
        /// As in the bundle.
        controller: String,
        /// How, if the controller did not just close it.
        #[source]
        source: Option<ServeError>,
    },
}

/// What an error of TLS means: they refused us, we refused them, or something else.
pub(super) fn failure(controller: String, address: SocketAddr, source: io::Error) -> DialError {
    use AlertDescription as A;
    match source
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        Some(rustls::Error::AlertReceived(
            alert @ (A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::CertificateRequired
            | A::UnknownCA
            | A::AccessDenied
            | A::DecryptError),
        )) => DialError::Refused {
            controller,
            alert: *alert,
        },
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) => {
            match other.0.downcast_ref::<CertificateError>() {
                Some(ours) => DialError::Impostor {
                    controller,
                    address,
                    source: Box::new(ours.clone()),
                },
                None => DialError::Handshake {
                    controller,
                    address,
                    source,
                },
            }
        }
        _ => DialError::Handshake {
            controller,
            address,
            source,
        },
    }
}
