//! The network of one lab: several sites, a router, and every fault a wire can have.
//!
//! ```text
//!  network namespace of the lab                    the forwarder thread
//! ┌────────────────────────────┐   ┌────────────────────────────────────────────────────┐
//! │ controller, tests, ssh …   │   │ centre 10.77.0.0/24  ┐                             │  unix sockets
//! │ 10.77.0.1, fd77::1 on lab0 ├tap┤ site 1 10.77.1.0/24  ├ router .254, ::fe           ├── QEMU guest
//! └────────────────────────────┘   │ site 2 10.77.2.0/24  ┘ a switch each, faults, pcap ├── QEMU guest …
//!                                  └────────────────────────────────────────────────────┘
//! ```
//!
//! A guest connects with `-netdev stream,id=n0,server=off,addr.type=unix,addr.path=SOCKET`, and again whenever its QEMU
//! is started again. Addresses are static, from [`Net::port`]; labs side by side have the same ones, each in its own
//! namespace. [`Net::enter`] is how a test or a child process comes into the namespace.
//!
//! Invariants: the calling thread never changes its namespace; the forwarder never waits for a guest (what one does not
//! read is dropped and counted); every frame is counted once on each link it tries; what a link does to its n-th
//! frame depends on the seed only. When [`Net`] is dropped the thread and the sockets are gone; the capture
//! stays.
//!
//! The parts: `plan` (who has which address), `frame` and `router`, `impair` (one link), `fabric` (all of them
//! together) and `stream` decide without I/O; `space`, `sys`, `capture` and `forwarder` do it.
//!
//! What it does not do: DHCP, router advertisements, fragmentation, IPv4 beyond 10.77.0.0/16, the outside world, line
//! rates (tens of thousands of packets a second).

mod capture;
mod fabric;
mod forwarder;
mod frame;
mod impair;
mod plan;
mod router;
mod space;
mod stream;
mod sys;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::eventfd::{EfdFlags, EventFd};

pub use capture::{Captured, read_capture};
use fabric::Fabric;
use forwarder::Forwarder;
pub use impair::Impairment;
use space::Space;

/// The test's own address, at the centre.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, plan::HOST);
/// The same for IPv6.
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, plan::HOST as u16);
/// The segment that the test's own side is at. It may have ports too.
pub const CENTRE: &str = "centre";
/// The port that is the test's own side.
pub const HOST_PORT: &str = "host";
/// The interface of the test's own side.
pub const HOST_INTERFACE: &str = "lab0";

/// Where one NIC of a guest is plugged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// What it is called in [`Where`], [`Stats`] and the capture.
    pub name: String,
    /// For QEMU: `addr.path` of `-netdev stream`.
    pub socket: PathBuf,
    /// For QEMU: `mac` of the device.
    pub mac: String,
    /// The guest's address.
    pub ip: Ipv4Addr,
    /// Its bits that are the site's.
    pub prefix: u8,
    /// The router, for everything outside the site.
    pub gateway: Ipv4Addr,
    /// The guest's address in IPv6; add it with `nodad`, else it is of no use in the first second.
    pub ip6: Ipv6Addr,
    /// Its bits that are the site's.
    pub prefix6: u8,
    /// The router in IPv6.
    pub gateway6: Ipv6Addr,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Spot {
    Port(String),
    Uplink(String),
    Everything,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    To,
    From,
    Both,
}

/// A place for a fault: a port, the uplink between a site and the router, or everything; in both directions, unless
/// narrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Where {
    spot: Spot,
    way: Way,
}

impl Where {
    /// The cable of one port.
    #[must_use]
    pub fn port(name: &str) -> Self {
        Self {
            spot: Spot::Port(name.into()),
            way: Way::Both,
        }
    }

    /// The cable between a site's switch and the router.
    #[must_use]
    pub fn uplink(site: &str) -> Self {
        Self {
            spot: Spot::Uplink(site.into()),
            way: Way::Both,
        }
    }

    /// A place that every frame passes exactly once, from wherever to wherever. It has one direction only.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            spot: Spot::Everything,
            way: Way::Both,
        }
    }

    /// Only what goes to the port or into the site.
    #[must_use]
    pub fn only_to(self) -> Self {
        Self { way: Way::To, ..self }
    }

    /// Only what the port or the site sends.
    #[must_use]
    pub fn only_from(self) -> Self {
        Self {
            way: Way::From,
            ..self
        }
    }
}

/// What happened on one direction of one link, in frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// That came to the link.
    pub frames: u64,
    /// Lost, as [`Impairment::loss`] wanted.
    pub lost: u64,
    /// That found it cut.
    pub cut: u64,
    /// For which a slow or long link had no room.
    pub full: u64,
    /// That arrived twice.
    pub duplicated: u64,
    /// Copies with a bit flipped.
    pub corrupted: u64,
}

/// What happened at one port, in frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Whether a guest is there now.
    pub connected: bool,
    /// By the guest, before any fault.
    pub sent: u64,
    /// Queued for the guest, after all faults.
    pub received: u64,
    /// Dropped because the guest did not read.
    pub full: u64,
    /// Dropped because no guest was connected.
    pub absent: u64,
    /// The link to the port.
    pub to: LinkStats,
    /// The link from the port.
    pub from: LinkStats,
}

/// What happened on the uplink of one site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteStats {
    /// Into the site.
    pub to: LinkStats,
    /// Out of the site.
    pub from: LinkStats,
}

/// How far the capture is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureStats {
    /// That are in it.
    pub frames: u64,
    /// Its size.
    pub bytes: u64,
    /// Why it has stopped, if it has: full, or its file cannot be written.
    pub stopped: Option<String>,
}

/// What happened so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// By name; the test's own side is [`HOST_PORT`].
    pub ports: BTreeMap<String, PortStats>,
    /// By name; the test's own is [`CENTRE`].
    pub sites: BTreeMap<String, SiteStats>,
    /// The link that is [`Where::everything`].
    pub everything: LinkStats,
    /// Packets that met a partition.
    pub partitioned: u64,
    /// The capture.
    pub capture: CaptureStats,
}

/// Names and numbers that are taken.
struct Taken {
    /// The next number of each segment.
    next: Vec<u8>,
    names: Vec<String>,
    sockets: Vec<PathBuf>,
}

/// The network of one lab. Ends when dropped.
pub struct Net {
    space: Space,
    folder: PathBuf,
    capture: PathBuf,
    segments: Vec<String>,
    taken: Mutex<Taken>,
    wake: Arc<EventFd>,
    commands: Option<Sender<forwarder::Command>>,
    thread: Option<JoinHandle<()>>,
}

/// Why there can be no [`Net`] here, for a test that is to be skipped; `None` if there can.
#[must_use]
pub fn unable() -> Option<String> {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    let probe = || {
        let mut version = Command::new("ip");
        version
            .arg("-V")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        version.status().context("cannot run ip (iproute2)")?;
        Space::new()?.enter(|| sys::open_tap(HOST_INTERFACE))?
    };
    REASON
        .get_or_init(|| {
            probe()
                .err()
                .map(|error| format!("no network for a lab: {error:#}"))
        })
        .clone()
}

impl Net {
    /// A network with these sites, its sockets and its capture in `folder` (whose path must be short enough for a
    /// socket's: 107 bytes with the port's name). Faults come from a fixed seed: [`Net::reseed`] for another.
    ///
    /// # Errors
    /// When the machine cannot ([`unable`] says so before), or a name is no good.
    pub fn start(folder: &Path, sites: &[&str]) -> Result<Self> {
        let segments: Vec<String> = [&[CENTRE], sites]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect();
        ensure!(
            sites.len() <= plan::MAX_SITES,
            "at most {} sites, not {}",
            plan::MAX_SITES,
            sites.len()
        );
        for (i, site) in segments.iter().enumerate() {
            ensure!(space::plain(site), "a site cannot be called {site:?}");
            ensure!(!segments[..i].contains(site), "two sites are called {site}");
        }
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let capture_path = folder.join("capture.pcapng");
        let capture = capture::Capture::new(&capture_path, capture::MAX_BYTES)?;
        let space = Space::new()?;
        let tap = set_up_host(&space)?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_value_and_flags(0, flags).context("cannot make an eventfd")?);
        let (commands, receiver) = mpsc::channel();
        let forwarder = Forwarder::new(
            Fabric::new(segments.clone(), 1),
            capture,
            tap,
            Arc::clone(&wake),
            receiver,
        );
        let thread = std::thread::Builder::new()
            .name("lab-net".into())
            .spawn(move || forwarder.run())
            .context("cannot start the network's thread")?;
        let taken = Taken {
            next: vec![plan::FIRST; segments.len()],
            names: vec![HOST_PORT.into()],
            sockets: vec![],
        };
        Ok(Self {
            space,
            folder: folder.to_owned(),
            capture: capture_path,
            segments,
            taken: Mutex::new(taken),
            wake,
            commands: Some(commands),
            thread: Some(thread),
        })
    }

    /// A port for one more NIC at `site` ([`CENTRE`] is one too). Its name is its own in the whole network.
    ///
    /// # Errors
    /// When the site is not there, the name is taken or no good, or the socket cannot be made.
    pub fn port(&self, site: &str, name: &str) -> Result<Port> {
        let segment = self.segments.iter().position(|segment| segment == site);
        let segment = segment.with_context(|| format!("no site is called {site}: {:?}", self.segments))?;
        ensure!(space::plain(name), "a port cannot be called {name:?}");
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(
            !taken.names.iter().any(|other| other == name),
            "a port is called {name} already"
        );
        let number = taken.next[segment];
        ensure!(number <= plan::LAST, "no address is left at {site}");
        let socket = self.folder.join(format!("{name}.sock"));
        let listener = UnixListener::bind(&socket).with_context(|| {
            format!(
                "cannot listen on {} ({} bytes long)",
                socket.display(),
                socket.as_os_str().len()
            )
        })?;
        taken.sockets.push(socket.clone());
        listener
            .set_nonblocking(true)
            .with_context(|| format!("cannot make {} non-blocking", socket.display()))?;
        taken.next[segment] += 1;
        taken.names.push(name.to_owned());
        drop(taken);
        let segment = u8::try_from(segment).context("too many sites")?;
        let owned = name.to_owned();
        self.ask(move |forwarder| forwarder.add_port(&owned, segment, number, listener))?;
        Ok(Port {
            name: name.to_owned(),
            socket,
            mac: plan::mac(segment, number).to_string(),
            ip: plan::ip(segment, number),
            prefix: plan::PREFIX,
            gateway: plan::router_ip(segment),
            ip6: plan::ip6(segment, number),
            prefix6: plan::PREFIX6,
            gateway6: plan::router_ip6(segment),
        })
    }

    /// Runs `work` in a thread inside the namespace and waits for it: sockets that it opens and children that it starts
    /// belong there for good. (The thread ends with `work`: a child with `PR_SET_PDEATHSIG` would end with it.)
    ///
    /// # Errors
    /// When there can be no thread, or it may not enter.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.space.enter(work)
    }

    /// The namespace, for `nsenter --net=`, as long as this lives and only for processes that see our pid.
    #[must_use]
    pub fn netns_path(&self) -> PathBuf {
        self.space.path()
    }

    /// The namespace, for `setns`.
    #[must_use]
    pub fn netns_fd(&self) -> BorrowedFd<'_> {
        self.space.fd()
    }

    /// From now on frames at this place fare like this, in place of what was before.
    ///
    /// # Errors
    /// When there is no such place, or a value makes no sense.
    pub fn impair(&self, place: &Where, impairment: &Impairment) -> Result<()> {
        let (place, impairment) = (place.clone(), impairment.clone());
        self.ask(move |forwarder| forwarder.fabric.impair(&place, &impairment))?
    }

    /// Nothing passes here any more; what is under way behind it still arrives. The guest's carrier stays up.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn cut(&self, place: &Where) -> Result<()> {
        let place = place.clone();
        self.ask(move |forwarder| forwarder.fabric.cut(&place))?
    }

    /// Takes back [`Net::cut`] and [`Net::impair`] at this place, and only there: a port stays cut when everything is
    /// healed.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn heal(&self, place: &Where) -> Result<()> {
        let place = place.clone();
        self.ask(move |forwarder| forwarder.fabric.heal(&place))?
    }

    /// Takes back every fault everywhere, partitions too.
    ///
    /// # Errors
    /// When the forwarder has ended.
    pub fn heal_all(&self) -> Result<()> {
        self.ask(|forwarder| forwarder.fabric.heal_all())
    }

    /// The router forwards nothing between these two sites any more, either way ([`CENTRE`] is one too).
    ///
    /// # Errors
    /// When there is no such site.
    pub fn partition(&self, a: &str, b: &str) -> Result<()> {
        let (a, b) = (a.to_owned(), b.to_owned());
        self.ask(move |forwarder| forwarder.fabric.partition(&a, &b))?
    }

    /// Takes back [`Net::partition`].
    ///
    /// # Errors
    /// When there is no such site.
    pub fn join(&self, a: &str, b: &str) -> Result<()> {
        let (a, b) = (a.to_owned(), b.to_owned());
        self.ask(move |forwarder| forwarder.fabric.join(&a, &b))?
    }

    /// Random numbers begin anew from this seed, on every link.
    ///
    /// # Errors
    /// When the forwarder has ended.
    pub fn reseed(&self, seed: u64) -> Result<()> {
        self.ask(move |forwarder| forwarder.fabric.reseed(seed))
    }

    /// What happened so far.
    ///
    /// # Errors
    /// When the forwarder has ended.
    pub fn stats(&self) -> Result<Stats> {
        self.ask(|forwarder| forwarder.stats())
    }

    /// The capture (pcapng), complete up to now and at most 64 MiB; [`read_capture`] reads it, wireshark too.
    ///
    /// # Errors
    /// When the forwarder has ended.
    pub fn capture(&self) -> Result<PathBuf> {
        self.ask(|forwarder| forwarder.capture.flush())?;
        Ok(self.capture.clone())
    }

    /// Has something done in the forwarder's thread, and waits for it.
    fn ask<R: Send + 'static>(&self, work: impl FnOnce(&mut Forwarder) -> R + Send + 'static) -> Result<R> {
        let ended = || anyhow!("the network's forwarder has ended");
        let (answer, answers) = mpsc::channel();
        let command: forwarder::Command = Box::new(move |forwarder| {
            // Nobody waits for the answer if the asking thread is gone.
            let _ = answer.send(work(forwarder));
        });
        self.commands
            .as_ref()
            .ok_or_else(ended)?
            .send(command)
            .map_err(|_| ended())?;
        self.wake
            .write(1)
            .context("cannot wake the network's forwarder")?;
        answers.recv().map_err(|_| ended())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // The end of the commands, and the wake that makes it known.
        self.commands = None;
        if let Err(error) = self.wake.write(1) {
            eprintln!("lab: cannot wake the network's forwarder: {error}");
        }
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            eprintln!("lab: the network's forwarder has panicked");
        }
        for socket in &self
            .taken
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .sockets
        {
            // Its folder may be gone before us.
            let _ = fs::remove_file(socket);
        }
    }
}

/// The tap of the test's own side, with its addresses. The router's are fixed, so that nothing waits for them after a
/// cut.
fn set_up_host(space: &Space) -> Result<fs::File> {
    let name = HOST_INTERFACE;
    let tap = space.enter(|| sys::open_tap(name))??;
    // Before it is up, else it takes a second to see whether its addresses are its own. Without IPv6 there is no such file.
    let conf = format!("net/ipv6/conf/{name}");
    let ipv6 = space.sysctl(&format!("{conf}/accept_dad"), "0")?;
    let (mac, prefix, router, router_mac) = (
        plan::mac(0, plan::HOST),
        plan::PREFIX,
        plan::router_ip(0),
        plan::router_mac(0),
    );
    space.ip(&format!(
        "link set {name} address {mac}\n\
         address add {HOST}/{prefix} dev {name}\n\
         link set {name} up\n\
         neighbour add {router} lladdr {router_mac} dev {name} nud permanent\n\
         route add 10.77.0.0/16 via {router}\n"
    ))?;
    if ipv6 {
        // Nobody would answer its search for a router.
        space.sysctl(&format!("{conf}/router_solicitations"), "0")?;
        let (prefix, router) = (plan::PREFIX6, plan::router_ip6(0));
        space.ip(&format!(
            "address add {HOST6}/{prefix} dev {name} nodad\n\
             neighbour add {router} lladdr {router_mac} dev {name} nud permanent\n\
             route add fd77::/16 via {router} dev {name}\n"
        ))?;
    }
    Ok(tap)
}

#[cfg(test)]
mod tests;
