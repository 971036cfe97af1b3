//! What root does on the controller's machine without the controller: `init` and `issue`.
//!
//! ```text
//!   init ──> DIR/pki.sealed ca.pem [seal.key] addresses.toml redbutton.db invites/NAME.invite
//!            built beside DIR, then renamed into place: everything or nothing
//!   invite NAME ──> one more key for a person, by `redbutton login`
//!   ca … ──> rotation of the issuing CA and of the root (`rotation.rs`)
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
pub mod rotation;
mod software;

use std::path::PathBuf;

use proto::PersonName;

pub use addresses::{Addresses, AddressesError};
pub use breakglass::{Breakglass, IssueBreakglass, certify_breakglass, issue_breakglass};
pub use init::{Init, Initialised, init};
pub use invite::{INVITE_LIFE, InvitePerson, InvitedPerson, invite_person};
pub use issue::{IssueNode, IssuePerson, IssuedBundle, issue_node, issue_person};
pub use software::{Added, add_software};

use crate::pki::{AuthorityError, FileError, PkiError};
use crate::store::StoreError;

/// Files of the state directory.
pub mod files {
    /// The roots that everybody trusts, PEM, the one that issues first. Written from [`PKI`].
    pub const CA: &str = "ca.pem";
    /// Roots, issuing, controller's and signer's certificates with their keys, sealed: one file, so that every
    /// change of them is one rename.
    pub const PKI: &str = "pki.sealed";
    /// Whoever changes [`PKI`] holds a lock on this.
    pub const PKI_LOCK: &str = "pki.lock";
    /// What it is sealed with, where there is no systemd credential; mode 0600.
    pub const SEAL_KEY: &str = "seal.key";
    /// Of the version before: the CA's key in clear. The first start moves it, as the next four, into [`PKI`].
    pub const OLD_CA_KEY: &str = "ca.key";
    /// Of the version before: the controller's certificate.
    pub const OLD_CONTROLLER: &str = "controller.pem";
    /// Of the version before: the controller's key in clear.
    pub const OLD_CONTROLLER_KEY: &str = "controller.key";
    /// Of the version before: the signer's certificate.
    pub const OLD_SIGNER: &str = "signer.pem";
    /// Of the version before: the signer's key in clear.
    pub const OLD_SIGNER_KEY: &str = "signer.key";
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
    /// The controller's certificates and keys.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// No file.
    #[error(transparent)]
    File(#[from] FileError),
    /// No rotation.
    #[error(transparent)]
    Rotation(#[from] rotation::RotationError),
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
