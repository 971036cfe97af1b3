//! How the client stops being root, and how it makes sure. Runs in the process that becomes the sliver.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::sys;

/// Highest capability number that we try; kernels of 2026 have 41.
const MOST_CAPABILITIES: u32 = 64;

/// Which step did not work.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    /// A system call was refused.
    #[error("cannot {what}: {source}")]
    Call {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Everything was accepted and yet something is left.
    #[error("refusing to start: /proc/self/status says {line:?} after every privilege was dropped")]
    Left {
        /// The line.
        line: String,
    },
    /// The kernel does not say what is left.
    #[error("refusing to start: /proc/self/status has no {field}")]
    Silent {
        /// The missing line.
        field: &'static str,
    },
}

fn call<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> DropError {
    move |source| DropError::Call {
        what,
        source: source.into(),
    }
}

/// Becomes the user for good. The order matters: what needs root comes first, the uid falls last but for what
/// only takes away.
///
/// # Errors
/// When anything at all is left. The caller must not go on then.
pub(super) fn become_sliver(uid: u32) -> Result<(), DropError> {
    sys::leave_terminal().map_err(call("leave root's terminal"))?;
    sys::new_session_keyring()
        .or_else(unsupported)
        .map_err(call("leave root's keyring"))?;
    sys::close_above_standard().map_err(call("close inherited descriptors"))?;
    for capability in 0..MOST_CAPABILITIES {
        if !sys::drop_bounding(capability).map_err(call("empty the bounding set"))? {
            break;
        }
    }
    sys::clear_ambient().map_err(call("empty the ambient set"))?;
    sys::lock_securebits().map_err(call("lock the securebits"))?;
    setgroups(&[]).map_err(call("leave root's groups"))?;
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    setresgid(group, group, group).map_err(call("change the group"))?;
    setresuid(user, user, user).map_err(call("change the user"))?;
    sys::clear_capabilities().map_err(call("drop the capabilities"))?;
    nix::sys::prctl::set_no_new_privs().map_err(call("set no_new_privs"))?;
    sys::default_signals().map_err(call("reset the signals"))?;
    let status = fs::read_to_string("/proc/self/status").map_err(call("read /proc/self/status"))?;
    verify(&status, uid)
}

/// Kernels without keyrings have none to hand down.
fn unsupported(e: io::Error) -> io::Result<()> {
    if e.raw_os_error() == Some(libc::ENOSYS) {
        Ok(())
    } else {
        Err(e)
    }
}

/// Whether a `/proc/self/status` is that of a process with nothing left. Pure.
fn verify(status: &str, uid: u32) -> Result<(), DropError> {
    let four = format!("{uid} {uid} {uid} {uid}");
    let zero = |v: &str| v.bytes().all(|b| b == b'0') && !v.is_empty();
    for field in [
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
    ] {
        let line = status.lines().find(|line| line.split(':').next() == Some(field));
        let value = line
            .and_then(|line| line.split_once(':'))
            .ok_or(DropError::Silent { field })?
            .1;
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        let good = match field {
            "Uid" | "Gid" => value == four,
            "Groups" => value.is_empty(),
            "NoNewPrivs" => value == "1",
            _ => zero(&value),
        };
        if !good {
            return Err(DropError::Left {
                line: format!("{field}: {value}"),
            });
        }
    }
    Ok(())
}

/// Gives this process a mount namespace of its own in which every cgroup file system is read-only.
///
/// # Errors
/// When the kernel refuses. The sliver has no right to write there anyway; this is a second wall, so the caller
/// reports it and goes on.
pub(super) fn cgroups_read_only() -> Result<(), DropError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(call("make a mount namespace"))?;
    mount(
        None::<&Path>,
        "/",
        None::<&Path>,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None::<&Path>,
    )
    .map_err(call("cut the mount namespace off"))?;
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(call("read the mounts"))?;
    for (point, flags) in writable_cgroups(&table) {
        let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(None::<&Path>, &point, None::<&Path>, flags, None::<&Path>)
            .map_err(call("make a cgroup file system read-only"))?;
    }
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(call("read the mounts"))?;
    match writable_cgroups(&table).first() {
        None => Ok(()),
        Some((point, _)) => Err(DropError::Left {
            line: format!("{} is still writable", point.display()),
        }),
    }
}

/// Cgroup mounts that may be written to, with the flags they must keep. Pure; the table is proc(5)'s mountinfo.
fn writable_cgroups(table: &str) -> Vec<(PathBuf, MsFlags)> {
    let mut found = Vec::new();
    for line in table.lines() {
        let Some((before, after)) = line.split_once(" - ") else {
            continue;
        };
        let kind = after.split(' ').next().unwrap_or_default();
        let mut fields = before.split(' ').skip(4);
        let (Some(point), Some(options)) = (fields.next(), fields.next()) else {
            continue;
        };
        if !matches!(kind, "cgroup" | "cgroup2") || options.split(',').any(|o| o == "ro") {
            continue;
        }
        let mut flags = MsFlags::empty();
        for option in options.split(',') {
            flags |= match option {
                "nosuid" => MsFlags::MS_NOSUID,
                "nodev" => MsFlags::MS_NODEV,
                "noexec" => MsFlags::MS_NOEXEC,
                "noatime" => MsFlags::MS_NOATIME,
                "nodiratime" => MsFlags::MS_NODIRATIME,
                "relatime" => MsFlags::MS_RELATIME,
                _ => MsFlags::empty(),
            };
        }
        found.push((point.replace("\\040", " ").into(), flags));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: &str = "Name:\tx\nUid:\t7\t7\t7\t7\nGid:\t7\t7\t7\t7\nGroups:\t \nNoNewPrivs:\t1\n\
        CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
        CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\n";

    #[test]
    fn a_status_with_anything_left_is_refused() {
        verify(CLEAN, 7).expect("nothing is left");
        for (from, to) in [
            ("Uid:\t7\t7\t7\t7", "Uid:\t7\t7\t0\t7"),
            ("Gid:\t7\t7\t7\t7", "Gid:\t7\t0\t7\t7"),
            ("Groups:\t ", "Groups:\t0 "),
            ("CapBnd:\t0000000000000000", "CapBnd:\t0000000000000001"),
            ("CapAmb:\t0000000000000000", "CapAmb:\t"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
        ] {
            let status = CLEAN.replace(from, to);
            assert!(matches!(verify(&status, 7), Err(DropError::Left { .. })), "{to}");
        }
        assert!(matches!(verify(CLEAN, 8), Err(DropError::Left { .. })));
        let silent = CLEAN.replace("CapEff", "CapOff");
        assert!(matches!(
            verify(&silent, 7),
            Err(DropError::Silent { field: "CapEff" })
        ));
        assert!(verify("", 7).is_err());
    }

    #[test]
    fn writable_cgroup_mounts_are_found_with_the_flags_they_keep() {
        let table = "30 23 0:27 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro\n\
            31 30 0:28 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw\n\
            32 30 0:29 / /sys/fs/cgroup/pids ro,nosuid - cgroup cgroup rw,pids\n\
            33 30 0:30 / /with\\040space rw - cgroup2 none rw\nrubbish\n";
        let found = writable_cgroups(table);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].0, Path::new("/sys/fs/cgroup/unified"));
        assert!(
            found[0]
                .1
                .contains(MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV)
        );
        assert_eq!(found[1].0, Path::new("/with space"));
    }
}
