//! What can be wrong with a front, switched while it runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Faults of one front, for all its clients, from the next byte on.
#[derive(Debug)]
pub struct Faults {
    mute: AtomicBool,
    garbage: AtomicBool,
    /// `u64::MAX`: never.
    drop_after: AtomicU64,
    /// Bytes per second; 0: as fast as can be.
    slow: AtomicU64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            mute: AtomicBool::new(false),
            garbage: AtomicBool::new(false),
            drop_after: AtomicU64::new(u64::MAX),
            slow: AtomicU64::new(0),
        }
    }
}

impl Faults {
    /// A server that hangs: connections are accepted and stay, nothing is answered, nothing passes either way. What
    /// the guest says meanwhile is lost to its clients.
    pub fn mute(&self, on: bool) {
        self.mute.store(on, Ordering::SeqCst);
    }

    /// A line at the wrong speed: as many bytes as there should be, all noise (telnet's commands too).
    pub fn garbage(&self, on: bool) {
        self.garbage.store(on, Ordering::SeqCst);
    }

    /// Each connection is closed when it has carried `bytes` to its client, counted from its beginning; those that
    /// have carried more are closed with their next byte. `None` ends the fault.
    pub fn drop_after(&self, bytes: impl Into<Option<u64>>) {
        self.drop_after
            .store(bytes.into().unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// At most so many bytes per second to each client; `None` (or 0) ends the fault.
    pub fn slow(&self, bytes_per_second: impl Into<Option<u64>>) {
        self.slow
            .store(bytes_per_second.into().unwrap_or(0), Ordering::SeqCst);
    }

    pub(super) fn is_mute(&self) -> bool {
        self.mute.load(Ordering::SeqCst)
    }

    pub(super) fn is_garbage(&self) -> bool {
        self.garbage.load(Ordering::SeqCst)
    }

    /// How many bytes a connection that has carried `sent` may still carry.
    pub(super) fn left(&self, sent: u64) -> u64 {
        self.drop_after.load(Ordering::SeqCst).saturating_sub(sent)
    }

    pub(super) fn rate(&self) -> Option<u64> {
        Some(self.slow.load(Ordering::SeqCst)).filter(|rate| *rate > 0)
    }
}
