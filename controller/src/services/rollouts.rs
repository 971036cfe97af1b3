//! Programs come in, rollouts are started and steered. Support only.

use std::sync::Arc;

use authz::{Action, Target};
use prost::Message;
use proto::v1::rollouts_server::Rollouts as Service;
use proto::v1::upload_software_request::Part;
use proto::v1::{
    GetRolloutRequest, ListRolloutsReply, ListRolloutsRequest, ListSoftwareReply, ListSoftwareRequest,
    NodeStep, Rollout, RolloutAct, RolloutDetail, RolloutNode, RolloutPhase, RolloutPlan, Software,
    StartRolloutReply, StartRolloutRequest, SteerRolloutRequest, UploadSoftwareRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::Desk;
use super::caller::{Caller, Permit};
use crate::approvals::Act;
use crate::error::Error;
use crate::fleet::now_ms;
use crate::rollout::{Artifact, Item, Phase, Plan, Rollouts, ShelfError, Steer, Step};
use crate::store::{About, RolloutRecord};

/// Longest key and reason.
const MAX_KEY: usize = 64;
const MAX_REASON: usize = 1_000;
/// Programs of one rollout.
const MAX_PROGRAMS: usize = 8;
/// Bytes of the nodes in one answer.
const MAX_NODES_BYTES: usize = 768 << 10;
/// Uploads at once: each may be large.
const UPLOADS: usize = 2;

/// The service.
#[derive(Clone)]
pub(crate) struct RolloutDesk {
    desk: Desk,
    rollouts: Arc<Rollouts>,
    uploads: Arc<tokio::sync::Semaphore>,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .filter_map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn shelved(error: &ShelfError) -> Error {
    match error {
        ShelfError::Io { .. } => Error::NotDurable(error.to_string()),
        ShelfError::Inspect(_) | ShelfError::Size { .. } | ShelfError::Short { .. } => {
            Error::Malformed(error.to_string())
        }
    }
}

async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, ShelfError> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(job).await;
    done.map_err(|e| Error::Internal(e.to_string()))?
        .map_err(|e| shelved(&e))
}

fn software(artifact: Artifact) -> Software {
    let Artifact {
        sha256,
        name,
        version,
        architecture,
        size,
        added_by,
        added_at_ms,
    } = artifact;
    Software {
        sha256: unhex(&sha256),
        name,
        version,
        architecture,
        size,
        added_by,
        added_at_ms,
    }
}

fn phase(phase: Phase) -> RolloutPhase {
    match phase {
        Phase::Running => RolloutPhase::Running,
        Phase::Paused => RolloutPhase::Paused,
        Phase::Halted => RolloutPhase::Halted,
        Phase::Aborted => RolloutPhase::Aborted,
        Phase::Returning => RolloutPhase::Returning,
        Phase::Done => RolloutPhase::Done,
        Phase::Returned => RolloutPhase::Returned,
    }
}

fn step(item: &Item) -> (NodeStep, String) {
    let plain = |step| (step, String::new());
    match &item.step {
        Step::Waiting => plain(NodeStep::Waiting),
        Step::Sending => plain(NodeStep::Sending),
        Step::Unsure => (NodeStep::Restarting, "the link broke in the midst of it".into()),
        Step::Restarting => plain(NodeStep::Restarting),
        Step::Settling => plain(NodeStep::Settling),
        Step::Done => plain(NodeStep::Done),
        Step::Bad(why) if item.sent_back => (NodeStep::Bad, format!("{why}; it was sent back")),
        Step::Bad(why) => (NodeStep::Bad, why.clone()),
        Step::Returning(_) => plain(NodeStep::Returning),
        Step::Returned => plain(NodeStep::Returned),
        Step::Skipped(why) => (NodeStep::Skipped, why.clone()),
    }
}

fn summary(record: RolloutRecord, items: &[Item]) -> Rollout {
    let count = |wanted: &[NodeStep]| {
        let many = items.iter().filter(|item| wanted.contains(&step(item).0)).count();
        u32::try_from(many).unwrap_or(u32::MAX)
    };
    let RolloutRecord {
        id,
        key: _,
        person,
        reason,
        version,
        started_at_ms,
        decided: _,
        artifacts,
        head,
    } = record;
    let Plan {
        waves,
        spread_ms,
        soak_ms,
        deadline_ms,
        tolerate,
    } = head.plan;
    Rollout {
        id: id.to_string(),
        version,
        phase: phase(head.phase).into(),
        why: head.why,
        started_by: person.to_string(),
        reason,
        started_at_ms,
        wave: u32::try_from(head.wave + 1).unwrap_or(u32::MAX),
        plan: Some(RolloutPlan {
            waves,
            spread_ms,
            soak_ms,
            deadline_ms,
            tolerate,
        }),
        nodes: u32::try_from(items.len()).unwrap_or(u32::MAX),
        waiting: count(&[NodeStep::Waiting]),
        moving: count(&[
            NodeStep::Sending,
            NodeStep::Restarting,
            NodeStep::Settling,
            NodeStep::Returning,
        ]),
        done: count(&[NodeStep::Done]),
        bad: count(&[NodeStep::Bad]),
        returned: count(&[NodeStep::Returned]),
        skipped: count(&[NodeStep::Skipped]),
        sha256: artifacts.iter().map(|artifact| unhex(&artifact.sha256)).collect(),
    }
}

impl RolloutDesk {
    pub(crate) fn new(desk: Desk, rollouts: Arc<Rollouts>) -> Self {
        Self {
            desk,
            rollouts,
            uploads: Arc::new(tokio::sync::Semaphore::new(UPLOADS)),
        }
    }

    async fn permitted<T: Sync>(&self, request: &Request<T>) -> Result<(Caller, Permit), Error> {
        let caller = self.desk.caller(request).await?;
        let permit = self
            .desk
            .permit(&caller, Action::SteerRollout, &Target::Fleet, About::default())
            .await?;
        Ok((caller, permit))
    }

    fn note(&self, caller: &Caller, permit: &Permit, target: &str, reason: &str) -> crate::store::Note {
        let mut note = self
            .desk
            .change(caller, Action::SteerRollout, target, About::default(), permit);
        reason.clone_into(&mut note.draft.reason);
        note
    }

    async fn take(&self, request: Request<Streaming<UploadSoftwareRequest>>) -> Result<Software, Error> {
        let (caller, permit) = self.permitted(&request).await?;
        let Ok(_place) = self.uploads.clone().try_acquire_owned() else {
            return Err(Error::Precondition(
                "other programs are coming in: try again".into(),
            ));
        };
        let mut parts = request.into_inner();
        let broken = |status: Status| Error::Malformed(format!("the upload broke off: {}", status.message()));
        let first = parts.message().await.map_err(broken)?.and_then(|part| part.part);
        let Some(Part::Size(size)) = first else {
            return Err(Error::Malformed("an upload begins with the size".into()));
        };
        let shelf = self.rollouts.shelf.clone();
        let mut incoming = blocking(move || shelf.begin(size)).await?;
        while let Some(part) = parts.message().await.map_err(broken)? {
            let Some(Part::Bytes(bytes)) = part.part else {
                return Err(Error::Malformed("after the size come bytes".into()));
            };
            incoming = blocking(move || incoming.write(&bytes).map(|()| incoming)).await?;
        }
        let shelf = self.rollouts.shelf.clone();
        let shelved = blocking(move || shelf.finish(incoming)).await?;
        let artifact = Artifact {
            sha256: shelved.sha256,
            name: shelved.inspected.name,
            version: shelved.inspected.version,
            architecture: shelved.inspected.architecture,
            size: shelved.size,
            added_by: caller.actor.name.to_string(),
            added_at_ms: now_ms(),
        };
        let target = format!(
            "software {} {} {}",
            artifact.name, artifact.version, artifact.sha256
        );
        let note = self.note(&caller, &permit, &target, "upload");
        self.rollouts.store().add_software(&artifact, note).await?;
        Ok(software(artifact))
    }

    async fn begin(&self, request: Request<StartRolloutRequest>) -> Result<StartRolloutReply, Error> {
        let (caller, _) = self.permitted(&request).await?;
        let StartRolloutRequest {
            sha256,
            plan,
            reason,
            key,
        } = request.into_inner();
        let reason = super::people::plain("reason", reason, MAX_REASON)?;
        let key = super::people::plain("key", key, MAX_KEY)?;
        if reason.trim().is_empty() || key.is_empty() {
            return Err(Error::Malformed("a rollout needs a reason and a key".into()));
        }
        if sha256.len() > MAX_PROGRAMS || sha256.iter().any(|one| one.len() != 32) {
            return Err(Error::Malformed(format!(
                "sha256 names 1 to {MAX_PROGRAMS} programs of 32 bytes each"
            )));
        }
        let plan = match plan {
            None => Plan::default(),
            Some(RolloutPlan {
                waves,
                spread_ms,
                soak_ms,
                deadline_ms,
                tolerate,
            }) => Plan {
                waves,
                spread_ms,
                soak_ms,
                deadline_ms,
                tolerate,
            },
        };
        let sha256: Vec<String> = sha256.iter().map(|one| hex(one)).collect();
        let version = self.rollouts.check(&sha256, &plan).await?;
        let act = Act::RollOut {
            version,
            sha256,
            plan,
        };
        // Root's code on every node: the table wants two people, and says who may propose.
        let fleet = self.rollouts.fleet();
        let proposed = fleet
            .propose(&caller.actor, act, key, reason, String::new(), now_ms())
            .await?;
        Ok(StartRolloutReply {
            rollout: None,
            proposal: Some(self.desk.show_proposal(proposed.0).await?),
        })
    }

    async fn act(&self, request: Request<SteerRolloutRequest>) -> Result<RolloutDetail, Error> {
        let (caller, permit) = self.permitted(&request).await?;
        let SteerRolloutRequest { id, act, reason } = request.into_inner();
        let reason = super::people::plain("reason", reason, MAX_REASON)?;
        let (wanted, word) = match RolloutAct::try_from(act) {
            Ok(RolloutAct::Pause) => (Steer::Pause, "pause"),
            Ok(RolloutAct::Resume) => (Steer::Resume, "resume"),
            Ok(RolloutAct::Abort) => (Steer::Abort, "abort"),
            Ok(RolloutAct::Back) => (Steer::Back, "back"),
            Ok(RolloutAct::Unspecified) | Err(_) => {
                return Err(Error::Malformed(format!(
                    "act is {act}, expected pause, resume, abort or back"
                )));
            }
        };
        let id = match rollout_id(&id)? {
            Some(id) => id,
            None => self.rollouts.get(None).await?.0.id,
        };
        let note = self.note(&caller, &permit, &format!("rollout {id}: {word}"), &reason);
        self.rollouts.steer(id, wanted, &reason, note).await?;
        Ok(self.detail(Some(id)).await?.0)
    }

    async fn detail(&self, id: Option<Uuid>) -> Result<(RolloutDetail, bool), Error> {
        let (record, mut items, over) = self.rollouts.get(id).await?;
        let rank = |item: &Item| match item.step {
            Step::Bad(_) => 0,
            _ if item.moves() => 1,
            Step::Returning(_) => 1,
            Step::Waiting => 3,
            _ => 2,
        };
        items.sort_by_key(|item| (rank(item), item.wave, item.node));
        let mut nodes = Vec::new();
        let mut size = 0;
        for item in &items {
            let (step, detail) = step(item);
            let node = RolloutNode {
                node: item.node.to_string(),
                name: self
                    .rollouts
                    .fleet()
                    .name_of(item.node)
                    .map(|name| name.to_string())
                    .unwrap_or_default(),
                site: item.site.to_string(),
                wave: u32::try_from(item.wave + 1).unwrap_or(u32::MAX),
                step: step.into(),
                detail,
                at_ms: item.at_ms,
                attached: self.rollouts.attached(item.node),
            };
            size += node.encoded_len() + 8;
            if size > MAX_NODES_BYTES {
                break;
            }
            nodes.push(node);
        }
        let detail = RolloutDetail {
            rollout: Some(summary(record, &items)),
            nodes,
        };
        Ok((detail, over))
    }
}

/// Empty: the newest.
fn rollout_id(text: &str) -> Result<Option<Uuid>, Error> {
    match text {
        "" => Ok(None),
        text => Uuid::try_parse(text)
            .map(Some)
            .map_err(|_| Error::Malformed(format!("rollout id {text:.80?} is no UUID"))),
    }
}

#[tonic::async_trait]
impl Service for RolloutDesk {
    async fn upload(
        &self,
        request: Request<Streaming<UploadSoftwareRequest>>,
    ) -> Result<Response<Software>, Status> {
        Ok(Response::new(Box::pin(self.take(request)).await?))
    }

    async fn list_software(
        &self,
        request: Request<ListSoftwareRequest>,
    ) -> Result<Response<ListSoftwareReply>, Status> {
        self.permitted(&request).await?;
        let shelf = self.rollouts.store().software().await.map_err(Error::from)?;
        let software = super::wire::fitting(shelf.into_iter().map(software), MAX_NODES_BYTES);
        Ok(Response::new(ListSoftwareReply { software }))
    }

    async fn start(
        &self,
        request: Request<StartRolloutRequest>,
    ) -> Result<Response<StartRolloutReply>, Status> {
        Ok(Response::new(Box::pin(self.begin(request)).await?))
    }

    async fn list(
        &self,
        request: Request<ListRolloutsRequest>,
    ) -> Result<Response<ListRolloutsReply>, Status> {
        self.permitted(&request).await?;
        let limit = match request.get_ref().limit {
            0 => 20,
            limit => limit.min(100) as usize,
        };
        let records = self.rollouts.store().rollouts().await.map_err(Error::from)?;
        let mut rollouts = Vec::new();
        for record in records.into_iter().take(limit) {
            let (record, items, _) = self.rollouts.get(Some(record.id)).await?;
            rollouts.push(summary(record, &items));
        }
        Ok(Response::new(ListRolloutsReply { rollouts }))
    }

    async fn get(&self, request: Request<GetRolloutRequest>) -> Result<Response<RolloutDetail>, Status> {
        self.permitted(&request).await?;
        let id = rollout_id(&request.get_ref().id)?;
        Ok(Response::new(self.detail(id).await?.0))
    }

    type WatchStream = ReceiverStream<Result<RolloutDetail, Status>>;

    async fn watch(
        &self,
        request: Request<GetRolloutRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.permitted(&request).await?;
        let id = match rollout_id(&request.get_ref().id)? {
            Some(id) => id,
            None => self.rollouts.get(None).await?.0.id,
        };
        let (out, stream) = mpsc::channel(1);
        let desk = self.clone();
        drop(tokio::spawn(async move {
            let mut changes = desk.rollouts.changes();
            loop {
                changes.mark_unchanged();
                let (event, over) = match Box::pin(desk.detail(Some(id))).await {
                    Ok((detail, over)) => (Ok(detail), over),
                    Err(error) => (Err(error.into()), true),
                };
                if out.send(event).await.is_err() || over {
                    return;
                }
                tokio::select! {
                    () = out.closed() => return,
                    changed = changes.changed() => if changed.is_err() { return },
                }
            }
        }));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn steer(&self, request: Request<SteerRolloutRequest>) -> Result<Response<RolloutDetail>, Status> {
        Ok(Response::new(Box::pin(self.act(request)).await?))
    }
}
