//! The small image: busybox as pid 1 of a root in memory, dropbear, the tools for disks and networks that busybox
//! lacks, the C library for the daemons under test, and a tenth of the kernel's modules.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt::{self, Package};
use super::cpio::Archive;
use super::{elf, modules, store};

/// Raise it when this code makes something else from the same lists, scripts and packages.
const VERSION: u32 = 1;

/// All but the kernel.
const PACKAGES: [&str; 25] = [
    "busybox-static",
    "dropbear-bin",
    "e2fsprogs",
    "iproute2",
    "libblkid1",
    "libbpf1",
    "libbsd0",
    "libc6",
    "libcap2",
    "libcom-err2",
    "libcrypt1",
    "libelf1",
    "libext2fs2",
    "libgcc-s1",
    "libgmp10",
    "libmd0",
    "libmnl0",
    "libss2",
    "libtomcrypt1",
    "libtommath1",
    "libudev1",
    "libuuid1",
    "libxtables12",
    "mdadm",
    "zlib1g",
];

/// Programs beside busybox, at the place where their package has them.
const PROGRAMS: [&str; 13] = [
    "/bin/ip",
    "/sbin/tc",
    "/sbin/e2fsck",
    "/sbin/mke2fs",
    "/sbin/tune2fs",
    "/sbin/debugfs",
    "/usr/bin/chattr",
    "/usr/bin/lsattr",
    "/sbin/mdadm",
    "/usr/sbin/dropbear",
    "/usr/bin/dropbearkey",
    "/usr/bin/dbclient",
    "/bin/busybox",
];

/// What programs from a Rust build on Debian are linked with, beside what [`PROGRAMS`] need.
const LIBRARIES: [&str; 7] = [
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
];

/// Modules that `modprobe` finds in the guest, with all that they use; `guest/init` loads the virtio ones.
const MODULES: [&str; 50] = [
    // Devices of a guest.
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "virtio_console",
    "virtio_balloon",
    "vmw_vsock_virtio_transport",
    // Disks.
    "quota_v2",
    "xfs",
    "overlay",
    "loop",
    "md_mod",
    "raid1",
    "dm_mod",
    "dm_flakey",
    // What outlives a panic, and what ends a hang.
    "ramoops",
    "reed_solomon",
    "softdog",
    "netconsole",
    // Networks of slivers and their limits.
    "veth",
    "dummy",
    "ifb",
    "tun",
    "bridge",
    "macvlan",
    "ipvlan",
    "sch_htb",
    "sch_tbf",
    "sch_ingress",
    "sch_netem",
    "sch_fq",
    "sch_fq_codel",
    "cls_bpf",
    "cls_u32",
    "cls_matchall",
    "cls_cgroup",
    "act_bpf",
    "act_mirred",
    "nf_tables",
    "nft_ct",
    "nft_limit",
    "nft_log",
    "nft_chain_nat",
    "nft_reject_inet",
    "nft_socket",
    "nf_log_syslog",
    "nf_conntrack",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
];

/// Our files in the guest: path, mode, content.
const OWN: [(&str, u32, &str); 15] = [
    ("/init", 0o755, include_str!("guest/small/init")),
    ("/lib/lab/console", 0o755, include_str!("guest/small/console")),
    ("/lib/lab/control", 0o755, include_str!("guest/control")),
    ("/lib/lab/network", 0o755, include_str!("guest/network")),
    ("/lib/lab/service", 0o755, include_str!("guest/small/service")),
    ("/lib/lab/stop", 0o755, include_str!("guest/small/stop")),
    ("/lib/lab/inittab", 0o644, include_str!("guest/small/inittab")),
    ("/lib/lab/services", 0o644, include_str!("guest/small/services")),
    ("/etc/fstab", 0o644, include_str!("guest/small/fstab")),
    ("/etc/profile", 0o644, include_str!("guest/small/profile")),
    (
        "/etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    ),
    ("/etc/group", 0o644, "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    ("/etc/shells", 0o644, "/bin/sh\n"),
    (
        "/etc/nsswitch.conf",
        0o644,
        "passwd: files\ngroup: files\nhosts: files dns\n",
    ),
    (
        "/etc/os-release",
        0o644,
        "ID=redbutton-lab\nNAME=\"Redbutton lab, small\"\n",
    ),
];

/// Folders that are there before anything is mounted on them or written to them: path, mode.
const FOLDERS: [(&str, u32); 20] = [
    ("/dev", 0o755),
    ("/etc/dropbear", 0o700),
    ("/etc/lab.d", 0o755),
    ("/home", 0o755),
    ("/lib/lab", 0o755),
    ("/mnt", 0o755),
    ("/opt", 0o755),
    ("/proc", 0o555),
    ("/root", 0o700),
    ("/root/.ssh", 0o700),
    ("/run", 0o755),
    ("/srv", 0o755),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
    ("/usr/local/bin", 0o755),
    ("/usr/local/sbin", 0o755),
    ("/var/lib/redbutton", 0o755),
    ("/var/log", 0o755),
    ("/var/tmp", 0o1777),
    ("/var/spool", 0o755),
];

/// Random otherwise.
const UUID: &str = "6c616200-6469-736b-8000-000000000001";

/// The file is a hole, so nothing needs to be zeroed: neither now nor by the guest after its first mount.
const EXTENDED: &str = "quotatype=prjquota,root_owner=0:0,assume_storage_prezeroed=1,nodiscard";

/// Folders of libraries in Debian's packages, seen from their root.
const LIBRARY_FOLDERS: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// Bytes of the state disk.
const DISK: u64 = 256 << 20;

/// Debian 12's defaults, written out since this machine's `/etc/mke2fs.conf` may say something else, and the quotas.
pub(super) const DISK_FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,\
    sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum,quota,project";

/// Everything that decides what is built, but for the packages' versions.
pub(super) fn recipe() -> String {
    format!(
        "{VERSION}\n{PACKAGES:?}\n{PROGRAMS:?}\n{LIBRARIES:?}\n{MODULES:?}\n{OWN:?}\n{FOLDERS:?}\n{DISK}\n"
    )
}

/// The packages in their current versions.
pub(super) fn packages() -> Result<Vec<Package>> {
    let mut names = PACKAGES.map(str::to_owned).to_vec();
    names.push(apt::kernel()?);
    apt::resolve(&names)
}

/// Builds the image in an empty folder.
pub(super) fn make(packages: &[Package], folder: &Path, say: &mut dyn FnMut(&str)) -> Result<()> {
    let scratch = tempfile::tempdir_in(folder).context("make a temporary folder")?;
    let (files, root) = (scratch.path().join("files"), scratch.path().join("root"));
    say(&format!("fetching {} packages", packages.len()));
    apt::fetch(packages, &files)?;
    apt::unpack(packages, &files, &root)?;

    say("making vmlinuz, initrd.cpio, disk-template.raw");
    let version = kernel_version(&root)?;
    let kernel = root.join(format!("boot/vmlinuz-{version}"));
    fs::copy(&kernel, folder.join("vmlinuz")).with_context(|| format!("copy {}", kernel.display()))?;
    store::write(&folder.join("initrd.cpio"), &archive(&root, &version)?.to_bytes())?;
    disk(&folder.join("disk-template.raw"))?;
    scratch.close().context("remove the temporary folder")
}

/// The version of the one kernel under a root.
pub(super) fn kernel_version(root: &Path) -> Result<String> {
    let folder = root.join("lib/modules");
    let mut names = fs::read_dir(&folder).with_context(|| format!("read folder {}", folder.display()))?;
    let first = names
        .next()
        .with_context(|| format!("{}: empty", folder.display()))??;
    first
        .file_name()
        .into_string()
        .map_err(|name| anyhow::anyhow!("kernel version {name:?} is not UTF-8"))
}

/// The initrd from unpacked packages.
fn archive(root: &Path, version: &str) -> Result<Archive> {
    let mut archive = Archive::new();
    // Before /dev is mounted the kernel opens the console for pid 1.
    archive
        .node("/dev/console", 0o020_600, 5, 1)
        .node("/dev/null", 0o020_666, 1, 3);
    for (path, mode) in FOLDERS {
        archive.folder(path, mode);
    }
    for (path, mode, text) in OWN {
        archive.file(path, mode, text);
    }
    archive.link("/etc/mtab", "/proc/mounts").link("/var/run", "/run");
    add_programs(&mut archive, root, &PROGRAMS)?;
    for name in LIBRARIES {
        add_library(&mut archive, root, name)?;
    }
    archive.link(
        "/lib64/ld-linux-x86-64.so.2",
        "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    );
    add_applets(&mut archive, root)?;
    add_modules(&mut archive, root, version, &MODULES)?;
    Ok(archive)
}

/// Programs of the packages and the libraries that they need.
pub(super) fn add_programs(archive: &mut Archive, root: &Path, programs: &[&str]) -> Result<()> {
    for path in programs {
        let from = root.join(path.trim_start_matches('/'));
        archive.copy(path, &from)?;
        let content = fs::read(&from).with_context(|| format!("read {}", from.display()))?;
        for name in elf::needed(&content).with_context(|| format!("program {path}"))? {
            add_library(archive, root, &name).with_context(|| format!("program {path}"))?;
        }
    }
    Ok(())
}

/// A library and what it needs in turn. Debian's file has a version in its name, to which a link leads; here the file
/// itself has the name that programs ask for.
fn add_library(archive: &mut Archive, root: &Path, name: &str) -> Result<()> {
    let inside = format!("/lib/x86_64-linux-gnu/{name}");
    if archive.has(&inside) {
        return Ok(());
    }
    let candidates = LIBRARY_FOLDERS.map(|folder| root.join(folder).join(name));
    let Some(from) = candidates.iter().find(|path| path.exists()) else {
        bail!("library {name}: in none of the packages");
    };
    let content = fs::read(from).with_context(|| format!("read {}", from.display()))?;
    let needed = elf::needed(&content).with_context(|| format!("library {name}"))?;
    archive.file(&inside, 0o755, content);
    needed
        .iter()
        .try_for_each(|name| add_library(archive, root, name))
}

/// busybox under all its names, except where the archive has a program of that name.
pub(super) fn add_applets(archive: &mut Archive, root: &Path) -> Result<()> {
    let busybox = root.join("bin/busybox");
    let taken: BTreeSet<String> = archive
        .paths()
        .filter_map(|path| path.rsplit_once("bin/"))
        .map(|(_, name)| name.to_owned())
        .collect();
    for path in apt::run(Command::new(&busybox).arg("--list-full"))?.lines() {
        let name = path.rsplit('/').next().unwrap_or(path);
        if !taken.contains(name) {
            archive.link(path, "/bin/busybox");
        }
    }
    if !archive.has("/bin/sh") || !archive.has("/sbin/init") {
        bail!("{}: expected the applets sh and init", busybox.display());
    }
    Ok(())
}

/// Kernel modules with what they use, and their index.
pub(super) fn add_modules(archive: &mut Archive, root: &Path, version: &str, wanted: &[&str]) -> Result<()> {
    let folder: PathBuf = root.join("lib/modules").join(version);
    let read =
        |path: &str| fs::read(folder.join(path)).with_context(|| format!("read {}/{path}", folder.display()));
    let builtin = String::from_utf8_lossy(&read("modules.builtin")?).into_owned();
    let facts = |path: &str| elf::modinfo(&read(path)?);
    let chosen = modules::choose(wanted, &modules::index(&folder)?, &builtin, &facts)?;
    let inside = format!("/lib/modules/{version}");
    for module in &chosen {
        archive.file(&format!("{inside}/{}", module.path), 0o644, read(&module.path)?);
    }
    archive.file(&format!("{inside}/modules.builtin"), 0o644, builtin);
    archive.file(
        &format!("{inside}/modules.dep"),
        0o644,
        modules::dep_text(&chosen),
    );
    archive.file(
        &format!("{inside}/modules.alias"),
        0o644,
        modules::alias_text(&chosen),
    );
    Ok(())
}

/// An empty ext4 with project quotas, the same each time.
pub(super) fn disk(path: &Path) -> Result<()> {
    ext4(path, DISK, "lab-state", None)
}

/// A sparse file with an ext4 that has project quotas, and the files of a folder.
pub(super) fn ext4(path: &Path, length: u64, label: &str, content: Option<&Path>) -> Result<()> {
    let file = fs::File::create(path).with_context(|| format!("create {}", path.display()))?;
    file.set_len(length)
        .with_context(|| format!("set the length of {}", path.display()))?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args([
        "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-L", label, "-U", UUID,
    ]);
    mke2fs.args(["-O", DISK_FEATURES, "-E", &format!("hash_seed={UUID},{EXTENDED}")]);
    if let Some(folder) = content {
        mke2fs.arg("-d").arg(folder);
    }
    // e2fsprogs writes this as every time there is, so that two disks are the same.
    apt::run(
        mke2fs
            .arg(path)
            .env("E2FSPROGS_FAKE_TIME", "1")
            .env("MKE2FS_CONFIG", "/dev/null"),
    )
    .map(drop)
}
