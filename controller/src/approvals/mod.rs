//! Two people: what may only be done once a second person has agreed. Pure; `fleet/approve.rs` does what is decided
//! here, `store` keeps it.
//!
//! ```text
//! press or propose ─ NeedsSecondPerson ─▶ open ──approve (another person, the digest)──▶ approved ─▶ done
//!                                          │ │                                             └─▶ failed (why)
//!                                          │ └─ 5 minutes ─▶ expired          (follows from the time)
//!                                          ├─ withdraw ─▶ withdrawn
//!                                          └─ a restored database ─▶ void     (follows from the incarnation)
//! ```
//! Invariants:
//! - What is agreed to is the digest of [`Terms`], which name the life of the database; the signer has signed them.
//! - Approved is durable before anything is done. An order carries a key made of the proposal's id, so that it is
//!   committed once, however often the controller dies on the way.
//! - What was approved is carried out soon or not at all ([`CARRY_OUT_FOR_MS`]).
//!
//! Not here: who may act at all (`authz`), from where ties and roles are known (`store`).

mod rule;
mod terms;

pub use rule::{CARRY_OUT_FOR_MS, Case, Life, Refusal, TIED_FOR_MS, Tie, life, may_approve, may_carry_out};
pub use terms::{Act, Digest, DigestError, OPEN_FOR_MS, Terms, approval_bytes};
