//! `redbutton-nodemgr exec SLICE -- COMMAND…`: how a unit file starts something as a sliver.
//!
//! ```text
//! client (root)                         daemon
//!   connect ──── {"slice": …} ────────▶ who is it? (SO_PEERCRED, pidfd)   ── not root: refused
//!                                       lock; does a hold cover the slice? ── yes: refused, exit 5
//!                                       move the client's own process into the sliver's cgroup
//!           ◀─── {"granted": uid …} ─── unlock
//!   drop every privilege, check that it is so, execvp
//! ```
//!
//! The daemon never runs a command of anybody's. A press between the check and the exec is no race: the client
//! is in the cgroup already and dies with it. One line of JSON each way, bounded.

mod client;
mod daemon;
mod drop;
mod sys;

use proto::SliceName;
use serde::{Deserialize, Serialize};

pub use client::{ExecError, run, socket};
pub(crate) use daemon::Peer;
pub use daemon::serve;

/// Longest line of the exchange, bytes.
const MAX_LINE: usize = 8 << 10;

/// The client's wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Request {
    /// The slice to join.
    slice: SliceName,
}

/// The daemon's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Reply {
    /// You are in the cgroup; become this user.
    Granted(Granted),
    /// You may not, and why.
    Refused(String),
    /// You may, but it could not be done.
    Failed(String),
}

/// What a started sliver becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Its user, and the group of the same number.
    pub uid: u32,
    /// Its cgroup, below the mount.
    pub cgroup: String,
}
