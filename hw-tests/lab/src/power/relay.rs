//! A wire in front of a device that speaks UDP, which can go mute, slow and noisy while the device behind it is well.
//!
//! ```text
//!  client ─► front socket ─► edit ─► one of a few sockets, one for each client ─► device on loopback
//!         ◄── slow, garbage ◄───────────────────────────────────────────────────┘
//! ```
//!
//! All sockets are opened in the constructor, in the network namespace of the caller; its `lo` has to be up. A
//! device without power must not find old requests waiting when it comes back, hence a wire instead of SIGSTOP.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::model::DeviceFaults;
use super::process::Process;

/// How long a program may take to answer for the first time.
const START: Duration = Duration::from_secs(20);

/// As many clients are told apart; one more takes the place of the one that was silent for longest.
const CLIENTS: usize = 8;

/// Answers that are being held back, before further ones are lost.
const HELD: usize = 256;

/// The faults at this moment.
pub(super) type FaultsNow = Arc<dyn Fn() -> DeviceFaults + Send + Sync>;

/// Changes a request on its way to the device; false loses it.
pub(super) type Edit = fn(&mut [u8], &DeviceFaults) -> bool;

pub(super) struct UdpRelay {
    /// Readable for the thread once this end is closed.
    wake: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl UdpRelay {
    pub(super) fn start(
        name: &str,
        front: UdpSocket,
        device: SocketAddr,
        faults: FaultsNow,
        edit: Edit,
    ) -> Result<Self> {
        let (wake, woken) = UnixStream::pair().context("cannot make a socket pair")?;
        front
            .set_nonblocking(true)
            .context("cannot make a socket non-blocking")?;
        let mut backs = Vec::new();
        for _ in 0..CLIENTS {
            let back =
                UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot bind a socket on 127.0.0.1")?;
            back.connect(device)
                .with_context(|| format!("cannot connect to {device}"))?;
            back.set_nonblocking(true)
                .context("cannot make a socket non-blocking")?;
            backs.push(Back {
                socket: back,
                client: None,
                used: 0,
            });
        }
        let mut wire = Wire {
            front,
            backs,
            held: VecDeque::new(),
            faults,
            edit,
            count: 0,
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || wire.run(&woken))
            .context("cannot start a thread")?;
        Ok(Self {
            wake: Some(wake),
            thread: Some(thread),
        })
    }
}

impl Drop for UdpRelay {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

struct Back {
    socket: UdpSocket,
    client: Option<SocketAddr>,
    used: u64,
}

struct Held {
    due: Instant,
    client: SocketAddr,
    bytes: Vec<u8>,
}

struct Wire {
    front: UdpSocket,
    backs: Vec<Back>,
    held: VecDeque<Held>,
    faults: FaultsNow,
    edit: Edit,
    count: u64,
}

impl Wire {
    fn run(&mut self, woken: &UnixStream) {
        loop {
            let mut fds = vec![
                PollFd::new(woken.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.front.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(
                self.backs
                    .iter()
                    .map(|b| PollFd::new(b.socket.as_fd(), PollFlags::POLLIN)),
            );
            let now = Instant::now();
            let next = self
                .held
                .iter()
                .map(|held| held.due.saturating_duration_since(now))
                .min();
            // One more millisecond, since the poll's are whole ones.
            let cap = next.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left.min(Duration::from_secs(60)) + Duration::from_millis(1))
                    .unwrap_or(PollTimeout::ZERO)
            });
            let polled = poll(&mut fds, cap);
            let ended = fds[0].any().unwrap_or(false);
            drop(fds);
            if ended {
                return;
            }
            if polled.is_err() {
                continue;
            }
            let faults = (self.faults)();
            self.requests(&faults);
            self.answers(&faults);
            self.release(&faults);
        }
    }

    fn requests(&mut self, faults: &DeviceFaults) {
        let mut buffer = [0; 2048];
        while let Ok((got, client)) = self.front.recv_from(&mut buffer) {
            let request = &mut buffer[..got];
            if faults.mute || !(self.edit)(request, faults) {
                continue;
            }
            self.count += 1;
            let known = self.backs.iter().position(|back| back.client == Some(client));
            let oldest = (0..self.backs.len()).min_by_key(|index| self.backs[*index].used);
            if let Some(index) = known.or(oldest) {
                let back = &mut self.backs[index];
                back.client = Some(client);
                back.used = self.count;
                // A device that is not there is one that does not answer.
                let _ = back.socket.send(request);
            }
        }
    }

    fn answers(&mut self, faults: &DeviceFaults) {
        let mut buffer = [0; 65536];
        for back in &self.backs {
            while let Ok(got) = back.socket.recv(&mut buffer) {
                let Some(client) = back.client.filter(|_| !faults.mute && self.held.len() < HELD) else {
                    continue;
                };
                let mut bytes = buffer[..got].to_vec();
                if faults.garbage {
                    garble(&mut bytes);
                }
                let due = Instant::now() + faults.slow;
                self.held.push_back(Held { due, client, bytes });
            }
        }
    }

    fn release(&mut self, faults: &DeviceFaults) {
        let now = Instant::now();
        let (due, later): (VecDeque<Held>, VecDeque<Held>) =
            self.held.drain(..).partition(|held| held.due <= now);
        self.held = later;
        for held in due.into_iter().filter(|_| !faults.mute) {
            // A client that has gone is no fault of the device.
            let _ = self.front.send_to(&held.bytes, held.client);
        }
    }
}

/// An address of 127.64.0.0/10 at which nobody has this port.
pub(super) fn free_loopback(port: u16) -> Result<SocketAddr> {
    // Two processes start at different places.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(0x9e37);
    for _ in 0..256 {
        let [_, high, mid, low] = start.wrapping_add(NEXT.fetch_add(1, Relaxed)).to_be_bytes();
        let ip = Ipv4Addr::new(127, 64 | (high & 0x3f), mid, low);
        if UdpSocket::bind((ip, port)).is_ok() {
            return Ok(SocketAddr::from((ip, port)));
        }
    }
    bail!("no loopback address with a free port {port}: is lo up?")
}

/// Waits until a program answers there to `hello`.
pub(super) fn greet(program: &mut Process, address: SocketAddr, hello: &[u8]) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot bind a socket on 127.0.0.1")?;
    socket
        .connect(address)
        .with_context(|| format!("cannot connect to {address}"))?;
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .context("cannot set a time-out")?;
    let until = Instant::now() + START;
    while Instant::now() < until {
        // Refused as long as it does not listen: then the wait is short.
        let _ = socket.send(hello);
        match socket.recv(&mut [0; 512]) {
            Ok(_) => return Ok(()),
            Err(_) if !program.is_running() => bail!("ended at once"),
            Err(_) => std::thread::park_timeout(Duration::from_millis(10)),
        }
    }
    bail!("no answer at {address} within {START:?}")
}

/// Bytes that mean nothing, always the same ones.
pub(super) fn garble(bytes: &mut [u8]) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = byte.wrapping_mul(167).wrapping_add((index % 251) as u8);
    }
}
