//! Our own programs, brought to the nodes in waves. ADR 0016.
//!
//! ```text
//!  redbutton rollout start ─▶ service ─▶ Shelf (bytes, by SHA-256) and rows
//!                                │
//!                                ▼        facts (attached? what runs? locked? holds? slivers?)
//!                             Runner ◀──────────────────────────── Fleet
//!                                │  every second, and after every answer
//!                                ▼
//!                  Machine::decide(facts, now) ─▶ acts ─▶ push: Offer, Chunk …, Activate | Revert
//!                     pure; rows are written before anything is done about them
//! ```
//! Invariants (each has its test in `machine_tests`):
//! - Only nodes of the waves so far are touched; of a site with more than one node never all are in motion.
//! - The first bad node more than tolerated stops it; what is in motion then is judged to its end, nothing new begins.
//! - It kills nobody: a node whose holds, slivers or lock are not as before counts as bad and is sent back.
//! - The controller may die at any moment: what was decided is in the rows, and doing it again does no harm.
//! - A node that is away gets it when it returns, as long as the rollout stands.
//!
//! Presses never wait for it: one chunk is under way on a link, a few links at once, within a bandwidth.

mod inspect;
mod machine;
mod model;
mod plan;
mod push;
mod runner;
mod shelf;

pub use inspect::{InspectError, Inspected, inspect};
pub use machine::Machine;
pub use model::{Act, Before, Head, Item, Look, Phase, Seen, Steer, SteerError, Step, Told};
pub use plan::{Plan, PlanError, assign};
pub use runner::Bounds;
pub(crate) use runner::{Rollouts, Start};
pub use shelf::{Shelf, ShelfError};

use serde::{Deserialize, Serialize};

/// A program that is on the shelf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Who it is, hex.
    pub sha256: String,
    /// `redbutton-nodemgr`.
    pub name: String,
    /// What it calls itself.
    pub version: String,
    /// As `uname -m` says it; empty: any.
    pub architecture: String,
    /// Bytes.
    pub size: u64,
    /// Who brought it: a person, or root on the controller's machine.
    pub added_by: String,
    /// When.
    pub added_at_ms: i64,
}
