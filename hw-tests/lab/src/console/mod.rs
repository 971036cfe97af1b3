//! One serial port of a guest, and everybody who looks at it.
//!
//! ```text
//! guest ── QEMU ── unix socket ── [drain thread] ──► log file
//!            ▲                          │
//!            │                          ▼
//!            │                     last 1 MiB, by absolute offset ──► wait_for, tail, Shell (callers' threads)
//!            │                          │
//!            └── write, offer ◄─────────┴─► Subscription ──► fronts: telnet, raw TCP, pty, unix socket
//! ```
//!
//! - The drain thread waits for nobody: a client that is connected and does not read stalls the guest (LAB.md). There
//!   is one buffer for all; a reader that is too slow finds its oldest bytes gone, and is told how many.
//! - Offsets count all bytes since [`Console::attach`] and go on when QEMU restarts and the hub connects again.
//! - What a guest says is hostile: texts handed out hold no control bytes but newline and tab; see [`text::safe`].
//! - A socket is opened by the thread that calls the constructor, so that it lies in the caller's network namespace.
//!
//! What it does not do: it does not know whether a login is needed, and holds no terminal state (no cursor, no
//! colours). QEMU serves one client for each chardev: a second hub on the same path is silently deaf.

mod client;
mod com_port;
mod faults;
mod front;
mod hub;
mod ring;
mod shell;
mod subscription;
mod telnet;
pub mod text;

pub use faults::Faults;
pub use front::{BreakHook, Front, Pty, pty, raw, telnet, unix};
pub use hub::{Console, KEPT, LOG_BOUND, Line, Offset};
pub use shell::{Output, Shell};
pub use subscription::{Chunk, Subscription};
