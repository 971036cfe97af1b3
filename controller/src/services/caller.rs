//! Who calls, what they may do, and the audit of what they may not.

use std::time::UNIX_EPOCH;

use authz::{Action, Actor, Target, decide};
use proto::{Identity, PersonName, Role};
use tonic::Request;

use super::Desk;
use crate::error::Error;
use crate::fleet::now_ms;
use crate::store::{About, Note, PersonRecord, StoreError};

/// An authenticated person who is known here.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) actor: Actor,
    pub(crate) record: PersonRecord,
    pub(crate) certificate_expires_at_ms: i64,
    /// The key of the connection.
    pub(crate) key: trust::Spki,
}

impl Desk {
    /// The person behind a request.
    pub(crate) async fn caller<T: Sync>(&self, request: &Request<T>) -> Result<Caller, Error> {
        let peer = request.extensions().get::<link::Peer>().cloned();
        let Some(peer) = peer else {
            return Err(Error::Internal("a request without a peer".into()));
        };
        let Identity::Person(name) = peer.identity else {
            return Err(Error::Refused {
                rule: format!("{} is no person: this port is for people", peer.identity),
            });
        };
        let expires = peer
            .certificate_expires
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let certificate_expires_at_ms = i64::try_from(expires.as_millis()).unwrap_or(i64::MAX);
        if certificate_expires_at_ms <= now_ms() {
            return Err(Error::Refused {
                rule: format!("the certificate of {name} has expired: connect again"),
            });
        }
        let key = self.good_key(&name, peer.key, "call").await?.spki;
        match self.fleet.store().person(&name).await {
            Ok(record) => {
                let actor = Actor {
                    name,
                    grants: record.grants.clone(),
                };
                Ok(Caller {
                    actor,
                    record,
                    certificate_expires_at_ms,
                    key,
                })
            }
            Err(StoreError::NotFound { .. }) => {
                let rule = format!("{name} is not known here");
                self.audit(
                    None,
                    "whoami",
                    &format!("person {name}"),
                    About::default(),
                    Err(&rule),
                )
                .await;
                Err(Error::Refused { rule })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Asks the table; a refusal is audited.
    pub(crate) async fn permit(
        &self,
        caller: &Caller,
        action: Action,
        target: &Target,
        about: About,
    ) -> Result<Permit, Error> {
        let verdict = decide(&caller.actor, action, target);
        let rule = verdict.rule().to_owned();
        if verdict.is_allowed() {
            return Ok(Permit {
                role: verdict.role(),
                rule,
            });
        }
        self.refuse(caller, action.as_str(), &target.to_string(), about, rule)
            .await
    }

    /// Refuses and audits.
    pub(crate) async fn refuse<T>(
        &self,
        caller: &Caller,
        action: &str,
        target: &str,
        about: About,
        rule: String,
    ) -> Result<T, Error> {
        self.audit(Some(&caller.actor.name), action, target, about, Err(&rule))
            .await;
        Err(Error::Refused { rule })
    }

    pub(super) async fn audit(
        &self,
        person: Option<&PersonName>,
        action: &str,
        target: &str,
        about: About,
        done: Result<&Permit, &str>,
    ) {
        let note = self.note(person, action, target, about, done);
        self.fleet.note(note).await;
    }

    /// The audit entry of a change that is about to be made.
    pub(crate) fn change(
        &self,
        caller: &Caller,
        action: Action,
        target: &str,
        about: About,
        permit: &Permit,
    ) -> Note {
        self.note(
            Some(&caller.actor.name),
            action.as_str(),
            target,
            about,
            Ok(permit),
        )
    }

    /// That somebody took along a kit.
    pub(super) async fn note_kit(&self, caller: &Caller) {
        let permit = Permit {
            role: None,
            rule: "what they may see".to_owned(),
        };
        self.audit(
            Some(&caller.actor.name),
            "export-kit",
            &format!("person {}", caller.actor.name),
            About::default(),
            Ok(&permit),
        )
        .await;
    }

    pub(super) fn note(
        &self,
        person: Option<&PersonName>,
        action: &str,
        target: &str,
        about: About,
        decided: Result<&Permit, &str>,
    ) -> Note {
        let (outcome, role, detail) = match decided {
            Ok(permit) => (audit::Outcome::Allowed, permit.role, permit.rule.clone()),
            Err(rule) => (audit::Outcome::Refused, None, rule.to_owned()),
        };
        Note {
            draft: audit::Draft {
                at_ms: now_ms(),
                version: self.fleet.now(),
                person: person.cloned(),
                role,
                action: action.to_owned(),
                target: target.to_owned(),
                reason: String::new(),
                evidence: String::new(),
                outcome,
                detail,
                order: None,
            },
            about,
        }
    }
}

/// The table said yes.
#[derive(Debug, Clone)]
pub(crate) struct Permit {
    pub(crate) role: Option<Role>,
    pub(crate) rule: String,
}
