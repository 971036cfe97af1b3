//! What people see of nodes and slivers, put together from the last reports.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::v1::{self, NodeReport, SliverActivity};
use proto::{Scope, SiteName, SliceName};

use super::{Fleet, Member, direct};
use crate::error::Error;
use crate::orders::{NodeIndex, NodeRef};
use crate::store::NodeRecord;

/// A clock that is off by less than this is no trouble.
const WRONG_CLOCK_MS: u64 = 60_000;

impl Fleet {
    /// Sites on whose attached nodes a slice has processes.
    pub fn runs_at(&self, slice: &SliceName) -> BTreeSet<SiteName> {
        let state = self.lock();
        let mut sites = BTreeSet::new();
        for (node, member) in state
            .nodes
            .iter()
            .zip(state.roster.iter().map(|(_, member)| member))
        {
            if node.slot.is_some() && node.facts.running().any(|fact| fact.slice == *slice) {
                sites.insert(member.site.clone());
            }
        }
        sites
    }

    /// On how many attached nodes a slice has running processes, and on how many frozen ones.
    pub fn activity(&self, slice: &SliceName) -> (u32, u32) {
        let state = self.lock();
        let (mut running, mut frozen) = (0, 0);
        for node in state.nodes.iter().filter(|node| node.slot.is_some()) {
            let mut of_slice = node
                .facts
                .running()
                .filter(|fact| fact.slice == *slice)
                .peekable();
            if of_slice.peek().is_none() {
                continue;
            }
            if of_slice.all(|fact| fact.activity == SliverActivity::Frozen) {
                frozen += 1;
            } else {
                running += 1;
            }
        }
        (running, frozen)
    }

    /// Nodes, also away, on which one of these slices (sorted) had a sliver last.
    pub fn running(&self, slices: &[SliceName]) -> Vec<proto::NodeId> {
        let state = self.lock();
        let known = state
            .nodes
            .iter()
            .zip(state.roster.iter().map(|(_, member)| member));
        known
            .filter(|(node, _)| {
                let ours = |fact: &super::facts::SliverFact| slices.binary_search(&fact.slice).is_ok();
                node.facts.slivers.iter().any(ours)
            })
            .map(|(_, member)| member.id)
            .collect()
    }

    /// Whom an order for everything would reach now.
    pub(crate) fn reach_of_everything(&self) -> v1::proposal::Reach {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let state = self.lock();
        let attached = || state.nodes.iter().filter(|node| node.slot.is_some());
        let slices: BTreeSet<&SliceName> = attached()
            .flat_map(|node| node.facts.running())
            .map(|fact| &fact.slice)
            .collect();
        v1::proposal::Reach {
            nodes: count(state.nodes.len()),
            attached: count(attached().count()),
            slices: count(slices.len()),
            no_way_back: 0,
            no_way_back_names: Vec::new(),
        }
    }

    /// The slivers of a slice on attached nodes, as last reported.
    pub fn slivers(&self, slice: &SliceName) -> Vec<(Arc<Member>, v1::SliverState)> {
        let reports: Vec<(Arc<Member>, Option<NodeReport>)> = {
            let state = self.lock();
            let known = state
                .nodes
                .iter()
                .zip(state.roster.iter().map(|(_, member)| member));
            known
                .filter(|(node, _)| {
                    node.slot.is_some() && node.facts.slivers.iter().any(|fact| fact.slice == *slice)
                })
                .map(|(node, member)| (member.clone(), node.facts.report()))
                .collect()
        };
        let of_slice = |(member, report): (Arc<Member>, Option<NodeReport>)| {
            let slivers = report.map(|report| report.slivers).unwrap_or_default();
            slivers.into_iter().map(move |sliver| (member.clone(), sliver))
        };
        reports
            .into_iter()
            .flat_map(of_slice)
            .filter(|(_, sliver)| sliver.slice == slice.as_str())
            .collect()
    }

    /// The last report since the start, and when it came.
    pub fn last_report(&self, index: NodeIndex) -> Option<(NodeReport, i64)> {
        let state = self.lock();
        let facts = &state.node(index)?.facts;
        Some((facts.report()?, facts.reported_at_ms?))
    }

    /// Where these holds do not hold, on one node or on all.
    pub fn exemptions(&self, holds: &[proto::Hold], on: Option<proto::NodeId>) -> Vec<v1::Exemption> {
        let state = self.lock();
        let wanted = |exemption: &&crate::store::Exemption| {
            on.is_none_or(|node| exemption.node == node) && holds.iter().any(|hold| hold.id == exemption.hold)
        };
        let tell = |exemption: &crate::store::Exemption| {
            let member = state.roster.index(exemption.node);
            let member = member.and_then(|index| state.roster.get(index));
            v1::Exemption {
                hold: exemption.hold.to_string(),
                node: exemption.node.to_string(),
                node_name: member.map(|member| member.name.to_string()).unwrap_or_default(),
                person: exemption.person.to_string(),
                role: v1::Role::from(exemption.role).into(),
                at_ms: exemption.at_ms,
            }
        };
        state.exempt.values().filter(wanted).map(tell).collect()
    }

    /// A node in one line.
    pub fn describe(&self, record: &NodeRecord) -> v1::Node {
        let mut node = v1::Node {
            id: record.id.to_string(),
            name: record.name.to_string(),
            site: record.site.to_string(),
            last_seen_ms: record.last_seen_ms.unwrap_or(0),
            boot_id: record.boot_id.map(String::from).unwrap_or_default(),
            quarantined: record.quarantined.is_some(),
            revoked_at_ms: record.revoked_at_ms.unwrap_or(0),
            ..v1::Node::default()
        };
        let index = self.lock().roster.index(record.id);
        let witnessed = index
            .map(|index| self.kept_by(index).trouble())
            .unwrap_or_default();
        let state = self.lock();
        let on_itself = |hold: &&proto::Hold| hold.slice.is_none() && hold.scope == Scope::Node(record.id);
        node.holds = u32::try_from(state.holds.values().filter(on_itself).count()).unwrap_or(u32::MAX);
        let Some(now) = state.roster.index(record.id).and_then(|index| state.node(index)) else {
            return node;
        };
        node.attached = now.slot.is_some();
        node.clock_skew_ms = now.facts.clock_skew_ms;
        if let Some(slot) = &now.slot {
            node.certificate_expires_at_ms = slot.credential.expires_ms;
        }
        node.quarantined |= now.quarantined;
        if let Some(seen) = now.facts.last_seen_ms {
            node.last_seen_ms = node.last_seen_ms.max(seen);
        }
        if let Some(boot) = now.facts.boot {
            node.boot_id = boot.to_string();
        }
        let mut trouble = standing(&node, record);
        if let Some(report) = now.facts.report() {
            node.slivers = Some(u32::try_from(report.slivers.len()).unwrap_or(u32::MAX));
            node.load_one = report.load.map(|load| load.one);
            node.kernel = report.kernel;
            node.agent_version = report.agent_version;
            node.policy_issued_at_ms = report.policy_issued_at_ms;
            let from = now.slot.as_ref().map(|slot| slot.link.peer().address.ip());
            node.direct_address = direct::address(&report.direct_address, from, &record.name);
            if !report.locked.is_empty() {
                trouble.push(format!("locked: {}", report.locked));
            }
            match report.refused.len() {
                0 => {}
                count => trouble.push(format!("{count} adopted cgroups refused")),
            }
        }
        if !now.facts.refusal.is_empty() {
            trouble.push(format!("does not take its holds: {}", now.facts.refusal));
        }
        if let [first, rest @ ..] = &*now.facts.strange_holds {
            let more = if rest.is_empty() {
                String::new()
            } else {
                format!(" and {} more", rest.len())
            };
            trouble.push(format!("holds that the controller does not know: {first}{more}"));
        }
        if !witnessed.is_empty() {
            trouble.push(witnessed);
        }
        let standing = |exemption: &&crate::store::Exemption| {
            exemption.node == record.id && state.holds.contains_key(&exemption.hold)
        };
        let mut exempt = state.exempt.values().filter(standing);
        if let Some(first) = exempt.next() {
            let more = match exempt.count() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            trouble.push(format!(
                "released here alone: hold {} by {} ({}){more}",
                first.hold, first.person, first.role
            ));
        }
        node.trouble = trouble.join("; ");
        node
    }

    /// The link of a node.
    ///
    /// # Errors
    /// Says since when it is away.
    pub fn link_to(&self, index: NodeIndex, node: &NodeRef) -> Result<link::Link, Error> {
        let state = self.lock();
        let now = state.node(index);
        if let Some(slot) = now.and_then(|now| now.slot.as_ref()) {
            return Ok(slot.link.clone());
        }
        let seen = match now.and_then(|now| now.facts.last_seen_ms) {
            None => "it was never seen".to_owned(),
            Some(at) => format!("last seen {} s ago", super::now_ms().saturating_sub(at) / 1_000),
        };
        Err(Error::Unreachable(format!("node {node} is not attached: {seen}")))
    }
}

/// What stands against the node, by its keys and its clock.
fn standing(node: &v1::Node, record: &NodeRecord) -> Vec<String> {
    let mut trouble = Vec::new();
    if node.revoked_at_ms != 0 {
        trouble.push("revoked: shut out until redbutton node rekey".to_owned());
    }
    if node.quarantined {
        let why = record
            .quarantined
            .as_ref()
            .map_or("two machines share its key", |q| &q.why);
        trouble.push(format!(
            "quarantined, its answers prove nothing until redbutton node rekey: {why}"
        ));
    }
    if let Some(skew) = node
        .clock_skew_ms
        .filter(|skew| skew.unsigned_abs() >= WRONG_CLOCK_MS)
    {
        let way = if skew > 0 { "ahead" } else { "behind" };
        trouble.push(format!("its clock is {} s {way}", skew.unsigned_abs() / 1_000));
    }
    trouble
}
