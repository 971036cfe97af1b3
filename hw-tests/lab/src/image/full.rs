//! The full image: a Debian 12 on a disk, systemd as its pid 1, OpenSSH, Podman with one container image, started by
//! a small initrd that copies a node's own files onto the root.
//!
//! apt works out and fetches the exact packages, they become an archive of their own, and debootstrap installs from
//! that: so what is in the manifest is what is in the image, current security fixes too, and no other machine is
//! asked half-way. Everything that mounts or runs programs of the new root does so in mount and process namespaces of
//! its own, which end with it, whatever happens.
//!
//! Not byte for byte the same each time: packages' scripts write the time, Podman its random names.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::apt::{self, Package};
use super::cpio::Archive;
use super::{small, store};

/// Raise it when this code makes something else from the same lists, scripts and packages.
const VERSION: u32 = 1;

const SUITE: &str = "bookworm";

/// What is asked for; apt adds what these need. `usr-is-merged` instead of `usrmerge`, which brings the whole of Perl.
const PACKAGES: [&str; 18] = [
    "?essential",
    "?priority(required)",
    "apt",
    "usr-is-merged",
    "usrmerge-",
    "systemd",
    "systemd-sysv",
    "udev",
    "dbus",
    "openssh-server",
    "podman",
    "crun",
    "netavark",
    "iproute2",
    "iputils-ping",
    "procps",
    "kmod",
    "e2fsprogs",
];

/// For the initrd and for the container image, not installed.
const BUSYBOX: &str = "busybox-static";

/// Modules of the initrd; the root has all of the kernel's.
const MODULES: [&str; 5] = ["virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "quota_v2"];

/// Our files on the root: path, content. Executable below `/usr/lib/lab`.
const OWN: [(&str, &str); 12] = [
    ("usr/lib/lab/network", include_str!("guest/network")),
    ("usr/lib/lab/control", include_str!("guest/control")),
    ("usr/lib/lab/setup", include_str!("guest/full/setup")),
    ("usr/lib/lab/scripts", include_str!("guest/full/scripts")),
    (
        "etc/systemd/system/lab.target",
        include_str!("guest/full/lab.target"),
    ),
    (
        "etc/systemd/system/lab-setup.service",
        include_str!("guest/full/lab-setup.service"),
    ),
    (
        "etc/systemd/system/lab-scripts.service",
        include_str!("guest/full/lab-scripts.service"),
    ),
    ("usr/lib/lab/console", include_str!("guest/full/console")),
    (
        "etc/systemd/system/lab-console.service",
        include_str!("guest/full/lab-console.service"),
    ),
    (
        "etc/systemd/system/lab-control.service",
        include_str!("guest/full/lab-control.service"),
    ),
    (
        "etc/ssh/sshd_config.d/lab.conf",
        "HostKey /etc/ssh/ssh_host_ed25519_key\n",
    ),
    (
        "etc/containers/containers.conf",
        "[network]\nnetwork_backend = \"netavark\"\n",
    ),
];

/// Makes the root: `sh BUILD ARCHIVE ROOT SUITE NAMES KERNEL-VERSION`.
const BUILD: &str = include_str!("guest/full/build");

/// The initrd's only script.
const INIT: &str = include_str!("guest/full/init");

/// Bytes of the root disk.
const DISK: u64 = 2 << 30;

/// Everything that decides what is built, but for the packages' versions.
pub(super) fn recipe() -> String {
    format!(
        "{VERSION}\n{SUITE}\n{PACKAGES:?}\n{MODULES:?}\n{OWN:?}\n{BUILD}\n{INIT}\n{DISK}\n{}",
        small::DISK_FEATURES
    )
}

/// The packages in their current versions.
pub(super) fn packages() -> Result<Vec<Package>> {
    let mut names = apt::closure(&PACKAGES)?;
    names.extend([apt::kernel()?, BUSYBOX.to_owned()]);
    apt::resolve(&names)
}

/// Builds the image in an empty folder.
pub(super) fn make(packages: &[Package], folder: &Path, say: &mut dyn FnMut(&str)) -> Result<()> {
    let scratch = tempfile::tempdir_in(folder).context("make a temporary folder")?;
    let [pool, tools, root] = ["pool", "tools", "root"].map(|name| scratch.path().join(name));
    say(&format!("fetching {} packages", packages.len()));
    apt::fetch(packages, &pool)?;
    let (unpacked, installed): (Vec<_>, Vec<_>) = packages
        .iter()
        .cloned()
        .partition(|p| p.name == BUSYBOX || p.name.starts_with("linux-image-"));
    apt::unpack(&unpacked, &pool, &tools)?;
    apt::archive(&installed, &pool, SUITE)?;

    say("installing them into a folder (a minute or two)");
    let version = small::kernel_version(&tools)?;
    fs::create_dir(&root).context("make the root's folder")?;
    // debootstrap installs what is there before over what it finds, so the files that need it come by the script.
    let own = scratch.path().join("own");
    for (path, text) in OWN {
        let at = own.join(path);
        let parent = at.parent().with_context(|| format!("{path}: no folder"))?;
        fs::create_dir_all(parent).with_context(|| format!("make folder {}", parent.display()))?;
        fs::write(&at, text).with_context(|| format!("write {}", at.display()))?;
    }
    let script = scratch.path().join("build");
    fs::write(&script, BUILD).context("write the build script")?;
    let names: Vec<_> = installed.iter().map(|package| package.name.as_str()).collect();
    let mut build = Command::new("unshare");
    build
        .args([
            "--mount",
            "--propagation=private",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-e",
        ])
        .arg(&script);
    apt::run(
        build
            .arg(scratch.path())
            .args([SUITE, &names.join(","), &version]),
    )?;

    say("making vmlinuz, initrd.cpio, root.raw, disk-template.raw");
    let kernel = tools.join(format!("boot/vmlinuz-{version}"));
    fs::copy(&kernel, folder.join("vmlinuz")).with_context(|| format!("copy {}", kernel.display()))?;
    store::write(&folder.join("initrd.cpio"), &initrd(&tools, &version)?.to_bytes())?;
    small::disk(&folder.join("disk-template.raw"))?;
    small::ext4(&folder.join("root.raw"), DISK, "lab-root", Some(&root))?;
    scratch.close().context("remove the temporary folder")
}

/// busybox, a few modules, and a script that finds the root.
fn initrd(tools: &Path, version: &str) -> Result<Archive> {
    let mut archive = Archive::new();
    archive
        .node("/dev/console", 0o020_600, 5, 1)
        .node("/dev/null", 0o020_666, 1, 3);
    for path in ["/proc", "/sys", "/overlay", "/root"] {
        archive.folder(path, 0o755);
    }
    archive.file("/init", 0o755, INIT);
    small::add_programs(&mut archive, tools, &["/bin/busybox"])?;
    small::add_applets(&mut archive, tools)?;
    small::add_modules(&mut archive, tools, version, &MODULES)?;
    Ok(archive)
}
