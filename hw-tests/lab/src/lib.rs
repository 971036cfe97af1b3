//! A testbed on one machine: guests that are real computers to the network, to a BMC and to a serial line, and that
//! may be broken in every way. It knows nothing of Redbutton: `hw-tests` puts our daemons into it.
//!
//! Std threads and blocking I/O, no runtime. Everything is waited for by condition with a cap, and everything that
//! was started ends when its owner is dropped.

pub mod console;
pub mod hog;
pub mod image;
pub mod machine;
pub mod mail;
pub mod net;
pub mod power;
mod wake;
