//! What a listener counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// What has happened at a listener since its start, and what is there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Handshakes in progress now.
    pub in_progress: usize,
    /// Authenticated connections now.
    pub established: usize,
    /// Connections accepted.
    pub accepted: u64,
    /// Handshakes that ended with an identity.
    pub completed: u64,
    /// Handshakes that failed: not TLS, no or a wrong certificate, hung up.
    pub failed: u64,
    /// Handshakes cut at their deadline.
    pub timed_out: u64,
    /// Handshakes that had to go for others.
    pub evicted: u64,
    /// Connections closed at once for want of descriptors.
    pub shed: u64,
    /// Errors of `accept`.
    pub accept_errors: u64,
}

/// The same, as it is counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) completed: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) shed: AtomicU64,
    pub(crate) accept_errors: AtomicU64,
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    /// As of now, with what is there now.
    pub(crate) fn read(&self, in_progress: usize, established: usize) -> Counts {
        let Counters {
            accepted,
            completed,
            failed,
            timed_out,
            evicted,
            shed,
            accept_errors,
        } = self;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            in_progress,
            established,
            accepted: of(accepted),
            completed: of(completed),
            failed: of(failed),
            timed_out: of(timed_out),
            evicted: of(evicted),
            shed: of(shed),
            accept_errors: of(accept_errors),
        }
    }
}
