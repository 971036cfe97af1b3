//! What people call: the gRPC services of `redbutton.v1` on the people's port.
//!
//! ```text
//! certificate ─▶ Caller (known to the store?) ─▶ authz::decide ─▶ store or fleet ─▶ wire
//!                        └────────── no ──────────────┴─▶ audit, refused
//! ```
//! `door` says who reaches which of them; `enrol` is all that an invite or an ended certificate reaches.
//! Every call asks `authz`. Refusals and changes are audited, reads that are allowed are not. Lists hold what the
//! caller may see. For what a caller may not see, "does not exist" and "is not yours" are the same answer.

mod access;
mod approvals;
mod audit_service;
mod caller;
pub(crate) mod door;
mod enrol;
mod kits;
mod node_keys;
mod nodes;
mod orders;
mod pages;
mod people;
mod rollouts;
mod sites;
mod slices;
mod visible;
pub(crate) mod wire;

use std::sync::Arc;

use proto::v1::access_server::AccessServer;
use proto::v1::approvals_server::ApprovalsServer;
use proto::v1::audit_server::AuditServer;
use proto::v1::enrol_server::EnrolServer;
use proto::v1::kits_server::KitsServer;
use proto::v1::nodes_server::NodesServer;
use proto::v1::orders_server::OrdersServer;
use proto::v1::people_server::PeopleServer;
use proto::v1::rollouts_server::RolloutsServer;
use proto::v1::sites_server::SitesServer;
use proto::v1::slices_server::SlicesServer;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::fleet::Fleet;
use crate::rollout::Rollouts;
use door::Door;

/// All services, over one fleet.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) door: Arc<Door>,
}

/// What the people's port serves.
#[derive(Clone)]
pub(crate) struct PeopleRoutes {
    /// For people: all services, health, and reflection in both of its versions.
    pub(crate) everything: Routes,
    /// For those who may only get a certificate.
    pub(crate) enrol: Routes,
}

/// What the people's port serves.
///
/// # Errors
/// When the committed descriptors cannot be read, which a test excludes.
pub(crate) async fn routes(
    fleet: Arc<Fleet>,
    door: Arc<Door>,
    rollouts: Arc<Rollouts>,
) -> Result<(PeopleRoutes, HealthReporter), tonic_reflection::server::Error> {
    const MAX: usize = proto::MAX_MESSAGE_BYTES;
    let desk = Desk { fleet, door };
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", ServingStatus::Serving).await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    macro_rules! limited {
        ($server:ident) => {
            $server::new(desk.clone())
                .max_decoding_message_size(MAX)
                .max_encoding_message_size(MAX)
        };
    }
    let everything = Routes::new(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(limited!(PeopleServer))
        .add_service(limited!(SitesServer))
        .add_service(limited!(SlicesServer))
        .add_service(limited!(NodesServer))
        .add_service(limited!(OrdersServer))
        .add_service(limited!(KitsServer))
        .add_service(limited!(ApprovalsServer))
        .add_service(
            RolloutsServer::new(rollouts::RolloutDesk::new(desk.clone(), rollouts))
                .max_decoding_message_size(MAX)
                .max_encoding_message_size(MAX),
        )
        .add_service(limited!(AuditServer))
        .add_service(limited!(AccessServer))
        .add_service(limited!(EnrolServer));
    let enrol = Routes::new(limited!(EnrolServer));
    Ok((PeopleRoutes { everything, enrol }, health))
}
