//! Institutions that host nodes.

use authz::{Action, Target, may_see_site};
use proto::v1::sites_server::Sites;
use proto::v1::{CreateSiteRequest, GetSiteRequest, ListSitesReply, ListSitesRequest, Site};
use proto::{SiteName, WireError};
use tonic::{Request, Response, Status};

use super::people::plain;
use super::{Desk, pages};
use crate::error::Error;
use crate::store::{About, NewSite, SiteRecord};

/// Longest full name and address, characters.
const MAX_NAME: usize = 200;

impl Desk {
    fn site(&self, record: SiteRecord) -> Site {
        let attached = self.fleet.attached(Some(&record.name));
        let SiteRecord {
            name,
            full_name,
            abuse_contact,
            nodes,
            slices,
            pis,
            admins,
            created_at_ms: _,
        } = record;
        Site {
            name: name.into(),
            full_name,
            abuse_contact,
            nodes,
            attached: u32::try_from(attached).unwrap_or(u32::MAX),
            slices,
            pis: pis.into_iter().map(String::from).collect(),
            admins: admins.into_iter().map(String::from).collect(),
        }
    }
}

fn about(name: &SiteName) -> About {
    About {
        site: Some(name.clone()),
        ..About::default()
    }
}

#[tonic::async_trait]
impl Sites for Desk {
    async fn list(&self, request: Request<ListSitesRequest>) -> Result<Response<ListSitesReply>, Status> {
        let caller = self.caller(&request).await?;
        let ListSitesRequest {
            page_size,
            page_token,
        } = request.into_inner();
        let read = |page| async move { self.fleet.store().sites(&page).await };
        let show = |record: SiteRecord| may_see_site(&caller.actor, &record.name).then(|| self.site(record));
        let (sites, next_page_token) = pages::collect(page_size, page_token, read, show).await?;
        Ok(Response::new(ListSitesReply {
            sites,
            next_page_token,
        }))
    }

    async fn get(&self, request: Request<GetSiteRequest>) -> Result<Response<Site>, Status> {
        let caller = self.caller(&request).await?;
        let name: SiteName = request
            .get_ref()
            .name
            .parse()
            .map_err(WireError::id("name"))
            .map_err(Error::from)?;
        // Asked by name alone: a site that is not there is refused like one that is not theirs.
        self.permit(
            &caller,
            Action::SeeSite,
            &Target::Site(name.clone()),
            about(&name),
        )
        .await?;
        let record = self.fleet.store().site(&name).await.map_err(Error::from)?;
        Ok(Response::new(self.site(record)))
    }

    async fn create(&self, request: Request<CreateSiteRequest>) -> Result<Response<Site>, Status> {
        let caller = self.caller(&request).await?;
        let CreateSiteRequest {
            name,
            full_name,
            abuse_contact,
        } = request.into_inner();
        let name: SiteName = name.parse().map_err(WireError::id("name")).map_err(Error::from)?;
        let full_name = plain("full_name", full_name, MAX_NAME)?;
        let abuse_contact = plain("abuse_contact", abuse_contact, MAX_NAME)?;
        let target = Target::Site(name.clone());
        let permit = self
            .permit(&caller, Action::CreateSite, &target, about(&name))
            .await?;
        let note = self.change(
            &caller,
            Action::CreateSite,
            &target.to_string(),
            about(&name),
            &permit,
        );
        let site = NewSite {
            name,
            full_name,
            abuse_contact,
        };
        let record = self
            .fleet
            .store()
            .create_site(&site, note)
            .await
            .map_err(Error::from)?;
        Ok(Response::new(self.site(record)))
    }
}
