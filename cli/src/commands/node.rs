//! `redbutton node …`

use proto::v1;
use proto::v1::press_request::Wish;
use proto::v1::release_wish::What;
use proto::v1::scope::Reach;

use super::{Context, pages, press, tokens};
use crate::args::{NodeCommand, NodeRef, NodeTarget, ReleaseNode, StopNode};
use crate::client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render;
use crate::text;
use crate::view::hold::Hold;
use crate::view::node::{LogLine, Node, NodeDetail, Nodes, Process, Processes, Report};
use crate::when::Time;

/// Longest line of a journal that is shown, characters.
const LOG_LINE: usize = 2_000;

pub(super) async fn run(command: NodeCommand, context: &Context) -> Result<Exit, Failure> {
    let out = context.out;
    match command {
        NodeCommand::Kill(target) => return hold(target, v1::HoldKind::Suspend, context).await,
        NodeCommand::Freeze(target) => return hold(target, v1::HoldKind::Freeze, context).await,
        NodeCommand::Release(what) => return release(what, context).await,
        NodeCommand::Reboot(target) => return reboot(target, context).await,
        NodeCommand::Enroll(wish) => return tokens::enroll(wish, context).await,
        NodeCommand::Rekey(wish) => return tokens::rekey(wish, context).await,
        NodeCommand::Revoke { node, reason } => return tokens::revoke(&node, reason, context).await,
        NodeCommand::Stop(target) => return stop(target, context).await,
        NodeCommand::Ls { site, slice } => {
            let client = context.client().await?;
            let site = site.map(String::from).unwrap_or_default();
            let slice = slice.map(String::from).unwrap_or_default();
            let (nodes, _) = pages(usize::MAX, async |page_token, page_size| {
                let request = v1::ListNodesRequest {
                    page_size,
                    page_token,
                    site: site.clone(),
                    slice: slice.clone(),
                };
                let reply = client.call("listing nodes", client.nodes().list(request)).await?;
                Ok((reply.nodes, reply.next_page_token))
            })
            .await?;
            let view = Nodes {
                nodes: nodes.into_iter().map(Node::from).collect(),
            };
            out.result(&view, |width| {
                render::node::nodes(&view.nodes, Time::now(), width)
            })?;
        }
        NodeCommand::Show { node } => {
            let client = context.client().await?;
            let request = v1::GetNodeRequest {
                node: node.to_string(),
            };
            let reply = client
                .call("looking at the node", client.nodes().get(request))
                .await?;
            let view = NodeDetail {
                node: reply.node.ok_or(Failure::Incomplete("the node"))?.into(),
                reported_at: Time(reply.reported_at_ms),
                report: reply.report.map(Report::from),
                holds: reply.holds.into_iter().map(Hold::from).collect(),
            };
            out.result(&view, |width| render::node::detail(&view, Time::now(), width))?;
        }
        NodeCommand::Ps { node, slice, limit } => {
            let client = context.client().await?;
            let slice = slice.map(String::from).unwrap_or_default();
            let request = v1::NodeProcessesRequest {
                node: node.to_string(),
                slice,
                limit,
            };
            let reply = client
                .call("listing processes", client.nodes().processes(request))
                .await?;
            let view = Processes {
                node: node.to_string(),
                processes: reply.processes.into_iter().map(Process::from).collect(),
                truncated: reply.truncated,
            };
            out.result(&view, |width| {
                render::node::processes(&view.processes, view.truncated, width)
            })?;
        }
        NodeCommand::Logs { node, lines, unit } => logs(&node, lines, unit, context).await?,
    }
    Ok(Exit::Done)
}

async fn logs(node: &NodeRef, lines: u32, unit: Option<String>, context: &Context) -> Result<(), Failure> {
    const DOING: &str = "reading the journal";
    let out = context.out;
    let client = context.client().await?;
    let request = v1::NodeJournalRequest {
        node: node.to_string(),
        lines,
        unit: unit.unwrap_or_default(),
    };
    let mut pieces = client.call(DOING, client.nodes().journal(request)).await?;
    let mut told = String::new();
    loop {
        // The tail ends: a node that stops in its midst must not hold us.
        let piece = tokio::time::timeout(client.timeout(), pieces.message())
            .await
            .map_err(|_| Failure::Broken {
                doing: DOING.to_owned(),
                trouble: client::Trouble::TooLate,
            })?;
        let Some(v1::JournalLines { lines, source }) =
            piece.map_err(|status| client::failure(DOING, status))?
        else {
            return Ok(());
        };
        if !out.json && source != told {
            out.note(&format!("-- {node}, from {}", text::line(&source, 80)));
            told.clone_from(&source);
        }
        for line in &lines {
            if out.json {
                out.json_line(&LogLine {
                    line,
                    source: &source,
                })?;
            } else {
                out.text_line(&text::line(line, LOG_LINE))?;
            }
        }
    }
}

async fn hold(target: NodeTarget, kind: v1::HoldKind, context: &Context) -> Result<Exit, Failure> {
    let NodeTarget { node, press: args } = target;
    let doing = if kind == v1::HoldKind::Suspend {
        "killing"
    } else {
        "freezing"
    };
    let wish = v1::HoldWish {
        slice: String::new(),
        scope: Some(v1::Scope {
            reach: Some(Reach::Node(node.to_string())),
        }),
        kind: kind.into(),
    };
    press::run(
        context,
        Wish::Hold(wish),
        &format!("{doing} every sliver on node {node}"),
        args,
    )
    .await
}

async fn release(what: ReleaseNode, context: &Context) -> Result<Exit, Failure> {
    let ReleaseNode {
        node,
        hold,
        press: args,
    } = what;
    let (what, hitting) = match (hold, node) {
        (Some(hold), _) => (What::Hold(hold.to_string()), format!("lifting hold {hold}")),
        (None, Some(node)) => {
            let hitting = format!("lifting every hold on node {node} itself that you may release");
            (What::Node(node.to_string()), hitting)
        }
        (None, None) => return Err(Failure::Usage("a node or --hold ID is required".to_owned())),
    };
    press::run(
        context,
        Wish::Release(v1::ReleaseWish { what: Some(what) }),
        &hitting,
        args,
    )
    .await
}

async fn reboot(target: NodeTarget, context: &Context) -> Result<Exit, Failure> {
    let NodeTarget { node, press: args } = target;
    let wish = Wish::Reboot(v1::RebootWish {
        node: node.to_string(),
    });
    press::run(context, wish, &format!("rebooting node {node}"), args).await
}

async fn stop(target: StopNode, context: &Context) -> Result<Exit, Failure> {
    let StopNode {
        node,
        no_way_back,
        press: args,
    } = target;
    let back = if no_way_back { ", with no way back" } else { "" };
    let wish = Wish::Stop(v1::StopWish {
        node: node.to_string(),
        no_way_back,
        fleet: false,
    });
    press::run(context, wish, &format!("powering off node {node}{back}"), args).await
}
