//! One node: a guest, its console, and what our daemons need in it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::console::{Console, Offset, Output, Shell};
use lab::image;
use lab::machine::{Accel, Boot, Config, Guest, Nic};
use lab::net::Port;
use proto::NodeId;

use super::CAP;
use super::disk::{Content, Store};
use super::overlay::{Outfit, join, overlay};
use super::pod;
use super::spec::{Shape, Spec, append};

/// What the last line of every boot says, on the console.
const READY: &str = "LAB: ready";

/// Bytes of each half of a mirror.
const MIRROR: u64 = 16 << 20;

/// ssh without a person: no questions, no memory of hosts, no waiting.
pub const SSH_OPTIONS: &[&str] = &[
    "BatchMode=yes",
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "LogLevel=ERROR",
    "ConnectTimeout=5",
];

/// A running (or powered-off) node.
pub struct Node {
    name: String,
    id: NodeId,
    site: String,
    ip: Ipv4Addr,
    ip6: Ipv6Addr,
    shape: Shape,
    console: Console,
    control: Console,
    shell: Shell,
    recording: PathBuf,
    disks: Vec<Store>,
    /// Last: the console's threads end on their own when QEMU goes.
    guest: Arc<Guest>,
}

impl Node {
    pub(super) fn start(
        spec: &Spec,
        folder: &Path,
        port: &Port,
        outfit: &Outfit<'_>,
        accel: Accel,
    ) -> Result<Self> {
        ensure!(
            !spec.mirror || spec.shape == Shape::Small,
            "{}: only a small node has a mirror",
            spec.name
        );
        let image = image::find(spec.shape.kind())?;
        let initrd = folder.join(format!("{}.initrd", spec.name));
        let overlay = overlay(spec, outfit)?;
        join(&image.initrd(), &overlay, &initrd)?;
        let path = |what: &str| folder.join(format!("{}.{what}", spec.name));
        let mut disks = vec![match spec.shape {
            Shape::Small => Store::new(path("state"), Content::Copy(image.disk_template())),
            Shape::Full => Store::new(path("root"), Content::Layer(image.root()?)),
        }];
        if spec.mirror {
            disks.extend(["mirror-a", "mirror-b"].map(|half| Store::new(path(half), Content::Empty(MIRROR))));
        }
        disks.iter().try_for_each(Store::make)?;
        let config = Config {
            boot: Some(Boot {
                kernel: image.kernel(),
                initrd,
                append: append(spec, port),
            }),
            memory: spec.memory,
            nics: vec![Nic {
                socket: port.socket.clone(),
                mac: port.mac.clone(),
            }],
            disks: disks.iter().map(Store::disk).collect(),
            serials: 2,
            off: spec.off,
            erst: Some(folder.join(format!("{}.erst", spec.name))),
            accel,
            ..Config::bare(&spec.name, folder)
        };
        let (console_socket, shell_socket) = (config.serial(0), config.serial(1));
        let recording = folder.join(format!("{}.console", spec.name));
        let guest = Guest::start(config)?;
        let console = Console::attach(&spec.name, &console_socket, &recording)?;
        let control = folder.join(format!("{}.control", spec.name));
        let control = Console::attach(&format!("{}-control", spec.name), &shell_socket, &control)?;
        Ok(Self {
            name: spec.name.clone(),
            id: pod::node_of(outfit.bundle)?,
            site: spec.site.clone(),
            ip: port.ip,
            ip6: port.ip6,
            shape: spec.shape,
            console,
            shell: Shell::new(&control),
            control,
            recording,
            disks,
            guest: Arc::new(guest),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its site.
    #[must_use]
    pub fn site(&self) -> &str {
        &self.site
    }

    /// Its address.
    #[must_use]
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn ip6(&self) -> Ipv6Addr {
        self.ip6
    }

    /// What it is enrolled as.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its console.
    #[must_use]
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// The file with all that its console said.
    #[must_use]
    pub fn recording(&self) -> PathBuf {
        self.recording.clone()
    }

    /// How many disks it has.
    #[must_use]
    pub fn disks(&self) -> usize {
        self.disks.len()
    }

    /// The machine: power and reset.
    #[must_use]
    pub fn guest(&self) -> &Arc<Guest> {
        &self.guest
    }

    /// Takes its power, gives it its first disks again, and its power back.
    pub(super) fn renew(&self) -> Result<()> {
        self.guest.power_off()?;
        for (index, disk) in self.disks.iter().enumerate() {
            disk.make()?;
            self.guest.put_disk(index)?;
        }
        self.guest.power_on()
    }

    /// Waits until it has booted, the first time.
    ///
    /// # Errors
    /// When it has not in time; the text has its last console lines.
    pub fn ready(&self) -> Result<()> {
        self.ready_since(Offset::START)
    }

    /// Waits until it has booted again after `since`.
    ///
    /// # Errors
    /// When it has not in time; the text has its last console lines.
    pub fn ready_since(&self, since: Offset) -> Result<()> {
        self.console
            .wait_for(since, READY, CAP)
            .map(drop)
            .with_context(|| format!("{} does not get ready", self.name))
    }

    /// Runs a command as root through the control port, which needs no network.
    ///
    /// # Errors
    /// When there is no answer within 30 s (a node that cannot fork has none).
    pub fn run(&self, command: &str) -> Result<Output> {
        self.shell.run(command, Duration::from_secs(30))
    }

    /// Runs a command that must succeed; returns what it said.
    ///
    /// # Errors
    /// When it exits other than 0.
    pub fn must(&self, command: &str) -> Result<String> {
        let output = self.run(command)?;
        ensure!(
            output.status == 0,
            "{}: {command}: exit code {}: {}",
            self.name,
            output.status,
            output.text
        );
        Ok(output.text)
    }

    /// Sends a line to the control port and waits for nothing: for what takes the shell along.
    ///
    /// # Errors
    /// When nobody is connected.
    pub fn send(&self, line: &str) -> Result<()> {
        self.control.write(format!("{line}\n").as_bytes())
    }

    /// Processes in a slice's cgroup and below, without zombies.
    ///
    /// # Errors
    /// When the node does not answer.
    pub fn processes(&self, slice: &str) -> Result<usize> {
        let text = self.must(&format!(
            "find /sys/fs/cgroup/{}/{slice} -name cgroup.procs -exec cat {{}} + 2>/dev/null | wc -l",
            self.shape.slivers_root()
        ))?;
        text.trim()
            .parse()
            .with_context(|| format!("a count of processes: {text:?}"))
    }

    /// Starts a command as a sliver of `slice`, as a unit would, and waits until it is there. No limit of a login is in
    /// its way: what holds a sliver are its own limits.
    ///
    /// # Errors
    /// When it is refused.
    pub fn exec(&self, slice: &str, command: &str) -> Result<()> {
        self.must(&format!(
            "ulimit -u unlimited; redbutton-nodemgr exec {slice} -- {command} >/tmp/{slice}.log 2>&1 &"
        ))?;
        crate::fleet::wait_for(&format!("{slice} on {}", self.name), || {
            self.processes(slice).ok().filter(|count| *count > 0).map(drop)
        })
    }
}
