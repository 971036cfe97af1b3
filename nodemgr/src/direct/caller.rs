//! Who calls, what they may do here, and the diary of what they may not.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use audit::{Draft, Outcome};
use authz::{Action, Actor, Target, decide};
use proto::{Identity, OrderId, PersonName, Role};
use tonic::Request;

use super::Desk;
use super::decide::Here;
use super::no::No;
use super::wish::NodeRef;
use crate::diary::Written;
use crate::policy::Snapshot;

/// An authenticated person who is in the policy.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) actor: Actor,
    pub(super) here: Here,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) expires_at_ms: i64,
    /// They came with a breakglass certificate.
    pub(super) breakglass: bool,
}

pub(super) fn ms(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn now_ms() -> i64 {
    ms(SystemTime::now())
}

/// The person behind an identity, and whether by a breakglass certificate.
pub(super) fn person(identity: &Identity) -> Option<(&PersonName, bool)> {
    match identity {
        Identity::Person(name) => Some((name, false)),
        Identity::Breakglass(name) => Some((name, true)),
        _ => None,
    }
}

/// An entry about to be written.
pub(super) struct Said<'a> {
    pub(super) action: &'a str,
    pub(super) target: &'a str,
    pub(super) role: Option<Role>,
    pub(super) outcome: Outcome,
    pub(super) detail: String,
    pub(super) reason: &'a str,
    pub(super) evidence: &'a str,
    pub(super) order: Option<OrderId>,
}

impl<'a> Said<'a> {
    pub(super) fn refused(action: &'a str, target: &'a str, detail: String) -> Self {
        Self {
            action,
            target,
            role: None,
            outcome: Outcome::Refused,
            detail,
            reason: "",
            evidence: "",
            order: None,
        }
    }
}

impl Desk {
    /// The person behind a request.
    pub(super) async fn caller<T: Sync>(&self, request: &Request<T>) -> Result<Caller, No> {
        let peer = request.extensions().get::<link::Peer>().cloned();
        let peer = peer.ok_or_else(|| No::Refused("a request without a peer".into()))?;
        let Some((name, breakglass)) = person(&peer.identity) else {
            return Err(No::Refused(format!("{} is no person", peer.identity)));
        };
        let policy = self.policy.current();
        let rule = match &policy {
            // TLS looked once, at the handshake.
            Some(snapshot) if ms(peer.certificate_expires) <= now_ms().max(snapshot.issued_at_ms) => {
                Err(format!("the certificate of {name} has expired"))
            }
            Some(snapshot) => snapshot.grants_of(name, &peer.key).map(<[_]>::to_vec),
            None => {
                let why = match self.policy.trouble() {
                    why if why.is_empty() => "the controller has never sent it one".to_owned(),
                    why => why,
                };
                Err(format!("this node has no policy, so nobody may act here: {why}"))
            }
        };
        match (policy, rule) {
            (Some(snapshot), Ok(grants)) => Ok(Caller {
                actor: Actor {
                    name: name.clone(),
                    grants,
                },
                here: Here {
                    id: self.node.id,
                    name: self.name.clone(),
                    site: snapshot.site.clone(),
                },
                snapshot,
                expires_at_ms: ms(peer.certificate_expires),
                breakglass,
            }),
            (_, rule) => {
                let rule = rule.err().unwrap_or_default();
                let target = format!("node {}", self.name);
                let said = Said::refused("direct", &target, rule.clone());
                self.note(Some(name), breakglass, said).await;
                Err(No::Refused(rule))
            }
        }
    }

    /// Asks the table; a refusal is in the diary.
    pub(super) async fn permit(
        &self,
        caller: &Caller,
        action: Action,
        target: &Target,
        text: &str,
    ) -> Result<(), No> {
        let verdict = decide(&caller.actor, action, target);
        if verdict.is_allowed() {
            return Ok(());
        }
        self.refuse(caller, action.as_str(), text, verdict.rule().to_owned())
            .await
    }

    /// Refuses, and writes it down.
    pub(super) async fn refuse<T>(
        &self,
        caller: &Caller,
        action: &str,
        target: &str,
        rule: String,
    ) -> Result<T, No> {
        let said = Said::refused(action, target, rule.clone());
        self.note(Some(&caller.actor.name), caller.breakglass, said).await;
        Err(No::Refused(rule))
    }

    /// A request's node must be this one.
    pub(super) fn this_node(caller: &Caller, text: &str) -> Result<(), No> {
        let node = NodeRef::parse("node", text)?;
        if caller.here.is(&node) {
            return Ok(());
        }
        Err(caller.here.elsewhere(&node))
    }

    /// Begins an entry of the diary; the answer comes when it is on the disk.
    pub(super) fn begin_note(
        &self,
        person: Option<&PersonName>,
        breakglass: bool,
        said: Said<'_>,
    ) -> tokio::sync::oneshot::Receiver<Written> {
        let Said {
            action,
            target,
            role,
            outcome,
            detail,
            reason,
            evidence,
            order,
        } = said;
        let means = if breakglass {
            "direct, breakglass certificate"
        } else {
            "direct"
        };
        self.diary.write(Draft {
            at_ms: now_ms(),
            version: self.node.seen(),
            person: person.cloned(),
            role,
            action: action.to_owned(),
            target: target.to_owned(),
            reason: reason.to_owned(),
            evidence: evidence.to_owned(),
            outcome,
            detail: format!("{detail} ({means})"),
            order,
        })
    }

    /// Writes an entry. Why it is not on the disk; empty: it is.
    pub(super) async fn note(&self, person: Option<&PersonName>, breakglass: bool, said: Said<'_>) -> String {
        match self.begin_note(person, breakglass, said).await {
            Ok(written) => written.not_durable,
            Err(_) => "the diary's thread has ended".into(),
        }
    }
}
