//! Why a call did not do what it was asked for, by what the caller does about it; and the one mapping to gRPC.
//!
//! Each answer carries, besides the status code and the text for people, a stable word for machines in the
//! metadata entry `redbutton-code`.

use proto::WireError;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::orders::WishError;
use crate::store::StoreError;

/// The metadata entry with the machine code.
pub const CODE_HEADER: &str = "redbutton-code";

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The table says no; the text is its rule.
    #[error("{rule}")]
    Refused {
        /// What would be needed.
        rule: String,
    },
    /// Names something that is not there.
    #[error("{0}")]
    NotFound(String),
    /// Would be there twice.
    #[error("{0}")]
    Exists(String),
    /// Cannot be read as what it should be.
    #[error("{0}")]
    Malformed(String),
    /// The node is not attached or does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// Not built yet.
    #[error("{0}")]
    Unimplemented(String),
    /// Something has to be done first.
    #[error("{0}")]
    Precondition(String),
    /// The disk takes nothing and memory cannot stand in for it.
    #[error("{0}")]
    NotDurable(String),
    /// The store failed.
    #[error("the controller's store failed")]
    Store(#[source] StoreError),
    /// A bug or a fault of the machine.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// The stable word and the status code.
    #[must_use]
    pub const fn codes(&self) -> (&'static str, Code) {
        match self {
            Error::Refused { .. } => ("refused", Code::PermissionDenied),
            Error::NotFound(_) => ("not-found", Code::NotFound),
            Error::Exists(_) => ("exists", Code::AlreadyExists),
            Error::Malformed(_) => ("malformed", Code::InvalidArgument),
            Error::Unreachable(_) => ("unreachable", Code::Unavailable),
            Error::Unimplemented(_) => ("unimplemented", Code::Unimplemented),
            Error::Precondition(_) => ("precondition", Code::FailedPrecondition),
            Error::NotDurable(_) => ("not-durable", Code::ResourceExhausted),
            Error::Store(_) | Error::Internal(_) => ("internal", Code::Internal),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { .. } => Error::NotFound(error.to_string()),
            StoreError::Exists { .. } => Error::Exists(error.to_string()),
            StoreError::Unusable { .. } => Error::Refused {
                rule: error.to_string(),
            },
            StoreError::Invalid { .. } => Error::Malformed(error.to_string()),
            StoreError::Full { .. } | StoreError::Busy { .. } => Error::NotDurable(error.to_string()),
            other => Error::Store(other),
        }
    }
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Self {
        Error::Malformed(error.to_string())
    }
}

impl From<WishError> for Error {
    fn from(error: WishError) -> Self {
        Error::Malformed(error.to_string())
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let (word, code) = error.codes();
        if let Error::Store(cause) = &error {
            tracing::error!(%cause, "store failed");
        }
        let mut status = Status::new(code, error.to_string());
        status
            .metadata_mut()
            .insert(CODE_HEADER, MetadataValue::from_static(word));
        status
    }
}
