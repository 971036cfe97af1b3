//! What outlasts the daemon within one boot: the nonces that were used, and the counters. A file on a tmpfs, mapped;
//! writing to it is writing to locked memory. After a reboot it is gone, or of another boot and begun anew.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use pod_wire::{COUNTERS, Counter, STATE_MAGIC};

use crate::gate::Seen;
use crate::sys;

/// Where it is when nothing else is said.
pub const DEFAULT_STATE: &str = "/run/redbutton/pod-listener";

/// Why there is no state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system said no.
    #[error("state {path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Another listener runs on this node.
    #[error("state {path} is in use: another pod-listener runs on this node", path = path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// Somebody else could change it.
    #[error("state directory {path} belongs to uid {owner} with mode {mode:o}, expected {expected} and 700", path = path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its mode.
        mode: u32,
        /// Who we are.
        expected: u32,
    },
}

/// The mapped bytes. Its head is read by others: `pod_wire::read_state_head`.
#[repr(C)]
pub(crate) struct Shared {
    magic: [u8; 8],
    boot: [u8; 16],
    counts: [u64; COUNTERS],
    pub(crate) seen: Seen,
}

/// The state of this boot, held by us alone.
pub struct State {
    shared: &'static mut Shared,
    _lock: Flock<File>,
}

impl State {
    /// Takes it up, or begins it for another boot.
    ///
    /// # Errors
    /// When the directory cannot be trusted, another listener has it, or there is no room.
    pub fn open(dir: &Path, boot: [u8; 16]) -> Result<Self, StateError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed(dir))?;
        let meta = fs::symlink_metadata(dir).map_err(failed(dir))?;
        let ours = nix::unistd::geteuid().as_raw();
        if !meta.is_dir() || meta.uid() != ours || meta.mode() & 0o077 != 0 {
            return Err(StateError::Open {
                path: dir.to_owned(),
                owner: meta.uid(),
                mode: meta.mode() & 0o7777,
                expected: ours,
            });
        }
        let path = dir.join("seen");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&path)
            .map_err(failed(&path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            if errno == nix::errno::Errno::EWOULDBLOCK {
                StateError::InUse { path: path.clone() }
            } else {
                failed(&path)(errno.into())
            }
        })?;
        let length = size_of::<Shared>() as u64;
        if lock.metadata().map_err(failed(&path))?.len() != length {
            lock.set_len(0).map_err(failed(&path))?;
            lock.set_len(length).map_err(failed(&path))?;
        }
        // Room now, or a write into the mapping would end us with SIGBUS later.
        nix::fcntl::posix_fallocate(&*lock, 0, i64::try_from(length).unwrap_or(i64::MAX))
            .map_err(|errno| failed(&path)(errno.into()))?;
        let shared: &'static mut Shared = sys::map(&lock).map_err(failed(&path))?;
        if shared.magic != STATE_MAGIC || shared.boot != boot {
            shared.magic = [0; 8];
            shared.seen = Seen::new();
            shared.counts = [0; COUNTERS];
            shared.boot = boot;
            shared.magic = STATE_MAGIC;
        }
        Ok(Self { shared, _lock: lock })
    }

    /// One more of these.
    pub(crate) fn count(&mut self, what: Counter) {
        let count = &mut self.shared.counts[what as usize];
        *count = count.saturating_add(1);
    }

    /// How many there were in this boot.
    #[must_use]
    pub fn counted(&self, what: Counter) -> u64 {
        self.shared.counts[what as usize]
    }

    pub(crate) fn seen(&mut self) -> &mut Seen {
        &mut self.shared.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_outlast_the_daemon_and_not_the_boot() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("state");
        let mut state = State::open(&place, [1; 16]).expect("new");
        state.count(Counter::Probes);
        state.count(Counter::Probes);
        let error = State::open(&place, [1; 16])
            .err()
            .expect("two listeners")
            .to_string();
        assert!(error.contains("another pod-listener runs"), "{error}");
        drop(state);
        let head = fs::read(place.join("seen")).expect("there");
        let (boot, counts) = pod_wire::read_state_head(&head).expect("the layout that others read");
        assert_eq!((boot, counts[Counter::Probes as usize]), ([1; 16], 2));
        let state = State::open(&place, [1; 16]).expect("again");
        assert_eq!(state.counted(Counter::Probes), 2);
        drop(state);
        let state = State::open(&place, [2; 16]).expect("after a reboot");
        assert_eq!(state.counted(Counter::Probes), 0);
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("set");
        let error = State::open(dir.path(), [1; 16]).err().expect("open").to_string();
        assert!(error.contains("mode 777"), "{error}");
    }
}
