//! The life of one link.
//!
//! ```text
//! who? ─▶ Report (deadline) ─▶ one step under the lock: registered, owed orders, holds ─▶ Obey ─▶ Watch
//!                                                                                       │
//!                              answers ─▶ recorder,  reports ─▶ facts  ◀────────────────┘ until the link ends
//! ```
//! An answer counts for the node of the certificate, whatever it says of itself.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream;
use http::uri::PathAndQuery;
use link::{Accepted, Ended, Link};
use prost::Message;
use proto::v1::slivers_client::SliversClient;
use proto::v1::{Answer, NodeReport, Outcome, ReportRequest, WatchNodeRequest, Witnessed};
use proto::{BootId, DaemonRole, HoldId, Identity, NodeId, OrderId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::client::Grpc;
use tonic::{Request, Status, Streaming};
use trust::Spki;

use super::facts::{self, ReportError};
use super::frames::{Lean, Outgoing};
use super::keys::{self, Credential};
use super::merge::Merged;
use super::recorder::Item;
use super::state::NewLink;
use super::{Fleet, Member, now_ms};
use crate::orders::{NodeIndex, NodeRef};
use crate::store::NodeSeen;

/// Presses that a link may be behind before it counts as stuck. A node that only has not been scheduled yet is
/// not stuck, however quick the fingers of support.
const COMMANDS: usize = 256;
/// Bytes of an answer that are kept; evidence goes first.
const MAX_ANSWER: usize = 64 << 10;
/// Characters of an answer's detail.
const MAX_DETAIL: usize = 1_000;
/// Bytes of a node's refusal that are shown.
const MAX_REFUSAL: usize = 300;
/// Unknown holds of a node that are shown.
const MAX_STRANGE: usize = 64;

/// Why a link came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttachError {
    #[error("{0} is no node manager")]
    Role(Identity),
    #[error("node {0} is not enrolled")]
    Unknown(NodeId),
    #[error("key {0} is not enrolled here: a token for it comes from redbutton node rekey")]
    KeyUnknown(Spki),
    #[error("key {0} is another node's, {1}")]
    KeyOf(Spki, NodeId),
    #[error("key {0} was revoked: a token for a new one comes from redbutton node rekey")]
    KeyRevoked(Spki),
    #[error(transparent)]
    Link(#[from] link::AttachError),
    #[error("{step} failed: {status}")]
    Call { step: &'static str, status: Status },
    #[error("{step} took longer than {after:?}")]
    Deadline { step: &'static str, after: Duration },
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error("cannot look up what the node reported")]
    Store(#[from] crate::store::StoreError),
}

/// Ends with the link.
type Closed = Pin<Box<dyn Future<Output = Ended> + Send>>;

/// A link with its streams.
struct Attached {
    index: NodeIndex,
    node: NodeId,
    boot: BootId,
    generation: u64,
    answers: Streaming<Answer>,
    reports: Streaming<NodeReport>,
    closed: Option<Closed>,
}

/// What is to be done about a message.
enum Next {
    Wait,
    Record(Item),
    Synced(Box<Answer>),
    Witnessed(Box<Witnessed>),
    Over,
}

impl Fleet {
    /// Takes a connection from the daemons' port and keeps it to its end, or to the controller's (`cut`).
    ///
    /// One such task lives for each node, so it is small: what attaching takes is in a box that goes with it.
    pub fn attend(
        self: Arc<Self>,
        accepted: Accepted,
        cut: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let number = 1 + self.accepted.fetch_add(1, Ordering::Relaxed);
        let attaching = Box::pin(self.clone().attach(accepted, number));
        async move {
            let Some(Some(mut attached)) = cut.run_until_cancelled(attaching).await else {
                return;
            };
            let closed = attached.closed.take();
            let ended = async {
                match closed {
                    Some(closed) => closed.await,
                    None => std::future::pending().await,
                }
            };
            let node = attached.node;
            tokio::select! {
                () = cut.cancelled() => {}
                ended = ended => tracing::debug!(%node, %ended, "link ended"),
                () = self.read(&mut attached) => {}
            }
            let Attached {
                index, generation, ..
            } = *attached;
            self.detach(index, node, generation).await;
        }
    }

    async fn attach(self: Arc<Self>, accepted: Accepted, number: u64) -> Option<Box<Attached>> {
        let peer = accepted.peer().clone();
        if peer.expired || matches!(peer.identity, Identity::Invite(_)) {
            self.hand_out(accepted).await;
            return None;
        }
        match self.try_attach(accepted, number).await {
            Ok(attached) => {
                tracing::debug!(node = %peer.identity, address = %peer.address, "attached");
                Some(attached)
            }
            Err(error) => {
                tracing::warn!(node = %peer.identity, address = %peer.address, %error, "not attached");
                None
            }
        }
    }

    async fn try_attach(&self, accepted: Accepted, number: u64) -> Result<Box<Attached>, AttachError> {
        let id = match &accepted.peer().identity {
            Identity::Daemon(id, DaemonRole::NodeManager) => *id,
            other => return Err(AttachError::Role(other.clone())),
        };
        let Some((index, member)) = self.find_fresh(&NodeRef::Id(id)).await else {
            return Err(AttachError::Unknown(id));
        };
        let admitted = self.admit_key(accepted.peer(), id).await;
        let link = link::attach(accepted, self.config.link).await?;
        if let Err(error) = admitted {
            keys::refuse(&link, &error.to_string()).await;
            link.cut();
            return Err(error);
        }
        let attached = self.introduce(index, &member, &link, number).await;
        if attached.is_err() {
            link.cut();
        }
        attached
    }

    /// A call with a deadline: the link has none of its own.
    async fn within<T>(
        &self,
        step: &'static str,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, AttachError> {
        let after = self.config.attach_deadline;
        match tokio::time::timeout(after, call).await {
            Ok(done) => done.map_err(|status| AttachError::Call { step, status }),
            Err(_) => Err(AttachError::Deadline { step, after }),
        }
    }

    async fn introduce(
        &self,
        index: NodeIndex,
        member: &Member,
        link: &Link,
        number: u64,
    ) -> Result<Box<Attached>, AttachError> {
        let mut client = SliversClient::with_origin(link.clone(), Link::origin())
            .max_decoding_message_size(proto::MAX_MESSAGE_BYTES);
        let report = self
            .within("Report", client.report(ReportRequest {}))
            .await?
            .into_inner();
        let mut checked = facts::check(report, member.id)?;
        let witnessed = checked.witnessed.take();
        let (released, strange) = self.sort_out(&checked.holds).await?;
        let Merged { mut news, strange } = self.merge(index, member, link, &checked, strange).await;
        news.released.extend(released);
        news.tombstones = self.store.releases_among(&news.released).await?;
        if !strange.is_empty() {
            tracing::warn!(node = %member.name, holds = ?strange, "holds that the controller does not know: they stand");
        }

        let (commands, pressed) = mpsc::channel(COMMANDS);
        let at_ms = now_ms();
        let owed = {
            let mut state = self.lock();
            let Some(node) = state.node_mut(index) else {
                return Err(AttachError::Unknown(member.id));
            };
            let twin = node.facts.meet(&checked, number, at_ms);
            node.facts.strange_holds = strange.into_iter().take(MAX_STRANGE).collect();
            // Before anything is owed: a reboot is not proven by the other machine.
            let found = twin.filter(|_| !node.quarantined);
            let doubt = node.quarantined;
            node.quarantined |= found.is_some();
            let new = NewLink {
                commands,
                link: link.clone(),
                credential: Credential::new(link.peer(), member.id, self.issuing.life),
            };
            let head = self.head_frame(state.now);
            let first = new.commands.clone();
            let owed = state.attach(index, checked.boot, news, new, at_ms);
            // After the sync, which goes before anything in the channel.
            if let Some(head) = head {
                let _ = first.try_send(head);
            }
            if let Some(node) = state.node_mut(index) {
                node.quarantined = doubt;
            }
            (owed, found)
        };
        let (owed, twin) = owed;
        if let Some(twin) = twin {
            let why = format!(
                "boots {} and {twin} take turns under one key: two machines, a cloned disk or a stolen key",
                checked.boot
            );
            self.quarantine(index, why).await;
        }
        let Some(owed) = owed else {
            return Err(AttachError::Unknown(member.id));
        };
        if let Some(old) = owed.replaced {
            old.link.cut();
        }
        for verdict in owed.verdicts {
            self.hand_over(Item::Verdict(Box::new(verdict))).await;
        }
        let generation = owed.generation;
        let streams = self.open_streams(link, Outgoing::new(owed.batch, pressed)).await;
        let (answers, reports) = match streams {
            Ok(streams) => streams,
            Err(error) => {
                self.lock().detach(index, generation);
                return Err(error);
            }
        };
        let report = Some(checked.report.encode_to_vec());
        let seen = NodeSeen {
            node: member.id,
            at_ms,
            boot_id: Some(checked.boot),
            report,
        };
        self.saw(seen).await;
        if let Some(witnessed) = witnessed.filter(|witnessed| self.is_news(index, witnessed)) {
            Box::pin(self.heed(index, member.id, &member.name, witnessed)).await;
        }
        // Only the registry holds the link from here on.
        let closed = Some(Box::pin(link.closed()) as Closed);
        Ok(Box::new(Attached {
            index,
            node: member.id,
            boot: checked.boot,
            generation,
            answers,
            reports,
            closed,
        }))
    }

    /// Which of the reported holds were released meanwhile, and which nobody here knows.
    async fn sort_out(&self, reported: &[HoldId]) -> Result<(Vec<HoldId>, Vec<HoldId>), AttachError> {
        let mut unwritten = Vec::new();
        let mut others: Vec<HoldId> = {
            let state = self.lock();
            let others: Vec<HoldId> = reported
                .iter()
                .copied()
                .filter(|id| !state.holds.contains_key(id))
                .collect();
            if !others.is_empty() {
                // Set and released while the disk took nothing: the store knows neither.
                let open = state.book.values().filter(|open| !open.stored);
                unwritten.extend(open.flat_map(|open| open.record.holds.iter().map(|hold| hold.id)));
            }
            others
        };
        if others.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        others.sort_unstable();
        others.dedup();
        let mut released = self.store.released_among(&others).await?;
        let known = self.store.known_among(&others).await?;
        released.extend(
            others
                .iter()
                .filter(|id| unwritten.contains(id) && !known.contains(id)),
        );
        others.retain(|id| !known.contains(id) && !unwritten.contains(id));
        Ok((released, others))
    }

    async fn open_streams(
        &self,
        link: &Link,
        outgoing: Outgoing,
    ) -> Result<(Streaming<Answer>, Streaming<NodeReport>), AttachError> {
        let mut grpc = Grpc::with_origin(link.clone(), Link::origin())
            .max_decoding_message_size(proto::MAX_MESSAGE_BYTES);
        let path = PathAndQuery::from_static("/redbutton.v1.Slivers/Obey");
        let obey = grpc.streaming(Request::new(outgoing), path, Lean::<Answer>::default());
        let answers = self.within("Obey", obey).await?.into_inner();
        let interval_ms = u32::try_from(self.config.report_interval.as_millis()).unwrap_or(u32::MAX);
        let request = bytes::Bytes::from(WatchNodeRequest { interval_ms }.encode_to_vec());
        let path = PathAndQuery::from_static("/redbutton.v1.Slivers/Watch");
        let once = stream::once(std::future::ready(request));
        let watch = grpc.streaming(Request::new(once), path, Lean::<NodeReport>::default());
        let reports = self.within("Watch", watch).await?.into_inner();
        Ok((answers, reports))
    }

    /// Reads answers and reports until one of the streams ends.
    async fn read(&self, attached: &mut Attached) {
        let Attached {
            index,
            node,
            boot,
            answers,
            reports,
            ..
        } = attached;
        let (index, node, boot) = (*index, *node, *boot);
        let mut first_sync = true;
        loop {
            // Decided without waiting, so that no message lies in this task while it waits.
            let next = tokio::select! {
                biased;
                answer = answers.message() => Self::heard(index, node, answer),
                report = reports.message() => self.reported(index, node, boot, report),
            };
            match next {
                Next::Wait => {}
                Next::Record(item) => self.hand_over(item).await,
                Next::Synced(answer) => {
                    let first = std::mem::take(&mut first_sync);
                    Box::pin(self.synced(index, node, &answer, first)).await;
                }
                Next::Witnessed(witnessed) => {
                    let name = self.lock().roster.get(index).map(|member| member.name.clone());
                    if let Some(name) = name {
                        Box::pin(self.heed(index, node, &name, *witnessed)).await;
                    }
                }
                Next::Over => return,
            }
        }
    }

    fn heard(index: NodeIndex, node: NodeId, answer: Result<Option<Answer>, Status>) -> Next {
        let mut answer = match answer {
            Ok(Some(answer)) => Box::new(answer),
            Ok(None) => {
                tracing::debug!(%node, "Obey ended");
                return Next::Over;
            }
            Err(status) => {
                tracing::debug!(%node, %status, "Obey failed");
                return Next::Over;
            }
        };
        if answer.order.is_empty() {
            return Next::Synced(answer);
        }
        match answer.order.parse::<OrderId>() {
            Ok(order) => {
                bound(&mut answer);
                Next::Record(Item::Heard {
                    node: index,
                    order,
                    answer,
                    at_ms: now_ms(),
                })
            }
            Err(_) => {
                tracing::debug!(%node, "answer to no order");
                Next::Wait
            }
        }
    }

    /// A report that cannot be this node's ends the link: it is not worth keeping.
    fn reported(
        &self,
        index: NodeIndex,
        node: NodeId,
        boot: BootId,
        report: Result<Option<NodeReport>, Status>,
    ) -> Next {
        match report {
            Ok(Some(report)) => match facts::check(report, node) {
                // A link does not outlive its machine's boot.
                Ok(checked) if checked.boot != boot => {
                    tracing::warn!(%node, was = %boot, is = %checked.boot, "link closed: another boot speaks on it");
                }
                Ok(mut checked) => {
                    let witnessed = checked.witnessed.take();
                    if let Some(known) = self.lock().node_mut(index) {
                        known.facts.learn(&checked, now_ms());
                    }
                    return match witnessed.filter(|witnessed| self.is_news(index, witnessed)) {
                        Some(witnessed) => Next::Witnessed(Box::new(witnessed)),
                        None => Next::Wait,
                    };
                }
                Err(error) => tracing::warn!(%node, %error, "link closed"),
            },
            Ok(None) => tracing::debug!(%node, "Watch ended"),
            Err(status) => tracing::debug!(%node, %status, "Watch failed"),
        }
        Next::Over
    }

    /// The node says what holds on it now.
    async fn synced(&self, index: NodeIndex, node: NodeId, answer: &Answer, first: bool) {
        let holds: Vec<HoldId> = answer
            .holds
            .iter()
            .take(4_096)
            .filter_map(|id| id.parse().ok())
            .collect();
        let strange = match self.sort_out(&holds).await {
            Ok((_, strange)) => strange,
            Err(error) => return tracing::warn!(%node, %error, "cannot look up the node's holds"),
        };
        if first && !strange.is_empty() {
            self.note(strange_note(node, self.site_of(node), &strange, self.now()))
                .await;
        }
        let mut refusal = String::new();
        if answer.outcome() == Outcome::Failed {
            tracing::warn!(%node, detail = %answer.detail, "the node does not take its holds");
            refusal.clone_from(&answer.detail);
            facts::cut(&mut refusal, MAX_REFUSAL);
        }
        if let Some(known) = self.lock().node_mut(index) {
            known.facts.strange_holds = strange.into_iter().take(MAX_STRANGE).collect();
            known.facts.refusal = refusal.into();
        }
    }

    async fn detach(&self, index: NodeIndex, node: NodeId, generation: u64) {
        let report = {
            let mut state = self.lock();
            if !state.detach(index, generation) {
                // A newer link has taken its place.
                return;
            }
            state
                .node(index)
                .map(|known| known.facts.report.to_vec())
                .filter(|report| !report.is_empty())
        };
        let seen = NodeSeen {
            node,
            at_ms: now_ms(),
            boot_id: None,
            report,
        };
        self.saw(seen).await;
    }

    /// Notes where a node was seen. Waits when that is behind, which holds up this link alone.
    async fn saw(&self, seen: NodeSeen) {
        let _ = self.sightings.send(seen).await;
    }

    /// To the recorder. Waits when it is behind, which holds up this link alone; after the end nobody records.
    async fn hand_over(&self, item: Item) {
        let _ = self.items.send(item).await;
    }
}

/// Cuts an answer to what is kept of it: evidence goes first, then the slivers.
fn bound(answer: &mut Answer) {
    if answer.detail.chars().nth(MAX_DETAIL).is_some() {
        answer.detail = answer.detail.chars().take(MAX_DETAIL).collect();
    }
    answer.holds.clear();
    if answer.encoded_len() <= MAX_ANSWER {
        return;
    }
    for sliver in &mut answer.slivers {
        if let Some(evidence) = &mut sliver.evidence {
            evidence.processes.clear();
            "too long for the controller".clone_into(&mut evidence.incomplete);
        }
    }
    if answer.encoded_len() > MAX_ANSWER {
        answer.slivers.clear();
        answer.slivers.shrink_to_fit();
        answer.detail = format!("proof too long for the controller: {}", answer.detail)
            .chars()
            .take(MAX_DETAIL)
            .collect();
    }
}

fn strange_note(
    node: NodeId,
    site: Option<proto::SiteName>,
    holds: &[HoldId],
    version: proto::Version,
) -> crate::store::Note {
    let ids: Vec<String> = holds.iter().take(16).map(HoldId::to_string).collect();
    crate::store::Note {
        draft: audit::Draft {
            at_ms: now_ms(),
            version,
            person: None,
            role: None,
            action: "import-hold".into(),
            target: format!("node {node}"),
            reason: String::new(),
            evidence: String::new(),
            outcome: audit::Outcome::Failed,
            detail: format!(
                "{} holds stand on the node that the controller does not know; they stay: {}",
                holds.len(),
                ids.join(", ")
            ),
            order: None,
        },
        about: crate::store::About {
            slice: None,
            site,
            node: Some(node),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{Evidence, Process, SliverProof};

    #[test]
    fn an_answer_too_long_loses_evidence_before_proofs() {
        let process = Process {
            command_line: "x".repeat(200),
            ..Process::default()
        };
        let evidence = Evidence {
            processes: vec![process; 1_000],
            incomplete: String::new(),
        };
        let sliver = SliverProof {
            slice: "a_b".into(),
            evidence: Some(evidence),
            ..SliverProof::default()
        };
        let mut answer = Answer {
            slivers: vec![sliver],
            detail: "d".repeat(5_000),
            ..Answer::default()
        };
        bound(&mut answer);
        assert!(answer.encoded_len() <= MAX_ANSWER);
        assert_eq!(answer.slivers.len(), 1);
        assert_eq!(
            answer.slivers[0].evidence.as_ref().map(|e| e.processes.len()),
            Some(0)
        );
        let mut hostile = Answer {
            slivers: vec![
                SliverProof {
                    detail: "x".repeat(100),
                    ..SliverProof::default()
                };
                5_000
            ],
            ..Answer::default()
        };
        bound(&mut hostile);
        assert!(hostile.encoded_len() <= MAX_ANSWER && hostile.detail.contains("too long"));
    }
}
