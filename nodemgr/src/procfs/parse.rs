//! Parsers of files in /proc/PID. They take any bytes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::cgroup::normal_path;

/// The part of `/proc/PID/stat` that is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) comm: Vec<u8>,
    pub(super) state: char,
    pub(super) ppid: i32,
    pub(super) cpu_ticks: u64,
    pub(super) resident_pages: u64,
}

impl Stat {
    /// proc(5): `pid (comm) state ppid … utime stime … rss …`. The name may hold anything, parentheses and
    /// `) R 1 (` included, so it ends at the *last* `)`; after that come only letters and numbers.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let open = text.iter().position(|b| *b == b'(')?;
        let close = text.iter().rposition(|b| *b == b')')?;
        let comm = text.get(open + 1..close)?.to_vec();
        let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let letter = fields.next()?;
        let state = letter
            .chars()
            .next()
            .filter(|c| letter.len() == 1 && c.is_ascii_alphabetic())?;
        // Counted from the state: ppid 1, utime 11, stime 12, rss 21.
        let fields: Vec<&str> = fields.take(21).collect();
        let unsigned = |number: usize| fields.get(number - 1)?.parse::<u64>().ok();
        Some(Self {
            comm,
            state,
            ppid: fields.first()?.parse().ok()?,
            cpu_ticks: unsigned(11)?.saturating_add(unsigned(12)?),
            resident_pages: unsigned(21).unwrap_or(0),
        })
    }
}

/// The real user id in `/proc/PID/status`. The name comes first in that file, with newlines escaped by the kernel.
pub(super) fn uid_of(status: &[u8]) -> Option<u32> {
    let line = status
        .split(|b| *b == b'\n')
        .find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line)
        .ok()?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

/// The cgroup2 home in `/proc/PID/cgroup`, below the mount: its line is `0::/path`. None when there is none, or
/// when it lies outside of the cgroup namespace (`0::/../..`).
#[must_use]
pub fn home_of(text: &[u8]) -> Option<PathBuf> {
    let path = text
        .split(|b| *b == b'\n')
        .find_map(|line| line.strip_prefix(b"0::"))?;
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    if !path.starts_with(b"/") {
        return None;
    }
    normal_path(&PathBuf::from(OsString::from_vec(path.to_vec())))
}

/// Text for people from bytes of strangers, at most `most` bytes of it: NULs (between arguments) become spaces, the
/// trailing ones vanish; control and invisible formatting characters are spelled out; what is no UTF-8 becomes U+FFFD.
pub(super) fn visible(bytes: &[u8], most: usize) -> String {
    let mut bytes = &bytes[..bytes.len().min(most)];
    while let [head @ .., 0] = bytes {
        bytes = head;
    }
    let mut text = String::with_capacity(bytes.len());
    for character in String::from_utf8_lossy(bytes).chars() {
        let shown = match character {
            '\0' => " ".to_owned(),
            '\\' => "\\\\".to_owned(),
            c if c.is_control() || reorders(c) => c.escape_default().to_string(),
            c => c.to_string(),
        };
        if text.len() + shown.len() > most {
            break;
        }
        text.push_str(&shown);
    }
    text
}

/// Characters that show nothing or change the order of what is shown.
fn reorders(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINE: &[u8] =
        b"42 (sleep) S 7 42 42 0 -1 4194304 100 0 0 0 3 4 0 0 20 0 1 0 5000 1000000 250 99 1 1 0 0";

    #[test]
    fn an_ordinary_process() {
        let stat = Stat::parse(LINE).expect("a line");
        assert_eq!(stat.comm, b"sleep");
        assert_eq!(
            (stat.state, stat.ppid, stat.cpu_ticks, stat.resident_pages),
            ('S', 7, 7, 250)
        );
    }

    #[test]
    fn a_hostile_name_cannot_forge_the_fields() {
        for name in [
            b") R 1 (".as_slice(),
            b"a) Z 1 1 (b",
            b"))((",
            b"",
            b"\xff\n) D 0",
        ] {
            let mut line = b"42 (".to_vec();
            line.extend(name);
            line.extend(&LINE[LINE.iter().position(|b| *b == b')').expect("one")..]);
            let stat = Stat::parse(&line).expect("a line");
            assert_eq!((stat.comm.as_slice(), stat.state, stat.ppid), (name, 'S', 7));
        }
    }

    #[test]
    fn homes() {
        let hybrid = b"4:memory:/docker/x\n1:name=systemd:/\n0::/a.slice/b c (deleted)\n";
        assert_eq!(home_of(hybrid), Some(PathBuf::from("a.slice/b c")));
        assert_eq!(home_of(b"0::/\n"), Some(PathBuf::new()));
        assert_eq!(home_of(b"0::/../../other\n"), None);
        assert_eq!(home_of(b"3:cpu:/x\n"), None);
    }

    #[test]
    fn text_of_strangers_is_shown_not_obeyed() {
        assert_eq!(visible(b"sh\0-c\0echo hi\0\0", 256), "sh -c echo hi");
        assert_eq!(visible(b"\x1b[2J\r\n", 256), "\\u{1b}[2J\\r\\n");
        assert_eq!(visible("a\u{202e}b".as_bytes(), 256), "a\\u{202e}b");
        assert_eq!(visible(b"\xff\xfe", 256), "\u{fffd}\u{fffd}");
    }

    proptest! {
        #[test]
        fn parsers_take_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400), most in 0_usize..300) {
            let _ = Stat::parse(&bytes);
            let _ = uid_of(&bytes);
            if let Some(home) = home_of(&bytes) {
                prop_assert!(!home.is_absolute());
            }
            let text = visible(&bytes, most);
            prop_assert!(text.len() <= most);
            prop_assert!(!text.chars().any(char::is_control));
        }

        #[test]
        fn any_name_leaves_the_fields_alone(name in proptest::collection::vec(any::<u8>(), 0..20), ppid in 0_i32..) {
            let mut line = b"1 (".to_vec();
            line.extend(&name);
            line.extend(format!(") R {ppid} 0 0 0 0 0 0 0 0 0 1 2 0 0 0 0 0 0 0 0 9 0").bytes());
            let stat = Stat::parse(&line).expect("a line");
            prop_assert_eq!((stat.comm, stat.state, stat.ppid), (name, 'R', ppid));
        }
    }
}
