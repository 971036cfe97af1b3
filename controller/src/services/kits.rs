//! What somebody takes along for the day on which the controller is gone.

use std::collections::BTreeSet;

use authz::{Action, Grant, Target, decide, may_see_node};
use proto::SliceName;
use proto::v1::kits_server::Kits;
use proto::v1::{KitNode, KitPart, KitRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Desk;
use super::caller::Caller;
use crate::error::Error;
use crate::fleet::now_ms;
use crate::store::{About, NodeRecord, NodeSelection, PageRequest};

/// Nodes in one part.
const NODES: u32 = 500;
/// Parts that wait for a reader.
const PARTS: usize = 2;

/// Where somebody may do something besides the nodes of their site.
struct Reach {
    /// Nodes on which a slice of theirs runs.
    running: BTreeSet<proto::NodeId>,
}

impl Desk {
    async fn reach(&self, caller: &Caller) -> Result<Reach, Error> {
        let mut slices: Vec<SliceName> = Vec::new();
        for grant in &caller.actor.grants {
            match grant {
                Grant::Developer(slice) => slices.push(slice.clone()),
                Grant::Pi(site) => {
                    let mut page = PageRequest {
                        size: PageRequest::MAX,
                        token: String::new(),
                    };
                    loop {
                        let found = self.fleet.store().slices(Some(site), &page).await?;
                        slices.extend(found.items.into_iter().map(|slice| slice.name));
                        if found.next.is_empty() {
                            break;
                        }
                        page.token = found.next;
                    }
                }
                Grant::SiteAdmin(_) | Grant::Support => {}
            }
        }
        slices.sort_unstable();
        slices.dedup();
        let running = self.fleet.running(&slices).into_iter().collect();
        Ok(Reach { running })
    }

    fn in_kit(caller: &Caller, reach: &Reach, node: &NodeRecord) -> bool {
        may_see_node(&caller.actor, &node.site) || reach.running.contains(&node.id)
    }

    async fn kit(self, caller: Caller, parts: mpsc::Sender<Result<KitPart, Status>>) -> Result<(), Error> {
        let reach = self.reach(&caller).await?;
        let mut first = true;
        let mut page = PageRequest {
            size: NODES,
            token: String::new(),
        };
        loop {
            let found = self.fleet.store().nodes(&NodeSelection::default(), &page).await?;
            let mut part = KitPart::default();
            if std::mem::take(&mut first) {
                part.roots = self.fleet.policies().roots();
                part.exported_at_ms = now_ms();
            }
            for record in found
                .items
                .iter()
                .filter(|record| Self::in_kit(&caller, &reach, record))
            {
                if part.policy_issued_at_ms == 0 {
                    part.policy_issued_at_ms = self.fleet.policies().issued_at_ms(&record.site).unwrap_or(0);
                }
                let node = self.fleet.describe(record);
                part.nodes.push(KitNode {
                    id: node.id,
                    name: node.name,
                    site: node.site,
                    boot_id: node.boot_id,
                    direct_address: node.direct_address,
                    last_seen_ms: node.last_seen_ms,
                    // The secrets of the POD come with the POD.
                    pod: None,
                });
            }
            if parts.send(Ok(part)).await.is_err() || found.next.is_empty() {
                return Ok(());
            }
            page.token = found.next;
        }
    }
}

#[tonic::async_trait]
impl Kits for Desk {
    type ExportStream = ReceiverStream<Result<KitPart, Status>>;

    async fn export(&self, request: Request<KitRequest>) -> Result<Response<Self::ExportStream>, Status> {
        let caller = self.caller(&request).await?;
        if caller.actor.grants.is_empty() {
            let rule = decide(&caller.actor, Action::SeeNode, &Target::Fleet)
                .rule()
                .to_owned();
            return Ok(self
                .refuse(&caller, "export-kit", "kit", About::default(), rule)
                .await?);
        }
        // Who takes the addresses along is worth knowing later.
        self.note_kit(&caller).await;
        let (parts, stream) = mpsc::channel(PARTS);
        let desk = self.clone();
        drop(tokio::spawn(async move {
            if let Err(error) = Box::pin(desk.kit(caller, parts.clone())).await {
                // Nobody may read any more.
                let _ = parts.send(Err(error.into())).await;
            }
        }));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
