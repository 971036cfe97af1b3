//! A program that ends with its owner.

use std::process::{Child, Command};

use anyhow::{Context, Result};

/// How a front end starts its programs: the lab decides in which namespaces, and where their output goes.
pub type Spawner<'a> = &'a dyn Fn(&mut Command) -> Result<Child>;

/// The usual way: here.
///
/// # Errors
/// When it does not start.
pub fn spawn(command: &mut Command) -> Result<Child> {
    let program = command.get_program().to_os_string();
    command
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

/// Killed and waited for when it is dropped.
pub(super) struct Process(Child);

impl Process {
    pub(super) fn new(child: Child) -> Self {
        Self(child)
    }

    /// Whether it is still there.
    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
