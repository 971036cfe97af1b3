//! Waiting for several descriptors at once, and for the end: everything that blocks here also watches a [`Watch`],
//! whose [`Ender`] is dropped by whoever owns the thread.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Dropping it ends all who watch.
pub(crate) struct Ender {
    _writer: PipeWriter,
}

/// Becomes ready for ever once its [`Ender`] is dropped.
#[derive(Clone)]
pub(crate) struct Watch(Arc<PipeReader>);

pub(crate) fn end_and_watch() -> io::Result<(Ender, Watch)> {
    let (reader, writer) = io::pipe()?;
    Ok((Ender { _writer: writer }, Watch(Arc::new(reader))))
}

impl Watch {
    /// Sleeps for `cap`, or until the end: whether it is the end.
    pub(crate) fn ended_within(&self, cap: Duration) -> bool {
        wait([(self.as_fd(), PollFlags::POLLIN)], Some(cap)) == [true]
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Which of `wanted` are ready (an error or hang-up counts: the next read or write tells), after at most `cap`.
pub(crate) fn wait<const N: usize>(
    wanted: [(BorrowedFd<'_>, PollFlags); N],
    cap: Option<Duration>,
) -> [bool; N] {
    let mut fds = wanted.map(|(fd, flags)| PollFd::new(fd, flags));
    // Rounded up: a wait of less than a millisecond must not become a busy loop.
    let cap = cap.map_or(PollTimeout::NONE, |cap| {
        PollTimeout::try_from(cap.as_nanos().div_ceil(1_000_000)).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut fds, cap) {
        Ok(_) => {}
        // A signal came: nothing is ready, the caller looks again. Any other error cannot come from valid arguments.
        Err(Errno::EINTR) => return [false; N],
        Err(_) => return [true; N],
    }
    fds.map(|fd| fd.any().unwrap_or(true))
}
