//! What the agent has to do with the policy: it keeps what the controller sends, and reports what the node decides by.

use std::net::SocketAddr;
use std::sync::Arc;

use proto::v1::{Assurance, Capability, NodeReport, SignedStatement};
use tokio::sync::watch;

use crate::engine::Node;
use crate::policy::Policy;
use crate::worker::Worker;

/// Where the node listens for people.
#[derive(Debug, Clone)]
pub struct Listening {
    /// As it is; `None`: nowhere.
    pub now: watch::Receiver<Option<SocketAddr>>,
    /// `HOST:PORT` to tell instead, where it is reached by another.
    pub told: Option<String>,
}

impl Listening {
    /// As the report says it: `HOST:PORT`, or `:PORT` on every address of this machine; empty: nowhere.
    fn text(&self) -> String {
        match (*self.now.borrow(), &self.told) {
            (None, _) => String::new(),
            (Some(_), Some(told)) => told.clone(),
            (Some(address), None) if address.ip().is_unspecified() => format!(":{}", address.port()),
            (Some(address), None) => address.to_string(),
        }
    }
}

/// The policy, as the agent sees it.
#[derive(Debug, Clone)]
pub(crate) struct Guided {
    policy: Arc<Policy>,
    keeper: Worker,
    listening: Listening,
}

impl Guided {
    pub(crate) fn new(policy: Arc<Policy>, listening: Listening) -> std::io::Result<Self> {
        Ok(Self {
            policy,
            keeper: Worker::start("policy")?,
            listening,
        })
    }

    /// Checks and keeps a snapshot, beside the orders; the next report says what came of it.
    pub(crate) fn keep(&self, node: &Arc<Node>, statement: SignedStatement) {
        let (policy, node) = (self.policy.clone(), node.clone());
        let begun = self.keeper.begin(move || {
            match policy.take(&statement) {
                Ok(snapshot) => {
                    tracing::info!(version = %snapshot.version, people = snapshot.people.len(), "policy");
                }
                Err(error) => tracing::error!(%error, "policy"),
            }
            node.touch();
        });
        if begun.is_err() {
            // The report says which one stands, and the controller sends it again.
            tracing::warn!("too many policies at once");
        }
    }

    /// Adds to a report what the node decides by.
    pub(crate) fn tell(&self, mut report: NodeReport) -> NodeReport {
        let snapshot = self.policy.current();
        let trouble = self.policy.trouble();
        let (assurance, reason) = match &snapshot {
            Some(_) if trouble.is_empty() => {
                (Assurance::Exact, "people are judged here as at the centre".into())
            }
            Some(_) => (Assurance::Bounded, trouble),
            None if trouble.is_empty() => (
                Assurance::NotEnforced,
                "none was sent: nobody may act directly".into(),
            ),
            None => (
                Assurance::NotEnforced,
                format!("nobody may act directly: {trouble}"),
            ),
        };
        report.capabilities.push(Capability {
            name: proto::POLICY_CAPABILITY.into(),
            assurance: assurance.into(),
            reason,
        });
        NodeReport {
            policy_issued_at_ms: snapshot.as_ref().map_or(0, |snapshot| snapshot.issued_at_ms),
            policy_version: snapshot.map(|snapshot| snapshot.version.into()),
            direct_address: self.listening.text(),
            ..report
        }
    }
}
