//! What both ports show and whom they let in, kept up with the certificates: renewed, rotated, changed by root's
//! commands in another process. Counts from the next handshake on; connections that stand stay.

use std::sync::Arc;
use std::time::Duration;

use link::{Door, TlsError};
use rustls::ServerConfig;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::pki::Authority;

/// Between two looks at what other processes changed and what is due.
const EVERY: Duration = Duration::from_secs(1);

/// TLS of both ports.
#[derive(Debug)]
pub(crate) struct Gate {
    authority: Arc<Authority>,
    door: Arc<Door>,
}

impl Gate {
    pub(crate) fn new(authority: Arc<Authority>) -> Result<Self, TlsError> {
        let view = authority.view();
        let (certificate, key) = view.controller();
        let door = Door::new(view.roots_pem(), certificate, key)?;
        // Who was one of us may renew; `fleet` and `services` let them do no more.
        door.let_ended_in();
        Ok(Self { authority, door })
    }

    pub(crate) fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        self.door.config()
    }

    /// Until `shutdown`. `on_roots` learns which roots everybody is to trust, whenever something changed.
    pub(crate) async fn keep(self, shutdown: CancellationToken, on_roots: impl Fn(String) + Send + Sync) {
        let gate = Arc::new(self);
        while shutdown
            .run_until_cancelled(tokio::time::sleep(EVERY))
            .await
            .is_some()
        {
            let looking = gate.clone();
            // Files, and a lock that another process may hold. A panic has been logged.
            if let Ok(true) = tokio::task::spawn_blocking(move || looking.look()).await {
                on_roots(gate.authority.view().roots_pem().to_owned());
            }
        }
    }

    /// Whether something changed.
    fn look(&self) -> bool {
        match self.authority.upkeep(OffsetDateTime::now_utc()) {
            Ok(done) => {
                if done.issuing || done.controller {
                    tracing::info!(
                        issuing = done.issuing,
                        controller = done.controller,
                        "certificates renewed, half their life being over"
                    );
                }
                if done.changed
                    && let Err(error) = self.show()
                {
                    tracing::error!(%error, "cannot show the new certificate");
                }
                done.changed
            }
            // What we have is good for half its life yet.
            Err(error) => {
                tracing::warn!(%error, "cannot look after the certificates");
                false
            }
        }
    }

    fn show(&self) -> Result<(), TlsError> {
        let view = self.authority.view();
        let (certificate, key) = view.controller();
        self.door.trust(view.roots_pem())?;
        self.door.show(certificate, key)
    }
}
