//! Asking a controller why it hung up.
//!
//! In TLS 1.3 the client believes that the handshake is done before the server has looked at its certificate. A
//! server that refuses it sends an alert and closes, while our first request is on its way; the reset that follows
//! often destroys the alert unread, and all that is left is “the connection was cut”. So when a connection was
//! cut, we handshake once more and say nothing: then the alert, if there is one, arrives.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Trouble;
use crate::args::Address;

/// A server that accepts us sends a session ticket at once; one that sends none costs this much.
const LONGEST: Duration = Duration::from_millis(500);

/// What a second handshake needs.
#[derive(Clone)]
pub(super) struct Probe {
    tls: Arc<ClientConfig>,
}

impl Probe {
    /// With the same credentials as the connection itself.
    pub(super) const fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls }
    }

    /// Why the controller does not trust us, if that is what it says.
    pub(super) async fn ask(&self, address: &Address, name: &str) -> Option<Trouble> {
        tokio::time::timeout(LONGEST, self.handshake(address, name))
            .await
            .ok()
            .flatten()
    }

    async fn handshake(&self, address: &Address, name: &str) -> Option<Trouble> {
        let name = ServerName::try_from(name.to_owned()).ok()?;
        let wire = TcpStream::connect((address.host.as_str(), address.port))
            .await
            .ok()?;
        let connected = TlsConnector::from(self.tls.clone()).connect(name, wire).await;
        let result = match connected {
            Ok(mut stream) => {
                let mut byte = [0_u8; 1];
                poll_fn(|context| {
                    let mut buffer = ReadBuf::new(&mut byte);
                    match Pin::new(&mut stream).poll_read(context, &mut buffer) {
                        Poll::Ready(result) => Poll::Ready(result),
                        // A ticket is only for those who were accepted.
                        Poll::Pending if stream.get_ref().1.tls13_tickets_received() > 0 => {
                            Poll::Ready(Ok(()))
                        }
                        Poll::Pending => Poll::Pending,
                    }
                })
                .await
            }
            Err(error) => Err(error),
        };
        result
            .err()
            .map(|error| Trouble::of(&error))
            .filter(|trouble| !trouble.may_pass())
    }
}
