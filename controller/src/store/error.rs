//! What can go wrong in the store, by what the caller does about it.

use std::path::PathBuf;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Named something that is not there.
    #[error("{what} {name:?} does not exist")]
    NotFound {
        /// The kind of thing: `site`, `order`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Would be there twice.
    #[error("{what} {name:?} exists already")]
    Exists {
        /// The kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// There, but good for nothing any more: a used invite, a revoked key.
    #[error("{what} {name} cannot be used: {why}")]
    Unusable {
        /// The kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
        /// Why not, and what to do.
        why: &'static str,
    },
    /// An argument that no store can take.
    #[error("{what} {got:?} is not usable: expected {expected}")]
    Invalid {
        /// The argument: `page token`.
        what: &'static str,
        /// What was given, cut to 80 characters.
        got: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// The disk takes no more, or refuses to write. Nothing was stored. Go on without durability, try again later.
    #[error("database {path}: the disk cannot take it: {message}", path = path.display())]
    Full {
        /// The database.
        path: PathBuf,
        /// What the database said.
        message: String,
    },
    /// Another process held the database for longer than we wait. Try again.
    #[error("database {path} is busy: another process has been writing for too long", path = path.display())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// Not a database, cut short, or what is in it cannot be.
    #[error("database {path} is corrupt: {message}", path = path.display())]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What was found.
        message: String,
    },
    /// Written by a newer Redbutton.
    #[error("database {path} has schema {found}, this program knows up to {known}: run the newer program", path = path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Our newest.
        known: i64,
    },
    /// Older than what it has handed out: somebody put an earlier copy in its place.
    #[error(
        "database {path} was put back to {found}, it had handed out versions up to {known}: an earlier copy would forget kills; run `redbutton-controller restore --in-place`, which begins a new incarnation and asks nodes what they hold",
        path = path.display()
    )]
    RolledBack {
        /// The database.
        path: PathBuf,
        /// What it says of itself.
        found: proto::Version,
        /// What the mark beside it says.
        known: proto::Version,
    },
    /// There is no database at that place.
    #[error("database {path} is not there: run redbutton-controller init first", path = path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Anything else.
    #[error("database {path}: {message}", path = path.display())]
    Other {
        /// The database.
        path: PathBuf,
        /// What the database said.
        message: String,
    },
}

impl StoreError {
    pub(crate) fn not_found(what: &'static str, name: &(impl ToString + ?Sized)) -> Self {
        Self::NotFound {
            what,
            name: name.to_string(),
        }
    }

    pub(crate) fn exists(what: &'static str, name: &(impl ToString + ?Sized)) -> Self {
        Self::Exists {
            what,
            name: name.to_string(),
        }
    }

    pub(crate) fn unusable(what: &'static str, name: &(impl ToString + ?Sized), why: &'static str) -> Self {
        Self::Unusable {
            what,
            name: name.to_string(),
            why,
        }
    }

    pub(crate) fn invalid(what: &'static str, got: &str, expected: &'static str) -> Self {
        Self::Invalid {
            what,
            got: got.chars().take(80).collect(),
            expected,
        }
    }

    /// Whether the same call may succeed later without anybody's doing: the order is kept in memory meanwhile.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Busy { .. })
    }
}
