//! The half of `exec` that becomes the sliver.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use proto::SliceName;

use crate::config::{Config, ConfigError};

use super::{MAX_LINE, Reply, Request, drop};

/// How long the daemon may take. Longer than a sync of a slow disk: the uid of a new slice is written first.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the daemon listens: as given, or as configured, or the default where there is no configuration.
///
/// # Errors
/// When there is a configuration that is none.
pub fn socket(given: Option<PathBuf>, config: &Path) -> Result<PathBuf, ConfigError> {
    match given {
        Some(socket) => Ok(socket),
        None if config.exists() => Ok(Config::load(config)?.socket),
        None => Ok(Config::default().socket),
    }
}

/// Why a sliver was not started.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// A hold covers the slice, or nothing may start, or the caller may not start anything.
    #[error("{0}")]
    Refused(String),
    /// The daemon could not.
    #[error("{0}")]
    Failed(String),
    /// The daemon is not there, or does not speak.
    #[error("cannot ask the node manager at {socket}: {source}", socket = socket.display())]
    Socket {
        /// Its socket.
        socket: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A privilege would have been left.
    #[error(transparent)]
    Drop(#[from] drop::DropError),
    /// The command itself.
    #[error("cannot run {command:?}: {source}")]
    Command {
        /// As given.
        command: OsString,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ExecError {
    /// The exit code: 5 refused, 4 failed, and as shells have it 127 and 126 for the command.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            ExecError::Refused(_) => 5,
            ExecError::Failed(_) | ExecError::Socket { .. } | ExecError::Drop(_) => 4,
            ExecError::Command { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            ExecError::Command { .. } => 126,
        }
    }
}

/// Joins the slice and becomes the command. Returns only when that failed.
///
/// The environment stays as it is (HOME and USER too: a unit file sets what it wants), but for `REDBUTTON_*`.
#[must_use]
pub fn run(socket: &Path, slice: &SliceName, command: &OsString, arguments: &[OsString]) -> ExecError {
    let granted = match ask(socket, slice) {
        Ok(granted) => granted,
        Err(error) => return error,
    };
    if let Err(why) = drop::cgroups_read_only() {
        eprintln!("redbutton-nodemgr: the cgroup file systems stay as they are for {slice}: {why}");
    }
    if let Err(error) = drop::become_sliver(granted.uid) {
        return error.into();
    }
    let mut child = Command::new(command);
    child.args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"REDBUTTON_") {
            child.env_remove(name);
        }
    }
    ExecError::Command {
        command: command.clone(),
        source: child.exec(),
    }
}

fn ask(socket: &Path, slice: &SliceName) -> Result<super::Granted, ExecError> {
    let io = |source| ExecError::Socket {
        socket: socket.to_owned(),
        source,
    };
    let mut stream = UnixStream::connect(socket).map_err(io)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(io)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(io)?;
    let mut line = serde_json::to_vec(&Request { slice: slice.clone() }).map_err(|e| io(e.into()))?;
    line.push(b'\n');
    // A daemon that is full may have answered and closed already: its answer says more than a broken pipe.
    let sent = stream.write_all(&line);
    let mut answer = String::new();
    let read = BufReader::new(stream.take(MAX_LINE as u64)).read_line(&mut answer);
    if answer.is_empty() {
        sent.and(read).map_err(io)?;
        return Err(io(io::Error::other("it closed the connection without a word")));
    }
    match serde_json::from_str(&answer).map_err(|e| io(e.into()))? {
        Reply::Granted(granted) if granted.uid >= crate::holds::FIRST_UID => Ok(granted),
        Reply::Granted(granted) => Err(ExecError::Failed(format!("the daemon named uid {}", granted.uid))),
        Reply::Refused(why) => Err(ExecError::Refused(why)),
        Reply::Failed(why) => Err(ExecError::Failed(why)),
    }
}
