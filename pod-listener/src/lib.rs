//! The tiny root daemon that reboots a node when nothing else works. DESIGN.md, “POD on the wire”.
//!
//! ```text
//! keys.toml ─▶ Gate (pure: which packet may do what)
//!                ▲ │ verdict
//! raw sockets ─▶ Listener ─▶ answer       Means: helpers forked, files opened at start ─▶ sync, reboot(2), sysrq
//!                │ State: nonces and counters in mapped memory that outlasts the daemon, not the boot
//! ```
//! It starts with everything that it will ever need: after `armed` it allocates nothing (`tests/allocation.rs`), opens
//! nothing but the watchdog, forks nothing. It has no runtime, speaks to nobody but the sender of a right packet, and
//! depends on `pod-wire` alone of ours.

mod args;
mod config;
mod gate;
mod listener;
mod log;
mod prepare;
mod restart;
mod run;
mod socket;
mod state;
mod sys;

pub use args::{Arguments, HELP, Task};
pub use config::{ConfigError, DEFAULT_KEYS, Keys};
pub use gate::{Gate, Ignored, MAX_KEYS, MAX_SECRETS, NONCES, Now, Seen, Trusted, Verdict, WINDOW_MS};
pub use listener::Listener;
pub use prepare::{Assurance, Host, Step};
pub use restart::{Means, Places, SYNC_DEADLINE};
pub use run::{PREPARED, RunError, check, run, undo};
pub use state::{DEFAULT_STATE, State, StateError};
