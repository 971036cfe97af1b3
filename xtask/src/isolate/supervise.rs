//! Waits for one child: its output line by line, our signals, its time. When this returns, the child and (in the
//! isolation) everything below it is dead: the pipe's end is only seen once its last holder is gone.

use std::fmt;
use std::io::{PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, killpg, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal that was not ours.
    Killed(i32),
    /// By us, because its time was up.
    OutOfTime(Duration),
    /// By us, because somebody pressed Ctrl-C or sent us this signal.
    Interrupted(i32),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Exited(code) => write!(f, "exit code {code}"),
            Ended::Killed(signal) => write!(f, "killed by signal {signal}"),
            Ended::OutOfTime(cap) => write!(f, "killed after {}, its limit", crate::run::duration(*cap)),
            Ended::Interrupted(signal) => write!(f, "interrupted by signal {signal}"),
        }
    }
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        status
            .code()
            .map_or_else(|| Ended::Killed(status.signal().unwrap_or(0)), Ended::Exited)
    }
}

/// Blocks the signals that end us, and that of a child's end, while it lives: they are read instead.
struct Signals {
    before: SigSet,
    descriptor: SignalFd,
}

impl Signals {
    fn catch() -> Result<Self> {
        let mut mask = SigSet::empty();
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGCHLD,
        ] {
            mask.add(signal);
        }
        let before = mask
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .context("cannot block signals")?;
        let descriptor = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("cannot read signals")?;
        Ok(Self { before, descriptor })
    }

    /// The next one that came, if any.
    fn next(&self) -> Result<Option<Signal>> {
        let read = self.descriptor.read_signal().context("cannot read signals")?;
        Ok(read.and_then(|info| i32::try_from(info.ssi_signo).ok()?.try_into().ok()))
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        if let Err(error) = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None) {
            eprintln!("cargo xtask: cannot unblock signals: {error}");
        }
    }
}

/// Runs the command in a process group of its own until it ends, its time is up or we are interrupted.
pub(super) fn run(mut command: Command, cap: Duration, on_line: &mut dyn FnMut(&str)) -> Result<Ended> {
    let shown = crate::run::shown(&command);
    let signals = Signals::catch()?;
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    command
        .stdout(writer.try_clone().context("cannot make a pipe")?)
        .stderr(writer)
        // Ctrl-C of the terminal then reaches us alone, and one kill reaches the whole unisolated run.
        .process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot start {shown}"))?;
    // The command holds the pipe's write end: without this the end of output would never be seen.
    drop(command);
    let verdict = watch(reader, &signals, cap, on_line, &mut child);
    stop(&child);
    let status = child.wait().with_context(|| format!("cannot wait for {shown}"))?;
    Ok(verdict?.unwrap_or_else(|| status.into()))
}

/// Kills the child's process group; an isolated child takes its namespace along.
fn stop(child: &Child) {
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    match killpg(group, Signal::SIGKILL) {
        // Gone already, or no more than a zombie.
        Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
        Err(error) => eprintln!("cargo xtask: cannot kill process group {group}: {error}"),
    }
}

/// How long the end of the output may take once the child is dead: an unisolated run may have let a process out of
/// its group that holds the pipe, and that must not hold us.
const AFTER_KILL: Duration = Duration::from_secs(10);

/// Reads until the output ends, and kills the group when the child has ended or must end. `Some` says why we ended it.
fn watch(
    mut reader: PipeReader,
    signals: &Signals,
    cap: Duration,
    on_line: &mut dyn FnMut(&str),
    child: &mut Child,
) -> Result<Option<Ended>> {
    let mut deadline = Instant::now() + cap;
    let mut verdict = None;
    let mut stopping = false;
    let mut pending = Vec::new();
    let mut buffer = [0_u8; 16 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let (readable, signalled) = {
            let mut descriptors = [
                PollFd::new(reader.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.descriptor.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut descriptors, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot wait for output"),
            }
            (
                descriptors[0].any().unwrap_or(false),
                descriptors[1].any().unwrap_or(false),
            )
        };
        let signal = if signalled { signals.next()? } else { None };
        let (stop_now, why) = match signal {
            Some(Signal::SIGCHLD) => (
                child.try_wait().context("cannot look at the child")?.is_some(),
                None,
            ),
            Some(signal) => (true, Some(Ended::Interrupted(signal as i32))),
            None if Instant::now() < deadline => (false, None),
            None if stopping => break,
            None => (true, Some(Ended::OutOfTime(cap))),
        };
        if stop_now {
            verdict = verdict.or(why);
            stopping = true;
            deadline = Instant::now() + AFTER_KILL;
            stop(child);
        }
        if readable {
            let read = reader.read(&mut buffer).context("cannot read output")?;
            if read == 0 {
                break;
            }
            pending.extend_from_slice(&buffer[..read]);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                on_line(String::from_utf8_lossy(&line[..end]).trim_end_matches('\r'));
            }
        }
    }
    if !pending.is_empty() {
        on_line(&String::from_utf8_lossy(&pending));
    }
    Ok(verdict)
}
