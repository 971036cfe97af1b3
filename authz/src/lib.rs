//! Who may do what: one pure table. The controller and every node ask it the same question and get the same
//! answer; nothing in Redbutton acts for a person without asking it.
//!
//! ```text
//! Actor (name, grants) ─┐
//! Action ───────────────┼─► decide ─► Verdict: Allow | Anyone | NeedsSecondPerson | Deny
//! Target (what, where) ─┘     │
//!                             └─ table: action → a cell for each role → the grants that would do
//! ```
//!
//! - [`Action`]: everything that can be asked for, with a stable name ([`Action::as_str`]).
//! - [`Target`]: what it is aimed at, with the facts that the table needs (the slice, the site of the node).
//! - [`decide`]: the verdict. `table.rs` is the table of DESIGN.md, a line a row.
//! - [`may`]: what somebody may do, for people. [`may_see_slice`] and its siblings: filters for lists.
//!
//! Invariants, each a test: default deny; who has no grant may only ask who they are and verify a file; another
//! grant never takes anything away; an action aimed at something it cannot be aimed at is denied by name; the
//! role in a verdict is the weakest that entitles.
//!
//! Not here: whether the person exists, certificates, the second person's approval, and facts of state such as
//! “has a commissioned outlet” or “within the site's allocation”. No I/O, no clock, no state.
//!
//! ```
//! use authz::{Action, Actor, Grant, Target, Verdict, decide};
//! # fn main() -> Result<(), proto::IdError> {
//! let bob = Actor { name: "bob".parse()?, grants: vec![Grant::Pi("princeton".parse()?)] };
//! let verdict = decide(&bob, Action::KillSlice, &Target::Slice("princeton_codeen".parse()?));
//! assert!(matches!(verdict, Verdict::Allow { role: proto::Role::Pi, .. }));
//! let verdict = decide(&bob, Action::KillSlice, &Target::Slice("mit_chord".parse()?));
//! assert_eq!(verdict.rule(), "kill-slice on mit_chord needs: developer of it, PI of mit, or support");
//! # Ok(())
//! # }
//! ```

mod action;
mod actor;
mod decide;
mod may;
mod table;
mod target;
mod visible;

pub use action::{Action, UnknownAction};
pub use actor::{Actor, Grant, GrantError};
pub use decide::{Verdict, decide};
pub use may::may;
pub use target::Target;
pub use visible::{
    may_see_audit, may_see_hold, may_see_node, may_see_person, may_see_processes, may_see_site, may_see_slice,
};
