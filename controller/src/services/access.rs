//! Who gets in, and who no longer does: invites, lists of keys, revocation.
//!
//! Who may let somebody in, or lock them out, is the table's row “invite people, set roles”, asked for every role
//! that the person has: whoever may hand out a developer's key may not hand out a supporter's. Everybody may look
//! at their own keys and revoke them.

use authz::{Action, Grant};
use proto::bundle::Bundle;
use proto::v1::access_server::Access;
use proto::v1::{
    self, InviteReply, InviteRequest, Key, ListInvitesReply, ListInvitesRequest, ListKeysReply,
    ListKeysRequest, RemovePersonReply, RemovePersonRequest, RevokeKeysReply, RevokeKeysRequest,
    VoidInviteReply, VoidInviteRequest,
};
use proto::{InviteId, PersonName, WireError};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};
use trust::Spki;

use super::caller::{Caller, Permit};
use super::enrol::millis;
use super::people::{about, grants_field, person_name, plain};
use super::{Desk, wire};
use crate::error::Error;
use crate::fleet::now_ms;
use crate::store::{
    Holder, InviteRecord, InviteSelection, Invitee, KeyRecord, KeySelection, NewInvite, PersonRecord,
    StoreError,
};

/// How long an invite lasts unless said, hours.
const INVITE_HOURS: u32 = 7 * 24;
/// Longest life of an invite, hours.
const MOST_HOURS: u32 = 30 * 24;
/// Longest name of a person, and longest reason.
const MAX_NAME: usize = 200;
const MAX_REASON: usize = 2_000;
/// A fingerprint's beginning must have so many digits to name a key.
const LEAST_DIGITS: usize = 8;
/// Keys in one answer: the newest.
const MOST_KEYS: usize = 500;

impl Desk {
    async fn find_person(&self, name: &PersonName) -> Result<Option<PersonRecord>, Error> {
        match self.fleet.store().person(name).await {
            Ok(record) => Ok(Some(record)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The person, if the caller may hand out or take away all that they have; oneself always, if so said.
    async fn charge_of(
        &self,
        caller: &Caller,
        name: &PersonName,
        action: Action,
        or_oneself: bool,
    ) -> Result<(PersonRecord, Permit), Error> {
        if or_oneself && *name == caller.actor.name {
            let permit = Permit {
                role: None,
                rule: "one's own keys".to_owned(),
            };
            return Ok((caller.record.clone(), permit));
        }
        let found = self.find_person(name).await?;
        let grants = found
            .as_ref()
            .map(|record| record.grants.clone())
            .unwrap_or_default();
        let permit = self.permit_grants(caller, action, name, &grants).await?;
        let record = found.ok_or_else(|| Error::NotFound(format!("person {name} does not exist")))?;
        Ok((record, permit))
    }

    async fn make_invite(&self, caller: &Caller, request: InviteRequest) -> Result<InviteReply, Error> {
        let InviteRequest {
            person,
            full_name,
            email,
            grants,
            life_hours,
            rekey,
        } = request;
        let name = person_name("person", &person)?;
        let grants = grants_field(grants)?;
        let full_name = plain("full_name", full_name, MAX_NAME)?;
        let email = plain("email", email, MAX_NAME)?;
        let hours = if life_hours == 0 { INVITE_HOURS } else { life_hours };
        if hours > MOST_HOURS {
            return Err(Error::Malformed(format!(
                "life_hours: {hours} given, at most {MOST_HOURS} (30 days) are allowed"
            )));
        }
        let found = self.find_person(&name).await?;
        let handed_out: Vec<Grant> = match &found {
            None => grants.clone(),
            Some(record) => record.grants.iter().chain(&grants).cloned().collect(),
        };
        let permit = self
            .permit_grants(caller, Action::Invite, &name, &handed_out)
            .await?;
        let invitee = match found {
            None if rekey => {
                return Err(Error::NotFound(format!(
                    "person {name} does not exist: there is no key to replace"
                )));
            }
            None => Invitee::NewPerson {
                name: name.clone(),
                full_name,
                email,
                grants,
            },
            Some(_) if !(grants.is_empty() && full_name.is_empty() && email.is_empty()) => {
                return Err(Error::Exists(format!(
                    "person {name} exists: an invite gives them one more key and no role (redbutton people grant does)"
                )));
            }
            Some(record) => Invitee::Person {
                name: name.clone(),
                at_most: record.grants,
                rekey,
            },
        };
        let now = OffsetDateTime::now_utc();
        let id = InviteId::random();
        let issued = self
            .door
            .ca()
            .invite(id, time::Duration::hours(hours.into()), now)?;
        let invite = NewInvite {
            id,
            spki: issued.spki()?,
            invitee,
            created_by: Some(caller.actor.name.clone()),
            expires_at_ms: millis(issued.expires),
        };
        let target = format!("person {name} (invite {id})");
        let note = self.change(caller, Action::Invite, &target, about(&handed_out), &permit);
        let record = self.fleet.store().create_invite(&invite, note).await?;
        let bundle = Bundle {
            format: Bundle::FORMAT,
            identity: issued.identity.to_string(),
            name: name.to_string(),
            controllers: self.door.config.controllers.clone(),
            ca: self.door.ca().pem().to_owned(),
            certificate: issued.certificate,
            key: issued.key,
        };
        Ok(InviteReply {
            invite: shown(record),
            bundle: bundle.to_text(),
        })
    }

    /// The invite, if it is open and the caller could have made it. Otherwise the same answer as for none.
    fn may_invite(caller: &Caller, record: &InviteRecord) -> bool {
        let (name, grants) = match &record.invitee {
            Invitee::NewPerson { name, grants, .. } => (name, grants),
            Invitee::Person { name, at_most, .. } => (name, at_most),
            Invitee::NewNode { .. } | Invitee::Node { .. } => return false,
        };
        let asked = |grants: &[Grant]| {
            let target = authz::Target::Person {
                name: name.clone(),
                grants: grants.to_vec(),
            };
            authz::decide(&caller.actor, Action::Invite, &target).is_allowed()
        };
        if grants.is_empty() {
            return asked(&[]);
        }
        grants.iter().all(|grant| asked(std::slice::from_ref(grant)))
    }

    async fn revoke(&self, caller: &Caller, request: RevokeKeysRequest) -> Result<Vec<KeyRecord>, Error> {
        let RevokeKeysRequest { person, key, reason } = request;
        let name = or_oneself(caller, &person)?;
        let reason = plain("reason", reason, MAX_REASON)?;
        let (record, permit) = self.charge_of(caller, &name, Action::SetRole, true).await?;
        let store = self.fleet.store();
        let which = if key.is_empty() {
            KeySelection::Person {
                name: name.clone(),
                except: Some(caller.key),
            }
        } else {
            let theirs = store.keys_of(&Holder::Person(name.clone())).await?;
            KeySelection::Key(one_key(&name, &key, &theirs)?)
        };
        let mut note = self.note(
            Some(&caller.actor.name),
            "revoke-keys",
            &format!("person {name}"),
            about(&record.grants),
            Ok(&permit),
        );
        let why = if reason.is_empty() {
            "revoked".to_owned()
        } else {
            reason.clone()
        };
        note.draft.reason = reason;
        let revoked = store.revoke_keys(&which, &why, note).await?;
        self.cut_keys(caller, revoked.iter().map(|key| key.spki).collect());
        Ok(revoked)
    }

    /// At once, but for the answer that goes out on one of them.
    fn cut_keys(&self, caller: &Caller, mut keys: Vec<Spki>) {
        if keys.contains(&caller.key) {
            self.door.cut_keys_soon(vec![caller.key]);
        }
        keys.retain(|key| *key != caller.key);
        self.door.cut_keys(&keys);
    }

    async fn remove(
        &self,
        caller: &Caller,
        request: RemovePersonRequest,
    ) -> Result<RemovePersonReply, Error> {
        let RemovePersonRequest { person, reason } = request;
        let name = person_name("person", &person)?;
        let reason = plain("reason", reason, MAX_REASON)?;
        let (record, permit) = self.charge_of(caller, &name, Action::SetRole, false).await?;
        let mut note = self.note(
            Some(&caller.actor.name),
            "remove-person",
            &format!("person {name}"),
            about(&record.grants),
            Ok(&permit),
        );
        let why = if reason.is_empty() {
            "removed".to_owned()
        } else {
            reason.clone()
        };
        note.draft.reason = reason;
        let removed = self.fleet.store().remove_person(&name, &why, note).await?;
        self.cut_person(caller, &name);
        Ok(RemovePersonReply {
            person: Some(wire::person(removed.person)),
            revoked: removed.keys.iter().map(ToString::to_string).collect(),
            voided: removed.invites.iter().map(ToString::to_string).collect(),
        })
    }

    /// Cuts all connections of a person; the caller's own a moment later.
    pub(super) fn cut_person(&self, caller: &Caller, name: &PersonName) {
        if *name == caller.actor.name {
            self.door.cut_person_soon(name.clone());
        } else {
            self.door.cut_person(name);
        }
    }
}

fn or_oneself(caller: &Caller, person: &str) -> Result<PersonName, Error> {
    match person {
        "" => Ok(caller.actor.name.clone()),
        name => person_name("person", name),
    }
}

/// The one of their keys whose fingerprint begins so.
fn one_key(name: &PersonName, begins: &str, theirs: &[KeyRecord]) -> Result<Spki, Error> {
    if begins.len() < LEAST_DIGITS || begins.len() > 64 || !begins.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Error::Malformed(format!(
            "key: a fingerprint or at least its first {LEAST_DIGITS} hexadecimal digits are needed"
        )));
    }
    let begins = begins.to_ascii_lowercase();
    let mut fits = theirs
        .iter()
        .filter(|key| key.spki.to_string().starts_with(&begins));
    match (fits.next(), fits.next()) {
        (Some(key), None) => Ok(key.spki),
        (None, _) => Err(Error::NotFound(format!("{name} has no key {begins}"))),
        (Some(_), Some(_)) => Err(Error::Malformed(format!(
            "several keys of {name} begin with {begins}"
        ))),
    }
}

/// `None` for a node's join token.
fn shown(record: InviteRecord) -> Option<v1::Invite> {
    let (person, grants, newcomer, rekey) = match record.invitee {
        Invitee::NewPerson { name, grants, .. } => (name, grants, true, false),
        Invitee::Person { name, at_most, rekey } => (name, at_most, false, rekey),
        Invitee::NewNode { .. } | Invitee::Node { .. } => return None,
    };
    Some(v1::Invite {
        id: record.id.to_string(),
        person: person.to_string(),
        newcomer,
        grants: grants.iter().map(wire::grant).collect(),
        rekey,
        created_by: record.created_by.map(String::from).unwrap_or_default(),
        created_at_ms: record.created_at_ms,
        expires_at_ms: record.expires_at_ms,
    })
}

fn key(caller: &Caller, record: KeyRecord) -> Key {
    let yours = record.spki == caller.key;
    let (revoked_at_ms, revoked_by, revoked_why) = match record.revoked {
        None => (0, String::new(), String::new()),
        Some(revoked) => (
            revoked.at_ms,
            revoked.by.map(String::from).unwrap_or_default(),
            revoked.why,
        ),
    };
    Key {
        fingerprint: record.spki.to_string(),
        enrolled_at_ms: record.enrolled_at_ms,
        enrolled_by: record.enrolled_by.map(String::from).unwrap_or_default(),
        certificate_expires_at_ms: record.certificate_expires_at_ms,
        last_used_ms: record.last_used_ms.unwrap_or_default(),
        revoked_at_ms,
        revoked_by,
        revoked_why,
        yours,
    }
}

#[tonic::async_trait]
impl Access for Desk {
    async fn invite(&self, request: Request<InviteRequest>) -> Result<Response<InviteReply>, Status> {
        let caller = self.caller(&request).await?;
        Ok(Response::new(
            self.make_invite(&caller, request.into_inner()).await?,
        ))
    }

    async fn list_invites(
        &self,
        request: Request<ListInvitesRequest>,
    ) -> Result<Response<ListInvitesReply>, Status> {
        let caller = self.caller(&request).await?;
        let open = self
            .fleet
            .store()
            .open_invites(now_ms())
            .await
            .map_err(Error::from)?;
        let theirs = open
            .into_iter()
            .filter(|record| Self::may_invite(&caller, record));
        let invites = wire::fitting(theirs.filter_map(shown), super::pages::MAX_ROWS_BYTES);
        Ok(Response::new(ListInvitesReply { invites }))
    }

    async fn void_invite(
        &self,
        request: Request<VoidInviteRequest>,
    ) -> Result<Response<VoidInviteReply>, Status> {
        let caller = self.caller(&request).await?;
        let id: InviteId = request
            .get_ref()
            .id
            .parse()
            .map_err(WireError::id("id"))
            .map_err(Error::from)?;
        let store = self.fleet.store();
        let unknown = || Error::NotFound(format!("invite {id} does not exist or is not yours"));
        let record = match store.invite(id).await {
            Err(StoreError::NotFound { .. }) => return Err(unknown().into()),
            record => record.map_err(Error::from)?,
        };
        if !Self::may_invite(&caller, &record) {
            let rule = unknown().to_string();
            let target = format!("invite {id}");
            return Ok(self
                .refuse(
                    &caller,
                    Action::Invite.as_str(),
                    &target,
                    Default::default(),
                    rule,
                )
                .await?);
        }
        let permit = Permit {
            role: None,
            rule: "who may make an invite may take it back".to_owned(),
        };
        let note = self.note(
            Some(&caller.actor.name),
            "void-invite",
            &format!("invite {id}"),
            Default::default(),
            Ok(&permit),
        );
        let why = format!("taken back by {}", caller.actor.name);
        let voided = store
            .void_invites(&InviteSelection::Invite(id), &why, note)
            .await
            .map_err(Error::from)?;
        let voided = !voided.is_empty();
        Ok(Response::new(VoidInviteReply { voided }))
    }

    async fn list_keys(&self, request: Request<ListKeysRequest>) -> Result<Response<ListKeysReply>, Status> {
        let caller = self.caller(&request).await?;
        let name = or_oneself(&caller, &request.get_ref().person)?;
        let _ = self.charge_of(&caller, &name, Action::Invite, true).await?;
        let keys = self
            .fleet
            .store()
            .keys_of(&Holder::Person(name))
            .await
            .map_err(Error::from)?;
        let newest = keys.len().saturating_sub(MOST_KEYS);
        let keys = keys
            .into_iter()
            .skip(newest)
            .map(|record| key(&caller, record))
            .collect();
        Ok(Response::new(ListKeysReply { keys }))
    }

    async fn revoke_keys(
        &self,
        request: Request<RevokeKeysRequest>,
    ) -> Result<Response<RevokeKeysReply>, Status> {
        let caller = self.caller(&request).await?;
        let revoked = self.revoke(&caller, request.into_inner()).await?;
        let revoked = revoked.into_iter().map(|record| key(&caller, record)).collect();
        Ok(Response::new(RevokeKeysReply { revoked }))
    }

    async fn remove_person(
        &self,
        request: Request<RemovePersonRequest>,
    ) -> Result<Response<RemovePersonReply>, Status> {
        let caller = self.caller(&request).await?;
        Ok(Response::new(self.remove(&caller, request.into_inner()).await?))
    }
}
