//! A network namespace of our own: made by a thread that then ends, kept by a descriptor, entered by short-lived
//! threads. The calling thread never moves.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};

pub(super) struct Space {
    file: File,
}

impl Space {
    pub(super) fn new() -> Result<Self> {
        let file = in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
            let path = "/proc/thread-self/ns/net";
            File::open(path).with_context(|| format!("cannot open {path}"))
        })??;
        let space = Self { file };
        space.ip("link set lo up\n")?;
        Ok(space)
    }

    /// Runs `work` in a thread that is inside, and waits for it. A panic in there goes on out here.
    pub(super) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        in_thread(|| {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
                .context("cannot enter the network namespace")?;
            Ok(work())
        })?
    }

    /// Runs lines for `ip -batch` inside.
    pub(super) fn ip(&self, lines: &str) -> Result<()> {
        let output = self.enter(|| {
            let mut child = Command::new("ip")
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .context("cannot start ip (iproute2)")?;
            // Dropped right away: the end of its input is what ip waits for. If it ended early, its status says more
            // than our broken pipe.
            child
                .stdin
                .take()
                .map(|mut input| input.write_all(lines.as_bytes()));
            child.wait_with_output().context("cannot wait for ip")
        })??;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "ip ended with {} and said {:?} to {lines:?}",
            output.status,
            errors.trim()
        );
        Ok(())
    }

    /// Sets a sysctl inside. `Ok(false)` where this kernel does not have it.
    pub(super) fn sysctl(&self, path: &str, value: &str) -> Result<bool> {
        let path = format!("/proc/sys/{path}");
        match self.enter(|| fs::write(&path, value))? {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot write {value} to {path}")),
        }
    }

    /// A path that `nsenter --net=` and `setns` of any process in our pid namespace can open.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.file.as_raw_fd()
        ))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Names of ours that become file names: letters, digits, `-` and `_`.
pub(super) fn plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 32
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("lab-netns".into())
            .spawn_scoped(scope, work)
            .context("cannot start a thread for the network namespace")?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
