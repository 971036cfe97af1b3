//! `redbutton site …`

use proto::v1;

use super::{Context, pages};
use crate::args::SiteCommand;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render;
use crate::view::site::{Site, Sites};

pub(super) async fn run(command: SiteCommand, context: &Context) -> Result<Exit, Failure> {
    let out = context.out;
    let client = context.client().await?;
    match command {
        SiteCommand::Ls => {
            let (sites, _) = pages(usize::MAX, async |page_token, page_size| {
                let request = v1::ListSitesRequest {
                    page_size,
                    page_token,
                };
                let reply = client.call("listing sites", client.sites().list(request)).await?;
                Ok((reply.sites, reply.next_page_token))
            })
            .await?;
            let view = Sites {
                sites: sites.into_iter().map(Site::from).collect(),
            };
            out.result(&view, |width| render::site::sites(&view.sites, width))?;
        }
        SiteCommand::Show { site } => {
            let request = v1::GetSiteRequest { name: site.into() };
            let view = Site::from(
                client
                    .call("looking at the site", client.sites().get(request))
                    .await?,
            );
            out.result(&view, |_| render::site::site(&view))?;
        }
        SiteCommand::Add {
            site,
            full_name,
            abuse_contact,
        } => {
            let request = v1::CreateSiteRequest {
                name: site.into(),
                full_name,
                abuse_contact,
            };
            let view = Site::from(
                client
                    .call("adding the site", client.sites().create(request))
                    .await?,
            );
            out.result(&view, |_| render::site::site(&view))?;
        }
    }
    Ok(Exit::Done)
}
