//! Two people: propose, look, agree. Who may see proposals is who may see everything; the others are refused, and
//! audited, without learning whether there are any.

use authz::{Action, Target, decide};
use proto::v1::approvals_server::Approvals;
use proto::v1::{
    self, ApproveReply, ApproveRequest, GetProposalRequest, ListProposalsReply, ListProposalsRequest,
    Proposal, ProposeRequest, WithdrawRequest,
};
use proto::{PersonName, ProposalId, WireError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Desk;
use super::caller::Caller;
use crate::approvals::{Act, Digest, Life};
use crate::error::Error;
use crate::fleet::now_ms;
use crate::orders::{checked_key, checked_reason, checked_text};
use crate::store::{About, ProposalRecord};

/// Proposals in a list.
const LISTED: u32 = 100;
/// People who are named as possible approvers.
const NAMED: usize = 50;
/// Versions of a proposal that a watcher may be behind.
const EVENTS: usize = 2;

impl Desk {
    /// Whoever may see everything may see what waits for a second person.
    async fn sees_proposals(&self, caller: &Caller) -> Result<(), Error> {
        let verdict = decide(&caller.actor, Action::SeeUsage, &Target::Fleet);
        if verdict.is_allowed() {
            return Ok(());
        }
        let rule = "proposals need: support".to_owned();
        self.refuse(caller, "see-proposals", "proposals", About::default(), rule)
            .await
    }

    async fn own_proposal(&self, id: &str) -> Result<ProposalRecord, Error> {
        let id: ProposalId = id.parse().map_err(WireError::id("id"))?;
        self.fleet.proposal(id).await
    }

    /// A proposal as people see it: what would happen now, and who could agree.
    pub(crate) async fn show_proposal(&self, record: ProposalRecord) -> Result<Proposal, Error> {
        let now_ms = now_ms();
        let mut may_approve: Vec<String> = Vec::new();
        if record.life == Life::Open {
            let supporters: Vec<PersonName> = self.fleet.store().supporters().await?;
            for person in supporters {
                let could = self
                    .fleet
                    .could_approve(&record, &person, record.digest, now_ms)
                    .await?;
                if could.is_ok() {
                    may_approve.push(person.to_string());
                }
                if may_approve.len() == NAMED {
                    break;
                }
            }
        }
        let mut reach = self.fleet.reach_of_everything();
        if let Act::StopEveryNode { .. } = record.terms.act {
            (reach.no_way_back, reach.no_way_back_names) = self.fleet.no_way_back();
        }
        let ProposalRecord {
            terms,
            key: _,
            digest,
            signature: _,
            life,
            approved,
            order,
            outcome,
        } = record;
        let reaches = matches!(terms.act, Act::StopEverySlice | Act::StopEveryNode { .. });
        let (approver, approved_at_ms) = approved.map_or((String::new(), 0), |approval| {
            (approval.by.to_string(), approval.at_ms)
        });
        let state = match life {
            Life::Open => v1::ProposalState::Open,
            Life::Expired => v1::ProposalState::Expired,
            Life::Void => v1::ProposalState::Void,
            Life::Withdrawn => v1::ProposalState::Withdrawn,
            Life::Approved => v1::ProposalState::Approved,
            Life::Done => v1::ProposalState::Done,
            Life::Failed => v1::ProposalState::Failed,
        };
        Ok(Proposal {
            id: terms.id.to_string(),
            digest: digest.as_bytes().to_vec(),
            person: terms.person.to_string(),
            role: v1::Role::from(terms.role).into(),
            action: terms.act.action().to_string(),
            what: terms.act.to_string(),
            reason: terms.reason,
            evidence: terms.evidence,
            proposed_at_ms: terms.proposed_at_ms,
            expires_at_ms: terms.expires_at_ms,
            incarnation: terms.incarnation,
            state: state.into(),
            approver,
            approved_at_ms,
            order: order.map(String::from).unwrap_or_default(),
            outcome,
            may_approve,
            reach: reaches.then_some(reach),
            now_ms,
        })
    }
}

const fn is_over(life: Life) -> bool {
    !matches!(life, Life::Open | Life::Approved)
}

#[tonic::async_trait]
impl Approvals for Desk {
    type WatchStream = ReceiverStream<Result<Proposal, Status>>;

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<Proposal>, Status> {
        let caller = self.caller(&request).await?;
        let ProposeRequest {
            idempotency_key,
            reason,
            evidence,
            act,
        } = request.into_inner();
        let key = checked_key(idempotency_key).map_err(Error::from)?;
        let reason = checked_reason(&reason).map_err(Error::from)?;
        let evidence = checked_text("evidence", evidence.trim()).map_err(Error::from)?;
        let act = match act {
            Some(v1::propose_request::Act::RotateCa(true)) => Act::RotateCa,
            Some(v1::propose_request::Act::RotateCa(false)) | None => {
                return Err(Error::from(WireError::Missing { field: "act" }).into());
            }
        };
        let (record, _) = self
            .fleet
            .propose(&caller.actor, act, key, reason, evidence, now_ms())
            .await?;
        Ok(Response::new(self.show_proposal(record).await?))
    }

    async fn list(
        &self,
        request: Request<ListProposalsRequest>,
    ) -> Result<Response<ListProposalsReply>, Status> {
        let caller = self.caller(&request).await?;
        self.sees_proposals(&caller).await?;
        let records = self.fleet.proposals(!request.get_ref().all, LISTED).await?;
        let mut proposals = Vec::with_capacity(records.len());
        for record in records {
            proposals.push(self.show_proposal(record).await?);
        }
        let proposals = super::wire::fitting(proposals.into_iter(), super::pages::MAX_ROWS_BYTES);
        Ok(Response::new(ListProposalsReply { proposals }))
    }

    async fn get(&self, request: Request<GetProposalRequest>) -> Result<Response<Proposal>, Status> {
        let caller = self.caller(&request).await?;
        self.sees_proposals(&caller).await?;
        let record = self.own_proposal(&request.get_ref().id).await?;
        Ok(Response::new(self.show_proposal(record).await?))
    }

    async fn approve(&self, request: Request<ApproveRequest>) -> Result<Response<ApproveReply>, Status> {
        let caller = self.caller(&request).await?;
        let ApproveRequest { id, digest } = request.into_inner();
        let id: ProposalId = id.parse().map_err(WireError::id("id")).map_err(Error::from)?;
        if digest.is_empty() {
            return Err(Error::from(WireError::Missing { field: "digest" }).into());
        }
        let seen = Digest::try_from(&digest[..]).map_err(|e| Error::Malformed(e.to_string()))?;
        // Who may not propose it may not learn whether it is there either.
        self.sees_proposals(&caller).await?;
        let agreed = self.fleet.approve(caller.actor, id, seen, now_ms()).await?;
        Ok(Response::new(ApproveReply {
            proposal: Some(self.show_proposal(agreed.proposal).await?),
            durable: agreed.not_durable.is_none(),
            not_durable_reason: agreed.not_durable.unwrap_or_default(),
        }))
    }

    async fn withdraw(&self, request: Request<WithdrawRequest>) -> Result<Response<Proposal>, Status> {
        let caller = self.caller(&request).await?;
        let WithdrawRequest { id, reason } = request.into_inner();
        let id: ProposalId = id.parse().map_err(WireError::id("id")).map_err(Error::from)?;
        let reason = checked_text("reason", reason.trim()).map_err(Error::from)?;
        let record = match self.fleet.proposal(id).await {
            // One's own can be taken back also by who is no longer support.
            Ok(record) if record.terms.person == caller.actor.name => record,
            found => {
                self.sees_proposals(&caller).await?;
                found?
            }
        };
        let record = self
            .fleet
            .withdraw(&caller.actor, record.terms.id, &reason, now_ms())
            .await?;
        Ok(Response::new(self.show_proposal(record).await?))
    }

    async fn watch(
        &self,
        request: Request<GetProposalRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = self.caller(&request).await?;
        self.sees_proposals(&caller).await?;
        let id = self.own_proposal(&request.get_ref().id).await?.terms.id;
        let (events, stream) = mpsc::channel(EVENTS);
        let desk = self.clone();
        drop(tokio::spawn(async move {
            let mut changed = desk.fleet.proposals_changed();
            loop {
                changed.mark_unchanged();
                let (record, shown) = match desk.fleet.proposal(id).await {
                    Ok(record) => (record.clone(), desk.show_proposal(record).await),
                    Err(error) => {
                        // Nobody may read any more.
                        let _ = events.send(Err(error.into())).await;
                        return;
                    }
                };
                if events.send(shown.map_err(Status::from)).await.is_err() || is_over(record.life) {
                    return;
                }
                let left = record.terms.expires_at_ms.saturating_sub(now_ms()).max(0);
                let expires = std::time::Duration::from_millis(left.unsigned_abs() + 1);
                tokio::select! {
                    () = events.closed() => return,
                    done = changed.changed() => if done.is_err() { return },
                    () = tokio::time::sleep(expires), if record.life == Life::Open => {}
                }
            }
        }));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Desk {
    /// The caller's press needs a second person: it becomes a proposal.
    pub(crate) async fn propose_press(
        &self,
        caller: &Caller,
        act: Act,
        press: crate::orders::Press,
    ) -> Result<(Proposal, bool), Error> {
        let crate::orders::Press {
            key,
            reason,
            evidence,
            wish: _,
        } = press;
        let (record, created) = self
            .fleet
            .propose(&caller.actor, act, key, reason, evidence, now_ms())
            .await?;
        Ok((self.show_proposal(record).await?, created))
    }
}
