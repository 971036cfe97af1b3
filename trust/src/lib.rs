//! Whom a certificate speaks for, whose signature counts, and which places are our own. No clock; no I/O but `place`.
//!
//! ```text
//! root ─▶ … ─▶ certificate ──identity_of──▶ who speaks           Spki: the key that they are known by
//!          └─▶ certificate of redbutton://signer ─▶ Signer ──sign──▶ SignedStatement ──verify(Roots)──▶ body
//!                                                          └─sign_short─▶ 72 bytes ──Keyring──▶ yes or no
//! ```
//! A statement is what the controller says in a form that outlives its database and its connections: the policy
//! that a node decides by, the head of the audit that a node witnesses, a hold, a release. Each kind is signed
//! under a prefix of its own, so that one can never be shown as another.
//!
//! A chain is checked without looking at a clock: a node's may be years off, and what was once signed stays
//! signed. Freshness is the statement's own business: each carries a version, and readers refuse a lower one.

mod approval;
mod certificate;
mod place;
mod roots;
mod signer;
mod spki;
mod statement;

pub use approval::{ApprovalError, RestoreApproval};
pub use certificate::{CertificateError, identity_of, validity_of};
pub use place::{PlaceError, own_directory, read_private};
pub use roots::{Roots, RootsError};
pub use signer::{Keyring, SHORT_BYTES, Signer, SignerError};
pub use spki::{Spki, SpkiError};
pub use statement::{Kind, MAX_BODY, StatementError, verify};
