//! What a sender asks.
//!
//! | at | bytes | what (integers big-endian) |
//! |---|---|---|
//! | 0 | 4 | magic `rbPQ` |
//! | 4 | 1 | version: 1 |
//! | 5 | 1 | action: 1 probe, 2 dry-run, 3 reboot, 4 crash, 5 kill-slivers |
//! | 6 | 2 | flags: none yet, 0 |
//! | 8 | 8 | key id: the first bytes of SHA-256 over the signer's 32-byte public key; zeros in a probe |
//! | 16 | 16 | node id |
//! | 32 | 16 | boot id that is meant; zeros: any boot |
//! | 48 | 8 | issued at, milliseconds since 1970 |
//! | 56 | 16 | nonce |
//! | 72 | 64 | Ed25519 signature over the prefix `redbutton pod v1\0` and bytes 0 to 71; zeros in a probe |
//! | 136 | 16 | SipHash-2-4-128 over bytes 0 to 135, key: the node's tag secret |

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::layout::{put, take};
use crate::{NODE_OFFSET, REQUEST_MAGIC, TAG_BYTES, TagSecret, VERSION, WireError};

/// Bytes of a request's payload.
pub const REQUEST_BYTES: usize = 152;
/// Bytes under the signature: the prefix, then everything before the signature.
pub const SIGNED_BYTES: usize = DOMAIN.len() + HEAD_BYTES;
const DOMAIN: &[u8; 17] = b"redbutton pod v1\0";
const HEAD_BYTES: usize = 72;
const TAG_AT: usize = REQUEST_BYTES - TAG_BYTES;

/// Which trusted key has signed: the first eight bytes of SHA-256 over the 32-byte public key.
pub type KeyId = [u8; 8];

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Are you there, and in which boot? Tagged, not signed.
    Probe,
    /// Check everything as for a reboot, then do nothing.
    DryRun,
    /// Restart the machine.
    Reboot,
    /// Panic, so that a dump is kept, then restart.
    Crash,
    /// Kill every sliver below Redbutton's own cgroup root; the machine stays up.
    KillSlivers,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 5] = [
        Action::Probe,
        Action::DryRun,
        Action::Reboot,
        Action::Crash,
        Action::KillSlivers,
    ];

    /// On the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Action::Probe => 1,
            Action::DryRun => 2,
            Action::Reboot => 3,
            Action::Crash => 4,
            Action::KillSlivers => 5,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Result<Self, WireError> {
        match number {
            1 => Ok(Action::Probe),
            2 => Ok(Action::DryRun),
            3 => Ok(Action::Reboot),
            4 => Ok(Action::Crash),
            5 => Ok(Action::KillSlivers),
            other => Err(WireError::Action(other)),
        }
    }

    /// The word that people read and type.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::Probe => "probe",
            Action::DryRun => "dry-run",
            Action::Reboot => "reboot",
            Action::Crash => "crash",
            Action::KillSlivers => "kill-slivers",
        }
    }

    /// Whether it takes a signature: everything but a probe.
    #[must_use]
    pub const fn is_signed(self) -> bool {
        !matches!(self, Action::Probe)
    }
}

/// A request before it is signed and tagged, or after that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub action: Action,
    /// Who signs; zeros in a probe.
    pub key: KeyId,
    /// Which node, UUID.
    pub node: [u8; 16],
    /// Which boot of it, UUID; zeros: any.
    pub boot: [u8; 16],
    /// When, milliseconds since 1970 by the sender's clock.
    pub issued_at_ms: u64,
    /// Random, the same in every copy of this packet.
    pub nonce: [u8; 16],
}

impl Request {
    fn head(&self) -> [u8; HEAD_BYTES] {
        let Self {
            action,
            key,
            node,
            boot,
            issued_at_ms,
            nonce,
        } = self;
        let mut head = [0; HEAD_BYTES];
        put(&mut head, 0, &REQUEST_MAGIC);
        put(&mut head, 4, &[VERSION, action.number()]);
        put(&mut head, 8, key);
        put(&mut head, NODE_OFFSET, node);
        put(&mut head, 32, boot);
        put(&mut head, 48, &issued_at_ms.to_be_bytes());
        put(&mut head, 56, nonce);
        head
    }

    /// The bytes that the signer signs: for keys that are held elsewhere.
    #[must_use]
    pub fn to_sign(&self) -> [u8; SIGNED_BYTES] {
        prefixed(&self.head())
    }

    /// The payload, with a signature over [`Request::to_sign`] that was made elsewhere.
    #[must_use]
    pub fn seal(&self, signature: &[u8; 64], secret: &TagSecret) -> [u8; REQUEST_BYTES] {
        let mut bytes = [0; REQUEST_BYTES];
        put(&mut bytes, 0, &self.head());
        if self.action.is_signed() {
            put(&mut bytes, HEAD_BYTES, signature);
        }
        let tag = secret.tag(bytes.get(..TAG_AT).unwrap_or_default());
        put(&mut bytes, TAG_AT, &tag);
        bytes
    }

    /// The payload, signed here.
    #[must_use]
    pub fn sign(&self, key: &SigningKey, secret: &TagSecret) -> [u8; REQUEST_BYTES] {
        self.seal(&key.sign(&self.to_sign()).to_bytes(), secret)
    }

    /// The payload of a probe, which takes no signature.
    #[must_use]
    pub fn probe(
        node: [u8; 16],
        issued_at_ms: u64,
        nonce: [u8; 16],
        secret: &TagSecret,
    ) -> [u8; REQUEST_BYTES] {
        let request = Self {
            action: Action::Probe,
            key: [0; 8],
            node,
            boot: [0; 16],
            issued_at_ms,
            nonce,
        };
        request.seal(&[0; 64], secret)
    }
}

fn prefixed(head: &[u8; HEAD_BYTES]) -> [u8; SIGNED_BYTES] {
    let mut bytes = [0; SIGNED_BYTES];
    put(&mut bytes, 0, DOMAIN);
    put(&mut bytes, DOMAIN.len(), head);
    bytes
}

/// A payload that has a request's form. Nothing in it is true before [`Received::is_tagged`], and nothing may be
/// done before [`Received::is_signed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    bytes: [u8; REQUEST_BYTES],
    request: Request,
}

impl Received {
    /// Looks at the form alone.
    ///
    /// # Errors
    /// Names the first thing that does not fit; magic and length first, so that a stranger's ping costs nothing.
    pub fn parse(payload: &[u8]) -> Result<Self, WireError> {
        let bytes: [u8; REQUEST_BYTES] = payload.try_into().map_err(|_| WireError::Length {
            got: payload.len(),
            expected: REQUEST_BYTES,
        })?;
        if take::<4, REQUEST_BYTES>(&bytes, 0) != REQUEST_MAGIC {
            return Err(WireError::Magic);
        }
        let [version, action] = take(&bytes, 4);
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let action = Action::from_number(action)?;
        match u16::from_be_bytes(take(&bytes, 6)) {
            0 => {}
            flags => return Err(WireError::Flags(flags)),
        }
        let request = Request {
            action,
            key: take(&bytes, 8),
            node: take(&bytes, NODE_OFFSET),
            boot: take(&bytes, 32),
            issued_at_ms: u64::from_be_bytes(take(&bytes, 48)),
            nonce: take(&bytes, 56),
        };
        Ok(Self { bytes, request })
    }

    /// What it says.
    #[must_use]
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// Whether it was made by somebody who knows the node's secret, and is whole. Constant time.
    #[must_use]
    pub fn is_tagged(&self, secret: &TagSecret) -> bool {
        let (before, tag) = self.bytes.split_at(TAG_AT);
        secret.fits(before, tag)
    }

    /// Whether `key` has signed it (RFC 8032, strict: no small-order keys, no second form of a signature). A probe
    /// has no signature and is never signed.
    #[must_use]
    pub fn is_signed(&self, key: &VerifyingKey) -> bool {
        let signature = Signature::from_bytes(&take(&self.bytes, HEAD_BYTES));
        self.request.action.is_signed()
            && key
                .verify_strict(&prefixed(&take(&self.bytes, 0)), &signature)
                .is_ok()
    }
}
