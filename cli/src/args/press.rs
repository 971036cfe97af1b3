//! What the commands that press the button have in common.

use std::time::Duration;

use clap::Args;
use proto::{Hold, HoldId, ProposalId, SiteName, SliceName};

use super::NodeRef;
use super::values::seconds;

/// Why, and how long to wait for the nodes.
#[derive(Debug, Clone, Args)]
pub struct PressArgs {
    /// Why; asked for on a terminal when missing
    #[arg(long, short, value_parser = reason)]
    pub reason: Option<String>,
    /// What was seen: a ticket, a URL, a flow query
    #[arg(long, default_value = "", value_parser = short)]
    pub evidence: String,
    /// The same key is the same order: press again with it when it is not known whether a press arrived
    #[arg(long, value_name = "KEY", value_parser = key)]
    pub key: Option<String>,
    /// How long to wait, and what to list.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// How long to wait for the nodes, and what to list.
#[derive(Debug, Clone, Args)]
pub struct Waiting {
    /// Wait this long for the nodes' answers and proofs; the order goes on afterwards
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub wait: Duration,
    /// List every node, however many are well
    #[arg(long)]
    pub all: bool,
}

/// A slice, everywhere or somewhere.
#[derive(Debug, Clone, Args)]
pub struct SliceTarget {
    /// site_name, as in princeton_codeen
    pub slice: SliceName,
    /// Only on this node (name or UUID)
    #[arg(long, conflicts_with = "site")]
    pub node: Option<NodeRef>,
    /// Only on the nodes of this site
    #[arg(long)]
    pub site: Option<SiteName>,
    /// Why.
    #[command(flatten)]
    pub press: PressArgs,
}

/// A node.
#[derive(Debug, Clone, Args)]
pub struct NodeTarget {
    /// Name or UUID
    pub node: NodeRef,
    /// Why.
    #[command(flatten)]
    pub press: PressArgs,
}

/// A node to power off.
#[derive(Debug, Clone, Args)]
pub struct StopNode {
    /// Name or UUID
    pub node: NodeRef,
    /// Accept that nothing can power it on again from afar
    #[arg(long)]
    pub no_way_back: bool,
    /// Why.
    #[command(flatten)]
    pub press: PressArgs,
}

/// Everything, everywhere.
#[derive(Debug, Clone, Args)]
pub struct KillAll {
    /// Why.
    #[command(flatten)]
    pub press: PressArgs,
}

/// Every node to power off.
#[derive(Debug, Clone, Args)]
pub struct StopAll {
    /// Accept that nothing can power some of them on again from afar
    #[arg(long)]
    pub no_way_back: bool,
    /// Why.
    #[command(flatten)]
    pub press: PressArgs,
}

/// What to agree to.
#[derive(Debug, Clone, Args)]
pub struct ApproveArgs {
    /// As the proposer's command printed it, and as `approvals ls` does
    pub proposal: ProposalId,
    /// As the proposer's command printed it; refused if the proposal has another one
    #[arg(long, value_name = "HEX", value_parser = digest)]
    pub digest: Option<[u8; 32]>,
    /// Agree without being asked
    #[arg(long)]
    pub yes: bool,
    /// How long to wait for the nodes, and what to list.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// Which holds to lift from a slice.
#[derive(Debug, Clone, Args)]
pub struct ReleaseSlice {
    /// Every hold on this slice that you may release
    #[arg(required_unless_present = "hold", conflicts_with = "hold")]
    pub slice: Option<SliceName>,
    /// This one hold, as `slice holds` prints it
    #[arg(long, value_name = "ID")]
    pub hold: Option<HoldId>,
    /// Why.
    #[command(flatten)]
    pub press: PressArgs,
}

/// Which holds to lift from a node.
#[derive(Debug, Clone, Args)]
pub struct ReleaseNode {
    /// Every hold on this node itself (name or UUID) that you may release
    #[arg(required_unless_present = "hold", conflicts_with = "hold")]
    pub node: Option<NodeRef>,
    /// This one hold, as `node show` prints it
    #[arg(long, value_name = "ID")]
    pub hold: Option<HoldId>,
    /// Why.
    #[command(flatten)]
    pub press: PressArgs,
}

/// A reason: 1 to 1,000 characters, not only blanks.
pub(crate) fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("a reason is required".to_owned());
    }
    short(text)
}

fn short(text: &str) -> Result<String, String> {
    match text.chars().count() {
        0..=Hold::MAX_TEXT => Ok(text.to_owned()),
        len => Err(format!(
            "{len} characters long, at most {} are allowed",
            Hold::MAX_TEXT
        )),
    }
}

fn digest(text: &str) -> Result<[u8; 32], String> {
    let hash: audit::Hash = text
        .parse()
        .map_err(|_| "expected 64 lower-case hexadecimal digits".to_owned())?;
    Ok(*hash.as_bytes())
}

fn key(text: &str) -> Result<String, String> {
    if (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 128 visible ASCII characters".to_owned())
    }
}
