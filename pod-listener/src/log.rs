//! Lines on stderr, made without memory and without waiting: a journal that hangs must not hang us.

use std::fmt::{self, Write};

/// Longest line.
const LINE: usize = 256;

struct Line {
    bytes: [u8; LINE],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.length..).unwrap_or_default();
        let taken = text.len().min(room.len());
        room[..taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += taken;
        Ok(())
    }
}

/// One line. What stderr does not take at once is lost.
pub(crate) fn line(what: fmt::Arguments<'_>) {
    let mut line = Line {
        bytes: [0; LINE],
        length: 0,
    };
    let _ = line.write_fmt(what);
    let end = line.length.min(LINE - 1);
    line.bytes[end] = b'\n';
    let _ = nix::unistd::write(std::io::stderr(), &line.bytes[..=end]);
}

/// Lets stderr refuse rather than wait.
pub(crate) fn never_wait() {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let _ = fcntl(
        std::io::stderr(),
        FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_APPEND),
    );
}

/// At most so many lines in a while; how many were kept back is told with the next.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    since_ms: u64,
    said: u32,
    kept_back: u64,
}

impl Budget {
    const LINES: u32 = 5;
    const WHILE_MS: u64 = 10_000;

    /// Whether to say it, and how many were not said since the last time.
    pub(crate) fn may(&mut self, now_ms: u64) -> Option<u64> {
        if now_ms.saturating_sub(self.since_ms) >= Self::WHILE_MS {
            self.since_ms = now_ms;
            self.said = 0;
        }
        if self.said >= Self::LINES {
            self.kept_back = self.kept_back.saturating_add(1);
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_in_few_lines_and_its_size_afterwards() {
        let mut budget = Budget::default();
        let said = (0..1_000).filter(|_| budget.may(20_000).is_some()).count();
        assert_eq!(said, 5);
        assert_eq!(budget.may(30_001), Some(995));
        assert_eq!(budget.may(30_001), Some(0));
    }
}
