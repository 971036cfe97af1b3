//! `redbutton rollout …`

use std::path::Path;

use proto::v1;
use proto::v1::upload_software_request::Part;
use tokio::io::AsyncReadExt;
use tokio_stream::wrappers::ReceiverStream;

use super::Context;
use crate::args::{Program, RolloutCommand, StartRollout, SteerRollout};
use crate::client::{self, Client};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render;
use crate::view::approvals::{Proposal, State};
use crate::view::rollout::{Detail, Node, Phase, Rollout, Rollouts};
use crate::when::Time;

/// Bytes of one message of an upload.
const PIECE: usize = 256 << 10;
/// For an upload as a whole.
const UPLOAD: std::time::Duration = std::time::Duration::from_secs(3_600);

pub(super) async fn run(command: RolloutCommand, context: &Context) -> Result<Exit, Failure> {
    match command {
        RolloutCommand::Start(start) => begin(start, context).await,
        RolloutCommand::Ls { limit } => {
            let client = context.client().await?;
            let request = v1::ListRolloutsRequest { limit };
            let reply = client
                .call("listing rollouts", client.rollouts().list(request))
                .await?;
            let view = Rollouts {
                rollouts: reply.rollouts.into_iter().map(Rollout::from).collect(),
            };
            context.out.result(&view, |width| {
                render::rollout::rollouts(&view.rollouts, Time::now(), width)
            })?;
            Ok(Exit::Done)
        }
        RolloutCommand::Show { rollout, all } => {
            let client = context.client().await?;
            let request = get(rollout);
            let detail = client
                .call("looking at the rollout", client.rollouts().get(request))
                .await?;
            show(detail, all, context)
        }
        RolloutCommand::Watch { rollout, wait } => watch(rollout, wait, context).await,
        RolloutCommand::Pause(which) => steer(which, v1::RolloutAct::Pause, context).await,
        RolloutCommand::Resume(which) => steer(which, v1::RolloutAct::Resume, context).await,
        RolloutCommand::Abort(which) => steer(which, v1::RolloutAct::Abort, context).await,
        RolloutCommand::Back(which) => steer(which, v1::RolloutAct::Back, context).await,
    }
}

fn get(rollout: Option<uuid::Uuid>) -> v1::GetRolloutRequest {
    v1::GetRolloutRequest {
        id: rollout.map(|id| id.to_string()).unwrap_or_default(),
    }
}

fn view(wire: v1::RolloutDetail) -> Result<Detail, Failure> {
    let rollout = Rollout::from(wire.rollout.ok_or(Failure::Incomplete("the rollout"))?);
    Ok(Detail {
        next: render::rollout::next_step(&rollout),
        rollout,
        nodes: wire.nodes.into_iter().map(Node::from).collect(),
    })
}

fn show(wire: v1::RolloutDetail, all: bool, context: &Context) -> Result<Exit, Failure> {
    let view = view(wire)?;
    context.out.result(&view, |width| {
        render::rollout::detail(&view, all, Time::now(), width)
    })?;
    Ok(view.rollout.exit())
}

async fn begin(start: StartRollout, context: &Context) -> Result<Exit, Failure> {
    let StartRollout {
        software,
        waves,
        spread,
        soak,
        deadline,
        tolerate,
        reason,
    } = start;
    let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let client = context.client().await?;
    let mut sha256 = Vec::new();
    for program in software {
        match program {
            Program::Digest(digest) => sha256.push(digest.to_vec()),
            Program::File(path) => {
                let taken = upload(&path, client.clone()).await?;
                context.out.note(&format!(
                    "{}: {} {} for {}",
                    path.display(),
                    taken.name,
                    taken.version,
                    if taken.architecture.is_empty() {
                        "any machine"
                    } else {
                        &taken.architecture
                    },
                ));
                sha256.push(taken.sha256);
            }
        }
    }
    let request = v1::StartRolloutRequest {
        sha256,
        plan: Some(v1::RolloutPlan {
            waves,
            spread_ms: ms(spread),
            soak_ms: ms(soak),
            deadline_ms: ms(deadline),
            tolerate,
        }),
        reason,
        key: uuid::Uuid::new_v4().to_string(),
    };
    let reply = client
        .call("starting the rollout", client.rollouts().start(request))
        .await?;
    let v1::StartRolloutReply { rollout, proposal } = reply;
    if let Some(detail) = rollout {
        show(detail, false, context)?;
        return Ok(Exit::Done);
    }
    let proposal = Proposal::from(proposal.ok_or(Failure::Incomplete("the proposal"))?);
    let out = context.out;
    out.note(&format!("proposal {}: a second person must approve", proposal.id));
    match proposal.may_approve.as_slice() {
        [] => out.warn("nobody can approve it now: redbutton approvals show says why"),
        people => out.note(&format!("who can: {}", people.join(", "))),
    }
    out.note(&format!("they type: {}", proposal.command()));
    if context.global.no_wait {
        out.result(&proposal, |_| render::approvals::proposal(&proposal))?;
        return Ok(Exit::Pending);
    }
    let (client, proposal) = super::approvals::await_approval(context, client, proposal).await?;
    if proposal.state != State::Done {
        out.result(&proposal, |_| render::approvals::proposal(&proposal))?;
        return Ok(match proposal.state {
            State::Open | State::Approved | State::Unknown | State::Done => Exit::Pending,
            State::Failed => Exit::Failed,
            State::Expired | State::Withdrawn | State::Void => Exit::Refused,
        });
    }
    let detail = client
        .call("looking at the rollout", client.rollouts().get(get(None)))
        .await?;
    show(detail, false, context)?;
    Ok(Exit::Done)
}

async fn upload(path: &Path, client: Client) -> Result<v1::Software, Failure> {
    let failed = |source| Failure::File {
        what: format!("reading {}", path.display()),
        source,
    };
    let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
    let size = file.metadata().await.map_err(failed)?.len();
    let (parts, stream) = tokio::sync::mpsc::channel(2);
    let part = |part| v1::UploadSoftwareRequest { part: Some(part) };
    let feed = async {
        // When nobody takes them any more, the answer says why.
        if parts.send(part(Part::Size(size))).await.is_err() {
            return Ok(());
        }
        loop {
            let mut piece = vec![0; PIECE];
            let read = file.read(&mut piece).await?;
            piece.truncate(read);
            if read == 0 || parts.send(part(Part::Bytes(piece))).await.is_err() {
                drop(parts);
                return Ok(());
            }
        }
    };
    let client = client.within(UPLOAD);
    let mut rollouts = client.rollouts();
    let call = client.call(
        "uploading the program",
        rollouts.upload(ReceiverStream::new(stream)),
    );
    let (fed, taken): (std::io::Result<()>, _) = tokio::join!(feed, call);
    fed.map_err(failed)?;
    taken
}

async fn watch(
    rollout: Option<uuid::Uuid>,
    wait: Option<std::time::Duration>,
    context: &Context,
) -> Result<Exit, Failure> {
    const DOING: &str = "following the rollout";
    let client = context.client().await?;
    let mut events = client.call(DOING, client.rollouts().watch(get(rollout))).await?;
    let deadline = wait.map(|wait| tokio::time::Instant::now() + wait);
    let mut last = None;
    let mut told = String::new();
    loop {
        let next = async {
            match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, events.message()).await.ok(),
                None => Some(events.message().await),
            }
        };
        let Some(event) = next.await else { break };
        let Some(detail) = event.map_err(|status| client::failure(DOING, status))? else {
            break;
        };
        let seen = view(detail.clone())?.rollout;
        let line = render::rollout::progress(&seen);
        if context.out.json {
            context.out.json_line(&seen)?;
        } else if line != told {
            context.out.note(&line);
            told = line;
        }
        let halted = seen.phase == Phase::Halted && seen.moving == 0;
        last = Some((detail, seen));
        if halted {
            break;
        }
    }
    let (detail, seen) = last.ok_or(Failure::Incomplete("the rollout"))?;
    match context.out.json {
        true => Ok(seen.exit()),
        false => show(detail, false, context),
    }
}

async fn steer(which: SteerRollout, act: v1::RolloutAct, context: &Context) -> Result<Exit, Failure> {
    let SteerRollout { rollout, reason } = which;
    let client = context.client().await?;
    let request = v1::SteerRolloutRequest {
        id: rollout.map(|id| id.to_string()).unwrap_or_default(),
        act: act.into(),
        reason,
    };
    let detail = client
        .call("steering the rollout", client.rollouts().steer(request))
        .await?;
    show(detail, false, context)?;
    Ok(Exit::Done)
}
