//! A prepared handle on one cgroup: every file that a kill needs, opened when the sliver is made or adopted.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use super::files::{read_pids, read_short, value_of, write_short};
use super::mount::normal;
use super::{Events, Mount, PidsMax};

/// Deepest nesting that is followed when processes are listed.
const MAX_DEPTH: usize = 64;
/// Most cgroups of one subtree that are listed.
const MAX_CGROUPS: usize = 4_096;

/// Why a cgroup cannot be taken in hand.
#[derive(Debug, thiserror::Error)]
pub enum SliverError {
    /// The path leads out of the mount.
    #[error("cgroup path {path} leads out of the hierarchy")]
    Climbs {
        /// As it was given.
        path: PathBuf,
    },
    /// The root. In a cgroup namespace it looks like any other cgroup, so its files do not tell.
    #[error("the root of the hierarchy is no sliver")]
    Root,
    /// There is no such cgroup (any more).
    #[error("cgroup {path} does not exist")]
    Gone {
        /// Path below the mount.
        path: PathBuf,
    },
    /// Something else stands at that path now.
    #[error("cgroup {path} has id {got}, expected {expected}: it was removed and made again")]
    OtherId {
        /// Path below the mount.
        path: PathBuf,
        /// The id that was recorded.
        expected: u64,
        /// The id that is there.
        got: u64,
    },
    /// A file of the cgroup cannot be opened.
    #[error("cannot open {file} of cgroup {path}")]
    Open {
        /// Path below the mount.
        path: PathBuf,
        /// The file in it.
        file: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file of the cgroup cannot be read or written.
    #[error("cannot {action} {file} of cgroup {path}")]
    Io {
        /// Path below the mount.
        path: PathBuf,
        /// The file in it.
        file: &'static str,
        /// read, write or understand.
        action: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl SliverError {
    /// The cgroup was removed: nothing can be alive in it.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Gone { .. } => true,
            Self::Open { source, .. } | Self::Io { source, .. } => vanished(source),
            Self::Climbs { .. } | Self::Root | Self::OtherId { .. } => false,
        }
    }
}

fn vanished(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT))
}

/// One cgroup, open. Reads and writes through it take no new descriptor, no memory and no path look-up.
#[derive(Debug)]
pub struct Sliver {
    path: PathBuf,
    id: u64,
    directory: File,
    events: File,
    procs: File,
    stat: Option<File>,
    freeze: Option<File>,
    kill: Option<File>,
    pids_max: Option<File>,
    pids_current: Option<File>,
}

impl Sliver {
    /// Opens the cgroup at `path` below the mount. Files that the mount's facts deny are not opened.
    ///
    /// # Errors
    /// When it does not exist, or a file that every cgroup has cannot be opened. The root cgroup has no
    /// `cgroup.events`, so it can never be opened as a sliver.
    pub fn open(mount: &Mount, path: &Path) -> Result<Self, SliverError> {
        let clean = normal(path).ok_or_else(|| SliverError::Climbs {
            path: path.to_owned(),
        })?;
        if clean.as_os_str().is_empty() {
            return Err(SliverError::Root);
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let directory = match open(&mount.root().join(&clean), flags, Mode::empty()) {
            Ok(directory) => File::from(directory),
            Err(Errno::ENOENT | Errno::ENODEV) => return Err(SliverError::Gone { path: clean }),
            Err(errno) => {
                return Err(SliverError::Open {
                    path: clean,
                    file: "the directory",
                    source: errno.into(),
                });
            }
        };
        let id = directory
            .metadata()
            .map_err(|source| SliverError::Open {
                path: clean.clone(),
                file: "the directory",
                source,
            })?
            .ino();
        let file = |name: &'static str, flags: OFlag| {
            open_in(&directory, name, flags).map_err(|source| SliverError::Open {
                path: clean.clone(),
                file: name,
                source,
            })
        };
        // Absent where the kernel or the controller is absent: that is a fact, not an error.
        let perhaps = |name: &'static str, flags: OFlag, wanted: Option<bool>| {
            if wanted == Some(false) {
                return Ok(None);
            }
            match file(name, flags) {
                Err(SliverError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
                other => other.map(Some),
            }
        };
        let facts = mount.facts();
        Ok(Self {
            events: file("cgroup.events", OFlag::O_RDONLY)?,
            procs: file("cgroup.procs", OFlag::O_RDWR)?,
            stat: perhaps("cgroup.stat", OFlag::O_RDONLY, None)?,
            freeze: perhaps("cgroup.freeze", OFlag::O_RDWR, facts.freeze)?,
            kill: perhaps("cgroup.kill", OFlag::O_WRONLY, facts.kill)?,
            pids_max: perhaps("pids.max", OFlag::O_RDWR, None)?,
            pids_current: perhaps("pids.current", OFlag::O_RDONLY, None)?,
            id,
            directory,
            path: clean,
        })
    }

    /// Opens the cgroup at `path` and insists that it is the one with this id.
    ///
    /// # Errors
    /// As [`Sliver::open`], and when another cgroup stands there now.
    pub fn open_expecting(mount: &Mount, path: &Path, expected: u64) -> Result<Self, SliverError> {
        let sliver = Self::open(mount, path)?;
        if sliver.id != expected {
            return Err(SliverError::OtherId {
                path: sliver.path,
                expected,
                got: sliver.id,
            });
        }
        Ok(sliver)
    }

    /// Path below the mount, relative.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kernel's id of this cgroup (the inode of its directory). Never used again while the node is up.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether the kernel kills the whole subtree by one write.
    #[must_use]
    pub fn has_kill(&self) -> bool {
        self.kill.is_some()
    }

    /// Whether the kernel can freeze it.
    #[must_use]
    pub fn has_freeze(&self) -> bool {
        self.freeze.is_some()
    }

    /// Whether the number of tasks can be limited.
    #[must_use]
    pub fn has_pids(&self) -> bool {
        self.pids_max.is_some()
    }

    /// `cgroup.procs`, for a child that moves itself in by writing `0` between fork and exec.
    #[must_use]
    pub fn procs(&self) -> BorrowedFd<'_> {
        self.procs.as_fd()
    }

    /// `cgroup.events`, to poll for POLLPRI.
    pub(crate) fn events_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Populated, frozen.
    ///
    /// # Errors
    /// When the cgroup is gone, or the file makes no sense.
    pub fn events(&self) -> Result<Events, SliverError> {
        let mut buffer = [0; 256];
        let text = read_short(&self.events, &mut buffer).map_err(|e| self.io("cgroup.events", "read", e))?;
        Events::parse(text)
            .ok_or_else(|| self.io("cgroup.events", "understand", io::ErrorKind::InvalidData.into()))
    }

    /// Writes the wish to freeze or thaw. Returns false where the kernel cannot; [`Sliver::events`] says when it is so.
    ///
    /// # Errors
    /// When the kernel refuses, or the cgroup is gone.
    pub fn set_frozen(&self, frozen: bool) -> Result<bool, SliverError> {
        let Some(file) = &self.freeze else {
            return Ok(false);
        };
        write_short(file, if frozen { b"1" } else { b"0" })
            .map_err(|e| self.io("cgroup.freeze", "write", e))?;
        Ok(true)
    }

    /// Kills everything in the subtree at once. Returns false where the kernel cannot.
    ///
    /// # Errors
    /// When the kernel refuses (a threaded cgroup), or the cgroup is gone.
    pub(crate) fn write_kill(&self) -> Result<bool, SliverError> {
        let Some(file) = &self.kill else { return Ok(false) };
        write_short(file, b"1").map_err(|e| self.io("cgroup.kill", "write", e))?;
        Ok(true)
    }

    /// The limit of tasks. None where there is no pids controller.
    ///
    /// # Errors
    /// When the file cannot be read, or the cgroup is gone.
    pub fn pids_max(&self) -> Result<Option<PidsMax>, SliverError> {
        let Some(file) = &self.pids_max else {
            return Ok(None);
        };
        let mut buffer = [0; 32];
        let text = read_short(file, &mut buffer).map_err(|e| self.io("pids.max", "read", e))?;
        let value = PidsMax::parse(text);
        value
            .map(Some)
            .ok_or_else(|| self.io("pids.max", "understand", io::ErrorKind::InvalidData.into()))
    }

    /// Sets the limit of tasks. Does nothing where there is no pids controller.
    ///
    /// # Errors
    /// When the kernel refuses, or the cgroup is gone.
    pub fn set_pids_max(&self, limit: PidsMax) -> Result<(), SliverError> {
        let Some(file) = &self.pids_max else { return Ok(()) };
        let mut buffer = [0_u8; 20];
        let text = match limit {
            PidsMax::Max => b"max".as_slice(),
            PidsMax::At(number) => decimal(number, &mut buffer),
        };
        write_short(file, text).map_err(|e| self.io("pids.max", "write", e))
    }

    /// Tasks of the subtree, unreaped ones included. None where there is no pids controller.
    #[must_use]
    pub fn pids_current(&self) -> Option<u64> {
        let mut buffer = [0; 32];
        let text = read_short(self.pids_current.as_ref()?, &mut buffer).ok()?;
        super::files::number(text)
    }

    /// Cgroups below this one. None where the kernel does not say (before 4.14).
    #[must_use]
    pub fn descendants(&self) -> Option<u64> {
        let mut buffer = [0; 512];
        let text = read_short(self.stat.as_ref()?, &mut buffer).ok()?;
        value_of(text, b"nr_descendants")
    }

    /// Moves a process in.
    ///
    /// # Errors
    /// When the kernel refuses, or the cgroup is gone.
    pub fn enter(&self, pid: i32) -> Result<(), SliverError> {
        let mut buffer = [0_u8; 20];
        let text = decimal(u64::try_from(pid).unwrap_or(0), &mut buffer);
        write_short(&self.procs, text).map_err(|e| self.io("cgroup.procs", "write", e))
    }

    /// Calls `each` for every process of the subtree (zombies are not processes any more). Without nested
    /// cgroups this opens nothing; with them it opens two files at a time. A process may appear twice when
    /// it moves meanwhile. Threaded children are left out: their processes are listed at the domain.
    ///
    /// # Errors
    /// When a list cannot be opened or read; nested cgroups that vanish meanwhile are no error.
    pub fn for_each_pid(&self, mut each: impl FnMut(i32)) -> Result<(), SliverError> {
        read_pids(&self.procs, &mut each).map_err(|e| self.io("cgroup.procs", "read", e))?;
        if self.descendants() == Some(0) {
            return Ok(());
        }
        self.for_each_nested(
            &mut |directory| match open_in(directory, "cgroup.procs", OFlag::O_RDONLY) {
                Ok(procs) => match read_pids(&procs, &mut each) {
                    Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
                    other => other,
                },
                Err(error) => Err(error),
            },
        )
        .map_err(|e| self.io("nested cgroup.procs", "read", e))
    }

    /// Every process of the subtree, once.
    ///
    /// # Errors
    /// As [`Sliver::for_each_pid`].
    pub fn pids(&self) -> Result<Vec<i32>, SliverError> {
        let mut pids = Vec::new();
        self.for_each_pid(|pid| pids.push(pid))?;
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    fn for_each_nested(&self, visit: &mut dyn FnMut(&File) -> io::Result<()>) -> io::Result<()> {
        let mut waiting = vec![PathBuf::from(".")];
        let mut seen = 0;
        while let Some(path) = waiting.pop() {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
            let listing = nix::dir::Dir::openat(&self.directory, &path, flags, Mode::empty());
            let mut listing = match listing {
                Ok(listing) => listing,
                Err(Errno::ENOENT | Errno::ENODEV) => continue,
                Err(errno) => return Err(errno.into()),
            };
            for entry in listing.iter() {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if entry.file_type() != Some(nix::dir::Type::Directory) || name == b"." || name == b".." {
                    continue;
                }
                seen += 1;
                if seen > MAX_CGROUPS || path.components().count() >= MAX_DEPTH {
                    return Err(io::Error::other(format!(
                        "more than {MAX_CGROUPS} cgroups, or {MAX_DEPTH} deep"
                    )));
                }
                waiting.push(
                    path.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(
                        name,
                    )),
                );
            }
            if path == Path::new(".") {
                continue;
            }
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
            match openat(&self.directory, &path, flags, Mode::empty()) {
                Ok(directory) => match visit(&File::from(directory)) {
                    Err(error) if vanished(&error) => {}
                    other => other?,
                },
                Err(Errno::ENOENT | Errno::ENODEV) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn io(&self, file: &'static str, action: &'static str, source: io::Error) -> SliverError {
        if vanished(&source) {
            return SliverError::Gone {
                path: self.path.clone(),
            };
        }
        SliverError::Io {
            path: self.path.clone(),
            file,
            action,
            source,
        }
    }
}

fn open_in(directory: &File, name: &str, flags: OFlag) -> io::Result<File> {
    Ok(openat(
        directory,
        name,
        flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW,
        Mode::empty(),
    )?
    .into())
}

/// The digits of a number, without the heap.
fn decimal(mut number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        let digit = (number % 10) as u8;
        buffer[at] = b'0' + digit;
        number /= 10;
        if number == 0 {
            return &buffer[at..];
        }
    }
}

#[cfg(test)]
mod tests;
