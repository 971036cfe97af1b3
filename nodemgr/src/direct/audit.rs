//! Reading the node's own diary.

use authz::{Action, Target, may_see_audit};
use proto::v1::audit_server::Audit;
use proto::v1::{AuditHead, AuditHeadRequest, ExportAuditRequest, ListAuditReply, ListAuditRequest};
use proto::{OrderId, PersonName, WireError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::no::No;
use super::sight::Entries;
use super::{Desk, MAX_ROWS, fitting};
use crate::merge::entry;

/// Entries that are read at once: each reading begins at the start of the file.
const CHUNK: usize = 5_000;

/// Every entry is about this node; one that is about a slice begins its target with the slice's name.
fn may_see(caller: &Caller, said: &audit::Draft) -> bool {
    let slice = said.target.split(' ').next().and_then(|word| word.parse().ok());
    may_see_audit(
        &caller.actor,
        said.person.as_ref(),
        slice.as_ref(),
        Some(&caller.here.site),
    )
}

impl Desk {
    async fn list_audit(&self, request: Request<ListAuditRequest>) -> Result<ListAuditReply, No> {
        let caller = self.caller(&request).await?;
        let ListAuditRequest {
            page_size,
            before,
            person,
            target,
            order,
        } = request.into_inner();
        let person: Option<PersonName> = match person.as_str() {
            "" => None,
            name => Some(name.parse().map_err(WireError::id("person"))?),
        };
        let order: Option<OrderId> = match order.as_str() {
            "" => None,
            id => Some(id.parse().map_err(WireError::id("order"))?),
        };
        let most = match page_size {
            0 => 50,
            size => size.min(1_000) as usize,
        };
        let wanted = |entry: &audit::Entry| {
            may_see(&caller, &entry.said)
                && (person.is_none() || entry.said.person == person)
                && (order.is_none() || entry.said.order == order)
                && (target.is_empty() || entry.said.target == target)
        };
        let mut before = match before {
            0 => self.diary.head().sequence.saturating_add(1),
            before => before,
        };
        // Newest first, a chunk at a time from the end.
        let mut found: Vec<audit::Entry> = Vec::new();
        while before > 1 && found.len() <= most {
            let from = before.saturating_sub(CHUNK as u64).max(1);
            let count = usize::try_from(before - from).unwrap_or(CHUNK);
            let chunk = self.read(from, count).await?;
            found.extend(chunk.into_iter().rev().filter(wanted));
            before = from;
        }
        let all = found.len();
        found.truncate(most);
        let mut entries = fitting(found.into_iter().map(entry), MAX_ROWS);
        let next_before = match entries.last() {
            Some(oldest) if entries.len() < all || before > 1 => oldest.sequence,
            _ => 0,
        };
        entries.reverse();
        Ok(ListAuditReply { entries, next_before })
    }

    async fn read(&self, from: u64, limit: usize) -> Result<Vec<audit::Entry>, No> {
        let read = self.diary.read(from, limit).await;
        read.map_err(|e| No::Busy(format!("the diary cannot be read: {e}")))
    }
}

#[tonic::async_trait]
impl Audit for Desk {
    type ExportStream = Entries;

    async fn list(&self, request: Request<ListAuditRequest>) -> Result<Response<ListAuditReply>, Status> {
        Ok(Response::new(self.list_audit(request).await?))
    }

    async fn export(
        &self,
        request: Request<ExportAuditRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let caller = self.caller(&request).await?;
        let text = format!("the diary of {}", self.name);
        self.permit(&caller, Action::ReadAudit, &Target::Fleet, &text)
            .await?;
        let mut from = request.get_ref().from.max(1);
        let (entries, stream) = mpsc::channel(64);
        let desk = self.clone();
        drop(tokio::spawn(async move {
            loop {
                let chunk = match desk.read(from, CHUNK).await {
                    Ok(chunk) => chunk,
                    Err(no) => {
                        // Nobody may read any more.
                        let _ = entries.send(Err(no.into())).await;
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

    type WitnessesStream = ReceiverStream<Result<proto::v1::NodeWitness, Status>>;

    /// What this node has kept of the controller's audit: asked here, no controller can leave anything out.
    async fn witnesses(
        &self,
        request: Request<proto::v1::WitnessesRequest>,
    ) -> Result<Response<Self::WitnessesStream>, Status> {
        let caller = self.caller(&request).await?;
        let (out, stream) = mpsc::channel(1);
        if authz::may_see_node(&caller.actor, &caller.here.site) {
            let witnessed = self.node.witnessed();
            let trouble = match witnessed.contradictions.len() {
                0 => String::new(),
                count => format!("holds {count} audit heads that contradict others"),
            };
            let own = proto::v1::NodeWitness {
                node: self.node.id.to_string(),
                node_name: self.name.clone(),
                site: caller.here.site.to_string(),
                reported_at_ms: super::caller::now_ms(),
                witnessed: Some(witnessed),
                trouble,
            };
            // The channel is empty and has room for one.
            let _ = out.try_send(Ok(own));
        }
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn head(&self, request: Request<AuditHeadRequest>) -> Result<Response<AuditHead>, Status> {
        self.caller(&request).await?;
        let head = self.diary.head();
        Ok(Response::new(AuditHead {
            sequence: head.sequence,
            hash: head.hash.as_bytes().to_vec(),
        }))
    }
}
