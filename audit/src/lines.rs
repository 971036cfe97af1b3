//! The file: one entry a line, JSON, oldest first.
//!
//! ```json
//! {"sequence":1,"at_ms":1795320000000,"incarnation":1,"epoch":7,"person":"alice","role":"support","action":"kill-slice","target":"princeton_codeen","reason":"floods a bank","evidence":"","outcome":"allowed","detail":"…","order":"0193…","previous":"00…","hash":"9f…"}
//! ```
//!
//! Every field stands in every line; an absent person, role or order is the empty text, as under the hash.
//! Nothing else may stand there: an unknown or repeated field would be shown to people and not be hashed. Reading
//! is bounded: a line of more than [`MAX_LINE_BYTES`] is refused without being kept.

use std::io::{self, BufRead, Read, Write};

use proto::{Role, Version};
use serde::{Deserialize, Serialize};

use crate::entry::{Draft, Entry};
use crate::hash::Head;
use crate::verify::{Fault, Verified, Verifier};

/// Longest line, its newline not counted.
pub const MAX_LINE_BYTES: usize = 64 << 10;

/// Why a file could not be read to its end as entries, or what is wrong with the chain in it.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// The reader failed.
    #[error("audit line {line} could not be read")]
    Read {
        /// 1, 2, 3, …
        line: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Too long to be an entry.
    #[error("audit line {line} is longer than {MAX_LINE_BYTES} bytes")]
    TooLong {
        /// 1, 2, 3, …
        line: u64,
    },
    /// No entry.
    #[error("audit line {line} is no entry: {why}")]
    Malformed {
        /// 1, 2, 3, …
        line: u64,
        /// The parser's words, cut.
        why: String,
    },
    /// Every line is an entry, and together they are no chain.
    #[error(transparent)]
    Chain(#[from] Fault),
}

/// The line as it stands in the file: texts only, checked when it becomes an [`Entry`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    sequence: u64,
    at_ms: i64,
    incarnation: u64,
    epoch: u64,
    person: String,
    role: String,
    action: String,
    target: String,
    reason: String,
    evidence: String,
    outcome: String,
    detail: String,
    order: String,
    previous: String,
    hash: String,
}

impl From<Entry> for Line {
    fn from(entry: Entry) -> Line {
        let Entry {
            sequence,
            said,
            previous,
            hash,
        } = entry;
        let Draft {
            at_ms,
            version,
            person,
            role,
            action,
            target,
            reason,
            evidence,
            outcome,
            detail,
            order,
        } = said;
        Line {
            sequence,
            at_ms,
            incarnation: version.incarnation,
            epoch: version.epoch,
            person: person.map(String::from).unwrap_or_default(),
            role: role.map(|role| role.to_string()).unwrap_or_default(),
            action,
            target,
            reason,
            evidence,
            outcome: outcome.to_string(),
            detail,
            order: order.map(|order| order.to_string()).unwrap_or_default(),
            previous: previous.to_string(),
            hash: hash.to_string(),
        }
    }
}

impl TryFrom<Line> for Entry {
    type Error = String;

    fn try_from(line: Line) -> Result<Entry, String> {
        fn named<T, E: std::fmt::Display>(field: &str, parsed: Result<T, E>) -> Result<T, String> {
            parsed.map_err(|why| format!("{field}: {why}"))
        }
        let said = Draft {
            at_ms: line.at_ms,
            version: Version {
                incarnation: line.incarnation,
                epoch: line.epoch,
            },
            person: match &*line.person {
                "" => None,
                name => Some(named("person", name.parse())?),
            },
            role: match &*line.role {
                "" => None,
                word => match Role::ALL.into_iter().find(|role| role.as_str() == word) {
                    Some(role) => Some(role),
                    None => return Err(format!("role {word:?} is unknown")),
                },
            },
            action: line.action,
            target: line.target,
            reason: line.reason,
            evidence: line.evidence,
            outcome: line
                .outcome
                .parse()
                .map_err(|why: crate::UnknownOutcome| why.to_string())?,
            detail: line.detail,
            order: match &*line.order {
                "" => None,
                id => Some(named("order", id.parse())?),
            },
        };
        Ok(Entry {
            sequence: line.sequence,
            said,
            previous: named("previous", line.previous.parse())?,
            hash: named("hash", line.hash.parse())?,
        })
    }
}

/// Writes an entry as one line.
///
/// # Errors
/// What the writer says.
pub fn write(to: &mut impl Write, entry: &Entry) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Line::from(entry.clone()))?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Reads one line, with or without its newline.
///
/// # Errors
/// Says why it is no entry; `line` is only named.
pub fn parse(line: u64, bytes: &[u8]) -> Result<Entry, LinesError> {
    // The parser may quote what it read, and that came from outside.
    let malformed = |why: String| LinesError::Malformed {
        line,
        why: why.chars().take(200).collect(),
    };
    if bytes.len() > MAX_LINE_BYTES + 1 {
        return Err(LinesError::TooLong { line });
    }
    let parsed: Line = serde_json::from_slice(bytes).map_err(|why| malformed(why.to_string()))?;
    Entry::try_from(parsed).map_err(malformed)
}

/// The entries of a file, one after the other; after an error nothing more comes.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    line: u64,
    buffer: Vec<u8>,
    ended: bool,
}

impl<R: BufRead> Lines<R> {
    /// Reads from here to the end.
    pub const fn new(reader: R) -> Lines<R> {
        Lines {
            reader,
            line: 0,
            buffer: Vec::new(),
            ended: false,
        }
    }

    fn read(&mut self) -> Result<Option<Entry>, LinesError> {
        self.line += 1;
        let line = self.line;
        self.buffer.clear();
        // One byte more than a line with its newline may have: what fills it is too long.
        let most = MAX_LINE_BYTES as u64 + 1;
        let read = (&mut self.reader)
            .take(most)
            .read_until(b'\n', &mut self.buffer)
            .map_err(|source| LinesError::Read { line, source })?;
        if read == 0 {
            return Ok(None);
        }
        if self.buffer.pop_if(|last| *last == b'\n').is_none() && self.buffer.len() > MAX_LINE_BYTES {
            return Err(LinesError::TooLong { line });
        }
        parse(line, &self.buffer).map(Some)
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Entry, LinesError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.read().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Checks a file as a stream: `start` and `witnesses` as in [`crate::verify`]. The file is read to its end or to
/// the first line that is no entry; of a broken chain before such a line, the break is what is reported.
///
/// # Errors
/// The first thing that is wrong with the file or with the chain in it.
pub fn verify_lines(
    reader: impl BufRead,
    start: Option<Head>,
    witnesses: &[Head],
) -> Result<Verified, LinesError> {
    let mut verifier = Verifier::new(start, witnesses);
    for entry in Lines::new(reader) {
        match (entry, verifier.fault()) {
            (Ok(entry), _) => verifier.push(&entry),
            (Err(_), Some(fault)) => return Err(fault.clone().into()),
            (Err(unreadable), None) => return Err(unreadable),
        }
    }
    Ok(verifier.finish()?)
}
