//! `redbutton people …` and `redbutton whoami`.

use proto::{Role, v1};

use super::{Context, keys, pages};
use crate::args::{GrantArgs, PeopleCommand};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render;
use crate::view::people::{People, Person, WhoAmI};
use crate::view::{Version, some};
use crate::when::Time;

pub(super) async fn whoami(context: &Context) -> Result<Exit, Failure> {
    let client = context.client().await?;
    let reply = client
        .call(
            "asking who you are",
            client.people().who_am_i(v1::WhoAmIRequest {}),
        )
        .await?;
    let view = WhoAmI {
        person: reply.person.ok_or(Failure::Incomplete("the person"))?.into(),
        certificate_expires_at: Time(reply.certificate_expires_at_ms),
        version: reply.version.map(Version::from),
        controller_version: some(reply.controller_version),
        may: reply.may,
        alarms: reply.alarms,
    };
    context
        .out
        .result(&view, |_| render::people::whoami(&view, Time::now()))?;
    Ok(Exit::Done)
}

pub(super) async fn run(command: PeopleCommand, context: &Context) -> Result<Exit, Failure> {
    let out = context.out;
    let person = match command {
        PeopleCommand::Keys { person } => return keys::keys(person, context).await,
        PeopleCommand::RevokeKeys(args) => return keys::revoke(args, context).await,
        PeopleCommand::Remove(args) => return keys::remove(args, context).await,
        PeopleCommand::Invites => return keys::invites(context).await,
        PeopleCommand::VoidInvite { invite } => return keys::void_invite(invite, context).await,
        PeopleCommand::Ls { site } => {
            let client = context.client().await?;
            let site = site.map(String::from).unwrap_or_default();
            let (people, _) = pages(usize::MAX, async |page_token, page_size| {
                let request = v1::ListPeopleRequest {
                    page_size,
                    page_token,
                    site: site.clone(),
                };
                let reply = client
                    .call("listing people", client.people().list(request))
                    .await?;
                Ok((reply.people, reply.next_page_token))
            })
            .await?;
            let view = People {
                people: people.into_iter().map(Person::from).collect(),
            };
            out.result(&view, |width| render::people::people(&view.people, width))?;
            return Ok(Exit::Done);
        }
        PeopleCommand::Show { person } => {
            let client = context.client().await?;
            let request = v1::GetPersonRequest { name: person.into() };
            client
                .call("looking at the person", client.people().get(request))
                .await?
        }
        PeopleCommand::Add {
            person,
            full_name,
            email,
            first,
        } => {
            let grants = first.grant().map(checked).transpose()?.into_iter().collect();
            let client = context.client().await?;
            let request = v1::CreatePersonRequest {
                name: person.into(),
                full_name,
                email,
                grants,
            };
            client
                .call("adding the person", client.people().create(request))
                .await?
        }
        PeopleCommand::Grant { person, grant } => {
            let grant = Some(checked(grant)?);
            let client = context.client().await?;
            let request = v1::GrantRequest {
                person: person.into(),
                grant,
            };
            client
                .call("granting the role", client.people().grant(request))
                .await?
        }
        PeopleCommand::Revoke { person, grant } => {
            let grant = Some(checked(grant)?);
            let client = context.client().await?;
            let request = v1::RevokeRequest {
                person: person.into(),
                grant,
            };
            client
                .call("revoking the role", client.people().revoke(request))
                .await?
        }
    };
    let view = Person::from(person);
    out.result(&view, |_| render::people::person(&view, Time::now()))?;
    Ok(Exit::Done)
}

pub(super) fn checked(grant: GrantArgs) -> Result<v1::Grant, Failure> {
    grant.check().map_err(Failure::Usage)?;
    let GrantArgs { role, slice, site } = grant;
    Ok(v1::Grant {
        role: v1::Role::from(Role::from(role)).into(),
        slice: slice.map(String::from).unwrap_or_default(),
        site: site.map(String::from).unwrap_or_default(),
    })
}
