//! SQLite's errors by what the caller does about them.

use std::path::Path;

use sqlx::Error;

use crate::store::StoreError;

/// Why a statement failed, before the database's path is put to it.
#[derive(Debug)]
pub(super) enum Fail {
    Sql(Error),
    Store(StoreError),
}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        Fail::Sql(error)
    }
}

impl From<StoreError> for Fail {
    fn from(error: StoreError) -> Self {
        Fail::Store(error)
    }
}

/// Primary result codes of SQLite (sqlite.org/rescode.html).
mod code {
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const READONLY: i32 = 8;
    pub(super) const IOERR: i32 = 10;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const NOTADB: i32 = 26;
}

pub(super) fn fault(path: &Path, fail: Fail) -> StoreError {
    let error = match fail {
        Fail::Store(error) => return error,
        Fail::Sql(error) => error,
    };
    let path = path.to_owned();
    let message = match &error {
        Error::Database(error) => error.message().to_owned(),
        other => other.to_string(),
    };
    match &error {
        Error::PoolTimedOut => StoreError::Busy { path },
        // What our own statements return does not fit our own types.
        Error::ColumnDecode { .. } | Error::Decode(_) => StoreError::Corrupt { path, message },
        Error::Database(_) => match primary_code(&error) {
            // A disk that became read-only or fails takes no more than a full one. A file that cannot be opened
            // is the write-ahead log: no space for it, or no descriptor.
            Some(code::FULL | code::IOERR | code::READONLY | code::CANTOPEN) => {
                StoreError::Full { path, message }
            }
            Some(code::BUSY | code::LOCKED) => StoreError::Busy { path },
            Some(code::CORRUPT | code::NOTADB) => StoreError::Corrupt { path, message },
            _ => StoreError::Other { path, message },
        },
        _ => StoreError::Other { path, message },
    }
}

fn primary_code(error: &Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}
