//! One command where it can reach nothing of this machine, and of which nothing remains.
//!
//! ```text
//! cargo xtask ── isolate-outer ──unshare──▸ isolate-init (pid 1) ── the command ── …
//!   own cgroup     joins it, dies            /proc anew, lo up,        output by a pipe
//!   signals, cap   with xtask                masks; dies with outer    back to xtask
//! ```
//!
//! Own PID, mount, network, IPC, UTS and cgroup namespaces: `reboot(2)` in there ends only the namespace,
//! process 1's death kills everybody, and every cgroup lands in one subtree that we list, kill and remove.
//! Each of the three dies with the one before it (`PR_SET_PDEATHSIG`), so even `kill -9` of xtask leaves no process.
//!
//! Root that may not `unshare` gets [`NeedsRoot`], never an unisolated run. Without root the command runs unisolated in a process group of its own: nothing it may do then can hurt the
//! machine.

mod inside;
mod loopback;
mod supervise;

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cgroup::{self, Subtree};

pub(crate) use inside::{InitArguments, OuterArguments, PlainArguments, init, outer, plain};
pub(crate) use supervise::Ended;

/// Our own program, also when cargo has written another one in its place meanwhile: a build with other packages
/// unifies other features.
pub(crate) const OURSELVES: &str = "/proc/self/exe";

/// A line that process 1 prints when the command left processes behind.
const LEFT_BEHIND: &str = "xtask: left behind: ";

/// Something that only root may do; the text says what and how. Becomes exit code 77.
#[derive(Debug)]
pub(crate) struct NeedsRoot(pub(crate) String);

impl std::fmt::Display for NeedsRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NeedsRoot {}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Seconds after which everything is killed
    #[arg(long, default_value_t = 3600)]
    cap_seconds: u64,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// The subcommand: any command, isolated.
pub(crate) fn main(arguments: &Arguments) -> Result<u8> {
    let job = Job {
        command: arguments.command.clone(),
        folder: std::env::current_dir().context("no current folder")?,
        environment: vec![],
        cap: Duration::from_secs(arguments.cap_seconds),
    };
    let finished = run(&job, &mut |line| println!("{line}"))?;
    if finished.is_clean() {
        return Ok(0);
    }
    eprintln!("cargo xtask isolate: {}", finished.complaint());
    Ok(match finished.ended {
        Ended::Exited(code) if code != 0 => u8::try_from(code).unwrap_or(1),
        Ended::Interrupted(signal) | Ended::Killed(signal) => 128 + u8::try_from(signal).unwrap_or(0),
        _ => 1,
    })
}

/// One command to run.
pub(crate) struct Job {
    /// Program and arguments.
    pub(crate) command: Vec<OsString>,
    pub(crate) folder: PathBuf,
    /// Added to our own environment.
    pub(crate) environment: Vec<(String, OsString)>,
    /// After this long everything is killed.
    pub(crate) cap: Duration,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) ended: Ended,
    /// Processes and cgroups that it did not clean up itself; they are gone now.
    pub(crate) left_behind: Vec<String>,
}

impl Finished {
    /// Whether it ended well and left nothing.
    pub(crate) fn is_clean(&self) -> bool {
        self.ended == Ended::Exited(0) && self.left_behind.is_empty()
    }

    /// In words; empty when all is well.
    pub(crate) fn complaint(&self) -> String {
        let mut words = Vec::new();
        if self.ended != Ended::Exited(0) {
            words.push(self.ended.to_string());
        }
        words.extend(self.left_behind.iter().map(|what| format!("left behind: {what}")));
        words.join("; ")
    }
}

/// Whether we may isolate at all.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Runs the job and hands each line of its output (both streams, in order) to `on_line`.
///
/// # Errors
/// When it cannot be isolated or started. How the command itself ended is in [`Finished`].
pub(crate) fn run(job: &Job, on_line: &mut dyn FnMut(&str)) -> Result<Finished> {
    // Where the caller's temporary files go: a run inside a run leaves nothing beside the outer one's either.
    let scratch = tempfile::Builder::new()
        .prefix("rbt-")
        .tempdir()
        .context("cannot make a folder for temporary files")?;
    // Slivers run as users of their own and must reach what is theirs in there; secrets are 0600 by themselves.
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o711))
        .context("cannot open the folder for temporary files")?;
    let subtree = if is_root() { own_subtree()? } else { None };
    let mut command = Command::new(OURSELVES);
    command.arg(if is_root() {
        "isolate-outer"
    } else {
        "isolate-plain"
    });
    command.arg("--parent").arg(std::process::id().to_string());
    if let Some(subtree) = &subtree {
        command.arg("--cgroup").arg(subtree.path());
    }
    command.arg("--").args(&job.command);
    command
        .current_dir(&job.folder)
        .envs(job.environment.iter().map(|(key, value)| (key, value)))
        .env("TMPDIR", scratch.path())
        .stdin(Stdio::null());

    let mut left_behind = Vec::new();
    let ended = supervise::run(
        command,
        job.cap,
        &mut |line| match line.strip_prefix(LEFT_BEHIND) {
            Some(what) => left_behind.push(what.to_owned()),
            None => on_line(line),
        },
    )?;
    if let Some(subtree) = subtree {
        // What was killed had no chance to clean up: that is no leak of its own.
        if matches!(ended, Ended::Exited(_)) {
            left_behind.extend(
                subtree
                    .left_behind()?
                    .into_iter()
                    .map(|cgroup| format!("cgroup {cgroup}")),
            );
        }
        subtree.remove()?;
    }
    scratch
        .close()
        .context("cannot remove the folder for temporary files")?;
    Ok(Finished { ended, left_behind })
}

fn own_subtree() -> Result<Option<Subtree>> {
    let Some(mount) = cgroup::mount()? else {
        println!("no cgroup v2 is mounted here: tests that need it will be skipped");
        return Ok(None);
    };
    match Subtree::create(&mount) {
        Ok(subtree) => Ok(Some(subtree)),
        Err(error) => {
            println!("{error:#}: tests that need cgroups will be skipped");
            Ok(None)
        }
    }
}
