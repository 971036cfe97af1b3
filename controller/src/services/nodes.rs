//! Machines, and what can be asked of them.

use std::sync::Arc;
use std::time::Duration;

use authz::{Action, Target, may_see_hold, may_see_node};
use link::Link;
use proto::v1::nodes_server::Nodes;
use proto::v1::slivers_client::SliversClient;
use proto::v1::{
    self, EnrollNodeRequest, GetNodeRequest, JournalLines, JournalRequest, ListNodesReply, ListNodesRequest,
    NodeDetail, NodeJournalRequest, NodeProcessesRequest, NodeToken, ProcessesReply, ProcessesRequest,
    RekeyNodeRequest, RevokeNodeReply, RevokeNodeRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::orders::{site_field, slice_field};
use super::{Desk, pages, wire};
use crate::error::Error;
use crate::fleet::Member;
use crate::orders::{NodeIndex, NodeRef};
use crate::store::{About, NodeRecord, NodeSelection};

/// For a node to list its processes.
const PROCESSES: Duration = Duration::from_secs(10);
/// For the next lines of a journal.
const JOURNAL: Duration = Duration::from_secs(20);
/// Chunks of a journal that wait for a reader.
const CHUNKS: usize = 4;
/// Longest name of a unit.
const MAX_UNIT: usize = 256;

/// What a node said instead of an answer.
fn from_node(node: &NodeRef, status: &Status) -> Error {
    match status.code() {
        tonic::Code::InvalidArgument => Error::Malformed(format!("node {node}: {}", status.message())),
        tonic::Code::NotFound => Error::NotFound(format!("node {node}: {}", status.message())),
        tonic::Code::Unimplemented => Error::Unimplemented(format!("node {node}: {}", status.message())),
        _ => Error::Unreachable(format!("node {node} did not answer: {}", status.message())),
    }
}

fn late(node: &NodeRef, after: Duration) -> Error {
    Error::Unreachable(format!("node {node} did not answer within {after:?}"))
}

fn client(link: Link) -> SliversClient<Link> {
    SliversClient::with_origin(link, Link::origin()).max_decoding_message_size(proto::MAX_MESSAGE_BYTES)
}

impl Desk {
    /// The node, for who may do `action` there; the others do not learn whether it is there.
    pub(super) async fn permitted_node(
        &self,
        caller: &Caller,
        action: Action,
        text: &str,
        slice: Option<&proto::SliceName>,
    ) -> Result<(NodeIndex, Arc<Member>, NodeRef), Error> {
        let node = NodeRef::parse("node", text)?;
        let found = self.fleet.find_fresh(&node).await;
        let permitted = found.as_ref().is_some_and(|(_, member)| {
            let site = member.site.clone();
            let target = match slice {
                Some(slice) => Target::Sliver {
                    slice: slice.clone(),
                    site,
                },
                None => Target::Node { site },
            };
            authz::decide(&caller.actor, action, &target).is_allowed()
        });
        match found {
            Some((index, member)) if permitted => Ok((index, member, node)),
            None if authz::decide(&caller.actor, Action::SeeUsage, &Target::Fleet).is_allowed() => {
                Err(Error::NotFound(format!("node {node} does not exist")))
            }
            found => {
                let about = About {
                    slice: slice.cloned(),
                    site: found.as_ref().map(|(_, member)| member.site.clone()),
                    node: found.map(|(_, member)| member.id),
                };
                let (target, needs) = match slice {
                    Some(slice) => (
                        format!("{slice} on {node}"),
                        format!(
                            "developer of it, PI of {}, site admin of the node's site, or support",
                            slice.site()
                        ),
                    ),
                    None => (
                        format!("node {node}"),
                        "site admin of its site, or support".to_owned(),
                    ),
                };
                let rule = format!("{action} on {target} needs: {needs}");
                self.refuse(caller, action.as_str(), &target, about, rule).await
            }
        }
    }

    async fn list_nodes(&self, request: Request<ListNodesRequest>) -> Result<ListNodesReply, Error> {
        let caller = self.caller(&request).await?;
        let ListNodesRequest {
            page_size,
            page_token,
            site,
            slice,
        } = request.into_inner();
        let site = site_field("site", &site)?;
        let slice = slice_field("slice", &slice)?;
        let select = NodeSelection {
            sites: site.map(|site| vec![site]),
            ids: slice.map(|slice| {
                self.fleet
                    .slivers(&slice)
                    .iter()
                    .map(|(node, _)| node.id)
                    .collect()
            }),
        };
        let read = |page| {
            let select = &select;
            async move { self.fleet.store().nodes(select, &page).await }
        };
        let show = |record: NodeRecord| {
            may_see_node(&caller.actor, &record.site).then(|| self.fleet.describe(&record))
        };
        let (nodes, next_page_token) = pages::collect(page_size, page_token, read, show).await?;
        Ok(ListNodesReply {
            nodes,
            next_page_token,
        })
    }

    async fn get_node(&self, request: Request<GetNodeRequest>) -> Result<NodeDetail, Error> {
        let caller = self.caller(&request).await?;
        let (index, member, _) = self
            .permitted_node(&caller, Action::SeeNode, &request.get_ref().node, None)
            .await?;
        let record = self.fleet.store().node(member.id).await?;
        let (report, reported_at_ms) = match self.fleet.last_report(index) {
            Some((report, at)) => (Some(report), at),
            None => match self.fleet.store().last_report(member.id).await? {
                Some(stored) => (prost::Message::decode(&*stored.report).ok(), stored.at_ms),
                None => (None, 0),
            },
        };
        let holds = self.fleet.holds(|hold, scope| {
            hold.reaches(member.id, &member.site)
                && may_see_hold(
                    &caller.actor,
                    hold,
                    scope.map(|scope| &scope.site),
                    [&member.site],
                )
        });
        let mut node = self.fleet.describe(&record);
        if let Some(report) = &report {
            node.kernel.clone_from(&report.kernel);
        }
        Ok(NodeDetail {
            node: Some(node),
            report,
            reported_at_ms,
            holds: wire::fitting(holds.into_iter().map(v1::Hold::from), pages::MAX_ROWS_BYTES / 2),
        })
    }

    async fn processes_of(&self, request: Request<NodeProcessesRequest>) -> Result<ProcessesReply, Error> {
        let caller = self.caller(&request).await?;
        let NodeProcessesRequest { node, slice, limit } = request.into_inner();
        let slice = slice_field("slice", &slice)?;
        let (index, _, node) = self
            .permitted_node(&caller, Action::SeeProcesses, &node, slice.as_ref())
            .await?;
        let link = self.fleet.link_to(index, &node)?;
        let ask = ProcessesRequest {
            slice: slice.as_ref().map(ToString::to_string).unwrap_or_default(),
            limit,
        };
        let mut client = client(link);
        let reply = match tokio::time::timeout(PROCESSES, client.processes(ask)).await {
            Err(_) => return Err(late(&node, PROCESSES)),
            Ok(Err(status)) => return Err(from_node(&node, &status)),
            Ok(Ok(reply)) => reply.into_inner(),
        };
        // A node that says more than it was asked for shows nobody what is not theirs.
        let asked = reply.processes.len();
        let ours = |process: &v1::Process| slice.as_ref().is_none_or(|slice| process.slice == slice.as_str());
        let processes = wire::fitting(reply.processes.into_iter().filter(ours), pages::MAX_ROWS_BYTES);
        Ok(ProcessesReply {
            truncated: reply.truncated || processes.len() < asked,
            processes,
        })
    }

    async fn journal_of(
        &self,
        request: Request<NodeJournalRequest>,
    ) -> Result<ReceiverStream<Result<JournalLines, Status>>, Error> {
        let caller = self.caller(&request).await?;
        let NodeJournalRequest { node, lines, unit } = request.into_inner();
        let unit = super::people::plain("unit", unit, MAX_UNIT)?;
        let (index, _, node) = self
            .permitted_node(&caller, Action::SeeJournal, &node, None)
            .await?;
        let mut client = client(self.fleet.link_to(index, &node)?);
        let mut from =
            match tokio::time::timeout(JOURNAL, client.journal(JournalRequest { lines, unit })).await {
                Err(_) => return Err(late(&node, JOURNAL)),
                Ok(Err(status)) => return Err(from_node(&node, &status)),
                Ok(Ok(stream)) => stream.into_inner(),
            };
        let (to, stream) = mpsc::channel(CHUNKS);
        drop(tokio::spawn(async move {
            loop {
                let next = match tokio::time::timeout(JOURNAL, from.message()).await {
                    Err(_) => Err(late(&node, JOURNAL).into()),
                    Ok(Err(status)) => Err(from_node(&node, &status).into()),
                    Ok(Ok(None)) => return,
                    Ok(Ok(Some(lines))) => Ok(lines),
                };
                let last = next.is_err();
                if to.send(next).await.is_err() || last {
                    return;
                }
            }
        }));
        Ok(ReceiverStream::new(stream))
    }
}

#[tonic::async_trait]
impl Nodes for Desk {
    type JournalStream = ReceiverStream<Result<JournalLines, Status>>;

    async fn list(&self, request: Request<ListNodesRequest>) -> Result<Response<ListNodesReply>, Status> {
        Ok(Response::new(self.list_nodes(request).await?))
    }

    async fn get(&self, request: Request<GetNodeRequest>) -> Result<Response<NodeDetail>, Status> {
        Ok(Response::new(self.get_node(request).await?))
    }

    async fn processes(
        &self,
        request: Request<NodeProcessesRequest>,
    ) -> Result<Response<ProcessesReply>, Status> {
        Ok(Response::new(self.processes_of(request).await?))
    }

    async fn journal(
        &self,
        request: Request<NodeJournalRequest>,
    ) -> Result<Response<Self::JournalStream>, Status> {
        Ok(Response::new(self.journal_of(request).await?))
    }

    async fn enroll(&self, request: Request<EnrollNodeRequest>) -> Result<Response<NodeToken>, Status> {
        Ok(Response::new(self.enroll_node(request).await?))
    }

    async fn rekey(&self, request: Request<RekeyNodeRequest>) -> Result<Response<NodeToken>, Status> {
        Ok(Response::new(self.rekey_node(request).await?))
    }

    async fn revoke(&self, request: Request<RevokeNodeRequest>) -> Result<Response<RevokeNodeReply>, Status> {
        Ok(Response::new(self.revoke_node(request).await?))
    }
}
