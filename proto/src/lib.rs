//! What two Redbutton processes must agree on: the protobuf contracts of `redbutton.v1`, the identifiers and
//! their grammar, who a certificate speaks for, and the bundle file that carries it. No I/O, no runtime.
//!
//! Wire types (module [`v1`]) are what anybody may send; the types here are what has been checked. The
//! conversion at the rim is `TryFrom`, and it names what is wrong.

pub mod bundle;
pub mod canonical;
mod hold;
mod identity;
mod ids;
#[cfg(feature = "grpc")]
mod secret;
mod tombstone;
#[cfg(feature = "grpc")]
mod wire;

pub use hold::{Hold, HoldKind, Role, Scope};
pub use identity::{DaemonRole, Identity, IdentityError};
pub use ids::{
    BootId, HoldId, IdError, InviteId, NodeId, NodeName, OrderId, PersonName, ProposalId, SiteName,
    SliceName, Version,
};
pub use tombstone::{Lifted, Tombstone};
#[cfg(feature = "grpc")]
pub use wire::WireError;

/// Version of the daemons' protocol. Raise it when an old peer would misunderstand; N and N−1 must work together.
pub const PROTOCOL: u32 = 1;

/// The port where the controller listens for people.
pub const PEOPLE_PORT: u16 = 7443;
/// The port where the controller listens for daemons.
pub const DAEMON_PORT: u16 = 7444;
/// The port where a node listens for people.
pub const DIRECT_PORT: u16 = 7445;

/// The capability in a node's report that says that it keeps a policy (`Command.policy`). Others are not sent one.
pub const POLICY_CAPABILITY: &str = "policy";

/// Largest message that either side accepts, bytes.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Generated from `proto/redbutton/v1/*.proto`; a test of `proto/codegen` proves that it is current.
#[cfg(feature = "grpc")]
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code; its documentation stands in the .proto files"
)]
pub mod v1 {
    include!("gen/redbutton.v1.rs");
}

/// The compiled descriptors of `redbutton.v1`, for gRPC reflection.
#[cfg(feature = "grpc")]
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/redbutton.v1.bin");
