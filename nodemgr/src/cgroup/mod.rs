//! Slivers are cgroup-v2 subtrees: where the hierarchy is, what this kernel gives, and a prepared handle on one.
//!
//! ```text
//!   Mount ── where cgroup2 is mounted (pure or beside v1), Facts: what the kernel has
//!     ├── Tree      our own subtrees, `redbutton.slice/<slice>`: made, filled, removed   (through cgroups-rs)
//!     ├── find()    what an adopt pattern matches, and what exists only in v1
//!     └── Sliver    a prepared handle: every file a kill writes or reads, open beforehand
//! ```
//!
//! Invariants: a `Sliver` speaks about one cgroup for ever, by its id; a directory that is removed and made
//! again under the same path is another cgroup, and the old handle says "gone". Nothing here is created by
//! opening: a typo makes no file. Nothing here decides what may be killed ([`crate::guard`]) nor kills
//! ([`crate::kill`]).
//!
//! The root is always an argument. Tests use a directory of plain files or a subtree of the real mount.

mod files;
mod find;
mod hierarchy;
mod mount;
mod sliver;
#[cfg(test)]
pub(crate) mod testing;
mod tree;

pub(crate) use files::read_short;
pub use files::{Events, PidsMax};
pub use find::{Found, find, matches};
pub(crate) use mount::normal as normal_path;
pub use mount::{Facts, Mount, MountError};
pub use sliver::{Sliver, SliverError};
pub use tree::{ControllerState, Made, Tree, TreeError};
