//! The half of `exec` that decides: the local socket.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{MAX_LINE, Reply, Request, sys};
use crate::engine::{Node, NotStarted};

/// Clients at a time. More wait in the backlog.
const CLIENTS: usize = 64;
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// The process at the other end of the socket.
#[derive(Debug)]
pub(crate) struct Peer {
    pid: i32,
    pidfd: OwnedFd,
}

impl Peer {
    fn of(stream: &UnixStream, pid: i32) -> io::Result<Self> {
        let pidfd = match sys::peer_pidfd(stream.as_fd()) {
            Ok(pidfd) => pidfd,
            // Before Linux 6.5: opened by number. The client waits for our answer, so its number is not free.
            Err(e) if e.raw_os_error() == Some(libc::ENOPROTOOPT) => crate::sys::pidfd_open(pid)?,
            Err(e) => return Err(e),
        };
        Ok(Self { pid, pidfd })
    }

    /// Its number in our pid namespace.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        // A pidfd becomes readable when its process ends.
        poll(&mut fds, PollTimeout::ZERO) == Ok(0)
    }
}

/// Makes the socket: 0600, in a directory that is made if it is missing and that nobody else can change (whoever takes
/// our place there is asked by root how to become a sliver). One that a dead daemon left is replaced.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
        trust::own_directory(dir).map_err(io::Error::other)?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "it exists and is no socket",
            ));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Listens until `shutdown`, then removes the socket.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(
    node: Arc<Node>,
    path: &Path,
    shutdown: CancellationToken,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let listener = bind(path)?;
    let path = path.to_owned();
    Ok(async move {
        shutdown.run_until_cancelled(accept_all(node, listener)).await;
        let _ = fs::remove_file(path);
    })
}

async fn accept_all(node: Arc<Node>, listener: UnixListener) {
    let room = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let node = node.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    if let Err(error) = tokio::time::timeout(PATIENCE * 10, talk(&node, stream))
                        .await
                        .unwrap_or(Ok(()))
                    {
                        tracing::info!(%error, "exec: a client left");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: those that are served must end first.
                tracing::error!(%error, "exec: cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn talk(node: &Arc<Node>, mut stream: UnixStream) -> io::Result<()> {
    let reply = match answer(node, &mut stream).await {
        Ok(granted) => Reply::Granted(granted),
        Err(NotStarted::Refused(why)) => Reply::Refused(why),
        Err(NotStarted::Failed(why)) => Reply::Failed(why),
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.shutdown().await
}

async fn answer(node: &Arc<Node>, stream: &mut UnixStream) -> Result<super::Granted, NotStarted> {
    let failed = |what: &str, error: &dyn std::fmt::Display| NotStarted::Failed(format!("{what}: {error}"));
    // Who asks is the kernel's word, taken when it connected.
    let credentials = stream
        .peer_cred()
        .map_err(|e| failed("cannot tell who asks", &e))?;
    let pid = credentials.pid().filter(|pid| *pid > 0);
    let pid = pid.ok_or_else(|| {
        NotStarted::Refused("the caller lives in a pid namespace that cannot be seen from here".into())
    })?;
    let peer = Peer::of(stream, pid).map_err(|e| failed("cannot hold on to the caller", &e))?;
    // Read before anybody is refused: a socket that is closed with unread bytes loses the answer.
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream.take(MAX_LINE as u64));
    match tokio::time::timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await {
        Err(_) => return Err(NotStarted::Failed(format!("no request within {PATIENCE:?}"))),
        Ok(Err(e)) => return Err(failed("cannot read the request", &e)),
        Ok(Ok(_)) if line.last() != Some(&b'\n') => {
            return Err(NotStarted::Failed(format!(
                "the request is cut off, or longer than {MAX_LINE} bytes"
            )));
        }
        Ok(Ok(_)) => {}
    }
    let uid = credentials.uid();
    if !node.config.exec_uids.contains(&uid) {
        return Err(NotStarted::Refused(format!(
            "uid {uid} may not start slivers on this node"
        )));
    }
    let request: Request = serde_json::from_slice(&line).map_err(|e| failed("malformed request", &e))?;
    node.admit(&request.slice, &peer).await
}
