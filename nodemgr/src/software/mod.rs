//! Which program runs as this daemon, and how another one takes its place. ADR 0016.
//!
//! ```text
//!  service manager ─▶ /usr/bin/redbutton-nodemgr run ──▶ launch: ledger says ─▶ nothing: goes on as it is
//!                       (came with the package)            │
//!                                                          └▶ a program: counts the start, leaves a guard if it is
//!                                                             on trial, and becomes it (execve)
//!  controller ─ Offer, Chunk ─▶ incoming/DIGEST.part ─ digest right ─▶ DIGEST/program
//!             ─ Activate ─▶ tried as a child ─▶ ledger: on trial ─▶ we end, the service manager starts us again
//!             ─ Revert ─▶ ledger: the one before ─▶ we end
//! ```
//! Invariants:
//! - Nothing runs that the controller's signer did not name by its SHA-256, except the package.
//! - Whether a new program is good is not decided by the new program: the packaged one counts its starts, and a guard
//!   (a child of the packaged one) ends it if it has not attached in time. A program that dies at once, hangs or
//!   cannot be run is left for the one before it, and the report says why.
//! - The ledger is replaced whole, and written before anything that it says is done. If it cannot be read, the
//!   package runs.
//! - Whoever installs another package by hand means it: then the package runs.
//! - Slivers are not ours to end: they live in other cgroups and go on.
//!
//! It does not judge health beyond "attached": the controller does, from outside, and sends us back.

mod guard;
mod launch;
mod ledger;
mod place;
mod service;
mod trial;
mod version;

pub use guard::{GuardArgs, guard};
pub use launch::launch;
pub use ledger::{Ledger, Program};
pub use service::Updates;
pub use version::version;

pub(crate) use service::Setup;

/// What programs of this kind are called in manifests.
const NAME: &str = "redbutton-nodemgr";
/// Says to a program which of ours it is: its SHA-256.
const SELF: &str = "REDBUTTON_SOFTWARE";
/// Says to a program which version came with the package.
const PACKAGED: &str = "REDBUTTON_PACKAGED";
