//! What a listener answers. Only to tagged requests: strangers get nothing.
//!
//! | at | bytes | what (integers big-endian) |
//! |---|---|---|
//! | 0 | 4 | magic `rbPA` |
//! | 4 | 1 | version: 1 |
//! | 5 | 1 | the request's action |
//! | 6 | 1 | status: 1 here, 2 armed, 3 accepted, 4 refused |
//! | 7 | 1 | why refused, else 0 |
//! | 8 | 8 | uptime, milliseconds |
//! | 16 | 16 | node id |
//! | 32 | 16 | boot id of now |
//! | 48 | 8 | the node's clock, milliseconds since 1970 |
//! | 56 | 16 | the request's nonce |
//! | 72 | 16 | zeros, for later |
//! | 88 | 16 | SipHash-2-4-128 over bytes 0 to 87, key: the node's tag secret |

use crate::layout::{put, take};
use crate::{ANSWER_MAGIC, Action, NODE_OFFSET, REQUEST_BYTES, TAG_BYTES, TagSecret, VERSION, WireError};

/// Bytes of an answer's payload.
pub const ANSWER_BYTES: usize = 104;
const TAG_AT: usize = ANSWER_BYTES - TAG_BYTES;
// Nobody gets more out of a node than they put into it.
const _: () = assert!(ANSWER_BYTES <= REQUEST_BYTES);

/// Why a request was refused. Said only to those who know the tag secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Meant for another boot of the node.
    Boot,
    /// For any boot, and issued too long ago, in the future, or before this boot.
    Stale,
    /// Its nonce was seen in this boot.
    Replay,
    /// No key of that id is trusted.
    Key,
    /// The key may not ask for that.
    Scope,
    /// The signature is wrong.
    Signature,
    /// Too many signed requests at once.
    Busy,
    /// This machine cannot do that.
    Unable,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Refusal; 8] = [
        Refusal::Boot,
        Refusal::Stale,
        Refusal::Replay,
        Refusal::Key,
        Refusal::Scope,
        Refusal::Signature,
        Refusal::Busy,
        Refusal::Unable,
    ];

    const fn number(self) -> u8 {
        match self {
            Refusal::Boot => 1,
            Refusal::Stale => 2,
            Refusal::Replay => 3,
            Refusal::Key => 4,
            Refusal::Scope => 5,
            Refusal::Signature => 6,
            Refusal::Busy => 7,
            Refusal::Unable => 8,
        }
    }

    /// The word in counters and for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Refusal::Boot => "other boot",
            Refusal::Stale => "stale",
            Refusal::Replay => "replay",
            Refusal::Key => "unknown key",
            Refusal::Scope => "out of scope",
            Refusal::Signature => "wrong signature",
            Refusal::Busy => "busy",
            Refusal::Unable => "unable",
        }
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// To a probe.
    Here,
    /// To a dry-run: a reboot would have been done.
    Armed,
    /// It is being done.
    Accepted,
    /// It is not.
    Refused(Refusal),
}

impl Status {
    const fn numbers(self) -> [u8; 2] {
        match self {
            Status::Here => [1, 0],
            Status::Armed => [2, 0],
            Status::Accepted => [3, 0],
            Status::Refused(why) => [4, why.number()],
        }
    }

    fn from_numbers(status: u8, why: u8) -> Result<Self, WireError> {
        match (status, why) {
            (1, 0) => Ok(Status::Here),
            (2, 0) => Ok(Status::Armed),
            (3, 0) => Ok(Status::Accepted),
            (4, why) => Refusal::ALL
                .into_iter()
                .find(|refusal| refusal.number() == why)
                .map(Status::Refused)
                .ok_or(WireError::Status(status)),
            _ => Err(WireError::Status(status)),
        }
    }
}

/// A listener's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// What was asked for.
    pub action: Action,
    /// What becomes of it.
    pub status: Status,
    /// Since the boot, milliseconds.
    pub uptime_ms: u64,
    /// Which node, UUID.
    pub node: [u8; 16],
    /// Which boot of it is now, UUID.
    pub boot: [u8; 16],
    /// Milliseconds since 1970 by the node's clock.
    pub clock_ms: u64,
    /// The request's.
    pub nonce: [u8; 16],
}

impl Answer {
    /// The payload.
    #[must_use]
    pub fn seal(&self, secret: &TagSecret) -> [u8; ANSWER_BYTES] {
        let Self {
            action,
            status,
            uptime_ms,
            node,
            boot,
            clock_ms,
            nonce,
        } = self;
        let mut bytes = [0; ANSWER_BYTES];
        put(&mut bytes, 0, &ANSWER_MAGIC);
        put(&mut bytes, 4, &[VERSION, action.number()]);
        put(&mut bytes, 6, &status.numbers());
        put(&mut bytes, 8, &uptime_ms.to_be_bytes());
        put(&mut bytes, NODE_OFFSET, node);
        put(&mut bytes, 32, boot);
        put(&mut bytes, 48, &clock_ms.to_be_bytes());
        put(&mut bytes, 56, nonce);
        let tag = secret.tag(bytes.get(..TAG_AT).unwrap_or_default());
        put(&mut bytes, TAG_AT, &tag);
        bytes
    }

    /// Reads an answer of the node whose secret this is.
    ///
    /// # Errors
    /// When it is none, or not tagged with that secret.
    pub fn open(payload: &[u8], secret: &TagSecret) -> Result<Self, WireError> {
        let bytes: [u8; ANSWER_BYTES] = payload.try_into().map_err(|_| WireError::Length {
            got: payload.len(),
            expected: ANSWER_BYTES,
        })?;
        if take::<4, ANSWER_BYTES>(&bytes, 0) != ANSWER_MAGIC {
            return Err(WireError::Magic);
        }
        let (before, tag) = bytes.split_at(TAG_AT);
        if !secret.fits(before, tag) {
            return Err(WireError::Tag);
        }
        let [version, action, status, why] = take(&bytes, 4);
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        Ok(Self {
            action: Action::from_number(action)?,
            status: Status::from_numbers(status, why)?,
            uptime_ms: u64::from_be_bytes(take(&bytes, 8)),
            node: take(&bytes, NODE_OFFSET),
            boot: take(&bytes, 32),
            clock_ms: u64::from_be_bytes(take(&bytes, 48)),
            nonce: take(&bytes, 56),
        })
    }
}
