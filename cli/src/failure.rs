//! Everything that can end a command, with one message, one next step, one machine code and one exit code.
//! The one mapping from gRPC status lives here.

use std::error::Error;
use std::io;

use serde::Serialize;
use tonic::{Code, Status};

use crate::agent::AgentError;
use crate::bundle::BundleFileError;
use crate::client::{ConnectError, Trouble};
use crate::credentials::CredentialsError;
use crate::exit::Exit;
use crate::kit::KitError;
use crate::text;

/// The header in which the controller puts its stable machine code.
pub(crate) const CODE_HEADER: &str = "redbutton-code";

/// Why a command ended without a result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// The bundle cannot be used.
    #[error(transparent)]
    Bundle(#[from] BundleFileError),
    /// What is in it cannot be used, or the agent that has its key.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The kit cannot be used.
    #[error(transparent)]
    Kit(#[from] KitError),
    /// The ssh-agent does not do what it should.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// No controller could be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The controller answered with an error.
    #[error("{}", told(.status))]
    Status { status: Box<Status> },
    /// The connection broke, or the answer did not come in time.
    #[error("{doing}: {trouble}")]
    Broken { doing: String, trouble: Trouble },
    /// A press of which nobody knows whether it arrived.
    #[error("not known whether the controller took the order: {cause}")]
    FateUnknown { cause: String, key: String },
    /// The controller's answer lacks what it must have.
    #[error("the controller's answer lacks {0}")]
    Incomplete(&'static str),
    /// A file of ours.
    #[error("{what}")]
    File { what: String, source: io::Error },
    /// Writing the result failed.
    #[error("writing the result")]
    Output(#[source] io::Error),
    /// An audit file does not hold.
    #[error("{0}")]
    Audit(String),
}

/// What a gRPC code means to people, where the message alone may not say it.
fn told(status: &Status) -> String {
    let message = match status.message() {
        "" => "the controller gave no reason",
        message => message,
    };
    match status.code() {
        Code::PermissionDenied | Code::FailedPrecondition => format!("refused: {message}"),
        Code::Unauthenticated => {
            format!("refused: the controller does not accept this certificate: {message}")
        }
        Code::Unimplemented => format!("it cannot be done there: {message}"),
        _ => message.to_owned(),
    }
}

impl Failure {
    /// What the process ends with.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Failure::Usage(_)
            | Failure::Bundle(_)
            | Failure::Credentials(_)
            | Failure::Agent(_)
            | Failure::Kit(_) => Exit::Usage,
            Failure::Status { status } => match status.code() {
                Code::PermissionDenied | Code::FailedPrecondition | Code::Unauthenticated => Exit::Refused,
                Code::InvalidArgument | Code::OutOfRange => Exit::Usage,
                _ => Exit::Failed,
            },
            _ => Exit::Failed,
        }
    }

    /// For programs: stable, whatever the message says.
    pub(crate) fn code(&self) -> String {
        match self {
            Failure::Usage(_) => "usage".to_owned(),
            Failure::Bundle(_) | Failure::Credentials(CredentialsError::Part(_)) => "bundle".to_owned(),
            Failure::Agent(_) | Failure::Credentials(CredentialsError::Agent(_)) => "ssh-agent".to_owned(),
            Failure::Kit(_) => "kit".to_owned(),
            Failure::Connect(error) => error.code().to_owned(),
            Failure::Status { status } => machine_code(status),
            Failure::Broken { trouble, .. } => trouble.code().to_owned(),
            Failure::FateUnknown { .. } => "fate-unknown".to_owned(),
            Failure::Incomplete(_) => "incomplete-answer".to_owned(),
            Failure::File { .. } | Failure::Output(_) => "file".to_owned(),
            Failure::Audit(_) => "audit-broken".to_owned(),
        }
    }

    /// The message with its causes, each once.
    pub(crate) fn message(&self) -> String {
        let mut message = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !message.contains(&cause_text) {
                message.push_str(": ");
                message.push_str(&cause_text);
            }
            source = cause.source();
        }
        message
    }

    /// What to do about it.
    pub(crate) fn next(&self) -> Option<String> {
        match self {
            Failure::Usage(_) => Some("redbutton --help".to_owned()),
            Failure::Bundle(error) => Some(error.next()),
            Failure::Credentials(CredentialsError::Part(_)) => Some(
                "ask support for an invite (redbutton invite NAME), then redbutton login FILE".to_owned(),
            ),
            Failure::Agent(_) | Failure::Credentials(CredentialsError::Agent(_)) => {
                Some("ssh-add -l shows what the agent has; SSH_AUTH_SOCK names the agent".to_owned())
            }
            Failure::Kit(error) => Some(error.next()),
            Failure::Connect(error) => Some(error.next()),
            Failure::Broken { trouble, .. } => Some(trouble.next()),
            Failure::FateUnknown { key, .. } => Some(format!(
                "press again with --key {key}: the same key is the same order"
            )),
            Failure::Status { status } => match status.code() {
                Code::PermissionDenied => Some("redbutton whoami shows what you may do".to_owned()),
                Code::Unauthenticated => Some("ask support for an invite (redbutton invite NAME)".to_owned()),
                Code::NotFound => Some("redbutton slice ls, node ls, order ls show what there is".to_owned()),
                Code::Unavailable | Code::ResourceExhausted | Code::Aborted => Some("try again".to_owned()),
                _ => None,
            },
            Failure::Incomplete(_) => {
                Some("compare the versions: redbutton --version, redbutton whoami".to_owned())
            }
            Failure::File { .. } | Failure::Output(_) | Failure::Audit(_) => None,
        }
    }

    /// What `--json` prints.
    pub(crate) fn document(&self) -> ErrorDocument {
        ErrorDocument {
            error: ErrorBody {
                code: self.code(),
                message: self.message(),
                next: self.next(),
                exit_code: self.exit().code(),
            },
        }
    }
}

/// The controller's own code, if it is one; otherwise the name of the gRPC code.
fn machine_code(status: &Status) -> String {
    let own = status
        .metadata()
        .get(CODE_HEADER)
        .and_then(|value| value.to_str().ok());
    let word = |code: &&str| {
        (1..=64).contains(&code.len())
            && code
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    };
    if let Some(code) = own.filter(word) {
        return code.to_owned();
    }
    match status.code() {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid-argument",
        Code::DeadlineExceeded => "deadline-exceeded",
        Code::NotFound => "not-found",
        Code::AlreadyExists => "already-exists",
        Code::PermissionDenied => "permission-denied",
        Code::ResourceExhausted => "resource-exhausted",
        Code::FailedPrecondition => "failed-precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out-of-range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data-loss",
        Code::Unauthenticated => "unauthenticated",
    }
    .to_owned()
}

/// `{"error": {…}}`
#[derive(Debug, Serialize)]
pub(crate) struct ErrorDocument {
    pub(crate) error: ErrorBody,
}

/// What went wrong.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorBody {
    pub(crate) code: String,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
    pub(crate) exit_code: u8,
}

/// `redbutton: MESSAGE`, and the next step beneath.
pub(crate) fn to_text(failure: &Failure) -> String {
    let mut lines = format!("redbutton: {}\n", text::line(&failure.message(), 1_000));
    if let Some(next) = failure.next() {
        lines.push_str(&format!("next: {}\n", text::line(&next, 500)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: Code, message: &str) -> Failure {
        Failure::Status {
            status: Box::new(Status::new(code, message)),
        }
    }

    #[test]
    fn every_code_has_its_exit() {
        for (code, exit) in [
            (Code::PermissionDenied, Exit::Refused),
            (Code::FailedPrecondition, Exit::Refused),
            (Code::Unauthenticated, Exit::Refused),
            (Code::InvalidArgument, Exit::Usage),
            (Code::OutOfRange, Exit::Usage),
            (Code::NotFound, Exit::Failed),
            (Code::AlreadyExists, Exit::Failed),
            (Code::Unimplemented, Exit::Failed),
            (Code::Unavailable, Exit::Failed),
            (Code::Internal, Exit::Failed),
            (Code::Unknown, Exit::Failed),
        ] {
            assert_eq!(failed(code, "x").exit(), exit, "{code:?}");
        }
    }

    #[test]
    fn the_controllers_own_code_goes_through() {
        let mut status = Status::permission_denied("a developer may kill own slices only");
        assert_eq!(machine_code(&status), "permission-denied");
        status
            .metadata_mut()
            .insert(CODE_HEADER, "denied.not_own_slice".parse().expect("a header"));
        assert_eq!(machine_code(&status), "denied.not_own_slice");
        status
            .metadata_mut()
            .insert(CODE_HEADER, "not a code".parse().expect("a header"));
        assert_eq!(machine_code(&status), "permission-denied");
    }

    #[test]
    fn a_refusal_says_the_rule_and_the_next_step() {
        let failure = failed(
            Code::PermissionDenied,
            "a PI kills slices of the own site\u{1b}[2J",
        );
        assert_eq!(
            to_text(&failure),
            "redbutton: refused: a PI kills slices of the own site\\u{1b}[2J\nnext: redbutton whoami shows what you may do\n"
        );
    }

    #[test]
    fn causes_are_told_once() {
        let source = io::Error::new(io::ErrorKind::PermissionDenied, "permission denied");
        let failure = Failure::File {
            what: "file /x".into(),
            source,
        };
        assert_eq!(failure.message(), "file /x: permission denied");
    }
}
