//! `redbutton --direct NODE …`: the same commands, at a node's own door.
//!
//! Where it is: as typed, else as the kit says, else by its name. Who it must be: the node of that name or id, and
//! of the id that the kit has for the name.

use proto::{DIRECT_PORT, Identity, v1};
use tokio::time::Instant;

use super::Context;
use crate::args::{Address, DirectTarget, Global, NodeRef};
use crate::client::{Dialer, OnlyNode, Wanted};
use crate::credentials::Credentials;
use crate::failure::Failure;
use crate::kit::{self, Kit};
use crate::text;
use crate::when::Time;

/// A dialer for that node.
pub(super) fn dialer(target: &DirectTarget, own: Credentials, global: &Global) -> Result<Dialer, Failure> {
    let kit = match target.address {
        // What is typed needs no kit, and no passphrase.
        Some(_) => None,
        None => kit::open_if_there(global)?,
    };
    let known = kit.as_ref().and_then(|kit| kit.find(&target.node));
    let wanted = Wanted {
        id: match &target.node {
            NodeRef::Id(id) => Some(*id),
            NodeRef::Name(_) => known.and_then(|node| node.id.parse().ok()),
        },
        name: match &target.node {
            NodeRef::Name(name) => Some(name.clone()),
            NodeRef::Id(_) => None,
        },
    };
    let address = match (&target.address, known.and_then(|node| node.address())) {
        (Some(address), _) => address.clone(),
        (None, Some(address)) => address,
        (None, None) => match &target.node {
            NodeRef::Name(name) => Address {
                host: name.to_string(),
                port: DIRECT_PORT,
            },
            NodeRef::Id(id) => {
                return Err(Failure::Usage(format!(
                    "where node {id} is, neither you nor a kit has said: --direct {id}@HOST"
                )));
            }
        },
    };
    let further = kit.as_ref().map_or("", Kit::roots);
    let roots = format!("{}\n{further}", own.bundle.ca);
    let verifier = OnlyNode::new(&roots, wanted)
        .ok_or_else(|| Failure::Usage("bundle: no root in it can be trusted".into()))?;
    Ok(Dialer::direct(
        own.toward(verifier),
        address,
        target.node.to_string(),
    ))
}

/// A breakglass certificate is good at nodes and nowhere else.
pub(super) fn check_reach(own: &Credentials, direct: bool) -> Result<(), Failure> {
    match own.bundle.identity() {
        Ok(Identity::Breakglass(_)) if !direct => Err(Failure::Usage(
            "this is a breakglass bundle, which nodes accept and the controller does not: --direct NODE"
                .into(),
        )),
        _ => Ok(()),
    }
}

/// Says where one is and by which policy one is judged.
pub(super) async fn announce(context: &Context) -> Result<(), Failure> {
    let deadline = Instant::now() + context.global.timeout;
    let client = context.dialer.connect(deadline, context.global.timeout).await?;
    let hello = client
        .call(
            "asking the node who it is",
            client.direct().hello(v1::HelloRequest {}),
        )
        .await?;
    context.out.note(&line(&hello, Time::now()));
    Ok(())
}

fn line(hello: &v1::HelloReply, now: Time) -> String {
    let name = text::line(&hello.name, 80);
    let mut line = format!("directly at node {name}, without the controller");
    if hello.policy_issued_at_ms == 0 {
        line.push_str("; it has no policy, so nobody may act there");
    } else {
        // By the controller's clock; ours is the best guess at it.
        let age = Time(hello.policy_issued_at_ms).age(now);
        line.push_str(&format!("; its policy was issued {age}"));
    }
    if !hello.policy_trouble.is_empty() {
        line.push_str(&format!(" ({})", text::line(&hello.policy_trouble, 200)));
    }
    let apart = hello.clock_ms.abs_diff(now.0);
    if apart > 60_000 {
        line.push_str(&format!(
            "; its clock and yours are {} apart",
            crate::when::span(apart)
        ));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_where_one_is_and_how_old_the_policy_is() {
        let hello = v1::HelloReply {
            name: "n1".into(),
            policy_issued_at_ms: 1_000_000,
            clock_ms: 1_180_000,
            ..Default::default()
        };
        assert_eq!(
            line(&hello, Time(1_180_000)),
            "directly at node n1, without the controller; its policy was issued 3 min ago"
        );
        let lost = v1::HelloReply {
            policy_issued_at_ms: 0,
            policy_trouble: "policy is corrupt\u{1b}".into(),
            ..hello
        };
        assert_eq!(
            line(&lost, Time(1_480_000)),
            "directly at node n1, without the controller; it has no policy, so nobody may act there \
             (policy is corrupt\\u{1b}); its clock and yours are 5 min apart"
        );
    }
}
