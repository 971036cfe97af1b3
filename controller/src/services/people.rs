//! People, and what they may do.

use authz::{Action, Grant, Target, may, may_see_person};
use proto::v1::people_server::People;
use proto::v1::{
    self, CreatePersonRequest, GetPersonRequest, GrantRequest, ListPeopleReply, ListPeopleRequest, Person,
    RevokeRequest, WhoAmIReply, WhoAmIRequest,
};
use proto::{PersonName, WireError};
use tonic::{Request, Response, Status};

use super::caller::{Caller, Permit};
use super::orders::site_field;
use super::{Desk, pages, wire};
use crate::error::Error;
use crate::store::{About, NewPerson, PersonRecord};

/// Longest full name and address, characters.
const MAX_NAME: usize = 200;
/// Most grants in one request.
const MAX_GRANTS: usize = 100;

/// A text for people: bounded, without control characters.
pub(crate) fn plain(field: &'static str, text: String, max: usize) -> Result<String, Error> {
    let len = text.chars().count();
    if len > max {
        return Err(WireError::TooLong { field, len, max }.into());
    }
    if text.chars().any(char::is_control) {
        return Err(Error::Malformed(format!("{field} holds control characters")));
    }
    Ok(text)
}

/// First grants of somebody new.
pub(super) fn grants_field(grants: Vec<v1::Grant>) -> Result<Vec<Grant>, Error> {
    if grants.len() > MAX_GRANTS {
        return Err(Error::Malformed(format!(
            "grants: {} given, at most {MAX_GRANTS} are allowed",
            grants.len()
        )));
    }
    grants.into_iter().map(|wire| grant(Some(wire))).collect()
}

fn grant(wire: Option<v1::Grant>) -> Result<Grant, Error> {
    let wire = wire.ok_or(WireError::Missing { field: "grant" })?;
    let role = match v1::Role::try_from(wire.role) {
        Ok(role) => role.checked()?,
        Err(_) => {
            return Err(WireError::Unknown {
                field: "grant.role",
                got: wire.role,
            }
            .into());
        }
    };
    let slice = super::orders::slice_field("grant.slice", &wire.slice)?;
    let site = site_field("grant.site", &wire.site)?;
    Grant::from_parts(role, slice, site).map_err(|e| Error::Malformed(e.to_string()))
}

pub(super) fn about(grants: &[Grant]) -> About {
    match grants {
        [one] => About {
            slice: one.slice().cloned(),
            site: one.site().cloned(),
            node: None,
        },
        _ => About::default(),
    }
}

pub(super) fn person_name(field: &'static str, text: &str) -> Result<PersonName, Error> {
    Ok(text.parse().map_err(WireError::id(field))?)
}

impl Desk {
    /// Asks the table grant by grant: all of them must be the caller's to give.
    pub(super) async fn permit_grants(
        &self,
        caller: &Caller,
        action: Action,
        name: &PersonName,
        grants: &[Grant],
    ) -> Result<Permit, Error> {
        let target = |grants: &[Grant]| Target::Person {
            name: name.clone(),
            grants: grants.to_vec(),
        };
        let mut permit = self
            .permit(
                caller,
                action,
                &target(&grants[..grants.len().min(1)]),
                about(grants),
            )
            .await?;
        for one in grants.iter().skip(1) {
            permit = self
                .permit(caller, action, &target(std::slice::from_ref(one)), about(grants))
                .await?;
        }
        Ok(permit)
    }

    async fn visible_person(&self, caller: &Caller, name: &PersonName) -> Result<PersonRecord, Error> {
        let found = match self.fleet.store().person(name).await.map_err(Error::from) {
            Err(Error::NotFound(_)) => None,
            found => Some(found?),
        };
        let grants = found
            .as_ref()
            .map(|record| record.grants.clone())
            .unwrap_or_default();
        let target = Target::Person {
            name: name.clone(),
            grants,
        };
        if authz::decide(&caller.actor, Action::SeePerson, &target).is_allowed() {
            return found.ok_or_else(|| Error::NotFound(format!("person {name:?} does not exist")));
        }
        let rule = format!(
            "{} on person {name} needs: to have to do with them, or support",
            Action::SeePerson
        );
        self.refuse(
            caller,
            Action::SeePerson.as_str(),
            &format!("person {name}"),
            About::default(),
            rule,
        )
        .await
    }

    async fn change_grant(
        &self,
        caller: Caller,
        name: &str,
        wire: Option<v1::Grant>,
        give: bool,
    ) -> Result<Person, Error> {
        let name = person_name("person", name)?;
        let grant = grant(wire)?;
        let grants = std::slice::from_ref(&grant);
        let permit = self
            .permit_grants(&caller, Action::SetRole, &name, grants)
            .await?;
        let word = if give { "give" } else { "take" };
        let target = format!("person {name}: {word} {grant}");
        let note = self.change(&caller, Action::SetRole, &target, about(grants), &permit);
        let store = self.fleet.store();
        let record = if give {
            store.grant(&name, &grant, note).await
        } else {
            store.revoke(&name, &grant, note).await
        };
        if !give {
            // Open streams go on with what their first call was allowed.
            self.cut_person(&caller, &name);
        }
        Ok(wire::person(record?))
    }
}

/// What this version really offers, for `whoami`. The table knows more: the work of later versions.
const OFFERED: &[Action] = &[
    Action::SeeSlice,
    Action::SeePerson,
    Action::SeeSite,
    Action::SeeNode,
    Action::SeeProcesses,
    Action::SeeJournal,
    Action::KillSlice,
    Action::FreezeSlice,
    Action::KillSliver,
    Action::FreezeSliver,
    Action::Release,
    Action::FreezeNode,
    Action::KillNode,
    Action::RebootNode,
    Action::StopNode,
    Action::Invite,
    Action::SetRole,
    Action::CreateSite,
    Action::CreateSlice,
    Action::ReadAudit,
    Action::StopEverySlice,
    Action::StopEveryNode,
];

#[tonic::async_trait]
impl People for Desk {
    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIReply>, Status> {
        let caller = self.caller(&request).await?;
        let may = may(&caller.actor, OFFERED);
        let looks_after_all = authz::decide(&caller.actor, Action::SeeUsage, &Target::Fleet).is_allowed();
        let alarms = if looks_after_all {
            self.fleet.alarms().borrow().clone()
        } else {
            Vec::new()
        };
        Ok(Response::new(WhoAmIReply {
            certificate_expires_at_ms: caller.certificate_expires_at_ms,
            person: Some(wire::person(caller.record)),
            version: Some(self.fleet.now().into()),
            controller_version: env!("CARGO_PKG_VERSION").to_owned(),
            may,
            alarms,
        }))
    }

    async fn list(&self, request: Request<ListPeopleRequest>) -> Result<Response<ListPeopleReply>, Status> {
        let caller = self.caller(&request).await?;
        let ListPeopleRequest {
            page_size,
            page_token,
            site,
        } = request.into_inner();
        let site = site_field("site", &site)?;
        let read = |page| {
            let site = &site;
            async move { self.fleet.store().people(site.as_ref(), &page).await }
        };
        let show = |record: PersonRecord| {
            may_see_person(&caller.actor, &record.name, &record.grants).then(|| wire::person(record))
        };
        let (people, next_page_token) = pages::collect(page_size, page_token, read, show).await?;
        Ok(Response::new(ListPeopleReply {
            people,
            next_page_token,
        }))
    }

    async fn get(&self, request: Request<GetPersonRequest>) -> Result<Response<Person>, Status> {
        let caller = self.caller(&request).await?;
        let name = person_name("name", &request.get_ref().name)?;
        Ok(Response::new(wire::person(
            self.visible_person(&caller, &name).await?,
        )))
    }

    async fn create(&self, request: Request<CreatePersonRequest>) -> Result<Response<Person>, Status> {
        let caller = self.caller(&request).await?;
        let CreatePersonRequest {
            name,
            full_name,
            email,
            grants,
        } = request.into_inner();
        let name = person_name("name", &name)?;
        let grants = grants_field(grants)?;
        let full_name = plain("full_name", full_name, MAX_NAME)?;
        let email = plain("email", email, MAX_NAME)?;
        let permit = self
            .permit_grants(&caller, Action::Invite, &name, &grants)
            .await?;
        let note = self.change(
            &caller,
            Action::Invite,
            &format!("person {name}"),
            about(&grants),
            &permit,
        );
        let person = NewPerson {
            name,
            full_name,
            email,
            grants,
        };
        let record = self
            .fleet
            .store()
            .create_person(&person, note)
            .await
            .map_err(Error::from)?;
        Ok(Response::new(wire::person(record)))
    }

    async fn grant(&self, request: Request<GrantRequest>) -> Result<Response<Person>, Status> {
        let caller = self.caller(&request).await?;
        let GrantRequest { person, grant } = request.into_inner();
        Ok(Response::new(
            self.change_grant(caller, &person, grant, true).await?,
        ))
    }

    async fn revoke(&self, request: Request<RevokeRequest>) -> Result<Response<Person>, Status> {
        let caller = self.caller(&request).await?;
        let RevokeRequest { person, grant } = request.into_inner();
        Ok(Response::new(
            self.change_grant(caller, &person, grant, false).await?,
        ))
    }
}
