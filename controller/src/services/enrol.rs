//! Keys get certificates: by an invite, once; by being enrolled, again and again.

use std::time::Duration;

use link::Peer;
use proto::v1::enrol_server::Enrol;
use proto::v1::{AcceptRequest, CertifiedReply, RenewRequest};
use proto::{Identity, PersonName};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};
use trust::Spki;

use super::Desk;
use super::caller::Permit;
use crate::error::Error;
use crate::fleet::now_ms;
use crate::pki::{Certified, PkiError, RequestError, Requested, View};
use crate::store::{About, Holder, InviteUse, Invitee, StoreError};

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        Error::Malformed(error.to_string())
    }
}

impl From<PkiError> for Error {
    fn from(error: PkiError) -> Self {
        Error::Internal(error.to_string())
    }
}

/// Milliseconds since 1970.
pub(super) fn millis(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

pub(super) fn life(of: Duration) -> time::Duration {
    time::Duration::try_from(of).unwrap_or(time::Duration::MAX)
}

fn peer<T>(request: &Request<T>) -> Result<Peer, Error> {
    let peer = request.extensions().get::<Peer>().cloned();
    peer.ok_or_else(|| Error::Internal("a request without a peer".into()))
}

impl Desk {
    /// Refuses somebody who is not a caller (yet), and audits.
    async fn turn_away<T>(&self, key: Spki, action: &str, target: &str, rule: String) -> Result<T, Error> {
        if self.door.is_worth_a_note(key, now_ms()) {
            self.audit(None, action, target, About::default(), Err(&rule))
                .await;
        } else {
            tracing::debug!(%key, action, target, rule, "turned away, as often before");
        }
        Err(Error::Refused { rule })
    }

    async fn accept_invite(&self, peer: Peer, request: &[u8]) -> Result<CertifiedReply, Error> {
        let Identity::Invite(id) = peer.identity else {
            let rule = format!("{} is no invite: it is renewed, not accepted", peer.identity);
            return Err(Error::Refused { rule });
        };
        let requested = Requested::from_request(request)?;
        let store = self.fleet.store();
        let invite = match store.invite(id).await {
            Err(StoreError::NotFound { .. }) => {
                let rule = format!("invite {id} is not known here: ask for another");
                return self
                    .turn_away(peer.key, "accept-invite", &format!("invite {id}"), rule)
                    .await;
            }
            invite => invite?,
        };
        let (Invitee::NewPerson { name, .. } | Invitee::Person { name, .. }) = &invite.invitee else {
            let rule = format!("invite {id} is a node's join token, not a person's");
            return self
                .turn_away(peer.key, "accept-invite", &format!("invite {id}"), rule)
                .await;
        };
        let target = format!("person {name} (invite {id})");
        // Made first: an invite is not used up by a certificate that cannot be made.
        let view = self.fleet.authority().view();
        let certified = self.certify(&view, name, &requested)?;
        let wish = InviteUse {
            id,
            shown: peer.key,
            key: requested.spki(),
            certificate_expires_at_ms: millis(certified.expires),
            now_ms: now_ms(),
        };
        let by = invite
            .created_by
            .as_ref()
            .map_or("root".to_owned(), ToString::to_string);
        let permit = Permit {
            role: None,
            rule: format!("invited by {by}, with key {}", requested.spki()),
        };
        let note = self.note(
            Some(name),
            "accept-invite",
            &target,
            About::default(),
            Ok(&permit),
        );
        match store.use_invite(&wish, note).await {
            Ok(used) => {
                self.door.cut_keys(&used.revoked);
                self.fleet.note_handed(requested.spki(), &view).await;
                Ok(self.reply(&view, name, certified))
            }
            Err(error @ (StoreError::Unusable { .. } | StoreError::Exists { .. })) => {
                self.turn_away(peer.key, "accept-invite", &target, error.to_string())
                    .await
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn renew_certificate(&self, peer: Peer, public_key: &[u8]) -> Result<CertifiedReply, Error> {
        let Identity::Person(name) = peer.identity else {
            let rule = format!("{} is no person: it is not renewed here", peer.identity);
            return Err(Error::Refused { rule });
        };
        let requested = Requested::from_public_key(public_key)?;
        if requested.spki() != peer.key {
            // The connection has proved that its key is held; of any other nobody knows.
            let rule = "a certificate is renewed for the key of the connection: a new key needs an invite";
            return Err(Error::Refused {
                rule: rule.to_owned(),
            });
        }
        let target = format!("person {name}");
        let ended = peer.certificate_expires + self.door.config.grace;
        if ended <= std::time::SystemTime::now() {
            let days = self.door.config.grace.as_secs() / 86_400;
            let rule = format!(
                "the certificate of {name} ended more than {days} days ago: ask support for an invite (redbutton invite {name})"
            );
            return self.turn_away(peer.key, "renew", &target, rule).await;
        }
        let key = self.good_key(&name, peer.key, "renew").await?;
        let view = self.fleet.authority().view();
        let certified = self.certify(&view, &name, &requested)?;
        let permit = Permit {
            role: None,
            rule: format!("key {} is enrolled", key.spki),
        };
        let note = self.note(Some(&name), "renew", &target, About::default(), Ok(&permit));
        let until = millis(certified.expires);
        match self.fleet.store().renew_key(peer.key, until, note.clone()).await {
            Ok(_) => {}
            // Whoever has to press the button on the day that the disk is full must get in.
            Err(error) if error.is_transient() => self.fleet.note(note).await,
            Err(error @ StoreError::Unusable { .. }) => {
                return self
                    .turn_away(peer.key, "renew", &target, error.to_string())
                    .await;
            }
            Err(error) => return Err(error.into()),
        }
        self.fleet.note_handed(peer.key, &view).await;
        Ok(self.reply(&view, &name, certified))
    }

    fn certify(&self, view: &View, name: &PersonName, requested: &Requested) -> Result<Certified, Error> {
        let now = OffsetDateTime::now_utc();
        let life = life(self.door.config.life);
        Ok(view.ca().certify_person(name, requested, life, now)?)
    }

    fn reply(&self, view: &View, name: &PersonName, certified: Certified) -> CertifiedReply {
        CertifiedReply {
            identity: certified.identity.to_string(),
            name: name.to_string(),
            certificate: certified.chain,
            roots: view.roots_pem().to_owned(),
            controllers: self.door.config.controllers.clone(),
            expires_at_ms: millis(certified.expires),
        }
    }

    /// The key, if it is enrolled for this person and was not revoked.
    pub(super) async fn good_key(
        &self,
        name: &PersonName,
        key: Spki,
        action: &str,
    ) -> Result<crate::store::KeyRecord, Error> {
        let target = format!("person {name}");
        match self.fleet.store().key(key).await {
            Ok(record) if record.holder != Holder::Person(name.clone()) => {
                let rule = format!("key {key} is not one of {name}");
                self.turn_away(key, action, &target, rule).await
            }
            Ok(record) => match record.revoked {
                None => Ok(record),
                Some(_) => {
                    let rule = format!("key {key} of {name} was revoked: ask support for an invite");
                    self.turn_away(key, action, &target, rule).await
                }
            },
            Err(StoreError::NotFound { .. }) => {
                let rule = format!("key {key} of {name} is not enrolled here: ask support for an invite");
                self.turn_away(key, action, &target, rule).await
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[tonic::async_trait]
impl Enrol for Desk {
    async fn accept(&self, request: Request<AcceptRequest>) -> Result<Response<CertifiedReply>, Status> {
        let peer = peer(&request)?;
        let reply = self.accept_invite(peer, &request.get_ref().request).await?;
        Ok(Response::new(reply))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<CertifiedReply>, Status> {
        let peer = peer(&request)?;
        let reply = self
            .renew_certificate(peer, &request.get_ref().public_key)
            .await?;
        Ok(Response::new(reply))
    }
}
