//! On every node: slivers, holds, kill.
//!
//! A sliver is the part of a slice on this node: a cgroup-v2 subtree, started through [`exec`] or adopted by pattern.
//! A hold says that it may not run. Holds come as orders over the link (or stand on disk), stop new starts, freeze
//! and kill what runs, and are proven dead.
//!
//! ```text
//!  link ── Agent (gRPC) ──┐                       ┌── cgroup, guard, kill, procfs, prepare: the kernel's side
//!                         ├── Node (the engine) ──┤
//!  exec (local socket) ───┘                       └── holds: what may not run, and its file
//! ```
//!
//! What it does not do: run commands of anybody's over the network, judge who may order what (the controller has),
//! delete anything of a slice.

pub mod adopt;
mod agent;
pub mod cgroup;
mod check;
pub mod config;
mod crash;
pub mod diary;
pub mod direct;
mod engine;
pub mod exec;
pub mod guard;
mod guided;
mod heads;
pub mod holds;
pub mod journal;
pub mod keys;
pub mod kill;
mod merge;
pub mod policy;
pub mod prepare;
pub mod procfs;
mod report;
pub mod restart;
mod run;
pub mod software;
mod sys;
#[cfg(test)]
mod testing;
mod worker;

pub use agent::Agent;
pub use check::check;
pub use config::Config;
pub use engine::{Node, Reply, Setup, StartError};
pub use guided::Listening;
pub use report::machine;
pub use run::{RunError, prepare_link_thread, run, stop_on_signal};
