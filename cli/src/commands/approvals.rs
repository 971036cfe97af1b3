//! Two people: `redbutton kill-all`, `stop-all`, `approve` and `approvals …`.

use proto::v1;
use proto::v1::press_request::Wish;
use proto::v1::scope::Reach;
use tokio::time::Instant;

use super::Context;
use super::press::{Taken, asked, follow_up};
use crate::args::{ApprovalsCommand, ApproveArgs, KillAll, PressArgs, StopAll, Waiting};
use crate::client::{self, Client};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::press::{Pressed, press};
use crate::render::approvals as render;
use crate::view::approvals::{Proposal, Proposals, State};

pub(super) async fn kill_all(args: KillAll, context: &Context) -> Result<Exit, Failure> {
    let wish = Wish::Hold(v1::HoldWish {
        slice: String::new(),
        scope: Some(v1::Scope {
            reach: Some(Reach::Fleet(true)),
        }),
        kind: v1::HoldKind::Suspend.into(),
    });
    propose(context, wish, "killing every slice on every node", args.press).await
}

pub(super) async fn stop_all(args: StopAll, context: &Context) -> Result<Exit, Failure> {
    let StopAll {
        no_way_back,
        press: args,
    } = args;
    let wish = Wish::Stop(v1::StopWish {
        node: String::new(),
        no_way_back,
        fleet: true,
    });
    propose(context, wish, "powering off every node", args).await
}

/// Presses; what comes back waits for another person, unless this key was agreed to before.
async fn propose(context: &Context, wish: Wish, hitting: &str, args: PressArgs) -> Result<Exit, Failure> {
    let (request, waiting) = asked(context, wish, hitting, args)?;
    let Pressed { reply, client } =
        press(&context.dialer, request, context.global.timeout, context.out).await?;
    let wire = reply.proposal.ok_or(Failure::Incomplete("the proposal"))?;
    let proposal = Proposal::from(wire);
    let out = context.out;
    if let Some(order) = reply.order {
        let taken = Taken::durable(reply.created);
        return follow_up(context, client, order, taken, &waiting).await;
    }
    out.note(&format!("proposal {}: a second person must approve", proposal.id));
    out.note(&format!("digest {}", proposal.digest));
    match proposal.may_approve.as_slice() {
        [] => out.warn(
            "nobody can approve it: it takes another person of support, whom you neither invited nor promoted in \
             the last 7 days, nor they you",
        ),
        people => out.note(&format!("who can: {}", people.join(", "))),
    }
    out.note(&format!("they type: {}", proposal.command()));
    if context.global.no_wait {
        out.result(&proposal, |_| render::proposal(&proposal))?;
        return Ok(if proposal.is_over() {
            Exit::Refused
        } else {
            Exit::Pending
        });
    }
    out.note(&format!(
        "waiting; it expires {}",
        proposal.expires_at.age(proposal.now)
    ));
    let (client, proposal) = await_approval(context, client, proposal).await?;
    outcome(context, client, proposal, &waiting).await
}

/// Watches until nothing more can become of it, however often the connection breaks; or until Ctrl-C.
pub(super) async fn await_approval(
    context: &Context,
    client: Client,
    proposal: Proposal,
) -> Result<(Client, Proposal), Failure> {
    let id = proposal.id.clone();
    let mut state = (client, proposal);
    tokio::select! {
        watched = watch(context, &id, &mut state) => watched?,
        _ = tokio::signal::ctrl_c() => context.out.note(&format!("it still waits: redbutton approvals withdraw {id}")),
    }
    Ok(state)
}

async fn watch(context: &Context, id: &str, state: &mut (Client, Proposal)) -> Result<(), Failure> {
    const DOING: &str = "waiting for a second person";
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);
    loop {
        let request = v1::GetProposalRequest { id: id.to_owned() };
        let mut service = state.0.approvals();
        let broken = match state.0.call(DOING, service.watch(request)).await {
            Ok(mut events) => loop {
                match events.message().await {
                    Ok(Some(event)) => {
                        state.1 = event.into();
                        if state.1.is_over() {
                            return Ok(());
                        }
                    }
                    Ok(None) => break "the controller ended the stream".to_owned(),
                    Err(status) => break client::failure(DOING, status).message(),
                }
            },
            Err(Failure::Broken { trouble, .. }) if trouble.may_pass() => trouble.to_string(),
            Err(failure) => return Err(failure),
        };
        context.out.note(&format!("{broken}; looking again"));
        loop {
            tokio::time::sleep(PAUSE).await;
            let timeout = context.global.timeout;
            match context.dialer.connect(Instant::now() + timeout, timeout).await {
                Ok(fresh) => {
                    state.0 = fresh;
                    break;
                }
                Err(error) if !error.may_pass() => return Err(error.into()),
                // Long after its end there is nothing to wait for, whatever the controller would say.
                Err(error) if crate::when::Time::now().0 > state.1.expires_at.0 + 60_000 => {
                    return Err(error.into());
                }
                Err(_) => {}
            }
        }
    }
}

/// Follows the order that came of it, or says what became of it instead.
async fn outcome(
    context: &Context,
    client: Client,
    proposal: Proposal,
    waiting: &Waiting,
) -> Result<Exit, Failure> {
    if let (State::Done, Some(id)) = (proposal.state, &proposal.order) {
        if let Some(approver) = &proposal.approver {
            context.out.note(&format!("approved by {approver}"));
        }
        let request = v1::GetOrderRequest { id: id.clone() };
        let detail = client
            .call("looking at the order", client.orders().get(request))
            .await?;
        let order = detail.order.ok_or(Failure::Incomplete("the order"))?;
        return follow_up(context, client, order, Taken::durable(true), waiting).await;
    }
    context.out.result(&proposal, |_| render::proposal(&proposal))?;
    Ok(match proposal.state {
        State::Done => Exit::Done,
        State::Open | State::Approved | State::Unknown => Exit::Pending,
        State::Failed => Exit::Failed,
        State::Expired | State::Withdrawn | State::Void => Exit::Refused,
    })
}

pub(super) async fn approve(args: ApproveArgs, context: &Context) -> Result<Exit, Failure> {
    const DOING: &str = "approving";
    let ApproveArgs {
        proposal: id,
        digest,
        yes,
        waiting,
    } = args;
    let out = context.out;
    let client = context.client().await?;
    let request = v1::GetProposalRequest { id: id.to_string() };
    let wire = client
        .call("looking at the proposal", client.approvals().get(request.clone()))
        .await?;
    let shown = wire.digest.clone();
    let proposal = Proposal::from(wire);
    for line in render::proposal(&proposal).lines() {
        out.note(line);
    }
    if !yes {
        let asked = out.ask("approve this? type yes: ");
        let answer =
            asked.ok_or_else(|| Failure::Usage("nobody can be asked: confirm with --yes".to_owned()))?;
        if answer.trim() != "yes" {
            return Err(Failure::Usage("not approved".to_owned()));
        }
    }
    let request = v1::ApproveRequest {
        id: id.to_string(),
        digest: digest.map_or(shown, |digest| digest.to_vec()),
    };
    let reply = match client.call(DOING, client.approvals().approve(request)).await {
        Ok(reply) => reply,
        // Whether it arrived is written down over there.
        Err(failure @ Failure::Broken { .. }) => {
            let client = context.client().await?;
            let look = v1::GetProposalRequest { id: id.to_string() };
            let now = client
                .call("looking at the proposal", client.approvals().get(look))
                .await?;
            match State::from_wire(now.state) {
                State::Approved | State::Done => v1::ApproveReply {
                    proposal: Some(now),
                    durable: true,
                    not_durable_reason: String::new(),
                },
                _ => return Err(failure),
            }
        }
        Err(failure) => return Err(failure),
    };
    if !reply.durable {
        out.warn(&format!(
            "NOT DURABLE: the controller's disk did not take the order: {}",
            reply.not_durable_reason
        ));
    }
    let proposal = Proposal::from(reply.proposal.ok_or(Failure::Incomplete("the proposal"))?);
    outcome(context, client, proposal, &waiting).await
}

pub(super) async fn run(command: ApprovalsCommand, context: &Context) -> Result<Exit, Failure> {
    let out = context.out;
    let client = context.client().await?;
    let wire = match command {
        ApprovalsCommand::Ls { all } => {
            let reply = client
                .call(
                    "listing proposals",
                    client.approvals().list(v1::ListProposalsRequest { all }),
                )
                .await?;
            let view = Proposals {
                proposals: reply.proposals.into_iter().map(Proposal::from).collect(),
            };
            out.result(&view, |_| render::proposals(&view.proposals))?;
            return Ok(Exit::Done);
        }
        ApprovalsCommand::Show { proposal } => {
            let request = v1::GetProposalRequest {
                id: proposal.to_string(),
            };
            client
                .call("looking at the proposal", client.approvals().get(request))
                .await?
        }
        ApprovalsCommand::Withdraw { proposal, reason } => {
            let request = v1::WithdrawRequest {
                id: proposal.to_string(),
                reason,
            };
            client
                .call("withdrawing", client.approvals().withdraw(request))
                .await?
        }
    };
    let view = Proposal::from(wire);
    out.result(&view, |_| render::proposal(&view))?;
    Ok(Exit::Done)
}
