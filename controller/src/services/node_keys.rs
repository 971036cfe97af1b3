//! Join tokens and revocation: which machine is which node.

use std::time::Duration;

use authz::{Action, Target};
use proto::bundle::Bundle;
use proto::v1::{EnrollNodeRequest, NodeToken, RekeyNodeRequest, RevokeNodeReply, RevokeNodeRequest};
use proto::{InviteId, NodeId, NodeName, SiteName};
use time::OffsetDateTime;
use tonic::Request;

use super::Desk;
use super::caller::{Caller, Permit};
use super::enrol::millis;
use crate::error::Error;
use crate::store::{About, Invitee, NewInvite};

/// How long a token lasts unless said.
const LIFE: u32 = 3_600;
/// Longest.
const MAX_LIFE: u32 = 30 * 86_400;
/// Characters of a reason.
const MAX_REASON: usize = 1_000;

fn life(seconds: u32) -> Result<Duration, Error> {
    match seconds {
        0 => Ok(Duration::from_secs(LIFE.into())),
        1..=MAX_LIFE => Ok(Duration::from_secs(seconds.into())),
        got => Err(Error::Malformed(format!(
            "life_s is {got}, at most {MAX_LIFE} (30 days)"
        ))),
    }
}

impl Desk {
    pub(super) async fn enroll_node(&self, request: Request<EnrollNodeRequest>) -> Result<NodeToken, Error> {
        let caller = self.caller(&request).await?;
        let EnrollNodeRequest { name, site, life_s } = request.into_inner();
        let name: NodeName = name
            .parse()
            .map_err(|error: proto::IdError| Error::Malformed(error.to_string()))?;
        let site: SiteName = site
            .parse()
            .map_err(|error: proto::IdError| Error::Malformed(error.to_string()))?;
        let life = life(life_s)?;
        let about = About {
            slice: None,
            site: Some(site.clone()),
            node: None,
        };
        let target = Target::Node { site: site.clone() };
        let permit = self.permit(&caller, Action::EnrolNode, &target, about).await?;
        let id = NodeId::random();
        let invitee = Invitee::NewNode {
            id,
            name: name.clone(),
            site: site.clone(),
        };
        self.token(&caller, Action::EnrolNode, &permit, invitee, life)
            .await
    }

    pub(super) async fn rekey_node(&self, request: Request<RekeyNodeRequest>) -> Result<NodeToken, Error> {
        let caller = self.caller(&request).await?;
        let RekeyNodeRequest { node, life_s } = request.into_inner();
        let life = life(life_s)?;
        let (_, member, _) = self
            .permitted_node(&caller, Action::RekeyNode, &node, None)
            .await?;
        let target = Target::Node {
            site: member.site.clone(),
        };
        let permit = self
            .permit(&caller, Action::RekeyNode, &target, About::default())
            .await?;
        let invitee = Invitee::Node {
            id: member.id,
            name: member.name.clone(),
            site: member.site.clone(),
            rekey: true,
        };
        self.token(&caller, Action::RekeyNode, &permit, invitee, life)
            .await
    }

    /// A join token: kept in the store, then handed out.
    async fn token(
        &self,
        caller: &Caller,
        action: Action,
        permit: &Permit,
        invitee: Invitee,
        life: Duration,
    ) -> Result<NodeToken, Error> {
        let (Invitee::NewNode { id, name, site } | Invitee::Node { id, name, site, .. }) = &invitee else {
            return Err(Error::Internal("a token for no node".into()));
        };
        let (node, name, site) = (*id, name.clone(), site.clone());
        let id = InviteId::random();
        let issuing = self.fleet.issuing();
        let view = issuing.authority.view();
        let life = time::Duration::try_from(life).unwrap_or(time::Duration::HOUR);
        let issued = view.ca().invite(id, life, OffsetDateTime::now_utc())?;
        let expires_at_ms = millis(issued.expires);
        let invite = NewInvite {
            id,
            spki: issued.spki()?,
            invitee,
            created_by: Some(caller.actor.name.clone()),
            expires_at_ms,
        };
        let about = About {
            slice: None,
            site: Some(site.clone()),
            node: Some(node),
        };
        let note = self.change(
            caller,
            action,
            &format!("node {name} (token {id})"),
            about,
            permit,
        );
        self.fleet.store().create_invite(&invite, note).await?;
        let bundle = Bundle {
            format: Bundle::FORMAT,
            identity: issued.identity.to_string(),
            name: name.to_string(),
            controllers: issuing.controllers.clone(),
            ca: view.roots_pem().to_owned(),
            certificate: issued.certificate,
            key: issued.key,
        };
        Ok(NodeToken {
            node: node.to_string(),
            name: name.to_string(),
            site: site.to_string(),
            bundle: bundle.to_text(),
            expires_at_ms,
        })
    }

    pub(super) async fn revoke_node(
        &self,
        request: Request<RevokeNodeRequest>,
    ) -> Result<RevokeNodeReply, Error> {
        let caller = self.caller(&request).await?;
        let RevokeNodeRequest { node, reason } = request.into_inner();
        let reason = super::people::plain("reason", reason, MAX_REASON)?;
        let (_, member, _) = self
            .permitted_node(&caller, Action::RevokeNode, &node, None)
            .await?;
        let target = Target::Node {
            site: member.site.clone(),
        };
        let permit = self
            .permit(&caller, Action::RevokeNode, &target, About::default())
            .await?;
        let about = About {
            slice: None,
            site: Some(member.site.clone()),
            node: Some(member.id),
        };
        let mut note = self.change(
            &caller,
            Action::RevokeNode,
            &format!("node {}", member.name),
            about,
            &permit,
        );
        note.draft.reason.clone_from(&reason);
        let why = if reason.is_empty() {
            "node revoked"
        } else {
            &reason
        };
        let revoked = self.fleet.revoke_node(member.id, why, note).await?;
        Ok(RevokeNodeReply {
            node: Some(self.fleet.describe(&revoked.node)),
            revoked: revoked.keys.iter().map(|key| key.spki.to_string()).collect(),
        })
    }
}
