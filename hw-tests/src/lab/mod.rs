//! Nodes as virtual machines with real kernels, around a real controller: what the rest of the tests break.
//!
//! ```text
//!   10.77.0.1  centre: controller, people, mail          10.77.1.0/24  first site     10.77.2.0/24  second site
//!   ─────────────────────────┬───────────────────────────────┬──────────────────────────────┬──────
//!                        tap lab0 ────────── the forwarder (lab::net): routes, faults, capture
//!                                                            │ one unix socket for each node's card
//!   node = QEMU guest: ttyS0 console (recorded), ttyS1 control shell, eth0, state disk, redbutton-nodemgr, ssh
//! ```
//! One [`Lab`] is one test's context, in a network namespace of its own; several may run side by side. Two tests at a
//! time with ten nodes of 256 MiB each stay below 6 GiB. Everything is waited for by condition with a cap, and ends when
//! the lab is dropped. [`test()`] runs a test's body and shows every node's last words when it fails.
//!
//! It does not decide what a test means: [`fault`] breaks nodes, the incidents judge.

mod disk;
pub mod fault;
mod node;
mod overlay;
mod pod;
pub mod power;
mod spec;
mod ssh;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::console::Offset;
use lab::image::{self, Kind};
use lab::machine::Accel;
use lab::net::{Net, Where};

use crate::fleet::{Fleet, Place};
pub use node::{Node, SSH_OPTIONS};
use overlay::Outfit;
pub use spec::{Shape, Spec};

/// Where a console's record begins.
pub const START: Offset = Offset::START;

/// How long a guest may take for anything that its firmware or kernel does: under emulation, beside others.
pub const CAP: Duration = Duration::from_secs(120);

/// The controller's view of a silent link: quick, so that tests of dead nodes do not wait long; slow enough for a guest
/// whose processor is shared by a busy machine.
const CONTROLLER: &str = "[nodes]\nkeepalive_interval_ms = 2000\nkeepalive_timeout_ms = 4000\n";

/// Nodes, their network and their controller.
pub struct Lab {
    // Dropped in this order: guests first, what they lie on last.
    nodes: Vec<Node>,
    /// The controller and its people.
    pub fleet: Fleet,
    net: Arc<Net>,
    accel: Accel,
    key: PathBuf,
    pod_keys: pod::PodKeys,
    folder: tempfile::TempDir,
}

/// Why no lab can run here; `None` when one can.
#[must_use]
pub fn unable() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("a lab needs root, for a network namespace and a tap".into());
    }
    lab::net::unable()
        .or_else(lab::machine::unable)
        .or_else(|| no_image(Kind::Small))
}

/// Why guests of this kind cannot run here; `None` when they can.
#[must_use]
pub fn no_image(kind: Kind) -> Option<String> {
    image::find(kind).err().map(|error| format!("{error:#}"))
}

/// Why no node with a whole distribution can run here; `None` when one can.
#[must_use]
pub fn no_full_node() -> Option<String> {
    unable()
        .or_else(|| no_image(Kind::Full))
        .or_else(|| overlay::package().err().map(|error| format!("{error:#}")))
}

/// Runs one test in a lab with these sites, or says why it cannot. When it fails, every node's last 50 console lines
/// and the controller's last words are shown.
///
/// # Errors
/// What the body returns.
pub fn test(sites: &[&str], body: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    if let Some(reason) = unable() {
        println!("skipped: {reason}");
        return Ok(());
    }
    let mut lab = Lab::start(sites)?;
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(&mut lab)));
    if !matches!(ended, Ok(Ok(()))) {
        lab.show();
    }
    match ended {
        Ok(result) => result,
        Err(panic) => {
            drop(lab);
            std::panic::resume_unwind(panic)
        }
    }
}

impl Lab {
    /// A controller with the support people `alice` and `bob` at the centre, and these sites, without a node yet.
    ///
    /// # Errors
    /// When a step fails.
    pub fn start(sites: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("lab-").tempdir()?;
        let net = Arc::new(Net::start(folder.path(), sites)?);
        let image = image::find(Kind::Small)?;
        let accel = Accel::choose(&image.kernel(), &image::cache())?;
        let fleet = Fleet::start_at(Place::centre(&net), CONTROLLER)?;
        for site in sites {
            fleet.site(site)?;
        }
        let key = folder.path().join("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"])
            .arg(&key)
            .status()
            .context("ssh-keygen (Debian package openssh-client)")?;
        ensure!(made.success(), "ssh-keygen: {made}");
        Ok(Self {
            nodes: Vec::new(),
            fleet,
            net,
            accel,
            key,
            pod_keys: pod::PodKeys::random(),
            folder,
        })
    }

    /// The network: addresses, faults, capture.
    #[must_use]
    pub fn net(&self) -> &Arc<Net> {
        &self.net
    }

    /// Where files of this lab lie; gone with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Enrols a node and starts its guest; does not wait. Returns its index.
    ///
    /// # Errors
    /// When a step fails.
    pub fn add(&mut self, spec: &Spec) -> Result<usize> {
        let bundle = self.fleet.enrol(&spec.name, &spec.site)?;
        let port = self.net.port(&spec.site, &spec.name)?;
        let public = std::fs::read_to_string(self.key.with_extension("pub"))?;
        let outfit = Outfit {
            bundle: &bundle,
            public_key: &public,
            pod_keys: &self.pod_keys,
        };
        let node = Node::start(spec, self.folder.path(), &port, &outfit, self.accel)?;
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// Waits until a node is ready and attached.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn ready(&self, index: usize) -> Result<()> {
        let node = &self.nodes[index];
        node.ready()?;
        self.fleet.attached(node.name())
    }

    /// [`Lab::add`] and [`Lab::ready`].
    ///
    /// # Errors
    /// When either fails.
    pub fn node(&mut self, name: &str, site: &str) -> Result<usize> {
        let index = self.add(&Spec::small(name, site))?;
        self.ready(index)?;
        Ok(index)
    }

    /// Makes a broken node whole: its cable, its disks as they were at first, its power. Waits until it is attached.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn mend(&self, index: usize) -> Result<()> {
        let node = &self.nodes[index];
        self.net.heal(&Where::port(node.name()))?;
        let since = node.console().mark();
        node.renew()?;
        node.ready_since(since)?;
        self.fleet.attached(node.name())
    }

    /// A node by its index.
    #[must_use]
    pub fn at(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by its name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name() == name)
    }

    /// The private key that every node's root accepts.
    #[must_use]
    pub fn key(&self) -> &Path {
        &self.key
    }

    /// Shows every node's last console lines and the controller's last words.
    pub fn show(&self) {
        for node in &self.nodes {
            println!("--- console of {}\n{}", node.name(), node.console().tail(50));
        }
        println!("{}", self.fleet.last_words());
    }

    /// What to look at when something failed: a name and a file each. Consoles, the packets, the controller's log.
    ///
    /// # Errors
    /// When the packets cannot be written out.
    pub fn artefacts(&self) -> Result<Vec<(String, PathBuf)>> {
        let consoles = self
            .nodes
            .iter()
            .map(|node| (format!("{}.console", node.name()), node.recording()));
        let others = [
            ("packets.pcap".to_owned(), self.net.capture()?),
            ("controller.log".to_owned(), self.fleet.path("controller.log")),
        ];
        Ok(consoles.chain(others).collect())
    }
}
