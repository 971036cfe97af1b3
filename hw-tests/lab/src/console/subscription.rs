//! A reader of its own pace.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::eventfd::EventFd;

use super::hub::{Hub, Offset};
use crate::wake::wait;

/// What came next: never empty when returned by [`Subscription::read`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// How many bytes before these are gone, because this reader was too slow.
    pub lost: u64,
    /// The bytes as the guest sent them.
    pub bytes: Vec<u8>,
}

/// Bytes of a console from a point on. It holds no buffer of its own, only a place in the hub's.
pub struct Subscription {
    hub: Arc<Hub>,
    next: u64,
    /// Rung by the hub when bytes came or the connection changed. Not read by more than one.
    bell: Arc<EventFd>,
}

impl Subscription {
    pub(super) fn new(hub: Arc<Hub>, next: u64, bell: Arc<EventFd>) -> Self {
        Self { hub, next, bell }
    }

    /// The next bytes, or `None` if none came within `cap`.
    pub fn read(&mut self, cap: Duration) -> Option<Chunk> {
        let deadline = Instant::now() + cap;
        loop {
            let chunk = self.take(usize::MAX);
            if !chunk.bytes.is_empty() {
                return Some(chunk);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            wait([(self.bell(), PollFlags::POLLIN)], Some(left));
        }
    }

    /// The offset of the next byte that [`Self::read`] will give, if it is still there then.
    #[must_use]
    pub fn at(&self) -> Offset {
        Offset(self.next)
    }

    /// Forgets what has come so far.
    pub fn skip_to_now(&mut self) {
        self.next = self.hub.end();
    }

    /// At most `most` bytes of those that are there; silences the bell.
    pub(super) fn take(&mut self, most: usize) -> Chunk {
        // Before looking, so that bytes which come after the look ring again. Nothing to read is no error.
        let _ = self.bell.read();
        let chunk = self.hub.chunk_since(self.next, most);
        self.next += chunk.lost + chunk.bytes.len() as u64;
        chunk
    }

    /// Readable when [`Self::take`] may give something.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
