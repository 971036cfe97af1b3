//! Images for guests, made from Debian's packages at first use and kept in a cache, so that a test needs no network.
//!
//! ```text
//! Kind::Small   vmlinuz + initrd.cpio + disk-template.raw      busybox as pid 1; most tests
//! Kind::Full    vmlinuz + initrd.cpio + root.raw               Debian with systemd, OpenSSH, Podman
//! ```
//! A node's own files are a second archive ([`cpio::Archive`]) appended to the image's `initrd.cpio`; what a guest
//! reads from its kernel command line and from those files stands in `guest/README.md`.
//!
//! [`find`] is for tests: it asks nobody but the cache. [`build`] is for people and for CI's first step: it asks apt
//! which packages are current, and builds if the cache has no image of exactly these. The same recipe and packages
//! give the same small image byte for byte.
//!
//! Not here: starting guests, and copies of the disks for each of them. An image is never written to.

mod apt;
pub mod cpio;
mod elf;
mod full;
mod modules;
mod small;
mod store;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub use store::cache;

/// What every guest's kernel command line needs under emulation; `lab.*` words follow (`guest/README.md`).
///
/// Without `no_timer_check` the kernel counts timer interrupts against the processor's speed at boot, and on a busy
/// machine it panics with "IO-APIC + timer doesn't work" (seen once in ten boots with five other builds running).
/// `cryptomgr.notests` saves each boot about 0.3 s of the kernel testing its own ciphers.
pub const KERNEL_LINE: &str = "console=ttyS0 quiet no_timer_check cryptomgr.notests";

/// Which shape of guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A root in memory with busybox and dropbear, ready within seconds.
    Small,
    /// A Debian with systemd, OpenSSH and Podman on a disk.
    Full,
}

impl Kind {
    /// As written in commands and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Full => "full",
        }
    }
}

/// An image in the cache. Its files are read only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its shape.
    pub kind: Kind,
    /// Where its files are.
    pub folder: PathBuf,
    /// SHA-256 of its manifest, in hexadecimal.
    pub digest: String,
}

impl Image {
    /// For `-kernel`.
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// For `-initrd`, a node's own archive behind it.
    pub fn initrd(&self) -> PathBuf {
        self.folder.join("initrd.cpio")
    }

    /// An empty ext4 with project quotas, 256 MiB and sparse: a guest's state disk is a copy of it.
    pub fn disk_template(&self) -> PathBuf {
        self.folder.join("disk-template.raw")
    }

    /// The root file system of a full image, a backing file for each guest's own layer.
    ///
    /// # Errors
    /// For a small image, whose root is its initrd.
    pub fn root(&self) -> Result<PathBuf> {
        match self.kind {
            Kind::Full => Ok(self.folder.join("root.raw")),
            Kind::Small => bail!("a small image has no root disk"),
        }
    }

    fn open(kind: Kind, folder: PathBuf) -> Result<Self> {
        let manifest = folder.join("manifest");
        let text =
            std::fs::read_to_string(&manifest).with_context(|| format!("read {}", manifest.display()))?;
        Ok(Self {
            kind,
            folder,
            digest: store::digest(&text),
        })
    }
}

/// The image that was built last by this program's recipe. No network, no apt.
///
/// # Errors
/// When there is none; the message says what to run.
pub fn find(kind: Kind) -> Result<Image> {
    find_in(&cache(), kind)
}

/// As [`find`], in another cache.
///
/// # Errors
/// As [`find`].
pub fn find_in(cache: &Path, kind: Kind) -> Result<Image> {
    Image::open(kind, store::find(cache, kind, &recipe(kind))?)
}

/// The image of the packages that are current now: the one in the cache, or a new one. `say` hears a line at each
/// step. When apt cannot be asked, an image that this recipe built before is good enough.
///
/// # Errors
/// When there is none and it cannot be built.
pub fn build(cache: &Path, kind: Kind, say: &mut dyn FnMut(&str)) -> Result<Image> {
    let builder = store::Builder::wait(cache, kind, say)?;
    let recipe = recipe(kind);
    let attempt = |say: &mut dyn FnMut(&str)| {
        let packages = match kind {
            Kind::Small => small::packages(),
            Kind::Full => full::packages(),
        }?;
        let lines = packages
            .iter()
            .map(|p| format!("{} {} {}\n", p.name, p.version, p.digest));
        let manifest = format!(
            "image {}\nrecipe {recipe}\n{}",
            kind.name(),
            lines.collect::<String>()
        );
        let folder = builder.image(&recipe, &manifest, |folder| match kind {
            Kind::Small => small::make(&packages, folder, say),
            Kind::Full => full::make(&packages, folder, say),
        })?;
        Image::open(kind, folder)
    };
    let first = match attempt(say) {
        Err(error) if error.is::<apt::OldLists>() => error,
        done => return done,
    };
    say(&format!("{first:#}"));
    say("apt-get update");
    let second = apt::update().and_then(|()| attempt(say));
    second.or_else(|error| {
        let Ok(old) = find_in(cache, kind) else {
            return Err(error);
        };
        say(&format!("{error:#}"));
        say("going on with the image that is there");
        Ok(old)
    })
}

/// What an image is made of, but for the packages' versions.
fn recipe(kind: Kind) -> String {
    match kind {
        Kind::Small => store::digest(&small::recipe()),
        Kind::Full => store::digest(&full::recipe()),
    }
}
