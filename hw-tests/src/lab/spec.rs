//! What a node is to be. Pure.

use lab::image::{self, Kind};
use lab::net::Port;

/// What a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Busybox in an initrd: ready in seconds.
    Small,
    /// Debian with systemd, OpenSSH and Podman.
    Full,
}

impl Shape {
    pub(super) fn kind(self) -> Kind {
        match self {
            Shape::Small => Kind::Small,
            Shape::Full => Kind::Full,
        }
    }

    /// Where our own slivers live.
    pub(super) fn slivers_root(self) -> &'static str {
        match self {
            Shape::Small => "redbutton.slice",
            Shape::Full => "redbutton.slice/redbutton-slivers.service",
        }
    }

    /// Who reboots it.
    pub(super) fn restart(self) -> &'static str {
        match self {
            Shape::Small => "init",
            Shape::Full => "systemd",
        }
    }
}

/// A node to be.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// What it runs.
    pub shape: Shape,
    /// MiB.
    pub memory: u32,
    /// Lines for the end of `nodemgr.toml`.
    pub nodemgr: String,
    /// Two more disks, a mirror of each other once somebody makes them one. Small nodes only.
    pub mirror: bool,
    /// Whether it is off at first.
    pub off: bool,
}

impl Spec {
    /// A small node.
    #[must_use]
    pub fn small(name: &str, site: &str) -> Self {
        Self {
            name: name.to_owned(),
            site: site.to_owned(),
            shape: Shape::Small,
            memory: 256,
            nodemgr: String::new(),
            mirror: false,
            off: false,
        }
    }

    /// A node with a whole distribution.
    #[must_use]
    pub fn full(name: &str, site: &str) -> Self {
        Self {
            shape: Shape::Full,
            memory: 768,
            ..Self::small(name, site)
        }
    }
}

/// The kernel's command line: who and where the node is.
pub(super) fn append(spec: &Spec, port: &Port) -> String {
    format!(
        "{} panic=-1 lab.name={} lab.ip={}/{} lab.gw={} lab.ip6={}/{} lab.gw6={} lab.control=ttyS1",
        image::KERNEL_LINE,
        spec.name,
        port.ip,
        port.prefix,
        port.gateway,
        port.ip6,
        port.prefix6,
        port.gateway6
    )
}
