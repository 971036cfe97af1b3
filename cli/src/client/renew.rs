//! A new certificate for the key that we have: by ourselves, before the old one ends.

use std::time::Duration;

use proto::{Identity, v1};
use tokio::time::Instant;

use super::{Client, Dialer};
use crate::bundle;
use crate::credentials::Credentials;
use crate::failure::Failure;
use crate::when::Time;

/// Renewing by the way may take so long; the command is done by then.
const BY_THE_WAY: Duration = Duration::from_secs(3);

impl Dialer {
    /// Renews when half the certificate's life is over. Quietly: the next command tries again, and says so only when
    /// it cannot do without.
    pub(crate) async fn renew_by_the_way(&self) {
        let due = {
            let own = self.own();
            own.validity.is_half_over(Time::now().0)
                && matches!(own.bundle.identity(), Ok(Identity::Person(_)))
        };
        if due && self.path.is_some() {
            let _ = self.renew(Instant::now() + BY_THE_WAY, BY_THE_WAY).await;
        }
    }

    /// Renews the certificate and writes the bundle. Another process may have done it meanwhile: then its is taken.
    ///
    /// # Errors
    /// What the controller says, or the file.
    pub(crate) async fn renew(&self, deadline: Instant, call: Duration) -> Result<(), Failure> {
        let before = self.own().clone();
        if let Some(theirs) = self.renewed_by_another(&before) {
            *self.own() = theirs;
            return Ok(());
        }
        let client = self.connect_as_we_are(deadline, call).await?;
        let request = v1::RenewRequest {
            public_key: before.public_key.clone(),
        };
        let reply = client
            .call("renewing your certificate", client.enrol().renew(request))
            .await?;
        let mut fresh = before.bundle.clone();
        fresh.certificate = reply.certificate;
        fresh.ca = reply.roots;
        if !reply.controllers.is_empty() {
            fresh.controllers = reply.controllers;
        }
        let fresh = Credentials::new(fresh)?;
        if fresh.public_key != before.public_key || fresh.bundle.identity != reply.identity {
            return Err(Failure::Incomplete("a certificate for your key"));
        }
        if let Some(path) = &self.path {
            bundle::replace(path, &before.bundle, &fresh.bundle)?;
        }
        *self.own() = fresh;
        Ok(())
    }

    /// What stands in the file, if it is for the same key and good for longer.
    fn renewed_by_another(&self, ours: &Credentials) -> Option<Credentials> {
        let theirs = Credentials::new(bundle::read(self.path.as_deref()?).ok()?).ok()?;
        let longer = theirs.validity.until_ms() > ours.validity.until_ms()
            && !theirs.validity.is_half_over(Time::now().0);
        (longer && theirs.public_key == ours.public_key).then_some(theirs)
    }
}

impl Client {
    /// Has a key certified by an invite.
    ///
    /// # Errors
    /// What the controller says.
    pub(crate) async fn accept(&self, request: Vec<u8>) -> Result<v1::CertifiedReply, Failure> {
        let request = v1::AcceptRequest { request };
        self.call("using the invite", self.enrol().accept(request)).await
    }
}
