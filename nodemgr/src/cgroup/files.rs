//! The plain file layer: what the files of cgroup v2 say. Parsers take bytes and never panic.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What `cgroup.events` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Events {
    /// A process that is not a zombie lives in the subtree.
    pub populated: bool,
    /// Every process of the subtree stands still. False also where the kernel cannot freeze.
    pub frozen: bool,
}

impl Events {
    /// Reads "populated 0\nfrozen 0\n". None without a `populated` line: then it is not this file.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let frozen = value_of(text, b"frozen") == Some(1);
        Some(Self {
            populated: value_of(text, b"populated")? != 0,
            frozen,
        })
    }
}

/// The number after `key` in a flat keyed file.
pub(crate) fn value_of(text: &[u8], key: &[u8]) -> Option<u64> {
    text.split(|b| *b == b'\n').find_map(|line| {
        let rest = line.strip_prefix(key)?.strip_prefix(b" ")?;
        number(rest)
    })
}

/// A decimal number, and nothing else but white space around it.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, digit| {
        sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

/// A limit of `pids.max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PidsMax {
    /// No limit.
    Max,
    /// At most this many tasks.
    At(u64),
}

impl PidsMax {
    /// Reads "max" or a number.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        match text.trim_ascii() {
            b"max" => Some(Self::Max),
            digits => number(digits).map(Self::At),
        }
    }
}

impl fmt::Display for PidsMax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => f.write_str("max"),
            Self::At(limit) => write!(f, "{limit}"),
        }
    }
}

/// Reads a short file from its start into `buffer`, through a descriptor that stays open.
pub(crate) fn read_short<'b>(file: &File, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    loop {
        match file.read_at(buffer, 0) {
            Ok(len) => return Ok(&buffer[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes a short value through a descriptor that stays open.
pub(crate) fn write_short(file: &File, value: &[u8]) -> io::Result<()> {
    loop {
        match file.write_at(value, 0) {
            Ok(len) if len == value.len() => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads a list of pids, one a line, calling `each` for every one; uses no memory but the stack.
pub(crate) fn read_pids(file: &File, mut each: impl FnMut(i32)) -> io::Result<()> {
    let mut buffer = [0_u8; 16 * 1024];
    let mut offset = 0;
    let mut parser = PidParser::default();
    loop {
        match file.read_at(&mut buffer, offset) {
            Ok(0) => break,
            Ok(len) => {
                parser.feed(&buffer[..len], &mut each);
                offset += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    parser.end(&mut each);
    Ok(())
}

/// Numbers separated by newlines, over any cut of the input. Lines that are no positive pid are dropped:
/// 0 is what the kernel shows for a process of another pid namespace, and no signal may ever go to it.
#[derive(Default)]
struct PidParser {
    value: Option<i64>,
    broken: bool,
}

impl PidParser {
    fn feed(&mut self, bytes: &[u8], each: &mut impl FnMut(i32)) {
        for byte in bytes {
            match byte {
                b'\n' => self.end(each),
                digit @ b'0'..=b'9' if !self.broken => {
                    let value = self.value.unwrap_or(0) * 10 + i64::from(digit - b'0');
                    self.broken = value > i64::from(i32::MAX);
                    self.value = Some(value);
                }
                _ => self.broken = true,
            }
        }
    }

    fn end(&mut self, each: &mut impl FnMut(i32)) {
        if let (Some(value), false) = (self.value, self.broken)
            && value > 0
            && let Ok(pid) = i32::try_from(value)
        {
            each(pid);
        }
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pids(cuts: &[&[u8]]) -> Vec<i32> {
        let mut found = Vec::new();
        let mut parser = PidParser::default();
        for cut in cuts {
            parser.feed(cut, &mut |pid| found.push(pid));
        }
        parser.end(&mut |pid| found.push(pid));
        found
    }

    #[test]
    fn events_of_real_kernels() {
        let both = Events::parse(b"populated 1\nfrozen 1\n");
        assert_eq!(
            both,
            Some(Events {
                populated: true,
                frozen: true
            })
        );
        // Kernels before 5.2 have no freezer in v2.
        assert_eq!(Events::parse(b"populated 0\n"), Some(Events::default()));
        assert_eq!(Events::parse(b"unpopulated 1\n"), None);
        assert_eq!(Events::parse(b""), None);
    }

    #[test]
    fn a_pid_list_survives_any_cut_and_never_yields_zero() {
        assert_eq!(pids(&[b"1\n22\n333\n"]), [1, 22, 333]);
        assert_eq!(pids(&[b"1\n2", b"2\n33", b"3\n"]), [1, 22, 333]);
        assert_eq!(pids(&[b"0\n-1\n 5\n99999999999999999999\n7"]), [7]);
    }

    #[test]
    fn a_limit_reads_as_it_prints() {
        for text in ["max", "0", "32"] {
            assert_eq!(
                PidsMax::parse(text.as_bytes())
                    .map(|max| max.to_string())
                    .as_deref(),
                Some(text)
            );
        }
        assert_eq!(PidsMax::parse(b"-1"), None);
    }

    proptest! {
        #[test]
        fn parsers_take_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..300) {
            let _ = Events::parse(&bytes);
            let _ = PidsMax::parse(&bytes);
            let cut = cut.min(bytes.len());
            let whole = pids(&[&bytes]);
            prop_assert_eq!(&whole, &pids(&[&bytes[..cut], &bytes[cut..]]));
            prop_assert!(whole.iter().all(|pid| *pid > 0));
        }

        #[test]
        fn pids_that_were_written_are_read(list in proptest::collection::vec(1_i32.., 0..50)) {
            let text: String = list.iter().map(|pid| format!("{pid}\n")).collect();
            prop_assert_eq!(pids(&[text.as_bytes()]), list);
        }
    }
}
