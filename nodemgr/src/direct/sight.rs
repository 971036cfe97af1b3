//! What people look at here: this node, the slices on it, themselves.

use std::collections::BTreeSet;

use authz::{Action, Grant, may, may_see_node};
use proto::v1::direct_server::Direct;
use proto::v1::nodes_server::Nodes;
use proto::v1::people_server::People;
use proto::v1::sites_server::Sites;
use proto::v1::slices_server::Slices;
use proto::v1::slivers_server::Slivers;
use proto::v1::{self, NodeDetail, NodeReport, SliverActivity};
use proto::{Scope, SliceName, WireError};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Desk;
use super::caller::{Caller, now_ms, person};
use super::no::No;
use super::orders::sees_slice;
use super::wish::slice_field;
use super::{MAX_ROWS, fitting};

/// What one node offers, for `whoami`.
const OFFERED: &[Action] = &[
    Action::SeeSlice,
    Action::SeeNode,
    Action::SeeProcesses,
    Action::SeeJournal,
    Action::KillSliver,
    Action::FreezeSliver,
    Action::Release,
    Action::FreezeNode,
    Action::KillNode,
    Action::RebootNode,
    Action::StopNode,
    Action::ReadAudit,
];

impl Desk {
    fn described(&self, caller: &Caller, report: &NodeReport) -> v1::Node {
        let on_itself = |hold: &proto::Hold| hold.slice.is_none() && hold.scope == Scope::Node(self.node.id);
        let holds = self
            .node
            .holds_here()
            .iter()
            .filter(|hold| on_itself(hold))
            .count();
        let mut trouble = Vec::new();
        if !report.locked.is_empty() {
            trouble.push(format!("locked: {}", report.locked));
        }
        for why in [self.policy.trouble(), self.diary.trouble()] {
            if !why.is_empty() {
                trouble.push(why);
            }
        }
        let mut node = v1::Node {
            id: self.node.id.to_string(),
            name: self.name.clone(),
            site: caller.here.site.to_string(),
            // Somebody has just reached it; whether the controller does is the controller's to say.
            attached: true,
            last_seen_ms: now_ms(),
            boot_id: report.boot_id.clone(),
            slivers: Some(u32::try_from(report.slivers.len()).unwrap_or(u32::MAX)),
            load_one: report.load.map(|load| load.one),
            kernel: report.kernel.clone(),
            holds: u32::try_from(holds).unwrap_or(u32::MAX),
            trouble: trouble.join("; "),
            ..v1::Node::default()
        };
        node.policy_issued_at_ms = caller.snapshot.issued_at_ms;
        node.direct_address.clone_from(&report.direct_address);
        node
    }

    async fn report(&self) -> Result<NodeReport, Status> {
        let report = Slivers::report(&*self.agent, Request::new(v1::ReportRequest {})).await?;
        Ok(report.into_inner())
    }

    fn slice(&self, caller: &Caller, name: &SliceName, report: &NodeReport) -> v1::Slice {
        let slivers = || {
            report
                .slivers
                .iter()
                .filter(|sliver| sliver.slice == name.as_str())
        };
        let is = |activity: SliverActivity| slivers().any(|sliver| sliver.activity() == activity);
        let running = is(SliverActivity::Running);
        let who = |wanted: Grant| {
            let has = |grants: &[Grant]| grants.contains(&wanted);
            let people = caller.snapshot.people.iter().filter(|(_, grants)| has(grants));
            people.map(|(person, _)| person.to_string()).collect::<Vec<_>>()
        };
        let holds = self.slice_holds(caller, name).len();
        v1::Slice {
            name: name.to_string(),
            site: name.site().to_string(),
            developers: who(Grant::Developer(name.clone())),
            pis: who(Grant::Pi(name.site())),
            running_on: u32::from(running),
            frozen_on: u32::from(!running && is(SliverActivity::Frozen)),
            holds: u32::try_from(holds).unwrap_or(u32::MAX),
            ..v1::Slice::default()
        }
    }

    fn slice_holds(&self, caller: &Caller, name: &SliceName) -> Vec<proto::Hold> {
        let mut holds = self.node.holds_here();
        holds.retain(|hold| hold.slice.as_ref() == Some(name) && caller.here.may_see(&caller.actor, hold));
        holds
    }

    /// Answers what only the controller can.
    pub(super) fn centre<T>(&self, what: &str) -> Result<T, Status> {
        let no = No::Unimplemented(format!(
            "{what} only the controller can: node {} serves what concerns itself",
            self.name
        ));
        Err(no.into())
    }
}

#[tonic::async_trait]
impl Direct for Desk {
    /// For everybody whom our CA knows: who is refused must be able to learn why.
    async fn hello(&self, request: Request<v1::HelloRequest>) -> Result<Response<v1::HelloReply>, Status> {
        let peer = request.extensions().get::<link::Peer>();
        if peer.is_none_or(|peer| person(&peer.identity).is_none()) {
            return Err(No::Refused("only people are served here".into()).into());
        }
        let policy = self.policy.current();
        Ok(Response::new(v1::HelloReply {
            node: self.node.id.to_string(),
            name: self.name.clone(),
            site: policy
                .as_ref()
                .map(|policy| policy.site.to_string())
                .unwrap_or_default(),
            policy_version: policy.as_ref().map(|policy| policy.version.into()),
            policy_issued_at_ms: policy.as_ref().map_or(0, |policy| policy.issued_at_ms),
            policy_trouble: self.policy.trouble(),
            clock_ms: now_ms(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
        }))
    }
}

#[tonic::async_trait]
impl Nodes for Desk {
    type JournalStream = <crate::Agent as Slivers>::JournalStream;

    async fn list(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesReply>, Status> {
        let caller = self.caller(&request).await?;
        let v1::ListNodesRequest { site, slice, .. } = request.into_inner();
        let report = self.report().await?;
        let wanted = may_see_node(&caller.actor, &caller.here.site)
            && (site.is_empty() || site == caller.here.site.as_str())
            && (slice.is_empty() || report.slivers.iter().any(|sliver| sliver.slice == slice));
        let nodes = wanted.then(|| self.described(&caller, &report));
        Ok(Response::new(v1::ListNodesReply {
            nodes: nodes.into_iter().collect(),
            next_page_token: String::new(),
        }))
    }

    async fn get(&self, request: Request<v1::GetNodeRequest>) -> Result<Response<NodeDetail>, Status> {
        let caller = self.caller(&request).await?;
        Self::this_node(&caller, &request.get_ref().node)?;
        let text = format!("node {}", self.name);
        self.permit(&caller, Action::SeeNode, &caller.here.node(), &text)
            .await?;
        let report = self.report().await?;
        let mut holds = self.node.holds_here();
        holds.retain(|hold| caller.here.may_see(&caller.actor, hold));
        Ok(Response::new(NodeDetail {
            node: Some(self.described(&caller, &report)),
            reported_at_ms: now_ms(),
            report: Some(report),
            holds: fitting(holds.into_iter().map(v1::Hold::from), MAX_ROWS / 2),
        }))
    }

    async fn processes(
        &self,
        request: Request<v1::NodeProcessesRequest>,
    ) -> Result<Response<v1::ProcessesReply>, Status> {
        let caller = self.caller(&request).await?;
        let v1::NodeProcessesRequest { node, slice, limit } = request.into_inner();
        Self::this_node(&caller, &node)?;
        let (target, text) = match slice_field("slice", &slice)? {
            Some(slice) => (caller.here.sliver(&slice), format!("{slice} on {}", self.name)),
            None => (caller.here.node(), format!("node {}", self.name)),
        };
        self.permit(&caller, Action::SeeProcesses, &target, &text).await?;
        Slivers::processes(&*self.agent, Request::new(v1::ProcessesRequest { slice, limit })).await
    }

    async fn journal(
        &self,
        request: Request<v1::NodeJournalRequest>,
    ) -> Result<Response<Self::JournalStream>, Status> {
        let caller = self.caller(&request).await?;
        let v1::NodeJournalRequest { node, lines, unit } = request.into_inner();
        Self::this_node(&caller, &node)?;
        let text = format!("node {}", self.name);
        self.permit(&caller, Action::SeeJournal, &caller.here.node(), &text)
            .await?;
        Slivers::journal(&*self.agent, Request::new(v1::JournalRequest { lines, unit })).await
    }

    async fn enroll(&self, _: Request<v1::EnrollNodeRequest>) -> Result<Response<v1::NodeToken>, Status> {
        self.centre("enrol a node:")
    }

    async fn rekey(&self, _: Request<v1::RekeyNodeRequest>) -> Result<Response<v1::NodeToken>, Status> {
        self.centre("re-key a node:")
    }

    async fn revoke(
        &self,
        _: Request<v1::RevokeNodeRequest>,
    ) -> Result<Response<v1::RevokeNodeReply>, Status> {
        self.centre("revoke a node:")
    }
}

#[tonic::async_trait]
impl Slices for Desk {
    async fn list(
        &self,
        request: Request<v1::ListSlicesRequest>,
    ) -> Result<Response<v1::ListSlicesReply>, Status> {
        let caller = self.caller(&request).await?;
        let v1::ListSlicesRequest {
            page_size,
            page_token,
            site,
        } = request.into_inner();
        let report = self.report().await?;
        let here: BTreeSet<SliceName> = report
            .slivers
            .iter()
            .filter_map(|sliver| sliver.slice.parse().ok())
            .collect();
        let most = match page_size {
            0 => 100,
            size => size.min(1_000),
        };
        let mut slices: Vec<v1::Slice> = caller
            .snapshot
            .slices
            .union(&here)
            .filter(|name| name.as_str() > page_token.as_str())
            .filter(|name| site.is_empty() || name.site().as_str() == site)
            .filter(|name| sees_slice(&caller, name, here.contains(*name)))
            .take(most as usize + 1)
            .map(|name| self.slice(&caller, name, &report))
            .collect();
        let more = slices.len() > most as usize;
        slices.truncate(most as usize);
        let next_page_token = match slices.last() {
            Some(last) if more => last.name.clone(),
            _ => String::new(),
        };
        Ok(Response::new(v1::ListSlicesReply {
            slices,
            next_page_token,
        }))
    }

    async fn get(&self, request: Request<v1::GetSliceRequest>) -> Result<Response<v1::SliceDetail>, Status> {
        let caller = self.caller(&request).await?;
        let name: SliceName = request
            .get_ref()
            .name
            .parse()
            .map_err(|e| No::from(WireError::id("name")(e)))?;
        let report = self.report().await?;
        let slivers: Vec<_> = report
            .slivers
            .iter()
            .filter(|sliver| sliver.slice == name.as_str())
            .cloned()
            .collect();
        if !sees_slice(&caller, &name, !slivers.is_empty()) {
            let text = name.to_string();
            self.permit(&caller, Action::SeeSlice, &caller.here.sliver(&name), &text)
                .await?;
        }
        if slivers.is_empty() && !caller.snapshot.slices.contains(&name) {
            let why = format!("slice {name} is neither in this node's policy nor on it");
            return Err(No::NotFound(why).into());
        }
        let slivers = slivers.into_iter().map(|sliver| v1::SliverOnNode {
            node: self.node.id.to_string(),
            node_name: self.name.clone(),
            site: caller.here.site.to_string(),
            sliver: Some(sliver),
        });
        let holds = self.slice_holds(&caller, &name).into_iter().map(v1::Hold::from);
        Ok(Response::new(v1::SliceDetail {
            slice: Some(self.slice(&caller, &name, &report)),
            holds: fitting(holds, MAX_ROWS / 2),
            slivers: fitting(slivers, MAX_ROWS / 2),
        }))
    }

    async fn create(&self, _: Request<v1::CreateSliceRequest>) -> Result<Response<v1::Slice>, Status> {
        self.centre("register a slice:")
    }
}

#[tonic::async_trait]
impl People for Desk {
    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIReply>, Status> {
        let caller = self.caller(&request).await?;
        let grants = caller.actor.grants.iter().map(|grant| v1::Grant {
            role: v1::Role::from(grant.role()).into(),
            slice: grant.slice().map(ToString::to_string).unwrap_or_default(),
            site: grant.site().map(ToString::to_string).unwrap_or_default(),
        });
        Ok(Response::new(v1::WhoAmIReply {
            person: Some(v1::Person {
                name: caller.actor.name.to_string(),
                grants: grants.collect(),
                ..v1::Person::default()
            }),
            certificate_expires_at_ms: caller.expires_at_ms,
            version: Some(self.node.seen().into()),
            controller_version: String::new(),
            may: may(&caller.actor, OFFERED),
            alarms: Vec::new(),
        }))
    }

    async fn list(&self, _: Request<v1::ListPeopleRequest>) -> Result<Response<v1::ListPeopleReply>, Status> {
        self.centre("list people:")
    }

    async fn get(&self, _: Request<v1::GetPersonRequest>) -> Result<Response<v1::Person>, Status> {
        self.centre("show a person:")
    }

    async fn create(&self, _: Request<v1::CreatePersonRequest>) -> Result<Response<v1::Person>, Status> {
        self.centre("add a person:")
    }

    async fn grant(&self, _: Request<v1::GrantRequest>) -> Result<Response<v1::Person>, Status> {
        self.centre("give a role:")
    }

    async fn revoke(&self, _: Request<v1::RevokeRequest>) -> Result<Response<v1::Person>, Status> {
        self.centre("take a role away:")
    }
}

#[tonic::async_trait]
impl Sites for Desk {
    async fn list(&self, _: Request<v1::ListSitesRequest>) -> Result<Response<v1::ListSitesReply>, Status> {
        self.centre("list sites:")
    }

    async fn get(&self, _: Request<v1::GetSiteRequest>) -> Result<Response<v1::Site>, Status> {
        self.centre("show a site:")
    }

    async fn create(&self, _: Request<v1::CreateSiteRequest>) -> Result<Response<v1::Site>, Status> {
        self.centre("register a site:")
    }
}

/// Streams of entries.
pub(super) type Entries = ReceiverStream<Result<v1::AuditEntry, Status>>;
