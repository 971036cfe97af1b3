//! Where mail goes to be looked at: an SMTP server that keeps what it gets, and can be as bad as real ones.
//!
//! ```text
//! sender ── TCP ──► [client thread] ──► Session (pure, `smtp`) ──► mails kept ──► wait_for, mails
//!                         ▲
//!                      Fault (switched while it runs)
//! ```
//!
//! - The listener is the caller's, and so lies in the network namespace in which the caller made it.
//! - Everything is bounded: lines, recipients, the size of a mail, their number, connections.
//! - Ends with its threads and connections when dropped.
//!
//! What it does not do: no TLS, no AUTH; MIME parts and encoded words are not decoded.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::PollFlags;

use crate::console::text;
use crate::wake::{Ender, Watch, end_and_watch, wait};

mod smtp;

pub use smtp::{Fault, MAIL_BOUND, Mail, Stage};

/// How many mails are kept; more are refused (452).
const MAILS_BOUND: usize = 1000;

/// How many senders are served at once; more are sent away.
const CLIENT_BOUND: usize = 64;

/// How long a door rests that could not open.
const PATIENCE: Duration = Duration::from_millis(2);

/// A running server; ended when dropped.
pub struct Sink {
    shared: Arc<Shared>,
    address: SocketAddr,
    ender: Option<Ender>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Default)]
struct State {
    mails: Vec<Mail>,
    fault: Option<Fault>,
    /// How many connections there have been.
    connections: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink {
    /// Serves whoever connects to `listener`.
    ///
    /// # Errors
    /// If there are no descriptors or threads left.
    pub fn start(listener: TcpListener) -> Result<Self> {
        let address = listener.local_addr().context("the listener's address")?;
        listener
            .set_nonblocking(true)
            .context("set the listener non-blocking")?;
        let (ender, watch) = end_and_watch().context("pipe")?;
        let shared = Arc::new(Shared::default());
        let thread = Builder::new()
            .name("mail sink".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || serve(&shared, &watch, &listener)
            })
            .context("start the door thread")?;
        Ok(Self {
            shared,
            address,
            ender: Some(ender),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All mails so far, in order of arrival.
    #[must_use]
    pub fn mails(&self) -> Vec<Mail> {
        self.shared.lock().mails.clone()
    }

    /// How many senders have connected so far: also those that got nothing through.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.lock().connections
    }

    /// What goes wrong from now on, also in connections that are open.
    pub fn set_fault(&self, fault: impl Into<Option<Fault>>) {
        self.shared.lock().fault = fault.into();
    }

    /// The first mail that is `wanted`, also if it has come already.
    ///
    /// # Errors
    /// If none is within `cap`: with sender, recipients and subject of those that came.
    pub fn wait_for(&self, mut wanted: impl FnMut(&Mail) -> bool, cap: Duration) -> Result<Mail> {
        let deadline = Instant::now() + cap;
        let mut seen = 0;
        let mut state = self.shared.lock();
        loop {
            if let Some(mail) = state.mails[seen..].iter().find(|mail| wanted(mail)) {
                return Ok(mail.clone());
            }
            seen = state.mails.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self
                .shared
                .came
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let others: Vec<_> = state.mails.iter().map(summary).collect();
        bail!(
            "mail sink {}: the mail did not come within {cap:?}; {} connections brought {} others:\n{}",
            self.address,
            state.connections,
            others.len(),
            others.join("\n")
        )
    }
}

fn summary(mail: &Mail) -> String {
    let subject = mail.header("subject").unwrap_or("(no subject)");
    text::safe(format!("from {} to {}: {subject}", mail.from, mail.to.join(", ")).as_bytes())
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.ender.take();
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed; here may be another one under way.
            let _ = thread.join();
        }
    }
}

fn serve(shared: &Arc<Shared>, watch: &Watch, listener: &TcpListener) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    loop {
        let stream = listener.accept().ok().map(|(stream, _)| stream);
        let came = stream.is_some();
        threads.retain(|thread| !thread.is_finished());
        if let Some(stream) = stream.filter(|_| threads.len() < CLIENT_BOUND) {
            shared.lock().connections += 1;
            let (shared, watch) = (Arc::clone(shared), watch.clone());
            // No thread left: the connection is closed, as a real server would.
            threads.extend(
                Builder::new()
                    .spawn(move || converse(&shared, &watch, &stream))
                    .ok(),
            );
        }
        let wanted = [
            (watch.as_fd(), PollFlags::POLLIN),
            (listener.as_fd(), PollFlags::POLLIN),
        ];
        let [ended, knocks] = wait(wanted, None);
        // Knocking that cannot be answered (no descriptors left) must not become a busy loop.
        if ended || (knocks && !came && watch.ended_within(PATIENCE)) {
            break;
        }
    }
    for thread in threads {
        let _ = thread.join();
    }
}

/// One sender, until it goes or is sent away.
fn converse(shared: &Shared, watch: &Watch, stream: &TcpStream) {
    if stream.set_nonblocking(true).is_err() {
        return;
    }
    let fault = shared.lock().fault;
    let (mut session, mut step) = smtp::Session::open(fault);
    loop {
        if !(step.replies.is_empty() || send(stream, watch, &step.replies)) || step.close {
            return;
        }
        let wanted = [
            (watch.as_fd(), PollFlags::POLLIN),
            (stream.as_fd(), PollFlags::POLLIN),
        ];
        if wait(wanted, None)[0] {
            return;
        }
        let mut buffer = [0; 4096];
        step = match (&*stream).read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                let mut state = shared.lock();
                let room = MAILS_BOUND - state.mails.len();
                let mut step = session.receive(&buffer[..count], state.fault, room);
                state.mails.append(&mut step.mails);
                drop(state);
                shared.came.notify_all();
                step
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                smtp::Step::default()
            }
            Err(_) => return,
        };
    }
}

/// Whether all could be sent before the end.
fn send(mut stream: &TcpStream, watch: &Watch, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                let wanted = [
                    (watch.as_fd(), PollFlags::POLLIN),
                    (stream.as_fd(), PollFlags::POLLOUT),
                ];
                if wait(wanted, None)[0] {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests;
