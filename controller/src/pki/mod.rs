//! Roots, the issuing CA below one of them, and the leaves: whom a certificate speaks for, and for how long.
//!
//! ```text
//!   root ─▶ issuing CA ──┬── controller: serverAuth, DNS and IP names, redbutton://controller
//!   (several while one   ├── person:     clientAuth, redbutton://person/NAME
//!    takes over from     ├── invite:     clientAuth, redbutton://invite/UUID: may have one key certified (`request.rs`)
//!    another)            ├── breakglass: clientAuth, redbutton://breakglass/NAME: good at nodes alone (`breakglass.rs`)
//!                        ├── node:       clientAuth, serverAuth, DNS name, redbutton://node/UUID/nodemgr
//!                        └── signer:     Ed25519, redbutton://signer: makes statements, never a connection
//! ```
//!
//! ECDSA P-256 by aws-lc-rs. Every leaf carries exactly one identity and its chain; the root signs issuing CAs alone
//! (path length 1), an issuing CA leaves alone (path length 0). [`Authority`] keeps all of it in one sealed file.
//!
//! `now` is an argument, but for files, which are `files.rs`'s and `authority.rs`'s matter.

mod authority;
mod breakglass;
mod ca;
mod files;
mod kept;
mod migrate;
mod request;
mod root;

pub use authority::{Authority, AuthorityError, RootView, Upkeep, View};
pub use breakglass::BREAKGLASS_MOST;
pub use ca::{Ca, Issued, NODE_LIFE, PERSON_LIFE, PkiError, ServerName};
pub(crate) use files::give_to_owner;
pub use files::{FileError, create_private, replace_private, sync_directory};
pub use kept::Stage;
pub use request::{Certified, RequestError, Requested};
