//! Reading the audit.

use authz::{Action, Target};
use proto::WireError;
use proto::v1::audit_server::Audit;
use proto::v1::{
    self, AuditEntry, AuditHead, AuditHeadRequest, ExportAuditRequest, ListAuditReply, ListAuditRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Desk, visible, wire};
use crate::error::Error;
use crate::services::pages::MAX_ROWS_BYTES;
use crate::store::{About, AuditFilter, PageRequest};

/// Entries that are read at once for an export.
const CHUNK: u32 = 200;

fn entry(entry: audit::Entry) -> AuditEntry {
    let audit::Entry {
        sequence,
        said,
        previous,
        hash,
    } = entry;
    let audit::Draft {
        at_ms,
        version,
        person,
        role,
        action,
        target,
        reason,
        evidence,
        outcome,
        detail,
        order,
    } = said;
    AuditEntry {
        sequence,
        at_ms,
        person: person.map(String::from).unwrap_or_default(),
        role: role.map_or(v1::Role::Unspecified, v1::Role::from).into(),
        action,
        target,
        reason,
        evidence,
        outcome: outcome.to_string(),
        detail,
        order: order.map(String::from).unwrap_or_default(),
        previous: previous.as_bytes().to_vec(),
        hash: hash.as_bytes().to_vec(),
        version: Some(version.into()),
    }
}

impl Desk {
    async fn list_audit(&self, request: Request<ListAuditRequest>) -> Result<ListAuditReply, Error> {
        let caller = self.caller(&request).await?;
        let ListAuditRequest {
            page_size,
            before,
            person,
            target,
            order,
        } = request.into_inner();
        let filter = AuditFilter {
            person: match person.as_str() {
                "" => None,
                name => Some(name.parse().map_err(WireError::id("person"))?),
            },
            target: (!target.is_empty()).then_some(target),
            order: match order.as_str() {
                "" => None,
                id => Some(id.parse().map_err(WireError::id("order"))?),
            },
            visible: visible::of(&caller.actor),
        };
        let before = (before != 0).then_some(before);
        let size = PageRequest {
            size: page_size,
            token: String::new(),
        }
        .rows();
        let page = self.fleet.store().audit_page(&filter, before, size).await?;
        let mut next_before = page.next_before.unwrap_or(0);
        // From the newest back, as many as a message takes.
        let all = page.entries.len();
        let newest_first = page.entries.into_iter().rev().map(entry);
        let mut entries = wire::fitting(newest_first, MAX_ROWS_BYTES);
        if entries.len() < all
            && let Some(oldest) = entries.last()
        {
            next_before = oldest.sequence;
        }
        entries.reverse();
        Ok(ListAuditReply { entries, next_before })
    }
}

#[tonic::async_trait]
impl Audit for Desk {
    type ExportStream = ReceiverStream<Result<AuditEntry, Status>>;

    async fn list(&self, request: Request<ListAuditRequest>) -> Result<Response<ListAuditReply>, Status> {
        Ok(Response::new(self.list_audit(request).await?))
    }

    async fn export(
        &self,
        request: Request<ExportAuditRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let caller = self.caller(&request).await?;
        self.permit(&caller, Action::ReadAudit, &Target::Fleet, About::default())
            .await?;
        let mut from = request.get_ref().from.max(1);
        let (entries, stream) = mpsc::channel(CHUNK as usize);
        let store = self.fleet.store().clone();
        drop(tokio::spawn(async move {
            loop {
                let chunk = match store.audit_from(from, CHUNK).await {
                    Ok(chunk) => chunk,
                    Err(error) => {
                        // Nobody may read any more.
                        let _ = entries.send(Err(Error::from(error).into())).await;
                        return;
                    }
                };
                let Some(last) = chunk.last() else { return };
                from = last.sequence.saturating_add(1);
                for one in chunk {
                    if entries.send(Ok(entry(one))).await.is_err() {
                        return;
                    }
                }
            }
        }));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type WitnessesStream = ReceiverStream<Result<v1::NodeWitness, Status>>;

    async fn witnesses(
        &self,
        request: Request<v1::WitnessesRequest>,
    ) -> Result<Response<Self::WitnessesStream>, Status> {
        let caller = self.caller(&request).await?;
        self.fleet.refresh().await.map_err(Error::from)?;
        let (out, stream) = mpsc::channel(CHUNK as usize);
        let fleet = self.fleet.clone();
        drop(tokio::spawn(async move {
            for (index, member) in fleet.members() {
                if !authz::may_see_node(&caller.actor, &member.site) {
                    continue;
                }
                let kept = fleet.kept_by(index);
                if kept.head.is_none() && kept.pairs.is_empty() {
                    continue;
                }
                let witness = v1::NodeWitness {
                    node: member.id.to_string(),
                    node_name: member.name.to_string(),
                    site: member.site.to_string(),
                    reported_at_ms: kept.reported_at_ms,
                    trouble: kept.trouble(),
                    witnessed: Some(v1::Witnessed {
                        head: kept.head.map(|known| known.statement.clone()),
                        contradictions: kept.pairs.to_vec(),
                    }),
                };
                if out.send(Ok(witness)).await.is_err() {
                    return;
                }
            }
        }));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn head(&self, request: Request<AuditHeadRequest>) -> Result<Response<AuditHead>, Status> {
        let caller = self.caller(&request).await?;
        self.permit(&caller, Action::VerifyAudit, &Target::Fleet, About::default())
            .await?;
        let head = self.fleet.store().audit_head().await.map_err(Error::from)?;
        Ok(Response::new(AuditHead {
            sequence: head.sequence,
            hash: head.hash.as_bytes().to_vec(),
        }))
    }
}
