//! `redbutton node enroll|rekey|revoke`: which machine is which node.

use std::io::Write;
use std::path::{Path, PathBuf};

use proto::v1;

use super::Context;
use crate::args::{EnrollNode, NodeRef, RekeyNode, TokenArgs};
use crate::bundle;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render;
use crate::view::node::{Revoked, Token};
use crate::when::Time;

pub(super) async fn enroll(wish: EnrollNode, context: &Context) -> Result<Exit, Failure> {
    let EnrollNode { name, site, token } = wish;
    let out = place(&token, name.as_str())?;
    let client = context.client().await?;
    let request = v1::EnrollNodeRequest {
        name: name.into(),
        site: site.into(),
        life_s: token.life,
    };
    let made = client
        .call("making the token", client.nodes().enroll(request))
        .await?;
    hand_over(made, &out, context)
}

pub(super) async fn rekey(wish: RekeyNode, context: &Context) -> Result<Exit, Failure> {
    let RekeyNode { node, token } = wish;
    let out = place(&token, &node.to_string())?;
    let client = context.client().await?;
    let request = v1::RekeyNodeRequest {
        node: node.to_string(),
        life_s: token.life,
    };
    let made = client
        .call("making the token", client.nodes().rekey(request))
        .await?;
    hand_over(made, &out, context)
}

pub(super) async fn revoke(node: &NodeRef, reason: String, context: &Context) -> Result<Exit, Failure> {
    let client = context.client().await?;
    let request = v1::RevokeNodeRequest {
        node: node.to_string(),
        reason,
    };
    let reply = client
        .call("revoking the node", client.nodes().revoke(request))
        .await?;
    let view = Revoked {
        node: reply.node.ok_or(Failure::Incomplete("the node"))?.into(),
        keys: reply.revoked,
    };
    context.out.result(&view, |_| render::node::revoked(&view))?;
    Ok(Exit::Done)
}

/// Before the token is made: it would be of no use to anybody.
fn place(token: &TokenArgs, name: &str) -> Result<PathBuf, Failure> {
    let out = token
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{name}.token")));
    if out != Path::new("-") && out.symlink_metadata().is_ok() {
        return Err(Failure::Usage(format!(
            "{} exists already and is not overwritten",
            out.display()
        )));
    }
    Ok(out)
}

fn hand_over(made: v1::NodeToken, out: &Path, context: &Context) -> Result<Exit, Failure> {
    let v1::NodeToken {
        node,
        name,
        site,
        bundle: text,
        expires_at_ms,
    } = made;
    if out == Path::new("-") {
        // The token and nothing else: it goes on to a machine.
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(Failure::Output)?;
        return Ok(Exit::Done);
    }
    bundle::write_private(out, &text)?;
    let view = Token {
        node,
        name,
        site,
        expires_at: Time(expires_at_ms),
        file: out.display().to_string(),
    };
    context
        .out
        .result(&view, |_| render::node::token(&view, Time::now()))?;
    Ok(Exit::Done)
}
