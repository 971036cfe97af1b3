//! Copies of the database, and life after one of them was put back.
//!
//! ```text
//! backup:  redbutton.db ──VACUUM INTO──▶ FILE        (the secrets go to a file of their own)
//! restore: FILE ─▶ restoring/redbutton.db: checked whole, two people, new incarnation, audit entry
//!             ─▶ restoring/ready (the commit point) ─▶ old database aside ─▶ new one in its place ─▶ mark ─▶ done
//! ```
//! - A crash before `ready` leaves the old controller; after it, the next start (or the next `restore`) finishes.
//! - The new incarnation is above the backup's, above the mark's and above the seconds since 1970: two restores of one
//!   backup never share one, and nobody's word is needed for it.
//! - What the backup does not know is with the nodes: they keep every hold that they have seen, refuse what is older,
//!   and are asked when they attach (`fleet`).
//! - Root on this machine can do all of this by hand; the two people are a rule for those who use the command, and the
//!   witnesses of the audit are what finds out about the others (docs/adr/0018).

mod approval;
mod backup;
mod lock;
mod restore;

use std::path::{Path, PathBuf};

pub use backup::{BackedUp, Backup, backup};
pub use lock::Lock;
pub use restore::{Restore, Restored, Source, finish_restore, restore};

use crate::pki::FileError;
use crate::store::StoreError;

/// Why there is no copy, or no restored controller. Then nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The database, or the copy of it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Somebody serves from it.
    #[error("{dir} is in use: a controller serves from it, or another restore runs; stop it first", dir = dir.display())]
    InUse {
        /// The state directory.
        dir: PathBuf,
    },
    /// Not two people.
    #[error("restore needs two support people; {why}")]
    NotTwo {
        /// What is missing, and how to get it.
        why: String,
    },
    /// An approval that does not count.
    #[error("approval {path}: {why}", path = path.display())]
    Approval {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A secrets file that cannot be used.
    #[error("secrets {path}: {why}", path = path.display())]
    Secrets {
        /// Which.
        path: PathBuf,
        /// What is wrong; nothing of what it holds.
        why: String,
    },
}

fn io(path: &Path, what: &'static str) -> impl FnOnce(std::io::Error) -> RecoveryError {
    let failed = FileError::io(path, what);
    move |error| failed(error).into()
}
