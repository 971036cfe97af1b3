//! The full image in QEMU: systemd is pid 1, a node's own files and units are there, a container runs.
//! Skips where QEMU is missing or no image was built (`lab-image full`).
#![allow(clippy::unwrap_used, reason = "a test may fall over; that is how it fails")]

mod boot;

use std::fs;
use std::process::Command;

use boot::Guest;
use lab::image::Kind;
use lab::image::cpio::Archive;

/// A layer of its own over the image's root, which stays as it is.
fn layer(folder: &std::path::Path, root: &std::path::Path) -> std::path::PathBuf {
    let layer = folder.join("root.qcow2");
    let mut create = Command::new("qemu-img");
    create
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(root)
        .arg(&layer);
    assert!(create.status().unwrap().success());
    layer
}

#[test]
fn image_full_runs_systemd_units_containers_and_keeps_its_root() {
    let Some(image) = boot::image_or_skip(Kind::Full) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let root = image.root().unwrap();
    let before = fs::metadata(&root).unwrap().modified().unwrap();
    let (layer, state) = (layer(folder.path(), &root), folder.path().join("state.raw"));
    fs::copy(image.disk_template(), &state).unwrap();

    let unit = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
    let mut own = Archive::new();
    own.file("/overlay/etc/systemd/system/own.service", 0o644, unit);
    let wanted = "/overlay/etc/systemd/system/multi-user.target.wants/own.service";
    own.link(wanted, "/etc/systemd/system/own.service");
    own.file(
        "/overlay/etc/lab.d/10-own.sh",
        0o755,
        "#!/bin/sh\necho own >/run/own\n",
    );
    // On the root /bin is a link, which must stay one.
    own.file("/overlay/bin/own", 0o755, "#!/bin/sh\necho mine\n");
    own.file("/overlay/root/.ssh/authorized_keys", 0o600, "# nobody\n");
    let initrd = boot::initrd_with(&image, folder.path(), &own);
    let append =
        "lab.name=f1 lab.control=ttyS1 lab.ip=10.77.1.11/24 lab.gw=10.77.1.1 lab.gwmac=52:54:00:00:00:01";
    let disks = [layer.as_path(), state.as_path()];
    let mut guest = Guest::start(&image, Some(&initrd), append, &disks, folder.path());
    guest.wait("LAB: ready");

    assert_eq!(guest.control("hostname; cat /proc/1/comm"), "f1\nsystemd\n");
    assert_eq!(guest.control("systemctl is-system-running --wait"), "running\n");
    assert_eq!(
        guest.control("systemctl is-active own ssh lab-setup"),
        "active\nactive\nactive\n"
    );
    assert_eq!(
        guest.control("cat /run/own; own; readlink /bin"),
        "own\nmine\nusr/bin\n"
    );
    assert_eq!(
        guest.control("stat -c %a /root /root/.ssh /tmp"),
        "700\n700\n1777\n"
    );
    assert!(guest.control("cat /sys/kernel/security/lsm").contains("bpf"));
    assert_eq!(guest.control("stat -f -c %T /sys/fs/cgroup"), "cgroup2fs\n");
    assert!(
        guest
            .control("cat /proc/mounts")
            .contains("/dev/vdb /var/lib/redbutton ext4 rw,nosuid,nodev")
    );
    assert!(
        guest
            .control("ip -o addr show dev eth0")
            .contains("10.77.1.11/24")
    );
    assert!(
        guest
            .control("ip neigh")
            .contains("10.77.1.1 dev eth0 lladdr 52:54:00:00:00:01 PERMANENT")
    );
    assert!(
        guest
            .control("ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub")
            .contains("ED25519")
    );
    assert_eq!(
        guest.control("podman run --rm --network=none busybox echo inside 2>&1"),
        "inside\n"
    );

    guest.type_line("poweroff");
    guest.ends();
    assert_eq!(fs::metadata(&root).unwrap().modified().unwrap(), before);

    // A second boot goes on with what the first one wrote.
    let mut guest = Guest::start(&image, None, append, &disks, folder.path());
    guest.wait("LAB: ready");
    assert_eq!(guest.control("own; systemctl is-active own"), "mine\nactive\n");
}
