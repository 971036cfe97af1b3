//! The same console shown to others, as the console servers of real sites do it.
//!
//! ```text
//! Front ── [door thread] accepts ──► [client thread] for each client: ── Subscription ──► encode ──► faults ──► client
//!                                          Hub::offer ◄── decode ◄── (mute) ◄── client
//! ```
//!
//! - Each client has one thread and a place in the hub's buffer: a slow one loses its oldest bytes, nobody waits for it.
//! - What a client types is offered: if the guest takes no more, it is lost.
//! - Several clients may read and type at once, as real console servers allow.
//! - A front ends with its clients when dropped; its threads are joined.
//! - A client sees what the guest says after it was admitted, a moment after it connected: see [`Front::clients`].
//!
//! What it does not do: no login, no encryption, no scroll-back for a client that comes later.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

use super::client::{Client, Dialect};
use super::faults::Faults;
use super::hub::{Console, Hub};
use crate::wake::{Ender, Watch, end_and_watch, wait};

/// How many clients one front serves; more are sent away at once.
const CLIENT_BOUND: usize = 32;

/// How long a door rests that could not open.
const PATIENCE: Duration = Duration::from_millis(2);

/// Called when a client sends a break.
pub type BreakHook = Box<dyn Fn() + Send + Sync>;

/// What shows a console to clients; ended when dropped.
pub struct Front {
    shared: Arc<Shared>,
    address: Option<SocketAddr>,
    path: Option<PathBuf>,
    ender: Option<Ender>,
    thread: Option<JoinHandle<()>>,
}

/// A front that is a terminal.
pub struct Pty {
    front: Front,
    path: PathBuf,
    /// Kept open, or the other side would read an error while no client has it open.
    _slave: fs::File,
}

/// What the threads of a front share.
pub(super) struct Shared {
    pub(super) hub: Arc<Hub>,
    pub(super) faults: Faults,
    pub(super) clients: AtomicUsize,
    on_break: Mutex<Option<Arc<BreakHook>>>,
}

impl Shared {
    pub(super) fn break_sent(&self) {
        // Called without the lock: a hook may take its time, or set another.
        let hook = self
            .on_break
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(hook) = hook {
            hook();
        }
    }
}

/// Telnet with RFC 2217 (speed, parity, break, line and modem state, purge), as a terminal server has it.
///
/// # Errors
/// If there are no descriptors or threads left.
pub fn telnet(console: &Console, listener: TcpListener) -> Result<Front> {
    Front::open(console, Door::Tcp(listener), Dialect::Telnet, None)
}

/// Plain bytes over TCP: a terminal server's raw port, or what a simulated BMC takes its SOL from.
///
/// # Errors
/// As [`telnet`].
pub fn raw(console: &Console, listener: TcpListener) -> Result<Front> {
    Front::open(console, Door::Tcp(listener), Dialect::Plain, None)
}

/// Plain bytes over a unix socket, which is made at `path` and removed at the end.
///
/// # Errors
/// If the socket cannot be made; as [`telnet`].
pub fn unix(console: &Console, path: &Path) -> Result<Front> {
    let listener = UnixListener::bind(path).with_context(|| format!("bind {}", path.display()))?;
    let mut front = Front::open(console, Door::Unix(listener), Dialect::Plain, None)?;
    front.path = Some(path.to_owned());
    Ok(front)
}

/// A terminal in raw mode whose other side is the console. What nobody reads stays in it as long as it has room (some
/// KiB), as in a real port's buffer, and comes first to who opens it.
///
/// # Errors
/// If no pty can be made.
pub fn pty(console: &Console) -> Result<Pty> {
    // Not `openpty`, whose descriptors a child of another thread would inherit.
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).context("open a pty")?;
    grantpt(&master)
        .and_then(|()| unlockpt(&master))
        .context("unlock the pty")?;
    let path = PathBuf::from(ptsname_r(&master).context("name of the pty")?);
    let slave = open_terminal(&path).with_context(|| format!("open {}", path.display()))?;
    let mut termios = tcgetattr(&slave).context("read the pty's mode")?;
    cfmakeraw(&mut termios);
    tcsetattr(&slave, SetArg::TCSANOW, &termios).context("set the pty raw")?;
    let front = Front::open(console, Door::Shut, Dialect::Plain, Some(OwnedFd::from(master)))?;
    Ok(Pty {
        front,
        path,
        _slave: slave,
    })
}

fn open_terminal(path: &Path) -> std::io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::File::options();
    options
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(path)
}

impl Pty {
    /// The terminal to open.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The front's faults. A terminal that was dropped by one stays so.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        self.front.faults()
    }
}

impl Front {
    /// `first` is a client that is there already: it sees all from now on.
    fn open(console: &Console, door: Door, dialect: Dialect, first: Option<OwnedFd>) -> Result<Self> {
        let (ender, watch) = end_and_watch().context("pipe")?;
        let address = door.address()?;
        nonblocking(door.as_fd()).context("set the listener non-blocking")?;
        let shared = Arc::new(Shared {
            hub: Arc::clone(console.hub()),
            faults: Faults::default(),
            clients: AtomicUsize::new(0),
            on_break: Mutex::new(None),
        });
        let first = first.map(|fd| admit(&shared, &watch, fd, dialect)).transpose()?;
        let thread = Builder::new()
            .name(format!("{dialect:?} of {}", console.name()))
            .spawn({
                let shared = Arc::clone(&shared);
                move || serve(&shared, &watch, &door, dialect, first)
            })
            .context("start the door thread")?;
        Ok(Self {
            shared,
            address,
            path: None,
            ender: Some(ender),
            thread: Some(thread),
        })
    }

    /// Where a TCP front listens.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The faults that clients of this front meet.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// How many clients there are now.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.shared.clients.load(Ordering::SeqCst)
    }

    /// Calls `hook` for each break that a telnet client sends, in that client's thread. QEMU's socket cannot carry a
    /// break; the hook may do what it should cause (for example QMP `inject-nmi`).
    pub fn on_break(&self, hook: BreakHook) {
        *self
            .shared
            .on_break
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(hook));
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.ender.take();
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed; here may be another one under way.
            let _ = thread.join();
        }
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

/// Where clients come from.
enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
    /// A terminal has one client for ever.
    Shut,
}

impl Door {
    fn address(&self) -> Result<Option<SocketAddr>> {
        match self {
            Self::Tcp(listener) => Ok(Some(listener.local_addr().context("the listener's address")?)),
            Self::Unix(_) | Self::Shut => Ok(None),
        }
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(listener) => Some(listener.as_fd()),
            Self::Unix(listener) => Some(listener.as_fd()),
            Self::Shut => None,
        }
    }

    fn client(&self) -> Option<OwnedFd> {
        match self {
            Self::Tcp(listener) => listener.accept().ok().map(|(stream, _)| at_once(stream).into()),
            Self::Unix(listener) => listener.accept().ok().map(|(stream, _)| stream.into()),
            Self::Shut => None,
        }
    }
}

/// A key's echo must not wait for more of them.
fn at_once(stream: TcpStream) -> TcpStream {
    let _ = stream.set_nodelay(true);
    stream
}

fn nonblocking(fd: Option<BorrowedFd<'_>>) -> Result<()> {
    if let Some(fd) = fd {
        let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
        fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    }
    Ok(())
}

fn serve(shared: &Arc<Shared>, watch: &Watch, door: &Door, dialect: Dialect, first: Option<JoinHandle<()>>) {
    let mut threads = Vec::from_iter(first);
    loop {
        let fd = door.client();
        let came = fd.is_some();
        threads.retain(|thread| !thread.is_finished());
        // One that cannot be served (too many, no descriptors) is sent away: real console servers do no better.
        let room = shared.clients.load(Ordering::SeqCst) < CLIENT_BOUND;
        threads.extend(
            fd.filter(|_| room)
                .and_then(|fd| admit(shared, watch, fd, dialect).ok()),
        );
        let knock = door.as_fd().unwrap_or(watch.as_fd());
        let [ended, knocks] = wait(
            [(watch.as_fd(), PollFlags::POLLIN), (knock, PollFlags::POLLIN)],
            None,
        );
        // Knocking that cannot be answered (no descriptors left) must not become a busy loop.
        if ended || (knocks && !came && watch.ended_within(PATIENCE)) {
            break;
        }
    }
    for thread in threads {
        let _ = thread.join();
    }
}

fn admit(shared: &Arc<Shared>, watch: &Watch, fd: OwnedFd, dialect: Dialect) -> Result<JoinHandle<()>> {
    nonblocking(Some(fd.as_fd()))?;
    let client = Client::new(Arc::clone(shared), fd, dialect)?;
    let watch = watch.clone();
    Builder::new()
        .spawn(move || client.serve(&watch))
        .context("start a client's thread")
}

#[cfg(test)]
mod tests;
