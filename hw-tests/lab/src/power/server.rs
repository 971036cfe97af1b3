//! A listener with a thread for each client, that ends when it is dropped: clients are hung up on, waits are cut
//! short, threads are joined.
//!
//! The socket is opened by whoever calls, in the network namespace that they are in; nothing here opens another.

use std::io::{Read, Result as IoResult, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// More clients than this at one device are hung up on: more than any of the real ones takes.
const CLIENTS: usize = 16;

/// A client that says nothing for so long, or does not take what it is told, has gone.
const IDLE: Duration = Duration::from_secs(120);

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells threads to end, and lets them wait until then.
#[derive(Default)]
pub(super) struct Ending {
    over: Mutex<bool>,
    changed: Condvar,
}

impl Ending {
    /// Waits; true when the time went by, false when all is over before.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut over = lock(&self.over);
        while !*over {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            over = self
                .changed
                .wait_timeout(over, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        false
    }

    pub(super) fn is_over(&self) -> bool {
        *lock(&self.over)
    }

    pub(super) fn end(&self) {
        *lock(&self.over) = true;
        self.changed.notify_all();
    }
}

pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A client's connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(super) fn try_clone(&self) -> IoResult<Self> {
        match self {
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
        }
    }

    fn prepare(&self) -> IoResult<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(IDLE))?;
                stream.set_write_timeout(Some(IDLE))
            }
            Self::Unix(stream) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(IDLE))?;
                stream.set_write_timeout(Some(IDLE))
            }
        }
    }

    /// Reads wait until the other side says something or hangs up.
    pub(super) fn wait_for_ever(&self) {
        // Cannot fail for a time-out of none.
        let _ = match self {
            Self::Tcp(stream) => stream.set_read_timeout(None),
            Self::Unix(stream) => stream.set_read_timeout(None),
        };
    }

    pub(super) fn hang_up(&self) {
        // It may be gone already.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> IoResult<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> IoResult<()> {
        Ok(())
    }
}

/// What is done with a client; returns when it is done with.
pub(super) type Serve = dyn Fn(Stream, &Ending) + Send + Sync;

struct Client {
    stream: Stream,
    thread: JoinHandle<()>,
}

pub(super) struct Server {
    ending: Arc<Ending>,
    /// Readable for the accepting thread once this end is closed.
    wake: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(name: &str, listener: Listener, serve: Arc<Serve>) -> Result<Self> {
        match &listener {
            Listener::Tcp(listener) => listener.set_nonblocking(true),
            Listener::Unix(listener) => listener.set_nonblocking(true),
        }
        .context("cannot make a listener non-blocking")?;
        let ending = Arc::new(Ending::default());
        let (wake, woken) = UnixStream::pair().context("cannot make a socket pair")?;
        let over = Arc::clone(&ending);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || accept(&listener, &woken, &over, &serve))
            .context("cannot start a thread")?;
        Ok(Self {
            ending,
            wake: Some(wake),
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ending.end();
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn accept(listener: &Listener, woken: &UnixStream, ending: &Arc<Ending>, serve: &Arc<Serve>) {
    let mut clients: Vec<Client> = Vec::new();
    while !ending.is_over() {
        let fd = match listener {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        };
        let mut fds = [
            PollFd::new(fd, PollFlags::POLLIN),
            PollFd::new(woken.as_fd(), PollFlags::POLLIN),
        ];
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            continue;
        }
        clients.retain(|client| !client.thread.is_finished());
        let accepted = match listener {
            Listener::Tcp(listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
            Listener::Unix(listener) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
        };
        // A client that went before it was taken, or no file descriptors left: the next one may be luckier.
        match accepted {
            Ok(stream) if clients.len() < CLIENTS => clients.extend(welcome(stream, ending, serve)),
            Ok(_) => {}
            Err(_) => {
                ending.pause(Duration::from_millis(10));
            }
        }
    }
    for client in &clients {
        client.stream.hang_up();
    }
    for client in clients {
        let _ = client.thread.join();
    }
}

fn welcome(stream: Stream, ending: &Arc<Ending>, serve: &Arc<Serve>) -> Option<Client> {
    stream.prepare().ok()?;
    let theirs = stream.try_clone().ok()?;
    let (ending, serve) = (Arc::clone(ending), Arc::clone(serve));
    let thread = std::thread::Builder::new()
        .name("client".to_owned())
        .spawn(move || {
            let last = theirs.try_clone();
            serve(theirs, &ending);
            // The accepting thread has a copy: without this the client would not see the end.
            if let Ok(last) = last {
                last.hang_up();
            }
        })
        .ok()?;
    Some(Client { stream, thread })
}
