//! One client of a front, served by one thread.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::poll::PollFlags;

use super::front::Shared;
use super::subscription::Subscription;
use super::telnet::Telnet;
use crate::wake::{Watch, wait};

/// How much is taken from the hub at once: what is lost to a slow client is what waits there, not here.
const PIECE: usize = 4096;

/// A client that does not read, but goes on asking for answers, is dropped at so many.
const WAITING_BOUND: usize = 64 << 10;

/// How often a slow line moves.
const TICK: Duration = Duration::from_millis(20);

/// How a front speaks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dialect {
    Plain,
    Telnet,
}

pub(super) struct Client {
    shared: Arc<Shared>,
    /// A socket or a terminal; `File` only for its read and write.
    wire: File,
    subscription: Subscription,
    telnet: Option<Telnet>,
    waiting: Vec<u8>,
    sent: u64,
    /// When a slow line may carry more.
    next: Instant,
    noise: u32,
}

impl Client {
    pub(super) fn new(shared: Arc<Shared>, fd: OwnedFd, dialect: Dialect) -> Result<Self> {
        let subscription = shared.hub.subscribe(None)?;
        let (telnet, waiting) = match dialect {
            Dialect::Plain => (None, Vec::new()),
            Dialect::Telnet => {
                let (telnet, offer) = Telnet::new();
                (Some(telnet), offer)
            }
        };
        shared.clients.fetch_add(1, Ordering::SeqCst);
        let wire = File::from(fd);
        Ok(Self {
            shared,
            wire,
            subscription,
            telnet,
            waiting,
            sent: 0,
            next: Instant::now(),
            noise: 0x2545_f491,
        })
    }

    /// Until the client goes, a fault drops it, or all ends.
    pub(super) fn serve(mut self, watch: &Watch) {
        loop {
            self.fetch();
            let pause = self.next.saturating_duration_since(Instant::now());
            let may_send = !self.waiting.is_empty() && pause.is_zero();
            let mut events = PollFlags::POLLIN;
            events.set(PollFlags::POLLOUT, may_send);
            // While something waits here, news wait at the hub.
            let news = if self.waiting.is_empty() {
                PollFlags::POLLIN
            } else {
                PollFlags::empty()
            };
            let cap = (!self.waiting.is_empty() && !may_send).then_some(pause);
            let wanted = [
                (watch.as_fd(), PollFlags::POLLIN),
                (self.wire.as_fd(), events),
                (self.subscription.bell(), news),
            ];
            let [ended, wire_ready, _] = wait(wanted, cap);
            if ended || (wire_ready && !self.receive()) || (may_send && !self.send()) {
                return;
            }
        }
    }

    /// Takes from the hub what is next, when nothing waits.
    fn fetch(&mut self) {
        if !self.waiting.is_empty() {
            return;
        }
        let chunk = self.subscription.take(PIECE);
        if self.shared.faults.is_mute() {
            self.subscription.skip_to_now();
            return;
        }
        match &mut self.telnet {
            Some(telnet) => {
                telnet.line(self.shared.hub.is_connected(), chunk.lost > 0, &mut self.waiting);
                telnet.encode(&chunk.bytes, &mut self.waiting);
            }
            None => self.waiting = chunk.bytes,
        }
    }

    /// Takes what the client sends; false when it is gone.
    fn receive(&mut self) -> bool {
        let mut buffer = [0; PIECE];
        let bytes = match self.wire.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => &buffer[..count],
            Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        };
        if self.shared.faults.is_mute() {
            return true;
        }
        let Some(telnet) = &mut self.telnet else {
            self.shared.hub.offer(bytes);
            return true;
        };
        let received = telnet.receive(bytes);
        if received.purge {
            // What is encoded already stays: a command cut in two would spoil all that follows.
            self.subscription.skip_to_now();
        }
        self.waiting.extend(received.reply);
        self.shared.hub.offer(&received.data);
        for _ in 0..received.breaks {
            self.shared.break_sent();
        }
        self.waiting.len() <= WAITING_BOUND
    }

    /// Sends what the client takes and the faults let through; false when it is over.
    fn send(&mut self) -> bool {
        let faults = &self.shared.faults;
        if faults.is_mute() {
            self.waiting.clear();
            return true;
        }
        let left = faults.left(self.sent);
        if left == 0 {
            return false;
        }
        let rate = faults.rate();
        let tick = rate.map_or(u64::MAX, |rate| (rate / 50).max(1));
        let most = usize::try_from(left.min(tick))
            .unwrap_or(usize::MAX)
            .min(self.waiting.len());
        let piece: Vec<u8> = match faults.is_garbage() {
            false => self.waiting[..most].to_vec(),
            true => (0..most).map(|_| self.noise()).collect(),
        };
        match self.wire.write(&piece) {
            Ok(count) => {
                self.waiting.drain(..count);
                self.sent += count as u64;
                if let Some(rate) = rate {
                    self.next = Instant::now()
                        + TICK.max(Duration::from_secs(1) / u32::try_from(rate).unwrap_or(u32::MAX));
                }
                self.shared.faults.left(self.sent) > 0
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// The same noise each time (xorshift): a test that fails fails again.
    fn noise(&mut self) -> u8 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 17;
        self.noise ^= self.noise << 5;
        self.noise.to_le_bytes()[1]
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.clients.fetch_sub(1, Ordering::SeqCst);
    }
}
