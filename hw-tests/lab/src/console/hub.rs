//! The hub: drains the socket, keeps, logs, rings.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::ring::Ring;
use super::subscription::{Chunk, Subscription};
use super::text;
use crate::wake::{Ender, Watch, end_and_watch, wait};

/// How much of a console is kept in memory: about four seconds of a guest that prints as fast as it can.
pub const KEPT: usize = 1 << 20;

/// How much of a console goes to its log file: a guest that never stops must not fill the disk.
pub const LOG_BOUND: u64 = 64 << 20;

/// How long [`Console::write`] waits for a guest that does not take its input.
const WRITE_CAP: Duration = Duration::from_secs(10);

/// How often a QEMU that is not there (yet, or again) is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How many lines an error shows.
const SHOWN_LINES: usize = 50;

/// A place in all that a console ever said: bytes since it was attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub(super) u64);

impl Offset {
    /// The very beginning.
    pub const START: Self = Self(0);

    /// Bytes since the beginning.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// Where a pattern was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The line around it, made safe, as far as it had come: what follows the pattern may still be on its way.
    pub text: String,
    /// Where the pattern begins.
    pub at: Offset,
    /// Behind the pattern: where to wait on.
    pub end: Offset,
}

/// One serial port of a guest. Ends its thread and its connection when dropped; fronts and subscriptions that are
/// left then see nothing new.
pub struct Console {
    hub: Arc<Hub>,
    ender: Option<Ender>,
    drain: Option<JoinHandle<()>>,
}

impl Console {
    /// Starts to drain the chardev at `socket` into `log` (appended to). A guest that is not there yet is waited for
    /// in the background, see [`Self::wait_connected`].
    ///
    /// # Errors
    /// If the log cannot be opened, or `socket` can never be one (a path longer than 107 bytes).
    pub fn attach(name: &str, socket: &Path, log: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("console {name}: open log {}", log.display()))?;
        UnixAddr::new(socket).with_context(|| format!("console {name}: socket {}", socket.display()))?;
        let hub = Arc::new(Hub {
            name: name.to_owned(),
            log: log.to_owned(),
            state: Mutex::new(State {
                ring: Ring::new(KEPT),
                link: None,
                connections: 0,
                bells: Vec::new(),
                log_error: None,
            }),
            changed: Condvar::new(),
            typing: Mutex::new(()),
            commands: Mutex::new(()),
        });
        let (ender, watch) = end_and_watch().context("pipe")?;
        // The first try is here, so that a guest that is there is connected when this returns.
        let first = hub.try_connect(socket);
        let drain = Drain {
            hub: Arc::clone(&hub),
            watch,
            socket: socket.to_owned(),
            log: file,
            logged: 0,
        };
        let thread = Builder::new()
            .name(format!("console {name}"))
            .spawn(move || drain.run(first))
            .context("start the drain thread")?;
        Ok(Self {
            hub,
            ender: Some(ender),
            drain: Some(thread),
        })
    }

    /// As given to [`Self::attach`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.hub.name
    }

    /// The log file.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.hub.log
    }

    /// Types `bytes`.
    ///
    /// # Errors
    /// If there is no guest, or it did not take all within 10 s (then how many it took).
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        self.hub.write(bytes)
    }

    /// Now: what comes from here on is behind this offset.
    #[must_use]
    pub fn mark(&self) -> Offset {
        Offset(self.hub.end())
    }

    /// Waits until the plain text `pattern` comes after `since`, also if it has come already.
    ///
    /// # Errors
    /// If it does not come within `cap`: with the last 50 lines.
    pub fn wait_for(&self, since: Offset, pattern: &str, cap: Duration) -> Result<Line> {
        Ok(self.wait_any(since, &[pattern], cap)?.1)
    }

    /// Waits for the first of `patterns`, in order of the stream; says which.
    ///
    /// # Errors
    /// If none comes within `cap`: with the last 50 lines. If `patterns` is empty or one of them is.
    pub fn wait_any(&self, since: Offset, patterns: &[&str], cap: Duration) -> Result<(usize, Line)> {
        self.hub.wait_any(since, patterns, cap)
    }

    /// The last lines, safe to print.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        self.hub.tail(lines)
    }

    /// What came since, safe to print, as far as it is still in memory (1 MiB).
    #[must_use]
    pub fn text_since(&self, since: Offset) -> String {
        text::safe(self.hub.lock().ring.since(since.0).bytes)
    }

    /// What came since, as it came, and how much of it is gone.
    #[must_use]
    pub fn bytes_since(&self, since: Offset) -> Chunk {
        self.hub.chunk_since(since.0, usize::MAX)
    }

    /// A reader that starts now.
    ///
    /// # Errors
    /// If there are no more file descriptors.
    pub fn subscribe(&self) -> Result<Subscription> {
        self.hub.subscribe(None)
    }

    /// A reader that starts at `since`.
    ///
    /// # Errors
    /// If there are no more file descriptors.
    pub fn subscribe_from(&self, since: Offset) -> Result<Subscription> {
        self.hub.subscribe(Some(since.0))
    }

    /// Whether a QEMU is at the other end now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.hub.is_connected()
    }

    /// How often a QEMU was found: grows by one with each restart.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.hub.lock().connections
    }

    /// Waits until there have been at least `connections` connections, and one is up.
    ///
    /// # Errors
    /// If that is not so within `cap`.
    pub fn wait_connected(&self, connections: u64, cap: Duration) -> Result<()> {
        let deadline = Instant::now() + cap;
        let mut state = self.hub.lock();
        while state.link.is_none() || state.connections < connections {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "console {}: expected connection {connections} within {cap:?}, got {} (now {})",
                    self.hub.name,
                    state.connections,
                    if state.link.is_some() { "up" } else { "down" },
                );
            }
            state = self.hub.pause(state, left);
        }
        Ok(())
    }

    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.ender.take();
        if let Some(thread) = self.drain.take() {
            // A panic of the drain has been printed by its thread; here may be another one under way.
            let _ = thread.join();
        }
    }
}

/// What the drain, the callers and the fronts share.
pub(super) struct Hub {
    name: String,
    log: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
    /// Held while typing, so that the lines of two do not mix. Never taken by the drain.
    typing: Mutex<()>,
    /// Held by a shell while its command runs: two on one port would find each other's output in theirs.
    commands: Mutex<()>,
}

struct State {
    ring: Ring,
    link: Option<Arc<UnixStream>>,
    connections: u64,
    bells: Vec<Weak<EventFd>>,
    log_error: Option<String>,
}

impl State {
    fn ring_bells(&mut self) {
        // A bell that cannot be rung is full, which is as good as rung.
        self.bells
            .retain(|bell| bell.upgrade().map(|bell| bell.write(1)).is_some());
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every statement: a panicked test may still print the tail.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause<'a>(&self, state: MutexGuard<'a, State>, cap: Duration) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, cap)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    fn change(&self, how: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        how(&mut state);
        state.ring_bells();
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn one_command(&self) -> MutexGuard<'_, ()> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end(&self) -> u64 {
        self.lock().ring.end()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.lock().link.is_some()
    }

    pub(super) fn chunk_since(&self, offset: u64, most: usize) -> Chunk {
        let state = self.lock();
        let held = state.ring.since(offset);
        Chunk {
            lost: held.lost,
            bytes: held.bytes[..held.bytes.len().min(most)].to_vec(),
        }
    }

    pub(super) fn subscribe(self: &Arc<Self>, since: Option<u64>) -> Result<Subscription> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let bell = Arc::new(EventFd::from_flags(flags).context("eventfd")?);
        let mut state = self.lock();
        state.bells.push(Arc::downgrade(&bell));
        let next = since.unwrap_or_else(|| state.ring.end());
        drop(state);
        Ok(Subscription::new(Arc::clone(self), next, bell))
    }

    pub(super) fn tail(&self, lines: usize) -> String {
        text::last_lines(self.lock().ring.last(64 << 10), lines)
    }

    pub(super) fn wait_any(&self, since: Offset, patterns: &[&str], cap: Duration) -> Result<(usize, Line)> {
        let Some(longest) = patterns.iter().map(|pattern| pattern.len()).max() else {
            bail!("console {}: no pattern to wait for", self.name);
        };
        if patterns.iter().any(|pattern| pattern.is_empty()) {
            bail!("console {}: an empty pattern to wait for", self.name);
        }
        let deadline = Instant::now() + cap;
        let mut from = since.0;
        let mut lost = 0;
        let mut state = self.lock();
        loop {
            let held = state.ring.since(from);
            lost += held.lost;
            if let Some((which, at)) = text::find_any(held.bytes, patterns) {
                let at = held.at + at as u64;
                return Ok((which, line_at(&state.ring, at, patterns[which].len())));
            }
            // All but what may be the first part of a pattern is done with.
            from = from
                .max(state.ring.end().saturating_sub(longest as u64 - 1))
                .max(held.at);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.pause(state, left);
        }
        let came = state.ring.end().saturating_sub(since.0);
        let link = if state.link.is_some() {
            "connected"
        } else {
            "not connected"
        };
        let log_error = state
            .log_error
            .as_ref()
            .map(|error| format!("; {error}"))
            .unwrap_or_default();
        drop(state);
        bail!(
            "console {}: expected {patterns:?} within {cap:?}, got {came} other bytes ({lost} of them gone unseen; \
             {link}{log_error}); the last lines:\n{}",
            self.name,
            self.tail(SHOWN_LINES)
        )
    }

    pub(super) fn write(&self, bytes: &[u8]) -> Result<()> {
        let done = self
            .write_within(bytes, WRITE_CAP)
            .with_context(|| format!("console {}", self.name))?;
        if done < bytes.len() {
            bail!(
                "console {}: the guest took {done} of {} bytes in {WRITE_CAP:?}",
                self.name,
                bytes.len()
            );
        }
        Ok(())
    }

    /// Types what the guest takes at once; the rest is lost, as on a serial line without flow control. For fronts,
    /// whose threads must not wait for a guest that hangs.
    pub(super) fn offer(&self, bytes: &[u8]) {
        let _ = self.write_within(bytes, Duration::ZERO);
    }

    fn write_within(&self, bytes: &[u8], cap: Duration) -> io::Result<usize> {
        let _typing = self.typing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(link) = self.lock().link.clone() else {
            return Err(io::Error::new(ErrorKind::NotConnected, "no guest is connected"));
        };
        let deadline = Instant::now() + cap;
        let mut done = 0;
        while done < bytes.len() {
            match (&*link).write(&bytes[done..]) {
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    wait([(link.as_fd(), PollFlags::POLLOUT)], Some(left));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Never blocks: QEMU, while it serves another client, leaves a second `connect` waiting.
    fn try_connect(&self, path: &Path) -> Option<Arc<UnixStream>> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
        let address = UnixAddr::new(path).ok()?;
        connect(fd.as_raw_fd(), &address).ok()?;
        let link = Arc::new(UnixStream::from(fd));
        self.change(|state| {
            state.link = Some(Arc::clone(&link));
            state.connections += 1;
        });
        Some(link)
    }
}

fn line_at(ring: &Ring, at: u64, length: usize) -> Line {
    /// A line is cut here on both sides of its pattern.
    const MOST: usize = 4096;
    let end = at + length as u64;
    let before = ring.since(at.saturating_sub(MOST as u64));
    let split = usize::try_from(at - before.at).unwrap_or(0);
    let (head, rest) = before.bytes.split_at(split.min(before.bytes.len()));
    let head = &head[head
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1)..];
    let (found, rest) = rest.split_at(length.min(rest.len()));
    let rest = &rest[..rest.len().min(MOST)];
    let rest = &rest[..rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())];
    let whole = [head, found, rest].concat();
    Line {
        text: text::safe(whole.strip_suffix(b"\r").unwrap_or(&whole)),
        at: Offset(at),
        end: Offset(end),
    }
}

struct Drain {
    hub: Arc<Hub>,
    watch: Watch,
    socket: PathBuf,
    log: File,
    logged: u64,
}

impl Drain {
    fn run(mut self, first: Option<Arc<UnixStream>>) {
        let mut link = first;
        loop {
            if let Some(link) = link.take() {
                let ended = self.drain(&link);
                self.hub.change(|state| state.link = None);
                if ended {
                    return;
                }
            }
            if self.watch.ended_within(LOOK_AGAIN) {
                return;
            }
            link = self.hub.try_connect(&self.socket);
        }
    }

    /// Until the connection ends, or all does (true).
    fn drain(&mut self, link: &UnixStream) -> bool {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let wanted = [
                (self.watch.as_fd(), PollFlags::POLLIN),
                (link.as_fd(), PollFlags::POLLIN),
            ];
            if wait(wanted, None)[0] {
                return true;
            }
            match (&*link).read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => {
                    let bytes = &buffer[..count];
                    self.record(bytes);
                    self.hub.change(|state| state.ring.push(bytes));
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => return false,
            }
        }
    }

    /// To the log; if it fails (a full disk) draining goes on, and the errors of waits tell.
    fn record(&mut self, bytes: &[u8]) {
        if self.logged >= LOG_BOUND {
            return;
        }
        self.logged += bytes.len() as u64;
        let mut outcome = self.log.write_all(bytes);
        if self.logged >= LOG_BOUND && outcome.is_ok() {
            outcome = self.log.write_all(b"\n[the lab's log of this console is full]\n");
        }
        if let Err(error) = outcome {
            let told = format!("log {}: {error}", self.hub.log.display());
            self.hub.change(|state| state.log_error = Some(told));
        }
    }
}

#[cfg(test)]
mod tests;
