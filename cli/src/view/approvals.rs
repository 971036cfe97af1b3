//! What waits for a second person.

use proto::v1;
use serde::Serialize;

use super::{hex, some, words};
use crate::when::Time;

words! {
    /// What has become of a proposal.
    State from proto::v1::ProposalState {
        Open = "waits for a second person",
        Expired = "expired",
        Withdrawn = "withdrawn",
        Approved = "approved, being carried out",
        Done = "done",
        Failed = "FAILED",
        Void = "void: the database was restored",
    }
}

/// A proposal.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Proposal {
    pub(crate) id: String,
    pub(crate) digest: String,
    pub(crate) person: String,
    pub(crate) action: String,
    pub(crate) what: String,
    pub(crate) reason: String,
    pub(crate) evidence: Option<String>,
    pub(crate) proposed_at: Time,
    pub(crate) expires_at: Time,
    pub(crate) state: State,
    pub(crate) approver: Option<String>,
    pub(crate) approved_at: Time,
    pub(crate) order: Option<String>,
    pub(crate) outcome: Option<String>,
    pub(crate) may_approve: Vec<String>,
    pub(crate) reach: Option<Reach>,
    /// The controller's clock.
    pub(crate) now: Time,
}

/// Whom it would reach now.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Reach {
    pub(crate) nodes: u32,
    pub(crate) attached: u32,
    pub(crate) slices: u32,
    pub(crate) no_way_back: u32,
    pub(crate) no_way_back_names: Vec<String>,
}

impl From<v1::Proposal> for Proposal {
    fn from(wire: v1::Proposal) -> Self {
        let v1::Proposal {
            id,
            digest,
            person,
            role: _,
            action,
            what,
            reason,
            evidence,
            proposed_at_ms,
            expires_at_ms,
            incarnation: _,
            state,
            approver,
            approved_at_ms,
            order,
            outcome,
            may_approve,
            reach,
            now_ms,
        } = wire;
        Self {
            id,
            digest: hex(&digest),
            person,
            action,
            what,
            reason,
            evidence: some(evidence),
            proposed_at: Time(proposed_at_ms),
            expires_at: Time(expires_at_ms),
            state: State::from_wire(state),
            approver: some(approver),
            approved_at: Time(approved_at_ms),
            order: some(order),
            outcome: some(outcome),
            may_approve,
            reach: reach.map(Reach::from),
            now: Time(now_ms),
        }
    }
}

impl From<v1::proposal::Reach> for Reach {
    fn from(wire: v1::proposal::Reach) -> Self {
        let v1::proposal::Reach {
            nodes,
            attached,
            slices,
            no_way_back,
            no_way_back_names,
        } = wire;
        Self {
            nodes,
            attached,
            slices,
            no_way_back,
            no_way_back_names,
        }
    }
}

impl Proposal {
    /// Nothing more can become of it.
    pub(crate) fn is_over(&self) -> bool {
        !matches!(self.state, State::Open | State::Approved | State::Unknown)
    }

    /// What the other person types.
    pub(crate) fn command(&self) -> String {
        format!("redbutton approve {} --digest {}", self.id, self.digest)
    }
}

/// `approvals ls`
#[derive(Debug, Serialize)]
pub(crate) struct Proposals {
    pub(crate) proposals: Vec<Proposal>,
}
