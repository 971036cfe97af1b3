//! The node manager on this machine's real cgroups. Each test works below a cgroup of its own and leaves nothing.
//! Where the machine gives no cgroups (no root, no cgroup2), tests say `skipped: REASON`.

#![allow(unreachable_pub, reason = "a test program exports nothing")]

mod adopt;
mod crash;

mod exec;
mod grpc;
mod merge;
mod orders;
mod state;
mod support;
mod versions;
