//! The listener: packets in, verdicts, answers and deeds out. After [`Listener::new`] it allocates nothing.

use std::io;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use pod_wire::{Action, Answer, Counter, Refusal, Status, WireError};

use crate::gate::{Gate, Ignored, Now, Verdict};
use crate::log::{self, Budget};
use crate::restart::Means;
use crate::socket::{Door, PACKET};
use crate::state::State;

/// Packets of one door before the other has its turn.
const BATCH: usize = 64;

/// Everything that it takes to obey.
pub struct Listener {
    doors: Vec<Door>,
    gate: Gate,
    state: State,
    means: Means,
    buffer: [u8; PACKET],
    budget: Budget,
    broken: bool,
}

/// What is known now: both clocks.
fn now() -> Now {
    let read = |clock| {
        let time = clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    };
    Now {
        uptime_ms: read(ClockId::CLOCK_BOOTTIME),
        clock_ms: read(ClockId::CLOCK_REALTIME),
    }
}

impl Listener {
    /// Opens the doors: IPv4, and IPv6 where there is any.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, naming it.
    pub fn new(node: &[u8; 16], gate: Gate, state: State, means: Means) -> io::Result<Self> {
        let raw = |error: io::Error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                io::Error::other("raw ICMP sockets are refused: CAP_NET_RAW is missing, run as root")
            }
            _ => error,
        };
        let mut doors = vec![Door::open(false, node).map_err(raw)?];
        match Door::open(true, node) {
            Ok(door) => doors.push(door),
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
            Err(error) => return Err(raw(error)),
        }
        Ok(Self {
            doors,
            gate,
            state,
            means,
            buffer: [0; PACKET],
            budget: Budget::default(),
            broken: false,
        })
    }

    /// Waits for packets at most `patience` and handles those that are there.
    ///
    /// # Errors
    /// When waiting itself fails.
    pub fn turn(&mut self, patience: Duration) -> io::Result<()> {
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let waited = match &self.doors[..] {
            [one] => poll(&mut [PollFd::new(one.fd(), PollFlags::POLLIN)], timeout),
            [one, two] => {
                let (one, two) = (one.fd(), two.fd());
                poll(
                    &mut [
                        PollFd::new(one, PollFlags::POLLIN),
                        PollFd::new(two, PollFlags::POLLIN),
                    ],
                    timeout,
                )
            }
            _ => Ok(0),
        };
        match waited {
            Ok(0) => self.look_after_helpers(),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for door in 0..self.doors.len() {
            for _ in 0..BATCH {
                if !self.handle(door) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// How many there were in this boot.
    #[must_use]
    pub fn counted(&self, what: Counter) -> u64 {
        self.state.counted(what)
    }

    fn look_after_helpers(&mut self) {
        if !self.broken && !self.means.is_whole() {
            self.broken = true;
            log::line(format_args!(
                "a helper has ended: reboots still work, without syncing; restart the listener"
            ));
        }
    }

    /// One packet; false when there is none.
    fn handle(&mut self, door: usize) -> bool {
        let Some(door) = self.doors.get(door) else {
            return false;
        };
        let knock = match door.receive(&mut self.buffer) {
            Ok(Some(knock)) => knock,
            // An error of the socket is told once by reading it; what was pending is still there.
            Ok(None) | Err(_) => return false,
        };
        self.state.count(Counter::Received);
        if knock.came.odd {
            self.state.count(Counter::OddPacket);
            return true;
        }
        let at = now();
        let (verdict, secret) = self.gate.judge(knock.payload, at, self.state.seen());
        let (answer, deed) = match verdict {
            Verdict::Ignore(why) => {
                self.state.count(ignored(why));
                return true;
            }
            Verdict::Answer(answer) => (answer, None),
            Verdict::Act(action, answer) => (answer, Some(action)),
        };
        self.state.count(counted(&answer, deed));
        let sent = match self.gate.secret(secret) {
            Some(secret) => door.answer(knock.echo(), &knock.came, &answer.seal(secret)),
            None => Ok(()),
        };
        if sent.is_err() {
            self.state.count(Counter::NotSent);
        }
        if let Some(action) = deed {
            log::line(format_args!("{} by a signed packet: obeying", action.as_str()));
            if let Err(error) = self.means.act(action) {
                log::line(format_args!("{} failed: {error}", action.as_str()));
            }
        } else if let Status::Refused(why) = answer.status
            && let Some(before) = self.budget.may(at.uptime_ms)
        {
            log::line(format_args!(
                "refused {}: {} ({before} more since the last line)",
                answer.action.as_str(),
                why.as_str()
            ));
        }
        true
    }
}

const fn ignored(why: Ignored) -> Counter {
    match why {
        Ignored::Form(WireError::Version(_)) => Counter::BadVersion,
        Ignored::Form(WireError::Action(_)) => Counter::BadAction,
        Ignored::Form(_) => Counter::BadForm,
        Ignored::Node => Counter::OtherNode,
        Ignored::Tag => Counter::BadTag,
        Ignored::Quiet => Counter::Unanswered,
    }
}

const fn counted(answer: &Answer, deed: Option<Action>) -> Counter {
    match (answer.status, deed) {
        (Status::Refused(why), _) => match why {
            Refusal::Boot => Counter::OtherBoot,
            Refusal::Stale => Counter::Stale,
            Refusal::Replay => Counter::Replay,
            Refusal::Key => Counter::UnknownKey,
            Refusal::Scope => Counter::OutOfScope,
            Refusal::Signature => Counter::WrongSignature,
            Refusal::Busy => Counter::Busy,
            Refusal::Unable => Counter::Unable,
        },
        (Status::Here, _) => Counter::Probes,
        (Status::Armed, _) => Counter::DryRuns,
        (Status::Accepted, None) => Counter::Repeats,
        (Status::Accepted, Some(Action::Crash)) => Counter::Crashes,
        (Status::Accepted, Some(Action::KillSlivers)) => Counter::KillSlivers,
        (Status::Accepted, Some(_)) => Counter::Reboots,
    }
}
