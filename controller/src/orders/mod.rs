//! What a wish becomes, and what became of it. Pure: no clock, no I/O, no locks.
//!
//! ```text
//! PressRequest ──wish──▶ Press ──kind──▶ OrderKind + who may ──release──▶ holds to lift
//!                                                                │
//!   per node and order, one byte (cell):                         ▼
//!   waiting ──sent──▶ sent ──answer──▶ answered ──proof──▶ proven       (tracker)
//!      │                                                   ▲
//!      └──────── hold released before delivery: superseded ┘
//! ```
//!
//! Invariants: an order never loses a node; a cell never goes back (waiting < sent < answered < proven); what a
//! node may say is checked against the kind of the order, and only the controller says `superseded` and
//! `rebooted`. Whether a waiting node is `pending` or `offline` is not stored: it is asked of the registry when
//! somebody looks.

mod cell;
mod kind;
mod release;
mod tracker;
mod wish;

pub use cell::{Cell, Said};
pub use release::{MAX_RELEASED, Plan, plan_release};
pub use tracker::{Counts, Delivery, Heard, NodeIndex, Tracker};
pub use wish::{NodeRef, Press, Reach, ReleaseOf, Wish, WishError};
pub(crate) use wish::{checked_key, checked_reason, checked_text};
