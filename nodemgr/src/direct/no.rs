//! Why a call at the node's door did not do what it was asked for. The words for machines are the controller's.

use proto::WireError;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// The metadata entry with the machine code.
const CODE_HEADER: &str = "redbutton-code";

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum No {
    /// The table says no; the text is its rule.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Exists(String),
    #[error("{0}")]
    Malformed(String),
    #[error("{0}")]
    Precondition(String),
    /// One node cannot do it.
    #[error("{0}")]
    Unimplemented(String),
    #[error("{0}")]
    Busy(String),
}

impl From<WireError> for No {
    fn from(error: WireError) -> Self {
        No::Malformed(error.to_string())
    }
}

impl From<No> for Status {
    fn from(no: No) -> Self {
        let (word, code) = match no {
            No::Refused(_) => ("refused", Code::PermissionDenied),
            No::NotFound(_) => ("not-found", Code::NotFound),
            No::Exists(_) => ("exists", Code::AlreadyExists),
            No::Malformed(_) => ("malformed", Code::InvalidArgument),
            No::Precondition(_) => ("precondition", Code::FailedPrecondition),
            No::Unimplemented(_) => ("unimplemented", Code::Unimplemented),
            No::Busy(_) => ("busy", Code::ResourceExhausted),
        };
        let mut status = Status::new(code, no.to_string());
        status
            .metadata_mut()
            .insert(CODE_HEADER, MetadataValue::from_static(word));
        status
    }
}
