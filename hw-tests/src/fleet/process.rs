//! A daemon that a test started: its log in a file, its end when it is dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Lines of the log that a failure shows.
const TAIL: usize = 40;

/// A running daemon.
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it; what it says goes to the end of `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a condition, but no longer than the daemon lives.
    ///
    /// # Errors
    /// When it does not come true; the text has the tail of the log.
    pub fn wait_for<T>(&mut self, what: &str, ready: impl FnMut() -> Option<T>) -> Result<T> {
        self.wait_for_at_most(super::CAP, what, ready)
    }

    /// The same with another cap.
    ///
    /// # Errors
    /// When it does not come true; the text has the tail of the log.
    pub fn wait_for_at_most<T>(
        &mut self,
        cap: Duration,
        what: &str,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let mut ended = None;
        let found = super::wait_for_at_most(cap, what, || {
            ended = self.child.try_wait().ok().flatten();
            if ended.is_some() {
                Some(None)
            } else {
                ready().map(Some)
            }
        });
        match found {
            Ok(Some(value)) => Ok(value),
            other => {
                let ended = ended
                    .map(|status| format!("{} ended: {status}", self.name))
                    .unwrap_or_default();
                other
                    .and_then(|_| Err(anyhow::anyhow!("{what}")))
                    .with_context(|| format!("{ended}\n{}", self.tail()))
            }
        }
    }

    /// Waits until it has ended by itself; returns its exit code, or minus the signal that ended it.
    ///
    /// # Errors
    /// When it goes on.
    pub fn ended(&mut self) -> Result<i32> {
        use std::os::unix::process::ExitStatusExt;
        let status = super::wait_for(&format!("end of {}", self.name), || {
            self.child.try_wait().ok().flatten()
        })?;
        Ok(status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)))
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.pid().cast_signed()), Signal::SIGTERM)?;
        let code = self.ended()?;
        ensure!(
            code == 0,
            "{} ended with {code} after SIGTERM\n{}",
            self.name,
            self.tail()
        );
        Ok(())
    }

    /// The last lines that it said.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!(
            "--- {}\n{}",
            self.log.display(),
            lines[lines.len().saturating_sub(TAIL)..].join("\n")
        )
    }

    /// Shows them.
    pub fn show_tail(&self) {
        eprintln!("{}", self.tail());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Ours, not reaped yet, so the id is still its own.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
