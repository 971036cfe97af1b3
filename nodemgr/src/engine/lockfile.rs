//! One node manager for each state directory.

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// How long the one before us may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Held as long as it lives; the kernel gives it up when the process dies in any way.
#[derive(Debug)]
pub(super) struct DirLock {
    _held: Flock<File>,
}

impl DirLock {
    /// Makes the directory if it is missing, and locks it. One that others can change is refused: what they put there
    /// would be obeyed as holds, and what they link there overwritten.
    pub(super) fn take(dir: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        trust::own_directory(dir).map_err(io::Error::other)?;
        let deadline = Instant::now() + PATIENCE;
        let mut file = File::open(dir)?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(held) => return Ok(Self { _held: held }),
                Err((back, Errno::EWOULDBLOCK)) if Instant::now() < deadline => {
                    file = back;
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err((_, Errno::EWOULDBLOCK)) => {
                    return Err(io::Error::other("another node manager is using it"));
                }
                Err((_, errno)) => return Err(errno.into()),
            }
        }
    }
}
