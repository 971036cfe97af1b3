//! The hash chain of decisions: every entry names the hash of the one before, so that nothing can be changed,
//! taken out or moved without a trace. Pure: entries in, entries and verdicts out; the caller stores them.
//!
//! ```text
//! Draft ── seal(&head, draft) ──► Entry ──► store, file (a JSON line an entry), witness (a Head)
//!                                   │
//!                      verify(entries, start, witnesses) ──► Verified | the first Fault
//! ```
//!
//! - [`seal`]: the next entry after a [`Head`]. Keep `entry.head()` once the entry is stored.
//! - [`verify`], [`Verifier`]: check a chain; a witness is a [`Head`] that somebody else kept, and the only thing
//!   that shows a tail cut off or a chain rewritten to its end.
//! - [`lines`]: the file, an entry a line; [`verify_lines`] checks one as a stream.
//! - [`Stated`]: a head as the controller signs it for nodes to keep; [`judge`]: what two of them say of each other.
//! - `encoding.rs`: the bytes under the hash, exact enough to recompute them in another language.
//!
//! Not here: signing heads (`trust`), who may read what (`authz`), storage.

mod encoding;
mod entry;
mod hash;
pub mod lines;
mod stated;
mod verify;

pub use entry::{Draft, Entry, Outcome, UnknownOutcome, seal};
pub use hash::{Hash, HashError, Head, HeadError};
pub use lines::{LinesError, verify_lines};
pub use stated::{Judged, Stated, StatedError, judge};
pub use verify::{Fault, Verified, Verifier, verify};
