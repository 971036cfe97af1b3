//! The centre: people, orders, audit.
//!
//! ```text
//! people  ──mTLS──▶ services ─▶ authz ─▶ fleet ──▶ store (SQLite, the audit's hash chain)
//!                                          │ commit, then send
//! nodes   ──mTLS──▶ link ─────────────────▶┘
//! ```
//!
//! - [`serve`]: both ports, until a token is cancelled. [`Config`] says where.
//! - [`approvals`]: what two people must agree to; pure.
//! - [`orders`]: what a wish becomes and what became of it; pure.
//! - [`fleet`]: the nodes, and the orders on their way to them.
//! - [`policy`]: what nodes decide by when we are gone; pure.
//! - `services`: what people call.
//! - [`store`]: what is never forgotten. [`admin`]: `init`, `issue` and `ca`, without a running controller.
//! - [`pki`]: root, issuing and leaf certificates. [`seal`]: secrets at rest.

pub mod admin;
pub mod approvals;
pub mod config;
mod crash;
mod error;
pub mod fleet;
mod gate;
mod harden;
pub mod orders;
pub mod pki;
pub mod policy;
pub mod recovery;
pub mod rollout;
pub mod seal;
mod serve;
mod services;
pub mod store;

pub use config::{Config, ConfigError};
pub use error::{CODE_HEADER, Error};
pub use harden::harden;
pub use serve::{Handle, ServeError, serve};
