//! What root does on the controller's machine without the controller: `init` and `issue`.
//!
//! ```text
//!   init ──> DIR/ca.pem ca.key controller.pem controller.key signer.pem signer.key addresses.toml redbutton.db invites/NAME.invite
//!            built beside DIR, then renamed into place: everything or nothing
//!   invite NAME ──> one more key for a person, by `redbutton login`
//!   issue person|node ──> one bundle; the node's row where it is new
//! ```
//!
//! Both write to the audit; there is no person, only root: the entries' person is the system, their detail says
//! whose shell it was. `issue` works while the controller serves: it is one more process on the database.
//! Existing files are never overwritten. Secrets leave only into files of mode 0600.

mod addresses;
mod breakglass;
mod init;
mod invite;
mod issue;
mod software;

use std::path::PathBuf;

use proto::PersonName;

pub use addresses::{Addresses, AddressesError};
pub use breakglass::{Breakglass, IssueBreakglass, certify_breakglass, issue_breakglass};
pub use init::{Init, Initialised, init};
pub use invite::{INVITE_LIFE, InvitePerson, InvitedPerson, invite_person};
pub use issue::{IssueNode, IssuePerson, IssuedBundle, issue_node, issue_person};
pub use software::{Added, add_software};

use crate::pki::{FileError, PkiError};
use crate::store::StoreError;

/// Files of the state directory.
pub mod files {
    /// The CA's certificate.
    pub const CA: &str = "ca.pem";
    /// The CA's key: unencrypted for now, mode 0600.
    pub const CA_KEY: &str = "ca.key";
    /// The controller's certificate.
    pub const CONTROLLER: &str = "controller.pem";
    /// The controller's key: unencrypted for now, mode 0600.
    pub const CONTROLLER_KEY: &str = "controller.key";
    /// The certificate of the key that makes the controller's statements.
    pub const SIGNER: &str = "signer.pem";
    /// That key: unencrypted for now, mode 0600.
    pub const SIGNER_KEY: &str = "signer.key";
    /// The database.
    pub const DATABASE: &str = "redbutton.db";
    /// Where bundles tell people and daemons to dial.
    pub const ADDRESSES: &str = "addresses.toml";
    /// The support people's invites of `init`.
    pub const INVITES: &str = "invites";
    /// The support people's bundles of `init --bundles`.
    pub const BUNDLES: &str = "bundles";
}

/// Why an offline command did nothing.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// No file.
    #[error(transparent)]
    File(#[from] FileError),
    /// No program.
    #[error(transparent)]
    Shelf(#[from] crate::rollout::ShelfError),
    /// No address to put into bundles.
    #[error(transparent)]
    Addresses(#[from] AddressesError),
    /// A key cannot be made.
    #[error("there is no randomness")]
    NoRandomness,
    /// A file that should hold a certificate request.
    #[error("{path}: {what}: `redbutton breakglass request` makes one", path = path.display())]
    Request {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Others can change the place.
    #[error(transparent)]
    Place(#[from] trust::PlaceError),
    /// There is something in the directory.
    #[error("{dir} is not empty: init makes a new controller and touches no other", dir = dir.display())]
    NotEmpty {
        /// Which.
        dir: PathBuf,
    },
    /// There is no controller in the directory.
    #[error("{dir} holds no controller ({missing} is missing): run redbutton-controller init first", dir = dir.display())]
    NoController {
        /// Which.
        dir: PathBuf,
        /// The file that should be there.
        missing: &'static str,
    },
    /// Acts of two people need two.
    #[error("init needs at least two support people, each once, got: {got}")]
    SupportPeople {
        /// Those given.
        got: String,
    },
    /// Peers could not check whom they reach.
    #[error("init needs at least one DNS name or IP address under which the controller is reached")]
    NoName,
    /// Certificates are for people that support has created.
    #[error("person {name} does not exist: support creates people with `redbutton people create`")]
    UnknownPerson {
        /// Who.
        name: PersonName,
    },
    /// A new node needs a site.
    #[error("node {name} is new: name its site")]
    NoSite {
        /// Which.
        name: String,
    },
    /// A node does not move by a new certificate.
    #[error("node {name} is at {site}, not at {got}")]
    OtherSite {
        /// Which.
        name: String,
        /// Where it is.
        site: String,
        /// What was given.
        got: String,
    },
}

/// `root@host`: whose shell it was, for the audit. Not an authority.
fn whose_shell() -> String {
    use nix::unistd::{User, geteuid, gethostname};
    let user = User::from_uid(geteuid())
        .ok()
        .flatten()
        .map_or_else(|| geteuid().to_string(), |user| user.name);
    let host = gethostname()
        .map(|host| host.to_string_lossy().into_owned())
        .unwrap_or_default();
    format!("{user}@{host}")
}

fn millis(now: time::OffsetDateTime) -> i64 {
    i64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}
