//! What /proc says about processes: for evidence, for process lists, and for whom a process belongs to.
//!
//! Everything in /proc/PID belongs to a stranger: names hold parentheses, newlines and escape sequences, command lines
//! any bytes of any length, and a process may vanish between two reads. So parsers ([`parse`]) take bytes and
//! never panic, every text is bounded and made visible, and "gone" is an answer of its own.
//!
//! Reading a command line takes the process's memory lock and may hang as long as somebody holds that: never call
//! [`Proc::read`] or [`Proc::list`] on the kill thread. [`Proc::state`] and [`Proc::home`] do not hang.

mod parse;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use parse::{Stat, uid_of, visible};

pub use parse::home_of;

/// Most bytes of a command line that are shown.
const COMMAND_LINE: usize = 256;
/// Most descriptors of one process that are looked at to tell sockets; beyond, sockets are not counted.
const SOCKETS_LOOKED_AT: usize = 4_096;
/// Most threads of one process that are looked at.
const THREADS_LOOKED_AT: usize = 1_024;

/// Why a process cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum ProcError {
    /// It ended.
    #[error("process {pid} is gone")]
    Gone {
        /// The process.
        pid: i32,
    },
    /// A file of it cannot be read.
    #[error("cannot read {file} of process {pid}")]
    Read {
        /// The process.
        pid: i32,
        /// The file.
        file: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl ProcError {
    /// No descriptor was left to read it with.
    #[must_use]
    pub fn is_out_of_descriptors(&self) -> bool {
        match self {
            Self::Gone { .. } => false,
            Self::Read { source, .. } => matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)),
        }
    }
}

/// One process, as /proc showed it. The fields of `v1::Process` without the slice, which /proc does not know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent's.
    pub ppid: i32,
    /// Real user id.
    pub uid: u32,
    /// Its name, made visible.
    pub comm: String,
    /// At most 256 bytes, NULs as spaces, made visible.
    pub command_line: String,
    /// One letter of proc(5).
    pub state: char,
    /// Open descriptors. None: not readable.
    pub files: Option<u32>,
    /// Sockets among them. None: not readable, or too many descriptors to look at.
    pub sockets: Option<u32>,
    /// Resident memory.
    pub resident_kib: u64,
    /// CPU time used, user and system.
    pub cpu_ms: u64,
    /// Its cgroup2 home, below the mount; empty for the root.
    pub cgroup: PathBuf,
}

impl From<Process> for proto::v1::Process {
    fn from(process: Process) -> Self {
        let Process {
            pid,
            ppid,
            uid,
            comm,
            command_line,
            state,
            files,
            sockets,
            resident_kib,
            cpu_ms,
            cgroup,
        } = process;
        Self {
            pid,
            ppid,
            uid,
            comm,
            command_line,
            state: state.to_string(),
            files,
            sockets,
            resident_kib,
            cpu_ms,
            slice: String::new(),
            cgroup: cgroup.to_string_lossy().into_owned(),
        }
    }
}

/// The processes that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// By pid.
    pub processes: Vec<Process>,
    /// Why some are missing; empty when complete.
    pub incomplete: String,
}

/// A /proc.
#[derive(Debug, Clone)]
pub struct Proc {
    root: PathBuf,
    page_kib: u64,
    ticks: u64,
}

impl Proc {
    /// `root` is `/proc`, or a directory that looks like it.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        let setting = |variable, default| {
            let value = nix::unistd::sysconf(variable).ok().flatten();
            value
                .and_then(|value| u64::try_from(value).ok())
                .filter(|value| *value > 0)
                .unwrap_or(default)
        };
        Self {
            root: root.to_owned(),
            page_kib: setting(nix::unistd::SysconfVar::PAGE_SIZE, 4096) / 1024,
            ticks: setting(nix::unistd::SysconfVar::CLK_TCK, 100),
        }
    }

    /// Every process id, sorted.
    ///
    /// # Errors
    /// When the root cannot be listed.
    pub fn pids(&self) -> io::Result<Vec<i32>> {
        let mut pids: Vec<i32> = fs::read_dir(&self.root)?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid > 0)
            .collect();
        pids.sort_unstable();
        Ok(pids)
    }

    /// Describes these processes, at most `limit` and until `deadline`. Those that are gone are left out.
    #[must_use]
    pub fn list(&self, pids: &[i32], limit: usize, deadline: Option<Instant>) -> Listing {
        let mut listing = Listing::default();
        for (number, pid) in pids.iter().enumerate() {
            let left = pids.len() - number;
            if listing.processes.len() >= limit {
                listing.incomplete = format!("{left} more processes than the {limit} asked for");
                break;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                listing.incomplete = format!("{left} processes not read in time");
                break;
            }
            match self.read(*pid) {
                Ok(process) => listing.processes.push(process),
                Err(ProcError::Gone { .. }) => {}
                Err(error) => {
                    listing.incomplete = describe(&error);
                    if error.is_out_of_descriptors() {
                        break;
                    }
                }
            }
        }
        listing
    }

    /// Describes one process. May hang: see the module.
    ///
    /// # Errors
    /// When it is gone, or its `stat` cannot be read. What else cannot be read is left empty.
    pub fn read(&self, pid: i32) -> Result<Process, ProcError> {
        let stat = self.stat(pid)?;
        let status = self.file(pid, "status", 4096)?;
        let command_line = self.file(pid, "cmdline", COMMAND_LINE).unwrap_or_default();
        let (files, sockets) = self.descriptors(pid);
        Ok(Process {
            pid,
            ppid: stat.ppid,
            uid: uid_of(&status).unwrap_or(u32::MAX),
            comm: visible(&stat.comm, 64),
            command_line: visible(&command_line, COMMAND_LINE),
            state: stat.state,
            files,
            sockets,
            resident_kib: stat.resident_pages.saturating_mul(self.page_kib),
            cpu_ms: stat.cpu_ticks.saturating_mul(1000) / self.ticks,
            cgroup: self.home(pid)?.unwrap_or_default(),
        })
    }

    /// The letter of proc(5).
    ///
    /// # Errors
    /// When it is gone or cannot be read.
    pub fn state(&self, pid: i32) -> Result<char, ProcError> {
        self.stat(pid).map(|stat| stat.state)
    }

    /// Its parent.
    ///
    /// # Errors
    /// When it is gone or cannot be read.
    pub fn parent(&self, pid: i32) -> Result<i32, ProcError> {
        self.stat(pid).map(|stat| stat.ppid)
    }

    /// Where it lives in cgroup2, below the mount. None: outside of what this mount shows. A zombie keeps its home.
    ///
    /// # Errors
    /// When it is gone or cannot be read.
    pub fn home(&self, pid: i32) -> Result<Option<PathBuf>, ProcError> {
        Ok(home_of(&self.file(pid, "cgroup", 32 * 1024)?))
    }

    /// Whether any thread of it is in uninterruptible sleep (the leader may be a zombie already).
    ///
    /// # Errors
    /// When it is gone or cannot be read.
    pub fn is_stuck(&self, pid: i32) -> Result<bool, ProcError> {
        if self.state(pid)? == 'D' {
            return Ok(true);
        }
        let threads = fs::read_dir(self.root.join(pid.to_string()).join("task"));
        let threads = threads.map_err(|source| self.failed(pid, "task", source))?;
        for thread in threads.flatten().take(THREADS_LOOKED_AT) {
            let stat = read_bounded(&thread.path().join("stat"), 4096)
                .ok()
                .and_then(|text| Stat::parse(&text));
            if stat.is_some_and(|stat| stat.state == 'D') {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn stat(&self, pid: i32) -> Result<Stat, ProcError> {
        let text = self.file(pid, "stat", 4096)?;
        Stat::parse(&text).ok_or_else(|| self.failed(pid, "stat", io::ErrorKind::InvalidData.into()))
    }

    fn descriptors(&self, pid: i32) -> (Option<u32>, Option<u32>) {
        let Ok(entries) = fs::read_dir(self.root.join(pid.to_string()).join("fd")) else {
            return (None, None);
        };
        let (mut files, mut sockets) = (0_u32, 0_u32);
        for entry in entries.flatten() {
            files = files.saturating_add(1);
            if files as usize <= SOCKETS_LOOKED_AT
                && fs::read_link(entry.path())
                    .is_ok_and(|to| to.as_os_str().as_encoded_bytes().starts_with(b"socket:"))
            {
                sockets += 1;
            }
        }
        (
            Some(files),
            (files as usize <= SOCKETS_LOOKED_AT).then_some(sockets),
        )
    }

    fn file(&self, pid: i32, name: &'static str, most: usize) -> Result<Vec<u8>, ProcError> {
        let path = self.root.join(pid.to_string()).join(name);
        read_bounded(&path, most).map_err(|source| self.failed(pid, name, source))
    }

    #[expect(
        clippy::unused_self,
        reason = "reads as part of the error path of its callers"
    )]
    fn failed(&self, pid: i32, file: &'static str, source: io::Error) -> ProcError {
        match source.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => ProcError::Gone { pid },
            _ => ProcError::Read { pid, file, source },
        }
    }
}

/// An error with its cause, in one line.
fn describe(error: &ProcError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn read_bounded(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(most.min(4096));
    File::open(path)?.take(most as u64).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
