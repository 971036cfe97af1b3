//! What a process does before it reads a key.

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The memory of this process holds keys: it is never dumped, and no other process of our user looks into it. And as
/// many descriptors as may be had, for a node is one. What cannot be had is logged; nothing ends for it.
pub fn harden() {
    let closed = setrlimit(Resource::RLIMIT_CORE, 0, 0).and_then(|()| prctl::set_dumpable(false));
    if let Err(errno) = closed {
        tracing::warn!(%errno, "core dumps stay possible: they would hold keys");
    }
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match raised {
        Ok(descriptors) => tracing::debug!(descriptors, "limit raised"),
        Err(errno) => tracing::warn!(%errno, "descriptors stay as few as they were"),
    }
}
