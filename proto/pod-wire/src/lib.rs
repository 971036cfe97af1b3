//! The signed ping of death on the wire: encode, decode, tag, sign, verify. No I/O, no clock, no allocation, no
//! `std`. `docs/protocol-pod.md` says the same for somebody who writes another sender.
//!
//! ```text
//! Request ─▶ signed part ──Ed25519──▶ signature ──SipHash over all before──▶ tag ─▶ 152 bytes of an ICMP echo request
//! 152 bytes ─▶ Received::parse (magic, version, length) ─▶ is_tagged ─▶ … ─▶ is_signed ─▶ act
//! Answer ─▶ tag ─▶ 104 bytes of an ICMP echo reply: never longer than what was asked
//! ```
//!
//! The order of the checks is the listener's; what makes it cheap is here: whoever does not know the node's tag
//! secret cannot make it look at a signature, and a copy with one bit changed anywhere, the signature included, has
//! a wrong tag, so that it neither costs a verification nor burns the true packet's nonce.
//!
//! Versioning: a version's bytes are never changed (`tests/golden_v1.rs`). A reader refuses versions that it does
//! not know; a sender speaks the highest that the node's last answer showed, and 1 without one.
#![no_std]
#![forbid(unsafe_code)]

mod answer;
mod counters;
mod layout;
mod request;
mod secret;

pub use answer::{ANSWER_BYTES, Answer, Refusal, Status};
pub use counters::{COUNTERS, Counter, STATE_HEAD_BYTES, STATE_MAGIC, read_state_head};
pub use layout::WireError;
pub use request::{Action, KeyId, REQUEST_BYTES, Received, Request, SIGNED_BYTES};
pub use secret::TagSecret;

/// The version that this code writes and reads.
pub const VERSION: u8 = 1;
/// Bytes of a tag: SipHash-2-4 with 128 bits.
pub const TAG_BYTES: usize = 16;
/// The first bytes of a request's payload, for a socket filter.
pub const REQUEST_MAGIC: [u8; 4] = *b"rbPQ";
/// The first bytes of an answer's payload. Another one than a request's: the kernel echoes those by itself.
pub const ANSWER_MAGIC: [u8; 4] = *b"rbPA";
/// Where the node's id begins in both payloads, for a socket filter.
pub const NODE_OFFSET: usize = 16;
