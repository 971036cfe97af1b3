//! The plain CA of `controller init`: whom a certificate speaks for, and for how long.
//!
//! ```text
//!   ca.pem, ca.key ──┬── controller: serverAuth, DNS and IP names, redbutton://controller
//!                    ├── person:     clientAuth, redbutton://person/NAME
//!                    ├── breakglass: clientAuth, redbutton://breakglass/NAME: good at nodes alone (`breakglass.rs`)
//!                    ├── invite:     clientAuth, redbutton://invite/UUID: may have one key certified (`request.rs`)
//!                    ├── node:       clientAuth, DNS name, redbutton://node/UUID/nodemgr
//!                    └── signer:     Ed25519, redbutton://signer: makes statements, never a connection
//! ```
//!
//! ECDSA P-256 by aws-lc-rs. Every certificate carries exactly one identity; the CA signs end entities only (path
//! length 0). Keys are made here and leave as text of a secret type; they stand unencrypted in files of mode 0600
//! until the issue on trust seals them, brings intermediates and day-long certificates.
//!
//! `now` is an argument. Files are `files.rs`'s matter.

mod breakglass;
mod ca;
mod files;
mod request;
mod signer;

pub use breakglass::BREAKGLASS_MOST;
pub use ca::{Ca, Issued, NODE_LIFE, PERSON_LIFE, PkiError, ServerName};
pub use files::{FileError, create_private, sync_directory};
pub use request::{Certified, RequestError, Requested};
pub use signer::{SignerFileError, create_signer, load_signer};
