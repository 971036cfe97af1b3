//! Sends the signed ping of death, and tells what came of it.
//!
//! ```text
//!            ┌ known boot ┐ unanswered  ┌ probe ┐ unanswered ┌ any boot ┐ unanswered
//! Course ───▶│ signed for │────────────▶│ tagged │───────────▶│ signed   │───────────▶ silent, or kernel alive
//!  (pure)    └─────┬──────┘      ┌──────┴───┬────┘            └────┬─────┘
//!                  │ other boot  │ the boot │                      │
//!                  └────────────▶└─ signed ─┴──────── accepted ────┴▶ watch (probes) ─▶ rebooted: another boot id
//! Campaign: one socket of each family, many courses, one thread.
//! ```
//! - A packet is repeated with the same nonce until something comes back: a node obeys it once.
//! - Answers are believed by their tag. One's own bytes coming back mean that the kernel lives and the listener does
//!   not; nothing at all means neither, or a network between. A node that went quiet after its kernel answered has
//!   probably died: the two are told apart by what was heard last.
//! - That a reboot happened is said by another boot alone: one that began after the first packet left. A lost
//!   `accepted` so never makes a second reboot.
//! - Signatures come from a key file, or from an ssh-agent, so that a key held in hardware serves.

mod agent;
mod campaign;
mod course;
mod key;
mod wire;

pub use agent::{Agent, AgentError};
pub use campaign::{Campaign, CampaignError, Report};
pub use course::{Course, Heard, Outcome, Patience, Signing, Target};
pub use key::{FileKey, KeyError, Sign, SignError, key_id};
