//! The tail of the node's journal (PDN-03-015: “look at log files”): journalctl where there is one, else the
//! configured log files, else the kernel's ring. The answer says which.
//!
//! Log text is written by slivers too, so it is hostile: control characters are made visible, lines and the whole
//! are bounded. The child is killed when the reader goes away, when it is slow, and when it says too much.
//! Blocking: runs on a thread made for it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proto::v1::JournalLines;

/// Lines when the request does not say.
const DEFAULT_LINES: u32 = 100;
/// Lines that a request may ask for.
const MAX_LINES: u32 = 10_000;
/// Longest line that is shown, bytes before escaping.
const MAX_LINE: usize = 4 << 10;
/// Most bytes that are read in all.
const MAX_BYTES: usize = 8 << 20;
/// Bytes of lines in one message, about; far below what a message may have.
const CHUNK: usize = 64 << 10;
/// How long journalctl may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a silent child is checked against a reader who left.
const GLANCE: u8 = 200;

/// Why there is no tail to show.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// More lines than anybody reads.
    #[error("lines is {0}, at most {MAX_LINES} are given")]
    TooMany(u32),
    /// Not the name of a unit; it would be an option or a pattern.
    #[error("unit {0:?} is not a unit name of letters, digits and @ : . _ -")]
    Unit(String),
    /// Only journalctl knows units.
    #[error("there is no journalctl on this node, so logs of one unit cannot be told apart")]
    NoUnits,
    /// journalctl could not be started or did not end well.
    #[error("{0}")]
    Child(String),
}

/// What to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    lines: u32,
    unit: Option<String>,
}

impl Query {
    /// Checks a request. 0 lines means 100; an empty unit means everything.
    ///
    /// # Errors
    /// When it asks for too much, or the unit is no name.
    pub fn new(lines: u32, unit: &str) -> Result<Self, JournalError> {
        if lines > MAX_LINES {
            return Err(JournalError::TooMany(lines));
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"@:._-".contains(&b);
        let good = unit.len() <= 255 && unit.bytes().all(allowed) && !unit.starts_with('-');
        if !good {
            return Err(JournalError::Unit(unit.chars().take(80).collect()));
        }
        let unit = (!unit.is_empty()).then(|| unit.to_owned());
        Ok(Self {
            lines: if lines == 0 { DEFAULT_LINES } else { lines },
            unit,
        })
    }
}

/// Where lines may come from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The program; looked up in PATH.
    pub journalctl: PathBuf,
    /// Log files, tried in order.
    pub files: Vec<PathBuf>,
    /// The kernel's ring.
    pub kmsg: PathBuf,
}

impl Sources {
    /// Those of this machine.
    #[must_use]
    pub fn of_this_machine(files: Vec<PathBuf>) -> Self {
        Self {
            journalctl: "journalctl".into(),
            files,
            kmsg: "/dev/kmsg".into(),
        }
    }
}

/// Gives the tail in pieces to `give`, which says whether anybody still listens.
///
/// # Errors
/// When there is nothing to show for a reason that people should know.
pub fn tail(
    sources: &Sources,
    query: &Query,
    give: &mut impl FnMut(JournalLines) -> bool,
) -> Result<(), JournalError> {
    match from_journalctl(sources, query, give)? {
        Some(()) => return Ok(()),
        None if query.unit.is_some() => return Err(JournalError::NoUnits),
        None => {}
    }
    for file in &sources.files {
        if let Ok(bytes) = end_of(file) {
            give_lines(&bytes, query.lines, &file.display().to_string(), give);
            return Ok(());
        }
    }
    let ring = kernel_ring(&sources.kmsg).map_err(|e| {
        JournalError::Child(format!(
            "no journalctl, no log file, and {}: {e}",
            sources.kmsg.display()
        ))
    })?;
    give_lines(&ring, query.lines, "the kernel ring", give);
    Ok(())
}

/// Kills and reaps on every way out.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `None`: there is no journalctl, or no journal for it to read.
fn from_journalctl(
    sources: &Sources,
    query: &Query,
    give: &mut impl FnMut(JournalLines) -> bool,
) -> Result<Option<()>, JournalError> {
    let mut command = Command::new(&sources.journalctl);
    command.args([
        "--no-pager",
        "--quiet",
        "--output",
        "short-iso",
        "--lines",
        &query.lines.to_string(),
    ]);
    if let Some(unit) = &query.unit {
        command.arg(format!("--unit={unit}"));
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => Reaped(child),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(JournalError::Child(format!("journalctl: {e}"))),
    };
    // It inherits that memory pressure never kills us; a reader of logs has no such right.
    let _ = std::fs::write(format!("/proc/{}/oom_score_adj", child.0.id()), "0");
    let Some(mut out) = child.0.stdout.take() else {
        return Err(JournalError::Child("journalctl: no output".into()));
    };
    let deadline = Instant::now() + PATIENCE;
    let mut bytes = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(JournalError::Child(format!(
                "journalctl said nothing for {PATIENCE:?}"
            )));
        }
        let ready = {
            let mut fds = [PollFd::new(out.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(GLANCE))
                .map_err(|e| JournalError::Child(format!("poll: {e}")))?
        };
        if ready == 0 {
            // An empty message asks whether anybody still listens.
            if !give(JournalLines {
                lines: Vec::new(),
                source: "journalctl".into(),
            }) {
                return Ok(Some(()));
            }
            continue;
        }
        match out.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&piece[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(JournalError::Child(format!("journalctl: {e}"))),
        }
        if bytes.len() > MAX_BYTES {
            break;
        }
    }
    // A machine with the program but without a journal (no systemd): look elsewhere.
    if bytes.is_empty() && query.unit.is_none() {
        return Ok(None);
    }
    give_lines(&bytes, query.lines, "journalctl", give);
    Ok(Some(()))
}

/// The last [`MAX_BYTES`] of a file at most.
fn end_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let info = file.metadata()?;
    if !info.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let from = info.len().saturating_sub(MAX_BYTES as u64);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Every record of `/dev/kmsg`, one a line: "seconds.micros message".
fn kernel_ring(path: &Path) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut ring = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let mut all = Vec::new();
    let mut record = [0; 8 << 10];
    while all.len() < MAX_BYTES {
        match ring.read(&mut record) {
            Ok(0) => break,
            Ok(n) => all.extend(ring_line(&record[..n])),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            // Overwritten while we read, or interrupted: the next read goes on.
            Err(e) if e.raw_os_error() == Some(libc::EPIPE) || e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

/// `6,339,5140900,-;message\n SUBSYSTEM=…`: the third field is microseconds since boot.
fn ring_line(record: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(record);
    let (head, message) = text.split_once(';').unwrap_or(("", &text));
    let micros: u64 = head.split(',').nth(2).and_then(|t| t.parse().ok()).unwrap_or(0);
    let message = message.lines().next().unwrap_or_default();
    format!(
        "[{:>6}.{:06}] {message}\n",
        micros / 1_000_000,
        micros % 1_000_000
    )
    .into_bytes()
}

/// The last lines of a text, in messages of a moderate size.
fn give_lines(bytes: &[u8], count: u32, source: &str, give: &mut impl FnMut(JournalLines) -> bool) {
    let mut last = VecDeque::new();
    for line in bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|b| *b == b'\n') {
        if last.len() == count as usize {
            last.pop_front();
        }
        last.push_back(line);
    }
    let mut message = JournalLines {
        lines: Vec::new(),
        source: source.to_owned(),
    };
    let mut size = 0;
    for line in last {
        let line = shown(line);
        size += line.len();
        message.lines.push(line);
        if size >= CHUNK {
            size = 0;
            let full = std::mem::take(&mut message.lines);
            if !give(JournalLines {
                lines: full,
                source: source.to_owned(),
            }) {
                return;
            }
        }
    }
    give(message);
}

/// A line that a terminal cannot obey: control characters become `\u{1b}`, bytes that are no text `\u{fffd}`.
fn shown(line: &[u8]) -> String {
    let cut = &line[..line.len().min(MAX_LINE)];
    let mut text = String::with_capacity(cut.len());
    for c in String::from_utf8_lossy(cut).chars() {
        match c {
            '\t' => text.push(' '),
            // Direction overrides reorder what a person reads.
            c if c.is_control()
                || ('\u{202a}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c) =>
            {
                text.extend(c.escape_unicode());
            }
            c => text.push(c),
        }
    }
    if line.len() > MAX_LINE {
        text.push_str(" [cut]");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn collect(sources: &Sources, query: &Query) -> Result<(Vec<String>, String), JournalError> {
        let (mut lines, mut source) = (Vec::new(), String::new());
        tail(sources, query, &mut |message| {
            lines.extend(message.lines);
            source = message.source;
            true
        })?;
        Ok((lines, source))
    }

    fn nowhere() -> Sources {
        Sources {
            journalctl: "/nonexistent/journalctl".into(),
            files: Vec::new(),
            kmsg: "/nonexistent/kmsg".into(),
        }
    }

    /// A journalctl of our own, to see what it is asked and to let it misbehave.
    fn program(dir: &Path, script: &str) -> PathBuf {
        let path = dir.join("journalctl");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("writable");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("ours");
        path
    }

    #[test]
    fn units_cannot_be_options_or_patterns() {
        for bad in ["-x", "--since=1", "a b", "a;b", "a*", "ä", "a\n", "../x"] {
            assert!(
                matches!(Query::new(1, bad), Err(JournalError::Unit(_))),
                "{bad:?} was accepted"
            );
        }
        assert!(Query::new(1, "getty@tty1.service").is_ok());
        assert!(matches!(
            Query::new(10_001, ""),
            Err(JournalError::TooMany(10_001))
        ));
    }

    #[test]
    fn journalctl_is_asked_for_the_unit_and_its_words_are_made_harmless() {
        let dir = tempfile::tempdir().expect("temp dir");
        let script = r#"echo "$@"; printf 'evil \033]52;c;x\007 \342\200\256 end\n\377\n'"#;
        let sources = Sources {
            journalctl: program(dir.path(), script),
            ..nowhere()
        };
        let (lines, source) = collect(&sources, &Query::new(7, "a.service").expect("valid")).expect("runs");
        assert_eq!(
            lines[0],
            "--no-pager --quiet --output short-iso --lines 7 --unit=a.service"
        );
        assert_eq!(lines[1], "evil \\u{1b}]52;c;x\\u{7} \\u{202e} end");
        assert_eq!(lines[2], "\u{fffd}");
        assert_eq!(source, "journalctl");
    }

    #[test]
    fn without_a_journal_the_log_file_is_read_from_its_end() {
        let dir = tempfile::tempdir().expect("temp dir");
        let log = dir.path().join("syslog");
        let text: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&log, text + &"x".repeat(MAX_LINE + 1)).expect("writable");
        let sources = Sources {
            files: vec!["/nonexistent".into(), log.clone()],
            ..nowhere()
        };
        let (lines, source) = collect(&sources, &Query::new(3, "").expect("valid")).expect("readable");
        assert_eq!(lines[..2], ["line 998", "line 999"]);
        assert!(lines[2].ends_with(" [cut]") && lines[2].len() == MAX_LINE + 6);
        assert_eq!(source, log.display().to_string());
        let unit = Query::new(3, "a.service").expect("valid");
        assert!(matches!(collect(&sources, &unit), Err(JournalError::NoUnits)));
        let silent = Sources {
            journalctl: program(dir.path(), "exit 0"),
            ..sources
        };
        assert_eq!(
            collect(&silent, &Query::new(3, "").expect("valid"))
                .expect("readable")
                .1,
            source
        );
    }

    #[test]
    fn a_child_that_never_ends_dies_when_the_reader_leaves() {
        let dir = tempfile::tempdir().expect("temp dir");
        let marker = dir.path().join("pid");
        let script = format!("echo $$ > {}; exec tail -f /dev/null", marker.display());
        let sources = Sources {
            journalctl: program(dir.path(), &script),
            ..nowhere()
        };
        let mut asked = 0;
        let patient_until_started = &mut |_| {
            asked += 1;
            !std::fs::read_to_string(&marker).is_ok_and(|pid| pid.ends_with('\n'))
        };
        tail(
            &sources,
            &Query::new(1, "").expect("valid"),
            patient_until_started,
        )
        .expect("no error, nobody listens");
        let pid = std::fs::read_to_string(&marker).expect("it started");
        assert!(
            !Path::new("/proc").join(pid.trim()).exists(),
            "the child was killed and reaped"
        );
    }

    #[test]
    fn a_long_tail_comes_in_moderate_messages() {
        let dir = tempfile::tempdir().expect("temp dir");
        let log = dir.path().join("syslog");
        std::fs::write(&log, format!("{}\n", "y".repeat(1000)).repeat(500)).expect("writable");
        let sources = Sources {
            files: vec![log],
            ..nowhere()
        };
        let (mut messages, mut lines) = (0, 0);
        tail(&sources, &Query::new(500, "").expect("valid"), &mut |message| {
            messages += 1;
            lines += message.lines.len();
            assert!(message.lines.iter().map(String::len).sum::<usize>() < 2 * CHUNK);
            true
        })
        .expect("readable");
        assert!(messages > 5 && lines == 500, "{messages} messages, {lines} lines");
    }

    #[test]
    fn ring_records_read_like_dmesg() {
        let record = b"6,339,5140900,-;NET: hello\n SUBSYSTEM=net\n";
        assert_eq!(ring_line(record), b"[     5.140900] NET: hello\n");
        assert_eq!(ring_line(b"\xff"), "[     0.000000] \u{fffd}\n".as_bytes());
    }
}
