//! Which packet may do what: DESIGN.md's order of checks, cheapest first. Pure, and allocates nothing.
//!
//! ```text
//! form ─▶ node ─▶ tag ─▶ boot, freshness ─▶ replay ─▶ token bucket ─▶ key, scope ─▶ signature ─▶ nonce kept ─▶ act
//!  └────────┴──────┴─ no answer: a stranger           └──────────────── refused: the sender hears why ───────┘
//! ```
//! - Whoever does not know a tag secret gets no answer and costs no signature.
//! - A nonce is remembered only after its signature was right: nobody burns a nonce that they could not have used.
//! - A packet for one boot of this node is harmless in every other; only a packet for *any* boot needs a clock, and
//!   that one counts only within [`WINDOW_MS`] of its making, when the machine has been up for longer than that, and
//!   when it was made after the boot: none from before the last reboot can cause another.
//! - The true packet's copies come with the same nonce: the first acts, the others hear `accepted` again, so that a
//!   lost answer costs nothing. A copy makes nothing happen.

use ed25519_dalek::VerifyingKey;
use pod_wire::{Action, Answer, KeyId, Received, Refusal, Status, TagSecret, WireError};

/// How old a packet for any boot may be, and how far in the future, milliseconds.
pub const WINDOW_MS: u64 = 30_000;
/// Nonces that are remembered; more signed packets than that in one boot are refused.
pub const NONCES: usize = 4_096;
/// Most keys and most tag secrets: enough for rotations.
pub const MAX_KEYS: usize = 16;
/// Most tag secrets.
pub const MAX_SECRETS: usize = 4;
/// Signatures that are looked at: at once, and a second. One costs about 60 us.
const SIGNATURES: u64 = 20;
/// Answers that are sent: at once, and a second. More than honest senders ever ask for.
const ANSWERS: u64 = 50;

/// A key that may ask for things.
#[derive(Debug, Clone)]
pub struct Trusted {
    /// As packets name it.
    pub id: KeyId,
    /// What checks its signatures.
    pub key: VerifyingKey,
    /// What it may ask for, a bit for each action's number.
    pub scope: u8,
}

impl Trusted {
    /// The scope that holds these actions.
    #[must_use]
    pub fn scope_of(actions: &[Action]) -> u8 {
        actions.iter().fold(0, |scope, action| scope | bit(*action))
    }
}

const fn bit(action: Action) -> u8 {
    1 << action.number()
}

/// What is known when a packet comes.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Since the boot, milliseconds (CLOCK_BOOTTIME).
    pub uptime_ms: u64,
    /// Since 1970, milliseconds; may be wrong.
    pub clock_ms: u64,
}

/// Why a packet was passed over without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// Not of our form.
    Form(WireError),
    /// For another node.
    Node,
    /// Made without the secret, or damaged.
    Tag,
    /// Right, and more than are answered in a second.
    Quiet,
}

/// What to do about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Ignore(Ignored),
    /// Answer and no more.
    Answer(Answer),
    /// Answer, then do it.
    Act(Action, Answer),
}

/// Nonces seen in this boot. Lives in memory that outlasts the daemon: all of it is plain bytes.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct Seen {
    count: u64,
    nonces: [[u8; 17]; NONCES],
}

impl Seen {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            count: 0,
            nonces: [[0; 17]; NONCES],
        }
    }

    fn filled(&self) -> &[[u8; 17]] {
        let count = usize::try_from(self.count).unwrap_or(NONCES).min(NONCES);
        &self.nonces[..count]
    }

    /// What was done with this nonce.
    fn find(&self, nonce: &[u8; 16]) -> Option<u8> {
        self.filled()
            .iter()
            .find(|kept| kept[..16] == nonce[..])
            .map(|kept| kept[16])
    }

    fn is_full(&self) -> bool {
        self.filled().len() >= NONCES
    }

    fn keep(&mut self, nonce: &[u8; 16], action: Action) {
        let at = self.filled().len();
        if let Some(slot) = self.nonces.get_mut(at) {
            slot[..16].copy_from_slice(nonce);
            slot[16] = action.number();
            self.count = at as u64 + 1;
        }
    }
}

impl Default for Seen {
    fn default() -> Self {
        Self::new()
    }
}

/// A token bucket that holds what a second brings.
#[derive(Debug, Clone)]
struct Bucket {
    a_second: u64,
    /// Thousandths.
    left: u64,
    at_ms: u64,
}

impl Bucket {
    const fn full(a_second: u64) -> Self {
        Self {
            a_second,
            left: a_second * 1_000,
            at_ms: 0,
        }
    }

    fn take(&mut self, uptime_ms: u64) -> bool {
        let passed = uptime_ms.saturating_sub(self.at_ms);
        self.at_ms = uptime_ms;
        let most = self.a_second * 1_000;
        self.left = most.min(self.left.saturating_add(passed.saturating_mul(self.a_second)));
        match self.left.checked_sub(1_000) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// Everything that a decision takes.
#[derive(Debug, Clone)]
pub struct Gate {
    node: [u8; 16],
    boot: [u8; 16],
    secrets: Vec<TagSecret>,
    keys: Vec<Trusted>,
    /// What this machine can do, a bit for each action.
    able: u8,
    signatures: Bucket,
    answers: Bucket,
}

impl Gate {
    /// For one boot of one node. Allocates now and never again.
    #[must_use]
    pub fn new(
        node: [u8; 16],
        boot: [u8; 16],
        secrets: Vec<TagSecret>,
        keys: Vec<Trusted>,
        able: &[Action],
    ) -> Self {
        Self {
            node,
            boot,
            secrets,
            keys,
            able: Trusted::scope_of(able),
            signatures: Bucket::full(SIGNATURES),
            answers: Bucket::full(ANSWERS),
        }
    }

    /// Decides on one payload; returns with which of the secrets it was tagged, for the answer.
    pub fn judge(&mut self, payload: &[u8], now: Now, seen: &mut Seen) -> (Verdict, usize) {
        let received = match Received::parse(payload) {
            Ok(received) => received,
            Err(error) => return (Verdict::Ignore(Ignored::Form(error)), 0),
        };
        if received.request().node != self.node {
            return (Verdict::Ignore(Ignored::Node), 0);
        }
        let Some(secret) = self.secrets.iter().position(|secret| received.is_tagged(secret)) else {
            return (Verdict::Ignore(Ignored::Tag), 0);
        };
        let request = *received.request();
        let status = if request.action == Action::Probe {
            Status::Here
        } else {
            match self.signed(&received, now, seen) {
                Ok(status) => status,
                Err(refusal) => Status::Refused(refusal),
            }
        };
        let first = status == Status::Accepted && seen.find(&request.nonce).is_none();
        if first {
            seen.keep(&request.nonce, request.action);
        }
        let answer = Answer {
            action: request.action,
            status,
            uptime_ms: now.uptime_ms,
            node: self.node,
            boot: self.boot,
            clock_ms: now.clock_ms,
            nonce: request.nonce,
        };
        let verdict = if first {
            Verdict::Act(request.action, answer)
        } else if self.answers.take(now.uptime_ms) {
            Verdict::Answer(answer)
        } else {
            Verdict::Ignore(Ignored::Quiet)
        };
        (verdict, secret)
    }

    /// The secret to answer with.
    #[must_use]
    pub fn secret(&self, index: usize) -> Option<&TagSecret> {
        self.secrets.get(index)
    }

    fn signed(&mut self, received: &Received, now: Now, seen: &Seen) -> Result<Status, Refusal> {
        let request = received.request();
        if request.boot == [0; 16] {
            is_fresh(request.issued_at_ms, now)?;
        } else if request.boot != self.boot {
            return Err(Refusal::Boot);
        }
        let before = seen.find(&request.nonce);
        match before {
            Some(action) if action != request.action.number() => return Err(Refusal::Replay),
            None if seen.is_full() => return Err(Refusal::Busy),
            _ => {}
        }
        if !self.signatures.take(now.uptime_ms) {
            return Err(Refusal::Busy);
        }
        let trusted = self
            .keys
            .iter()
            .find(|trusted| trusted.id == request.key)
            .ok_or(Refusal::Key)?;
        // A dry-run asks for what it rehearses: a reboot.
        let asked = match request.action {
            Action::DryRun => bit(Action::Reboot) | bit(Action::DryRun),
            action => bit(action),
        };
        if trusted.scope & asked == 0 {
            return Err(Refusal::Scope);
        }
        if !received.is_signed(&trusted.key) {
            return Err(Refusal::Signature);
        }
        let needed = match request.action {
            Action::DryRun => Action::Reboot,
            action => action,
        };
        if self.able & bit(needed) == 0 {
            return Err(Refusal::Unable);
        }
        Ok(match request.action {
            Action::DryRun => Status::Armed,
            _ => Status::Accepted,
        })
    }
}

/// Whether a packet for any boot may count now.
fn is_fresh(issued_at_ms: u64, now: Now) -> Result<(), Refusal> {
    let booted_ms = now.clock_ms.saturating_sub(now.uptime_ms);
    let fresh = now.clock_ms.abs_diff(issued_at_ms) <= WINDOW_MS
        && now.uptime_ms > WINDOW_MS
        && issued_at_ms > booted_ms;
    if fresh { Ok(()) } else { Err(Refusal::Stale) }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
