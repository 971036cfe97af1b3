//! The snapshot on disk: the signed statement as it came, and beside it what this node has had, so that an older
//! file put back by hand is noticed.
//!
//! ```text
//! policy       magic 8 │ crc32c of the rest u32 le │ SignedStatement
//! policy-seen  magic 8 │ crc32c of the rest u32 le │ incarnation u64 le │ epoch u64 le │ site
//! ```
//! Each is written beside, synced and renamed. What was seen is written first: a crash between the two leaves an
//! older snapshot than what was seen, which is refused, and the controller sends the new one again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use prost::Message;
use proto::Version;
use proto::v1::SignedStatement;

use super::snapshot::Floor;

const POLICY: &str = "policy";
const SEEN: &str = "policy-seen";
const MAGIC: [u8; 8] = *b"RBPOLCY1";
const HEADER: usize = 12;
/// A statement fits into one message, and this is more than one.
const MOST: u64 = 2 << 20;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) statement: Option<SignedStatement>,
    pub(super) floor: Option<Floor>,
    /// Why something that is there does not count; empty: nothing wrong.
    pub(super) why: String,
}

pub(super) fn load(dir: &Path) -> Found {
    let mut found = Found::default();
    match read(dir, SEEN) {
        Ok(None) => {}
        Ok(Some(bytes)) => match floor(&bytes) {
            Some(floor) => found.floor = Some(floor),
            None => found.why = format!("{SEEN} is not readable"),
        },
        Err(why) => found.why = why,
    }
    if !found.why.is_empty() {
        // Without it an old snapshot could not be told from the newest.
        return found;
    }
    match read(dir, POLICY) {
        Ok(None) => {}
        Ok(Some(bytes)) => match SignedStatement::decode(&*bytes) {
            Ok(statement) => found.statement = Some(statement),
            Err(error) => found.why = format!("{POLICY} is not readable: {error}"),
        },
        Err(why) => found.why = why,
    }
    found
}

fn floor(bytes: &[u8]) -> Option<Floor> {
    let (incarnation, rest) = bytes.split_first_chunk::<8>()?;
    let (epoch, site) = rest.split_first_chunk::<8>()?;
    Some(Floor {
        version: Version {
            incarnation: u64::from_le_bytes(*incarnation),
            epoch: u64::from_le_bytes(*epoch),
        },
        site: std::str::from_utf8(site).ok()?.parse().ok()?,
    })
}

pub(super) fn save(dir: &Path, floor: &Floor, statement: &SignedStatement) -> Result<(), String> {
    let mut seen = Vec::with_capacity(80);
    seen.extend_from_slice(&floor.version.incarnation.to_le_bytes());
    seen.extend_from_slice(&floor.version.epoch.to_le_bytes());
    seen.extend_from_slice(floor.site.as_str().as_bytes());
    let write = |name, bytes: &[u8]| write(dir, name, bytes).map_err(|e| format!("{name}: {e}"));
    write(SEEN, &seen)?;
    write(POLICY, &statement.encode_to_vec())
}

fn write(dir: &Path, name: &str, payload: &[u8]) -> io::Result<()> {
    let beside = dir.join(format!(".{name}.new"));
    // Left by an earlier self that died; the directory is ours alone (`lockfile`).
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(&MAGIC)?;
    file.write_all(&crc32c::crc32c(payload).to_le_bytes())?;
    file.write_all(payload)?;
    file.sync_all()?;
    fs::rename(&beside, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// The payload; `None` when there is no such file.
fn read(dir: &Path, name: &str) -> Result<Option<Vec<u8>>, String> {
    let open = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(dir.join(name));
    let file = match open {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("{name} cannot be opened: {e}")),
    };
    let mut bytes = Vec::new();
    file.take(MOST)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("{name} cannot be read: {e}"))?;
    match bytes.split_at_checked(HEADER) {
        Some((header, payload))
            if header[..8] == MAGIC && header[8..] == crc32c::crc32c(payload).to_le_bytes() =>
        {
            Ok(Some(payload.to_vec()))
        }
        _ => Err(format!("{name} is corrupt")),
    }
}
