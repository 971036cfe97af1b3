//! What waits for a second person, as the store keeps it. The rules are `approvals`'.

use async_trait::async_trait;
use proto::{OrderId, PersonName, ProposalId};

use super::{Note, Result};
use crate::approvals::{Digest, Life, Terms};

/// A proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposalRecord {
    /// What is proposed.
    pub terms: Terms,
    /// Chosen by the client; unique for the person.
    pub key: String,
    /// Of the terms, when they were proposed.
    pub digest: Digest,
    /// The controller's, over the terms.
    pub signature: Vec<u8>,
    /// `Open`, `Withdrawn`, `Approved`, `Done` or `Failed`; the rest follows.
    pub life: Life,
    /// Who agreed.
    pub approved: Option<Approval>,
    /// The order that came of it.
    pub order: Option<OrderId>,
    /// What came of it; who withdrew it and why.
    pub outcome: String,
}

/// That a second person agreed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Who.
    pub by: PersonName,
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// The controller's, over [`crate::approvals::approval_bytes`].
    pub signature: Vec<u8>,
}

/// What came of proposing.
#[derive(Debug, Clone)]
pub enum Proposed {
    /// It is durable now.
    Created(ProposalRecord),
    /// This person used this key before, for this. Nothing was written.
    Existing(ProposalRecord),
}

/// The part of [`super::Store`] that two people need. Each change carries its audit entry in the same transaction.
#[async_trait]
pub trait ProposalStore: Send + Sync {
    /// Makes a proposal durable. The same key from the same person is the same proposal.
    async fn propose(&self, proposal: &ProposalRecord, note: Note) -> Result<Proposed>;
    /// One proposal. [`super::StoreError::NotFound`].
    async fn proposal(&self, id: ProposalId) -> Result<ProposalRecord>;
    /// What this key of this person came to, if it was used for a proposal.
    async fn proposal_by_key(&self, person: &PersonName, key: &str) -> Result<Option<ProposalRecord>>;
    /// The newest, newest first; `unfinished`: only those that wait or are being carried out.
    async fn proposals(&self, unfinished: bool, limit: u32) -> Result<Vec<ProposalRecord>>;
    /// From open to approved. False, and nothing written, when it is not open (any more).
    async fn approve_proposal(&self, id: ProposalId, approval: &Approval, note: Note) -> Result<bool>;
    /// From open to withdrawn, likewise.
    async fn withdraw_proposal(&self, id: ProposalId, outcome: &str, note: Note) -> Result<bool>;
    /// From approved to done or failed, likewise. An order that was committed has its own audit entry: no note.
    async fn finish_proposal(
        &self,
        id: ProposalId,
        done: bool,
        order: Option<OrderId>,
        outcome: &str,
        note: Option<Note>,
    ) -> Result<bool>;
    /// Since when a person has been support without interruption; `None`: is not.
    async fn support_since(&self, person: &PersonName) -> Result<Option<i64>>;
    /// Everybody who is support, by name.
    async fn supporters(&self) -> Result<Vec<PersonName>>;
}

impl From<super::Tie> for crate::approvals::Tie {
    fn from(tie: super::Tie) -> Self {
        let super::Tie {
            person,
            by,
            kind,
            at_ms,
        } = tie;
        Self {
            by,
            to: person,
            what: kind.as_str().to_owned(),
            at_ms,
        }
    }
}
