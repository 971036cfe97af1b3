//! What this node has seen of the controller's audit: the highest signed head, and pairs of heads that cannot both
//! be true. Whoever owns the controller's database can rewrite its audit to the end; not what lies here.
//!
//! ```text
//! Command.witness ─▶ signature (trust) ─▶ judge (audit) ─▶ memory ─▶ file ─▶ NodeReport.witnessed
//! ```
//! The file, `audit-heads` in the state directory: the 8 bytes `RBHEADS1`, u32 length, a `Witnessed` of the contracts
//! in that many bytes, crc32c over all before it; little-endian. Replaced as a whole. It is no part of the holds: a
//! node that cannot keep it still obeys. A file that cannot be read is set aside and begun anew.
//!
//! Not here: whether a head is in the controller's chain; the controller compares, and `redbutton audit verify`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use audit::{Judged, Stated, StatedError, judge};
use prost::Message;
use proto::v1::{Contradiction, SignedStatement, Witnessed};
use trust::{Kind, Roots, StatementError};

const FILE: &str = "audit-heads";
const MAGIC: &[u8; 8] = b"RBHEADS1";
/// Pairs that are kept: the first ones, for each is proof enough.
const MOST_PAIRS: usize = 8;
/// Largest file.
const MAX_FILE: u64 = 1 << 20;

/// Why a head is not kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeadError {
    /// Nobody's word counts yet.
    #[error("no root is trusted yet")]
    NoRoots,
    /// Not signed by whom it should be.
    #[error("audit head")]
    Statement(#[from] StatementError),
    /// Signed, and no head.
    #[error(transparent)]
    Stated(#[from] StatedError),
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    /// Where the file lies.
    dir: PathBuf,
    roots: Option<Roots>,
    highest: Option<(Stated, SignedStatement)>,
    pairs: Vec<Contradiction>,
    /// Why it is not on the disk; empty: it is.
    trouble: String,
}

impl Heads {
    /// What the file says. What is wrong with it is logged and kept as trouble.
    pub(crate) fn load(dir: &Path) -> Self {
        let mut heads = Self {
            dir: dir.to_owned(),
            ..Self::default()
        };
        let path = dir.join(FILE);
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return heads,
            Err(error) => {
                heads.trouble = format!("{}: {error}", path.display());
                tracing::error!(why = %heads.trouble, "cannot read what was seen of the audit");
                return heads;
            }
        };
        match decode(&bytes) {
            Some(Witnessed { head, contradictions }) => {
                heads.highest = head.and_then(|head| Some((Stated::decode(&head.body).ok()?, head)));
                heads.pairs = contradictions;
                heads.pairs.truncate(MOST_PAIRS);
            }
            None => {
                let aside = dir.join("audit-heads.corrupt");
                // The first one is kept: it may be what somebody wants to look at.
                let kept = fs::hard_link(&path, &aside);
                heads.trouble = format!("{} was corrupt and is begun anew", path.display());
                tracing::error!(why = %heads.trouble, aside = ?kept, "what was seen of the audit is lost");
            }
        }
        heads
    }

    /// Whose signature counts from now on.
    pub(crate) fn trust(&mut self, roots: Roots) {
        self.roots = Some(roots);
    }

    /// Hears a head, in memory. The flag says that the file has to follow.
    fn hear(&mut self, statement: SignedStatement) -> Result<(Judged, bool), HeadError> {
        let roots = self.roots.as_ref().ok_or(HeadError::NoRoots)?;
        let stated = Stated::decode(trust::verify(&statement, roots, Kind::AuditHead)?)?;
        let judged = match &self.highest {
            None => Judged::Higher,
            Some((kept, _)) => judge(kept, &stated),
        };
        let changed = match judged {
            Judged::Same | Judged::Stale => false,
            Judged::Higher => {
                self.highest = Some((stated, statement));
                true
            }
            Judged::Restored => {
                let kept = self.keep_pair(statement.clone());
                tracing::warn!(head = %stated.head, lost = %kept, "the controller's database was restored; this is where it stood");
                self.highest = Some((stated, statement));
                true
            }
            Judged::Rewritten => {
                let before = self.pairs.len();
                let kept = self.keep_pair(statement);
                tracing::error!(head = %stated.head, witnessed = %kept, "THE CONTROLLER'S AUDIT WAS REWRITTEN: both heads are signed");
                self.pairs.len() > before
            }
        };
        Ok((judged, changed || !self.trouble.is_empty()))
    }

    /// Keeps what was heard beside the highest; returns that one's text.
    fn keep_pair(&mut self, later: SignedStatement) -> String {
        let Some((stated, earlier)) = &self.highest else {
            return String::new();
        };
        let text = stated.head.to_string();
        let known = self
            .pairs
            .iter()
            .any(|pair| pair.later.as_ref().is_some_and(|known| known.body == later.body));
        if !known && self.pairs.len() < MOST_PAIRS {
            self.pairs.push(Contradiction {
                earlier: Some(earlier.clone()),
                later: Some(later),
            });
        }
        text
    }

    /// For the report.
    pub(crate) fn witnessed(&self) -> Witnessed {
        Witnessed {
            head: self.highest.as_ref().map(|(_, statement)| statement.clone()),
            contradictions: self.pairs.clone(),
        }
    }

    fn saved(&mut self, path: &Path, result: io::Result<()>) {
        match result {
            Ok(()) => self.trouble.clear(),
            Err(error) => {
                let why = format!("{}: {error}", path.display());
                if self.trouble.is_empty() {
                    tracing::warn!(%why, "what was seen of the audit is in memory only");
                }
                self.trouble = why;
            }
        }
    }
}

/// Hears a head. What follows from it is in memory and, unless the disk refuses, on the disk when this returns.
/// Blocks; one at a time. The lock is not held while the disk writes: reports want it, and a disk may hang.
pub(crate) fn hear(heads: &Mutex<Heads>, statement: SignedStatement) -> Result<Judged, HeadError> {
    let lock = || heads.lock().unwrap_or_else(PoisonError::into_inner);
    let (judged, image, dir) = {
        let mut heads = lock();
        let (judged, save) = heads.hear(statement)?;
        let image = save.then(|| encode(&heads.witnessed()));
        (judged, image, heads.dir.clone())
    };
    if let Some(image) = image {
        let path = dir.join(FILE);
        let result = write(&dir, &path, &image);
        lock().saved(&path, result);
    }
    Ok(judged)
}

fn encode(witnessed: &Witnessed) -> Vec<u8> {
    let body = witnessed.encode_to_vec();
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&body);
    let sum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Witnessed> {
    let (whole, sum) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(whole) != u32::from_le_bytes(*sum) {
        return None;
    }
    let rest = whole.strip_prefix(MAGIC)?;
    let (length, body) = rest.split_first_chunk::<4>()?;
    if usize::try_from(u32::from_le_bytes(*length)) != Ok(body.len()) {
        return None;
    }
    Witnessed::decode(body).ok()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it is too large"));
    }
    Ok(bytes)
}

/// Whole or not at all, whenever the power goes.
fn write(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = dir.join("audit-heads.new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
#[path = "heads_tests.rs"]
mod tests;
