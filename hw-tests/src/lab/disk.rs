//! Disks of a node: what they have in them at first, and how they get it again.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::machine::Disk;

/// What a disk has in it at first.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// A sparse copy of this.
    Copy(PathBuf),
    /// This, with what is written kept apart.
    Layer(PathBuf),
    /// So many bytes of nothing.
    Empty(u64),
}

/// A disk of a node.
#[derive(Debug, Clone)]
pub(super) struct Store {
    path: PathBuf,
    content: Content,
}

impl Store {
    pub(super) fn new(path: PathBuf, content: Content) -> Self {
        Self { path, content }
    }

    pub(super) fn disk(&self) -> Disk {
        let format = match self.content {
            Content::Layer(_) => "qcow2",
            Content::Copy(_) | Content::Empty(_) => "raw",
        };
        let serial = self.path.extension().unwrap_or_default().to_string_lossy();
        Disk {
            path: self.path.clone(),
            format,
            serial: serial.into_owned(),
        }
    }

    /// Makes it as it was at first; in place, since QEMU has it open.
    pub(super) fn make(&self) -> Result<()> {
        let mut command = match &self.content {
            Content::Copy(from) => {
                let mut cp = Command::new("cp");
                cp.args(["--sparse=always", "--reflink=auto"]).arg(from);
                cp
            }
            Content::Layer(root) => {
                let mut create = Command::new("qemu-img");
                create
                    .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
                    .arg(root);
                create
            }
            Content::Empty(bytes) => {
                let file = File::options()
                    .create(true)
                    .write(true)
                    .truncate(true)
                    .open(&self.path)?;
                return file
                    .set_len(*bytes)
                    .with_context(|| self.path.display().to_string());
            }
        };
        let made = command.arg(&self.path).status().with_context(|| {
            format!(
                "{} (Debian packages coreutils, qemu-utils)",
                command.get_program().display()
            )
        })?;
        ensure!(made.success(), "making {}: {made}", self.path.display());
        Ok(())
    }
}
