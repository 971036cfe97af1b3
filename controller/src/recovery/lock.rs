//! Who works on a state directory: one controller that serves, or one restore.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{RecoveryError, io};

/// Held for as long as it lives; a crash lets go of it.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Takes it.
    ///
    /// # Errors
    /// When somebody has it.
    pub fn take(dir: &Path) -> Result<Self, RecoveryError> {
        let path = dir.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC)
            .open(&path)
            .map_err(io(&path, "open"))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { _file: file }),
            Err((_, Errno::EWOULDBLOCK)) => Err(RecoveryError::InUse { dir: dir.to_owned() }),
            Err((_, errno)) => Err(io(&path, "lock")(errno.into())),
        }
    }
}
