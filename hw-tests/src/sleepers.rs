//! Processes to be killed. A crowd is one process that forks the others, so that ten thousand cost little;
//! it is this same program started again with [`CROWD`] in its environment.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Set to the number of processes in the environment of a program that calls [`become_crowd`] first in main.
pub const CROWD: &str = "REDBUTTON_CROWD";

/// Call this first thing in main: when the program was started as a crowd, this never returns.
pub fn become_crowd() {
    let Some(count) = std::env::var(CROWD)
        .ok()
        .and_then(|text| text.parse::<u32>().ok())
    else {
        return;
    };
    let mut gate = String::new();
    // The starter closes our input once it has moved us into the cgroup.
    let _ = std::io::stdin().read_line(&mut gate);
    for _ in 1..count {
        #[expect(unsafe_code, reason = "fork without exec is the whole point: cheap processes")]
        // SAFETY: this program has one thread here, and the child only waits for signals.
        match unsafe { nix::unistd::fork() } {
            Ok(nix::unistd::ForkResult::Child) => break,
            Ok(nix::unistd::ForkResult::Parent { .. }) => {}
            Err(error) => {
                // Too few: the starter counts us, and says so.
                eprintln!("crowd: fork: {error}");
                break;
            }
        }
    }
    loop {
        nix::unistd::pause();
    }
}

/// Starts `count` processes that do nothing inside the cgroup at `folder`, and waits until all are there.
///
/// # Errors
/// When the cgroup cannot be written or they do not all appear within 60 s.
pub fn start_crowd(folder: &Path, count: u32) -> Result<Child> {
    let me = std::env::current_exe().context("own path")?;
    let mut child = Command::new(me)
        .env(CROWD, count.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("starting the crowd")?;
    let procs = folder.join("cgroup.procs");
    std::fs::write(&procs, child.id().to_string()).with_context(|| procs.display().to_string())?;
    drop(child.stdin.take());
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let there = std::fs::read_to_string(&procs)?.lines().count();
        if there >= count as usize {
            return Ok(child);
        }
        if Instant::now() > deadline {
            bail!(
                "only {there} of {count} processes appeared in {}",
                folder.display()
            );
        }
        std::thread::yield_now();
    }
}
