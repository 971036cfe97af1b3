//! The course of one packet to one node: what to send next, and what came of it. Pure; `now` is an argument.

use pod_wire::{Action, Answer, KeyId, REQUEST_BYTES, Refusal, Request, Status, TagSecret};

use crate::key::SignError;

/// A node to send to.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its id, UUID.
    pub node: [u8; 16],
    /// The boot that it was last seen in, if known.
    pub boot: Option<[u8; 16]>,
    /// What tags its packets.
    pub secret: TagSecret,
}

/// How long to try, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Between two copies, milliseconds.
    pub every_ms: u64,
    /// Copies of a packet for the known boot; as many probes.
    pub tries: u32,
    /// Copies of a packet for any boot.
    pub last_tries: u32,
    /// For a new boot id after a reboot was accepted, milliseconds. 0: do not wait for it.
    pub watch_ms: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            every_ms: 1_000,
            tries: 5,
            last_tries: 5,
            watch_ms: 0,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing came back at all: the node, its network or its kernel is gone.
    Silent,
    /// The kernel echoes, the listener says nothing: it does not run, or the secret is another.
    KernelAlive,
    /// The listener said no.
    Refused(Refusal, Answer),
    /// To a probe.
    Here(Answer),
    /// To a dry-run: a reboot would have been done.
    Armed(Answer),
    /// It was accepted.
    Accepted(Answer),
    /// It was accepted, and the node was not heard in another boot within the time given.
    NotBack(Answer),
    /// It was accepted, and this answer came from another boot.
    Rebooted(Answer),
    /// The key could not be used.
    Unsigned,
}

/// Something that came from the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Its kernel, echoing.
    Echo,
    /// Its listener.
    Answer(Answer),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// For the boot that was last seen, or that an answer named.
    Known([u8; 16]),
    Probe,
    Any,
    /// Accepted by this answer; waiting for another boot until then.
    Watch(Answer, u64),
    Done(Outcome),
}

/// One packet's way to one node.
#[derive(Debug, Clone)]
pub struct Course {
    target: Target,
    action: Action,
    key: KeyId,
    patience: Patience,
    phase: Phase,
    /// Copies sent in this phase.
    sent: u32,
    next_ms: u64,
    packet: Option<[u8; REQUEST_BYTES]>,
    nonce: [u8; 16],
    echoed: bool,
    /// When the first signed packet left, milliseconds.
    signed_ms: Option<u64>,
    /// Times that another boot was named: a node that reboots all the time must end too.
    named: u32,
}

/// What signs the bytes given.
pub type Signing<'a> = &'a mut dyn FnMut(&[u8]) -> Result<[u8; 64], SignError>;

/// Most boots that answers may name before it is enough.
const MAX_NAMED: u32 = 3;

impl Course {
    /// A course that begins now.
    #[must_use]
    pub fn new(target: Target, action: Action, key: KeyId, patience: Patience) -> Self {
        let phase = match (action, target.boot) {
            (Action::Probe, _) | (_, None) => Phase::Probe,
            (_, Some(boot)) => Phase::Known(boot),
        };
        Self {
            target,
            action,
            key,
            patience,
            phase,
            sent: 0,
            next_ms: 0,
            packet: None,
            nonce: [0; 16],
            echoed: false,
            signed_ms: None,
            named: 0,
        }
    }

    /// The end, if it has come.
    #[must_use]
    pub const fn outcome(&self) -> Option<Outcome> {
        match self.phase {
            Phase::Done(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// The node.
    #[must_use]
    pub const fn node(&self) -> &[u8; 16] {
        &self.target.node
    }

    /// When [`Course::next`] wants to be asked again, milliseconds.
    #[must_use]
    pub const fn due_ms(&self) -> Option<u64> {
        match self.phase {
            Phase::Done(_) => None,
            _ => Some(self.next_ms),
        }
    }

    /// The packet to send now, if it is time. `now_ms` is a clock that only goes on, `clock_ms` that of the day;
    /// `nonce` is fresh randomness, used where a new packet begins.
    pub fn next(
        &mut self,
        now_ms: u64,
        clock_ms: u64,
        nonce: [u8; 16],
        sign: Signing<'_>,
    ) -> Option<[u8; REQUEST_BYTES]> {
        if self.outcome().is_some() || now_ms < self.next_ms {
            return None;
        }
        self.give_up(now_ms);
        if self.outcome().is_some() {
            return None;
        }
        let packet = match self.packet {
            Some(packet) => packet,
            None => match self.make(clock_ms, nonce, sign) {
                Ok(packet) => packet,
                Err(_) => {
                    self.enter(Phase::Done(Outcome::Unsigned), now_ms);
                    return None;
                }
            },
        };
        // A probe's copies are probes of their own: each answer then tells its round trip.
        let signed = matches!(self.phase, Phase::Known(_) | Phase::Any);
        self.packet = signed.then_some(packet);
        if signed {
            self.signed_ms.get_or_insert(now_ms);
        }
        self.sent += 1;
        self.next_ms = now_ms + self.patience.every_ms;
        Some(packet)
    }

    /// Moves on from a phase that has had its tries.
    fn give_up(&mut self, now_ms: u64) {
        let is_probe = self.action == Action::Probe;
        match self.phase {
            Phase::Known(_) if self.sent >= self.patience.tries => self.enter(Phase::Probe, now_ms),
            Phase::Probe if self.sent >= self.patience.tries && is_probe => self.end_unanswered(now_ms),
            Phase::Probe if self.sent >= self.patience.tries => self.enter(Phase::Any, now_ms),
            Phase::Any if self.sent >= self.patience.last_tries => self.end_unanswered(now_ms),
            Phase::Watch(answer, until_ms) if now_ms >= until_ms => {
                self.enter(Phase::Done(Outcome::NotBack(answer)), now_ms);
            }
            _ => {}
        }
    }

    fn end_unanswered(&mut self, now_ms: u64) {
        let outcome = if self.echoed {
            Outcome::KernelAlive
        } else {
            Outcome::Silent
        };
        self.enter(Phase::Done(outcome), now_ms);
    }

    fn enter(&mut self, phase: Phase, now_ms: u64) {
        self.phase = phase;
        self.sent = 0;
        self.packet = None;
        self.next_ms = now_ms;
    }

    fn make(
        &mut self,
        clock_ms: u64,
        nonce: [u8; 16],
        sign: Signing<'_>,
    ) -> Result<[u8; REQUEST_BYTES], SignError> {
        self.nonce = nonce;
        let boot = match self.phase {
            Phase::Known(boot) => boot,
            Phase::Any => [0; 16],
            Phase::Probe | Phase::Watch(..) | Phase::Done(_) => {
                return Ok(Request::probe(
                    self.target.node,
                    clock_ms,
                    nonce,
                    &self.target.secret,
                ));
            }
        };
        let request = Request {
            action: self.action,
            key: self.key,
            node: self.target.node,
            boot,
            issued_at_ms: clock_ms,
            nonce,
        };
        Ok(request.seal(&sign(&request.to_sign())?, &self.target.secret))
    }

    /// Reads a payload that came from somewhere. `None`: it was nothing of this node's.
    #[must_use]
    pub fn read(&self, payload: &[u8]) -> Option<Heard> {
        if payload.len() == REQUEST_BYTES {
            return pod_wire::Received::parse(payload)
                .is_ok_and(|echo| {
                    echo.request().node == self.target.node && echo.is_tagged(&self.target.secret)
                })
                .then_some(Heard::Echo);
        }
        let answer = Answer::open(payload, &self.target.secret).ok()?;
        (answer.node == self.target.node).then_some(Heard::Answer(answer))
    }

    /// Takes what was heard.
    pub fn hear(&mut self, heard: Heard, now_ms: u64) {
        let answer = match heard {
            Heard::Echo => {
                self.echoed = true;
                return;
            }
            Heard::Answer(answer) => answer,
        };
        if self.has_restarted(&answer, now_ms) {
            self.enter(Phase::Done(Outcome::Rebooted(answer)), now_ms);
            return;
        }
        // Only answers to what is being asked: a late one of an earlier phase says nothing about this.
        if answer.nonce != self.nonce && !matches!(self.phase, Phase::Watch(..) | Phase::Probe) {
            return;
        }
        match (self.phase, answer.status) {
            (Phase::Done(_), _) => {}
            (Phase::Watch(accepted, _), _) => {
                if answer.boot != accepted.boot {
                    self.enter(Phase::Done(Outcome::Rebooted(answer)), now_ms);
                }
            }
            (Phase::Probe, Status::Here) if self.action == Action::Probe => {
                self.enter(Phase::Done(Outcome::Here(answer)), now_ms);
            }
            (Phase::Probe, Status::Here) => self.name(answer, now_ms),
            (Phase::Known(_), Status::Refused(Refusal::Boot)) if self.named < MAX_NAMED => {
                self.name(answer, now_ms)
            }
            (Phase::Known(_) | Phase::Any, Status::Refused(Refusal::Busy)) => {
                // Its bucket fills by the second: the same packet again.
            }
            (_, Status::Refused(why)) => self.enter(Phase::Done(Outcome::Refused(why, answer)), now_ms),
            (_, Status::Armed) => self.enter(Phase::Done(Outcome::Armed(answer)), now_ms),
            (_, Status::Accepted) => self.accepted(answer, now_ms),
            (Phase::Known(_) | Phase::Any, Status::Here) => {}
        }
    }

    /// Whether the node has begun another boot since we asked for one. Its `accepted` may have been lost; asking the
    /// new boot as well would restart a node that has just come back. Durations only: no clock is compared.
    fn has_restarted(&self, answer: &Answer, now_ms: u64) -> bool {
        let asked = matches!(self.action, Action::Reboot | Action::Crash);
        let begun = self.outcome().is_none();
        let since = self.signed_ms.map(|signed_ms| now_ms.saturating_sub(signed_ms));
        asked && begun && since.is_some_and(|since| answer.uptime_ms < since)
    }

    fn name(&mut self, answer: Answer, now_ms: u64) {
        self.named += 1;
        self.enter(Phase::Known(answer.boot), now_ms);
    }

    fn accepted(&mut self, answer: Answer, now_ms: u64) {
        let waits = matches!(self.action, Action::Reboot | Action::Crash) && self.patience.watch_ms > 0;
        if waits {
            self.enter(Phase::Watch(answer, now_ms + self.patience.watch_ms), now_ms);
            self.next_ms = now_ms + self.patience.every_ms;
        } else {
            self.enter(Phase::Done(Outcome::Accepted(answer)), now_ms);
        }
    }
}

#[cfg(test)]
#[path = "course_tests.rs"]
mod tests;
