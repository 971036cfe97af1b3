//! Reading and writing fixed places, without a way to panic.

use core::fmt;

/// Why bytes are not a packet of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// Not as long as such a packet is.
    Length {
        /// Bytes there are.
        got: usize,
        /// Bytes there must be.
        expected: usize,
    },
    /// Begins with something else.
    Magic,
    /// Of a version that this code does not know.
    Version(u8),
    /// Asks for something that this code does not know.
    Action(u8),
    /// Bits set whose meaning this code does not know.
    Flags(u16),
    /// Answers something that this code does not know.
    Status(u8),
    /// The tag is not made with the secret given.
    Tag,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::Length { got, expected } => write!(f, "packet has {got} bytes, expected {expected}"),
            WireError::Magic => f.write_str("packet does not begin as a POD does"),
            WireError::Version(got) => write!(f, "packet has version {got}, this program knows 1"),
            WireError::Action(got) => write!(f, "packet asks for action {got}, which is unknown"),
            WireError::Flags(got) => write!(f, "packet has unknown flags {got:#06x}"),
            WireError::Status(got) => write!(f, "answer has status {got}, which is unknown"),
            WireError::Tag => f.write_str("packet is not tagged with this node's secret"),
        }
    }
}

impl core::error::Error for WireError {}

/// `N` bytes from a place that the caller's array has.
pub(crate) fn take<const N: usize, const ALL: usize>(bytes: &[u8; ALL], at: usize) -> [u8; N] {
    let mut taken = [0; N];
    if let Some(there) = bytes.get(at..at + N) {
        taken.copy_from_slice(there);
    }
    taken
}

/// Puts bytes at a place that the caller's array has.
pub(crate) fn put<const ALL: usize>(bytes: &mut [u8; ALL], at: usize, what: &[u8]) {
    if let Some(there) = bytes.get_mut(at..at + what.len()) {
        there.copy_from_slice(what);
    }
}
