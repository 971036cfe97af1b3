//! What the fleet shows of a node to a rollout: whether it is attached, what runs there, and whether it is well.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use link::Link;
use proto::NodeId;
use proto::v1::SliverActivity;

use super::{Fleet, now_ms};
use crate::approvals::Terms;
use crate::error::Error;
use crate::rollout::{Look, Plan, Rollouts, Seen, Start};
use crate::store::{About, Note, ProposalRecord};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(32).map(|b| format!("{b:02x}")).collect()
}

impl Fleet {
    /// The link of a node, if it has one.
    pub(crate) fn link_of(&self, node: NodeId) -> Option<Link> {
        let state = self.lock();
        let now = state.node(state.roster.index(node)?)?;
        now.slot.as_ref().map(|slot| slot.link.clone())
    }

    /// Every node with its site.
    pub(crate) fn everybody(&self) -> Vec<(NodeId, proto::SiteName)> {
        let state = self.lock();
        state
            .roster
            .iter()
            .map(|(_, member)| (member.id, member.site.clone()))
            .collect()
    }

    /// The name of a node.
    pub(crate) fn name_of(&self, node: NodeId) -> Option<proto::NodeName> {
        let state = self.lock();
        let index = state.roster.index(node)?;
        state.roster.get(index).map(|member| member.name.clone())
    }
}

impl Look for Fleet {
    fn attached(&self, node: NodeId) -> bool {
        let state = self.lock();
        state
            .roster
            .index(node)
            .is_some_and(|index| state.is_attached(index))
    }

    fn seen(&self, node: NodeId) -> Option<Seen> {
        let state = self.lock();
        let index = state.roster.index(node)?;
        let (now, member) = (state.node(index)?, state.roster.get(index)?);
        now.slot.as_ref()?;
        let report = now.facts.report()?;
        let reaching = || {
            state
                .holds
                .values()
                .filter(|hold| hold.reaches(member.id, &member.site))
        };
        let all_held = reaching().any(|hold| hold.slice.is_none());
        let able = report.software.is_some();
        let software = report.software.unwrap_or_default();
        Some(Seen {
            able,
            sha256: hex(&software.sha256),
            architecture: software.architecture,
            attempt: software.attempt,
            left: (hex(&software.left_sha256), software.left_why),
            refused: software.refused,
            locked: report.locked,
            holds: report.holds.iter().filter_map(|id| id.parse().ok()).collect(),
            running: report
                .slivers
                .iter()
                .filter(|sliver| {
                    matches!(
                        sliver.activity(),
                        SliverActivity::Running | SliverActivity::Frozen
                    )
                })
                .filter_map(|sliver| sliver.slice.parse().ok())
                .collect(),
            standing: reaching().map(|hold| hold.id).collect::<BTreeSet<_>>(),
            held: (!all_held).then(|| reaching().filter_map(|hold| hold.slice.clone()).collect()),
        })
    }
}

impl Fleet {
    /// Who carries rollouts out. Said once, at the start.
    pub(crate) fn set_rollouts(&self, rollouts: &Arc<Rollouts>) {
        // A second time would be a bug of the start, and change nothing.
        let _ = self.rollouts.set(Arc::downgrade(rollouts));
    }

    pub(super) fn rollouts(&self) -> Result<Arc<Rollouts>, Error> {
        self.rollouts
            .get()
            .and_then(Weak::upgrade)
            .ok_or_else(|| Error::Internal("rollouts are not served".into()))
    }

    /// Starts the rollout that two people agreed to; once, however often it is asked for.
    pub(super) async fn roll_out(
        &self,
        record: &ProposalRecord,
        version: &str,
        sha256: &[String],
        plan: &Plan,
    ) -> Result<String, Error> {
        let Terms {
            id, person, reason, ..
        } = &record.terms;
        let start = Start {
            person: person.clone(),
            // No client's key has a blank in it.
            key: format!("proposal {id}"),
            reason: reason.clone(),
            plan: plan.clone(),
            sha256: sha256.to_vec(),
        };
        let approver = record
            .approved
            .as_ref()
            .map_or_else(String::new, |approval| approval.by.to_string());
        let note = Note {
            draft: audit::Draft {
                at_ms: now_ms(),
                version: self.now(),
                person: Some(person.clone()),
                role: Some(record.terms.role),
                action: authz::Action::RollOut.as_str().into(),
                target: format!("version {version}: {}", sha256.join(" ")),
                reason: reason.clone(),
                evidence: String::new(),
                outcome: audit::Outcome::Allowed,
                detail: format!("proposal {id}, approved by {approver}, digest {}", record.digest),
                order: None,
            },
            about: About::default(),
        };
        let rollout = self.rollouts()?.begin(start, note).await?;
        Ok(format!("rollout {rollout} of version {version}"))
    }
}
