//! Who gets in and who no longer does: `redbutton invite`, `redbutton people keys|revoke-keys|remove|invites|void-invite`.

use proto::{InviteId, PersonName, v1};

use super::Context;
use super::people::checked;
use crate::args::{InviteArgs, RemoveArgs, RevokeKeysArgs};
use crate::bundle;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render;
use crate::view::keys::{Invite, Invited, Invites, Key, Keys, Removed, Voided};
use crate::when::Time;

pub(super) async fn invite(args: InviteArgs, context: &Context) -> Result<Exit, Failure> {
    let InviteArgs {
        person,
        out,
        full_name,
        email,
        first,
        hours,
        rekey,
    } = args;
    // Before the invite is made: it would be of no use to anybody.
    if out.symlink_metadata().is_ok() {
        return Err(Failure::Usage(format!(
            "{} exists already and is not overwritten",
            out.display()
        )));
    }
    let grants = first.grant().map(checked).transpose()?.into_iter().collect();
    let client = context.client().await?;
    let request = v1::InviteRequest {
        person: person.into(),
        full_name,
        email,
        grants,
        life_hours: hours,
        rekey,
    };
    let reply = client
        .call("making the invite", client.access().invite(request))
        .await?;
    bundle::write_private(&out, &reply.bundle)?;
    let view = Invited {
        invite: reply.invite.ok_or(Failure::Incomplete("the invite"))?.into(),
        file: out.display().to_string(),
    };
    context
        .out
        .result(&view, |_| render::keys::invited(&view, Time::now()))?;
    Ok(Exit::Done)
}

pub(super) async fn invites(context: &Context) -> Result<Exit, Failure> {
    let client = context.client().await?;
    let request = v1::ListInvitesRequest {};
    let reply = client
        .call("listing invites", client.access().list_invites(request))
        .await?;
    let view = Invites {
        invites: reply.invites.into_iter().map(Invite::from).collect(),
    };
    context.out.result(&view, |width| {
        render::keys::invites(&view.invites, Time::now(), width)
    })?;
    Ok(Exit::Done)
}

pub(super) async fn void_invite(invite: InviteId, context: &Context) -> Result<Exit, Failure> {
    let client = context.client().await?;
    let request = v1::VoidInviteRequest {
        id: invite.to_string(),
    };
    let reply = client
        .call("taking the invite back", client.access().void_invite(request))
        .await?;
    let view = Voided {
        invite: invite.to_string(),
        voided: reply.voided,
    };
    context.out.result(&view, |_| render::keys::voided(&view))?;
    Ok(Exit::Done)
}

pub(super) async fn keys(person: Option<PersonName>, context: &Context) -> Result<Exit, Failure> {
    let client = context.client().await?;
    let request = v1::ListKeysRequest {
        person: person.map(String::from).unwrap_or_default(),
    };
    let reply = client
        .call("listing keys", client.access().list_keys(request))
        .await?;
    show(reply.keys, context)
}

pub(super) async fn revoke(args: RevokeKeysArgs, context: &Context) -> Result<Exit, Failure> {
    let RevokeKeysArgs { person, key, reason } = args;
    let client = context.client().await?;
    let request = v1::RevokeKeysRequest {
        person: person.map(String::from).unwrap_or_default(),
        key: key.unwrap_or_default(),
        reason,
    };
    let reply = client
        .call("revoking keys", client.access().revoke_keys(request))
        .await?;
    show(reply.revoked, context)
}

fn show(keys: Vec<v1::Key>, context: &Context) -> Result<Exit, Failure> {
    let view = Keys {
        keys: keys.into_iter().map(Key::from).collect(),
    };
    context
        .out
        .result(&view, |width| render::keys::keys(&view.keys, Time::now(), width))?;
    Ok(Exit::Done)
}

pub(super) async fn remove(args: RemoveArgs, context: &Context) -> Result<Exit, Failure> {
    let RemoveArgs { person, reason } = args;
    let client = context.client().await?;
    let request = v1::RemovePersonRequest {
        person: person.clone().into(),
        reason,
    };
    let reply = client
        .call("removing the person", client.access().remove_person(request))
        .await?;
    let view = Removed {
        person: person.into(),
        revoked: reply.revoked,
        voided: reply.voided,
    };
    context.out.result(&view, |_| render::keys::removed(&view))?;
    Ok(Exit::Done)
}
