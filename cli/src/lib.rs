//! `redbutton`, what people type.
//!
//! ```text
//! args ──► commands ──► client ──► controller (gRPC over mutual TLS)
//!              │           │
//!              │        failure   one clear message, one next step, one exit code
//!              ▼
//!   wire ──► view ──► render ──► out
//!         own structs   pure text   the only place that writes
//! ```
//!
//! - `view` turns wire messages into structs of our own; `--json` prints exactly those, so that the keys are a
//!   promise and not an accident of the protocol.
//! - `render` is pure: views, the time and a width in, text out. `out` makes control characters visible whatever
//!   the text came from: nodes are hostile, and a terminal obeys escape sequences.
//! - `press` sends an order with one idempotency key however often the connection breaks; `follow` watches it.
//! - `credentials` is who we are: the bundle's certificate, with a key from the bundle or an ssh-agent (`agent`).
//! - `exit` decides the exit code from counts, purely.

mod agent;
pub mod args;
mod bundle;
mod client;
mod commands;
mod credentials;
pub mod exit;
mod failure;
mod follow;
mod kit;
mod out;
mod press;
mod progress;
mod render;
mod text;
mod view;
mod when;
mod witness;

pub use commands::run;
