//! A process that outlasts the change of programs and ends the new one if it is not attached in time.
//!
//! It is a program of the package: the new one is what is in doubt. It belongs to nobody (its parent ends at once), so
//! that the daemon never has a child to reap, and it dies with the unit.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::place::Place;
use super::{PACKAGED, SELF};
use crate::Config;

/// Between two looks at the ledger.
const LOOK: u16 = 200;

/// `redbutton-nodemgr guard`: nobody types it.
#[derive(Debug, Clone, clap::Args)]
pub struct GuardArgs {
    /// The daemon's state directory.
    #[arg(long)]
    state: PathBuf,
    /// The daemon.
    #[arg(long)]
    pid: i32,
    /// The attempt that is watched.
    #[arg(long)]
    attempt: u64,
    /// Milliseconds until it must be attached.
    #[arg(long)]
    deadline_ms: u64,
    /// Go on in a process of its own.
    #[arg(long)]
    detach: bool,
}

/// Starts the guard of this process.
pub(super) fn leave_behind(config: &Config, attempt: u64, deadline_ms: u64) -> io::Result<()> {
    let arguments = GuardArgs {
        state: config.state_dir.clone(),
        pid: i32::try_from(std::process::id()).map_err(io::Error::other)?,
        attempt,
        deadline_ms,
        detach: true,
    };
    let status = arguments.command()?.status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(status.to_string())),
    }
}

impl GuardArgs {
    fn command(&self) -> io::Result<Command> {
        let Self {
            state,
            pid,
            attempt,
            deadline_ms,
            detach,
        } = self;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("guard")
            .arg("--state")
            .arg(state)
            .args(["--pid", &pid.to_string()])
            .args(["--attempt", &attempt.to_string()])
            .args(["--deadline-ms", &deadline_ms.to_string()])
            .args(detach.then_some("--detach"))
            .env_remove(SELF)
            .env_remove(PACKAGED)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        Ok(command)
    }
}

/// Watches a program on trial to its end, to its attachment, or to the deadline.
///
/// # Errors
/// When the process cannot be watched.
pub fn guard(arguments: &GuardArgs) -> io::Result<()> {
    if arguments.detach {
        let alone = GuardArgs {
            detach: false,
            ..arguments.clone()
        };
        return alone.command()?.spawn().map(drop);
    }
    let process = crate::sys::pidfd_open(arguments.pid)?;
    let place = Place::below(&arguments.state);
    let deadline = Instant::now() + Duration::from_millis(arguments.deadline_ms);
    let on_trial = |ledger: &super::Ledger| {
        ledger.attempt == arguments.attempt && ledger.trial.as_ref().is_some_and(|trial| !trial.attached)
    };
    loop {
        let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ended, PollTimeout::from(LOOK))? > 0 {
            return Ok(());
        }
        // One that cannot be read now may be readable at the next look.
        if place.read().is_ok_and(|ledger| !on_trial(&ledger)) {
            return Ok(());
        }
        if Instant::now() < deadline {
            continue;
        }
        let why = format!(
            "it was not attached within {:.0} s",
            Duration::from_millis(arguments.deadline_ms).as_secs_f64().ceil()
        );
        let left = place.change(|ledger| {
            let still = on_trial(ledger);
            if still {
                ledger.leave(&why);
            }
            still
        });
        return match left {
            Ok((true, _)) => {
                eprintln!("redbutton-nodemgr: the new version is ended: {why}");
                crate::sys::pidfd_kill(process.as_fd())
            }
            Ok((false, _)) => Ok(()),
            // With a disk that takes nothing the count of starts cannot grow either: it would never end.
            Err(error) => {
                eprintln!(
                    "redbutton-nodemgr: the new version is ended ({why}), and it cannot be noted: {error}"
                );
                crate::sys::pidfd_kill(process.as_fd())
            }
        };
    }
}
