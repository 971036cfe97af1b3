//! `redbutton slice …` and `redbutton kill-slice`.

use proto::v1;
use proto::v1::press_request::Wish;
use proto::v1::release_wish::What;
use proto::v1::scope::Reach;

use super::{Context, pages, press};
use crate::args::{ReleaseSlice, SliceCommand, SliceTarget};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render;
use crate::view::hold::{Exemption, Hold, Holds};
use crate::view::slice::{Slice, SliceDetail, Slices, SliverOnNode};
use crate::when::Time;

pub(super) async fn run(command: SliceCommand, context: &Context) -> Result<Exit, Failure> {
    let out = context.out;
    match command {
        SliceCommand::Kill(target) => return kill(target, context).await,
        SliceCommand::Freeze(target) => return hold(target, v1::HoldKind::Freeze, context).await,
        SliceCommand::Release(what) => return release(what, context).await,
        SliceCommand::Ls { site } => {
            let client = context.client().await?;
            let site = site.map(String::from).unwrap_or_default();
            let (slices, _) = pages(usize::MAX, async |page_token, page_size| {
                let request = v1::ListSlicesRequest {
                    page_size,
                    page_token,
                    site: site.clone(),
                };
                let reply = client
                    .call("listing slices", client.slices().list(request))
                    .await?;
                Ok((reply.slices, reply.next_page_token))
            })
            .await?;
            let view = Slices {
                slices: slices.into_iter().map(Slice::from).collect(),
            };
            out.result(&view, |width| render::slice::slices(&view.slices, width))?;
        }
        SliceCommand::Show { slice } => {
            let client = context.client().await?;
            let request = v1::GetSliceRequest { name: slice.into() };
            let reply = client
                .call("looking at the slice", client.slices().get(request))
                .await?;
            let view = SliceDetail {
                slice: reply.slice.ok_or(Failure::Incomplete("the slice"))?.into(),
                holds: reply.holds.into_iter().map(Hold::from).collect(),
                slivers: reply.slivers.into_iter().map(SliverOnNode::from).collect(),
            };
            out.result(&view, |width| render::slice::detail(&view, Time::now(), width))?;
        }
        SliceCommand::Add {
            slice,
            description,
            contacts,
        } => {
            let client = context.client().await?;
            let request = v1::CreateSliceRequest {
                name: slice.into(),
                description,
                contacts,
            };
            let reply = client
                .call("adding the slice", client.slices().create(request))
                .await?;
            let view = Slice::from(reply);
            out.result(&view, |width| {
                render::slice::slices(std::slice::from_ref(&view), width)
            })?;
        }
        SliceCommand::Holds { slice } => {
            let client = context.client().await?;
            let request = v1::ListHoldsRequest {
                slice: slice.into(),
                node: String::new(),
            };
            let reply = client
                .call("listing holds", client.orders().holds(request))
                .await?;
            let view = Holds {
                holds: reply.holds.into_iter().map(Hold::from).collect(),
                exemptions: reply.exemptions.into_iter().map(Exemption::from).collect(),
            };
            out.result(&view, |width| match view.holds.as_slice() {
                [] => "no holds\n".to_owned(),
                holds => render::hold::holds(holds, &view.exemptions, Time::now(), width),
            })?;
        }
    }
    Ok(Exit::Done)
}

/// `slice kill` and `kill-slice`.
pub(super) async fn kill(target: SliceTarget, context: &Context) -> Result<Exit, Failure> {
    hold(target, v1::HoldKind::Suspend, context).await
}

async fn hold(target: SliceTarget, kind: v1::HoldKind, context: &Context) -> Result<Exit, Failure> {
    let SliceTarget {
        slice,
        node,
        site,
        press: args,
    } = target;
    let (reach, place) = match (node, site) {
        (Some(node), _) => (Reach::Node(node.to_string()), format!("on node {node}")),
        (None, Some(site)) => (
            Reach::Site(site.to_string()),
            format!("on every node of site {site}"),
        ),
        (None, None) => (Reach::Fleet(true), "everywhere".to_owned()),
    };
    let doing = if kind == v1::HoldKind::Suspend {
        "killing"
    } else {
        "freezing"
    };
    let hitting = format!("{doing} slice {slice} {place}");
    let wish = v1::HoldWish {
        slice: slice.into(),
        scope: Some(v1::Scope { reach: Some(reach) }),
        kind: kind.into(),
    };
    press::run(context, Wish::Hold(wish), &hitting, args).await
}

async fn release(what: ReleaseSlice, context: &Context) -> Result<Exit, Failure> {
    let ReleaseSlice {
        slice,
        hold,
        press: args,
    } = what;
    let (what, hitting) = match (hold, slice) {
        (Some(hold), _) => (What::Hold(hold.to_string()), format!("lifting hold {hold}")),
        (None, Some(slice)) => {
            let hitting = format!("lifting every hold on slice {slice} that you may release");
            (What::Slice(slice.into()), hitting)
        }
        (None, None) => return Err(Failure::Usage("a slice or --hold ID is required".to_owned())),
    };
    press::run(
        context,
        Wish::Release(v1::ReleaseWish { what: Some(what) }),
        &hitting,
        args,
    )
    .await
}
