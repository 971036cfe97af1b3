//! Experiments and services across nodes.

use authz::{Action, Target, may_see_hold, may_see_slice};
use proto::v1::slices_server::Slices;
use proto::v1::{
    self, CreateSliceRequest, GetSliceRequest, ListSlicesReply, ListSlicesRequest, Slice, SliceDetail,
    SliverOnNode,
};
use proto::{SliceName, WireError};
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::orders::site_field;
use super::people::plain;
use super::{Desk, pages, wire};
use crate::error::Error;
use crate::store::{About, NewSlice, SliceRecord};

/// Longest description, characters.
const MAX_DESCRIPTION: usize = 1_000;
/// Longest address, characters.
const MAX_CONTACT: usize = 200;
/// Most contacts of a slice.
const MAX_CONTACTS: usize = 32;
/// Bytes of slivers in a detail, and of holds.
const MAX_PART_BYTES: usize = 400 << 10;

impl Desk {
    fn slice(&self, caller: &Caller, record: SliceRecord) -> Slice {
        let (running_on, frozen_on) = self.fleet.activity(&record.name);
        let holds = self.slice_holds(caller, &record.name).len();
        let SliceRecord {
            name,
            description,
            contacts,
            developers,
            pis,
            created_at_ms: _,
        } = record;
        Slice {
            site: name.site().into(),
            name: name.into(),
            description,
            contacts,
            developers: developers.into_iter().map(String::from).collect(),
            pis: pis.into_iter().map(String::from).collect(),
            running_on,
            frozen_on,
            holds: u32::try_from(holds).unwrap_or(u32::MAX),
        }
    }

    fn slice_holds(&self, caller: &Caller, slice: &SliceName) -> Vec<proto::Hold> {
        let runs_at = self.fleet.runs_at(slice);
        self.fleet.holds(|hold, member| {
            hold.slice.as_ref() == Some(slice)
                && may_see_hold(&caller.actor, hold, member.map(|member| &member.site), &runs_at)
        })
    }
}

fn about(name: &SliceName) -> About {
    About {
        slice: Some(name.clone()),
        ..About::default()
    }
}

fn slice_name(text: &str) -> Result<SliceName, Error> {
    Ok(text.parse().map_err(WireError::id("name"))?)
}

#[tonic::async_trait]
impl Slices for Desk {
    async fn list(&self, request: Request<ListSlicesRequest>) -> Result<Response<ListSlicesReply>, Status> {
        let caller = self.caller(&request).await?;
        let ListSlicesRequest {
            page_size,
            page_token,
            site,
        } = request.into_inner();
        let site = site_field("site", &site)?;
        let read = |page| {
            let site = &site;
            async move { self.fleet.store().slices(site.as_ref(), &page).await }
        };
        let show = |record: SliceRecord| {
            may_see_slice(&caller.actor, &record.name, &self.fleet.runs_at(&record.name))
                .then(|| self.slice(&caller, record))
        };
        let (slices, next_page_token) = pages::collect(page_size, page_token, read, show).await?;
        Ok(Response::new(ListSlicesReply {
            slices,
            next_page_token,
        }))
    }

    async fn get(&self, request: Request<GetSliceRequest>) -> Result<Response<SliceDetail>, Status> {
        let caller = self.caller(&request).await?;
        let name = slice_name(&request.get_ref().name)?;
        if !may_see_slice(&caller.actor, &name, &self.fleet.runs_at(&name)) {
            self.permit(
                &caller,
                Action::SeeSlice,
                &Target::Slice(name.clone()),
                about(&name),
            )
            .await?;
        }
        let record = self.fleet.store().slice(&name).await.map_err(Error::from)?;
        let everywhere = may_see_slice(&caller.actor, &name, []);
        let slivers = self
            .fleet
            .slivers(&name)
            .into_iter()
            .filter(|(node, _)| everywhere || may_see_slice(&caller.actor, &name, [&node.site]));
        let slivers = slivers.map(|(node, sliver)| SliverOnNode {
            node: node.id.to_string(),
            node_name: node.name.to_string(),
            site: node.site.to_string(),
            sliver: Some(sliver),
        });
        let holds = self.slice_holds(&caller, &name).into_iter().map(v1::Hold::from);
        Ok(Response::new(SliceDetail {
            holds: wire::fitting(holds, MAX_PART_BYTES),
            slivers: wire::fitting(slivers, MAX_PART_BYTES),
            slice: Some(self.slice(&caller, record)),
        }))
    }

    async fn create(&self, request: Request<CreateSliceRequest>) -> Result<Response<Slice>, Status> {
        let caller = self.caller(&request).await?;
        let CreateSliceRequest {
            name,
            description,
            contacts,
        } = request.into_inner();
        let name = slice_name(&name)?;
        let description = plain("description", description, MAX_DESCRIPTION)?;
        if contacts.len() > MAX_CONTACTS {
            let text = format!(
                "contacts: {} given, at most {MAX_CONTACTS} are allowed",
                contacts.len()
            );
            return Err(Error::Malformed(text).into());
        }
        let contacts = contacts
            .into_iter()
            .map(|one| plain("contacts", one, MAX_CONTACT))
            .collect::<Result<Vec<_>, _>>()?;
        let target = Target::Slice(name.clone());
        let permit = self
            .permit(&caller, Action::CreateSlice, &target, about(&name))
            .await?;
        let note = self.change(&caller, Action::CreateSlice, name.as_str(), about(&name), &permit);
        let slice = NewSlice {
            name,
            description,
            contacts,
        };
        let record = self
            .fleet
            .store()
            .create_slice(&slice, note)
            .await
            .map_err(Error::from)?;
        Ok(Response::new(self.slice(&caller, record)))
    }
}
