//! What people do today: log in over ssh, and ping. The peer of every test here, and the harm that it sees.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::Lab;

impl Lab {
    /// `ssh root@NODE COMMAND` from the centre, whatever comes of it; after `cap` it is ended (exit code 124).
    ///
    /// # Errors
    /// When ssh cannot be run.
    pub fn ssh(&self, index: usize, command: &str, cap: Duration) -> Result<Output> {
        let mut ssh = Command::new("timeout");
        ssh.args(["--signal=KILL", &cap.as_secs_f64().to_string(), "ssh", "-i"])
            .arg(self.key())
            .args(super::node::SSH_OPTIONS.iter().flat_map(|option| ["-o", option]))
            .arg(format!("root@{}", self.at(index).ip()))
            .arg(command)
            .stdin(Stdio::null());
        self.net()
            .enter(|| ssh.output())?
            .context("ssh (Debian package openssh-client)")
    }

    /// Whether somebody can log in within `cap`.
    ///
    /// # Errors
    /// When ssh cannot be run.
    pub fn can_log_in(&self, index: usize, cap: Duration) -> Result<bool> {
        let output = self.ssh(index, "echo in", cap)?;
        Ok(output.status.success() && output.stdout == b"in\n")
    }

    /// Whether the node answers one of at most `count` pings from the centre, each within a second.
    ///
    /// # Errors
    /// When ping cannot be run.
    pub fn pings(&self, index: usize, count: u32) -> Result<bool> {
        for _ in 0..count {
            if self.ping(index)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn ping(&self, index: usize) -> Result<bool> {
        let mut ping = Command::new("busybox");
        ping.args(["ping", "-q", "-W", "1", "-c", "1"])
            .arg(self.at(index).ip().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let output = self
            .net()
            .enter(|| ping.output())?
            .context("ping (Debian package busybox-static)")?;
        Ok(output.status.success())
    }
}
