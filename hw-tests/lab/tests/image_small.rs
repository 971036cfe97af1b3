//! The small image in QEMU: it boots, has what the lab needs, and stops where a real machine of the incidents did.
//! Skips where QEMU is missing or no image was built (`lab-image small`).

#![allow(clippy::unwrap_used, reason = "a test may fall over; that is how it fails")]

mod boot;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use boot::Guest;
use lab::image::cpio::Archive;
use lab::image::{self, Image, Kind};

/// The image, or why there can be no test.
fn image() -> Option<Image> {
    boot::image_or_skip(Kind::Small)
}

/// A state disk of its own.
fn state_disk(image: &Image, folder: &Path) -> PathBuf {
    let disk = folder.join("state.raw");
    let copied = Command::new("cp")
        .arg("--sparse=always")
        .arg(image.disk_template())
        .arg(&disk)
        .status();
    assert!(copied.unwrap().success());
    disk
}

fn blank(path: PathBuf, length: u64) -> PathBuf {
    File::create(&path).unwrap().set_len(length).unwrap();
    path
}

#[test]
fn image_small_boots_with_services_network_quota_cgroups_and_lsm() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut own = Archive::new();
    own.file(
        "/etc/lab.services",
        0o644,
        "# ours\nticker sh -c 'while :; do echo tick; usleep 100000; done'\nonce echo done\n",
    );
    own.file("/etc/lab.d/10-own.sh", 0o755, "#!/bin/sh\necho own >/run/own\n");
    let initrd = boot::initrd_with(&image, folder.path(), &own);
    let append = "lab.name=n1 lab.control=ttyS1 lab.ip=10.77.1.11/24 lab.gw=10.77.1.1 lab.gwmac=52:54:00:00:00:01 \
        lab.ip6=fd77:1::11/64 lab.gw6=fd77:1::1";
    let disk = state_disk(&image, folder.path());
    let mut guest = Guest::start(&image, Some(&initrd), append, &[&disk], folder.path());
    guest.wait("LAB: ready");

    // The shell for programs, on its own line.
    assert_eq!(guest.control("hostname"), "n1\n");
    let controllers = guest.control("cat /sys/fs/cgroup/cgroup.controllers");
    for needed in ["cpu", "memory", "pids", "io"] {
        assert!(
            controllers.split_whitespace().any(|found| found == needed),
            "{controllers}"
        );
    }
    assert!(
        guest
            .control("cat /sys/kernel/security/lsm")
            .split(',')
            .any(|lsm| lsm.trim() == "bpf")
    );
    let mounts = guest.control("cat /proc/mounts");
    assert!(
        mounts.contains("/dev/vda /var/lib/redbutton ext4 rw,nosuid,nodev,relatime,prjquota"),
        "{mounts}"
    );
    assert!(mounts.contains("cgroup /sys/fs/cgroup cgroup2"), "{mounts}");
    assert!(
        !mounts.contains(" cgroup "),
        "a cgroup v1 tree is mounted: {mounts}"
    );
    assert!(guest.control("dmesg").contains("Quota mode: journalled"));
    assert_eq!(guest.control("cat /run/own"), "own\n");
    assert!(
        guest
            .control("/bin/ip -o addr show dev eth0")
            .contains("10.77.1.11/24")
    );
    assert!(
        guest
            .control("/bin/ip -6 route")
            .contains("default via fd77:1::1 dev eth0")
    );
    assert!(
        guest
            .control("/bin/ip neigh")
            .contains("10.77.1.1 dev eth0 lladdr 52:54:00:00:00:01 PERMANENT")
    );
    assert!(
        guest
            .control("modprobe -a xfs raid1 softdog nf_tables sch_htb veth overlay ramoops; lsmod")
            .contains("xfs")
    );
    let device =
        "/bin/ip link add dev va type veth peer name vb && /sbin/tc qdisc add dev va root htb && echo made";
    assert_eq!(guest.control(&format!("{device} 2>&1")), "made\n");

    // Its sshd takes the keys that it was told and nothing else.
    let login = "dbclient -y -i /run/key root@127.0.0.1 echo in </dev/null 2>/dev/null || echo refused";
    guest.control("dropbearkey -t ed25519 -f /run/key >/dev/null 2>&1");
    assert_eq!(guest.control(login), "refused\n");
    guest.control("dropbearkey -y -f /run/key | grep ^ssh >/root/.ssh/authorized_keys");
    assert_eq!(guest.control(login), "in\n");

    // Services: one that stays, and one that ends and is started again.
    guest.wait("LAB: service once ended with 0");
    guest.wait("LAB: service once ended with 0");
    assert!(guest.control("cat /var/log/ticker").contains("tick\n"));
    assert!(guest.control("cat /var/log/once").starts_with("done\ndone\n"));

    // The console is a root shell too; and going down leaves the disk clean, with the host key on it.
    guest.type_line("id -u; poweroff");
    guest.ends();
    let check = Command::new("e2fsck").arg("-fn").arg(&disk).output().unwrap();
    assert!(
        check.status.success(),
        "{}",
        String::from_utf8_lossy(&check.stdout)
    );
    let listed = Command::new("debugfs")
        .args(["-R", "ls -l /.lab"])
        .arg(&disk)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("ssh_host_key"));
    let header = Command::new("dumpe2fs").arg("-h").arg(&disk).output().unwrap();
    let header = String::from_utf8_lossy(&header.stdout).into_owned();
    assert!(
        !header.contains("needs_recovery"),
        "it was not unmounted: {header}"
    );
}

#[test]
fn image_small_waits_for_a_person_when_the_file_system_cannot_be_repaired() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    let disk = state_disk(&image, folder.path());
    // As a crash leaves it: not clean, and the root folder is lost.
    let commands = folder.path().join("commands");
    fs::write(&commands, "clri <2>\nset_super_value state 0\n").unwrap();
    let broken = Command::new("debugfs")
        .arg("-w")
        .arg("-f")
        .arg(&commands)
        .arg(&disk)
        .output()
        .unwrap();
    assert!(
        broken.status.success(),
        "{}",
        String::from_utf8_lossy(&broken.stderr)
    );
    let mut guest = Guest::start(&image, None, "lab.name=n1", &[&disk], folder.path());
    guest.wait("UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY");
    guest.wait("LAB: fsck failed: manual repair needed");
    guest.wait("# ");
    guest.type_line("exit");
    guest.wait("LAB: fsck failed: manual repair needed");
    guest.wait("# ");
    guest.type_line("e2fsck -y /dev/vda; exit");
    guest.wait("LAB: stage disk");
    guest.wait("LAB: ready");
}

#[test]
fn image_small_waits_for_a_person_when_a_mirror_is_degraded() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    let state = state_disk(&image, folder.path());
    let mirrors = ["b", "c"].map(|name| blank(folder.path().join(name), 16 << 20));
    let disks = [state.as_path(), &mirrors[0], &mirrors[1]];
    let mut guest = Guest::start(
        &image,
        None,
        "lab.name=n1 lab.control=ttyS1",
        &disks,
        folder.path(),
    );
    guest.wait("LAB: ready");
    let made = guest.control(
        "modprobe raid1; MDADM_NO_UDEV=1 mdadm --create /dev/md0 --run --assume-clean --metadata=1.2 --level=1 \
         --raid-devices=2 /dev/vdb /dev/vdc 2>&1; cat /proc/mdstat",
    );
    assert!(made.contains("[2/2] [UU]"), "{made}");
    guest.type_line("mdadm --stop /dev/md0; poweroff");
    guest.ends();

    // Whole, it is assembled without a question.
    let mut guest = Guest::start(
        &image,
        None,
        "lab.name=n1 lab.control=ttyS1",
        &disks,
        folder.path(),
    );
    guest.wait("LAB: ready");
    assert!(guest.control("cat /proc/mdstat").contains("[UU]"));
    guest.type_line("poweroff");
    guest.ends();

    blank(mirrors[1].clone(), 16 << 20);
    let mut guest = Guest::start(&image, None, "lab.name=n1", &disks, folder.path());
    guest.wait("md/raid1:md0: active with 1 out of 2 mirrors");
    guest.wait("LAB: RAID degraded: waiting for an operator");
    guest.wait("# ");
    guest.type_line("exit");
    guest.wait("LAB: ready");
}

#[test]
fn image_small_is_named_after_what_it_is_made_from() {
    let Some(image) = image() else { return };
    assert!(image.folder.ends_with(format!("small-{}", &image.digest[..16])));
    assert!(image.root().is_err());
    let elsewhere = tempfile::tempdir().unwrap();
    let missing = image::find_in(elsewhere.path(), Kind::Small).unwrap_err();
    assert!(missing.to_string().contains("run `lab-image small`"), "{missing}");
}
