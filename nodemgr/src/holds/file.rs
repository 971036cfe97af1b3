//! The state on disk: one file, preallocated, two full copies, so that a write needs no space and a torn write
//! loses nothing.
//!
//! ```text
//! offset 0          slot                2 × slot
//! │ copy A          │ copy B            │
//! each: magic 8 │ format u32 │ length u32 │ generation u64 │ crc32c u32 │ zero u32 │ payload │ …
//! ```
//!
//! Little-endian. The checksum covers the header before it and the payload. A write goes first into the copy
//! that may be lost (the older or broken one, A when both are alike) and is durable after its fdatasync; then
//! the other copy follows, always before the next write begins. So at every moment one valid copy is not being
//! written. The highest valid generation wins. Neither valid = corrupt: nothing may start, the file is set
//! aside, and the new one says so until a full sync has come.
//!
//! Raise [`FORMAT`] only when an old reader would misunderstand: it then locks itself rather than guess. A file of
//! an older format is read and written again as it is found.
//!
//! | format | what it has |
//! |---|---|
//! | 1 | holds |
//! | 2 | holds with signatures, and tombstones: who does not know these would impose again what was released here |

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::state::State;

/// Name inside the state directory.
pub const NAME: &str = "holds";
/// Bytes of one copy unless configured otherwise.
pub const DEFAULT_SLOT: usize = 1 << 20;
/// Smallest and largest copy that we take.
pub const SLOT_RANGE: std::ops::RangeInclusive<usize> = (64 << 10)..=(64 << 20);

const MAGIC: [u8; 8] = *b"RBHOLDS\n";
const FORMAT: u32 = 2;
const READABLE: std::ops::RangeInclusive<u32> = 1..=FORMAT;
const HEADER: usize = 32;
const CHECKED: usize = 24;
const ASIDE_KEPT: u32 = 9;

/// Why the state could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The kernel refused.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// More than a copy takes.
    #[error("{path}: the state is {len} bytes, a copy holds {slot}", path = path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// Bytes of state and header.
        len: usize,
        /// Bytes of one copy.
        slot: usize,
    },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

/// The open file.
#[derive(Debug)]
pub struct StateFile {
    file: File,
    path: PathBuf,
    slot: usize,
    /// The generation known to be whole in each copy.
    good: [Option<u64>; 2],
    generation: u64,
    /// What was written last, header included; kept so that the second copy needs no allocation.
    image: Vec<u8>,
}

/// What was found at start.
#[derive(Debug)]
pub struct Loaded {
    /// What the node remembers; locked when that is not known.
    pub state: State,
    /// The file, or why there is none to write to.
    pub file: Result<StateFile, FileError>,
    /// Something that people should know; not an obstacle.
    pub note: Option<String>,
}

/// Reads the state from its directory, or begins a new one. `salt` differs from start to start.
///
/// Never fails: what cannot be read is locked, what cannot be written is said in `file`.
#[must_use]
pub fn load(dir: &Path, slot: usize, salt: u64) -> Loaded {
    let path = dir.join(NAME);
    let file = match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let state = State::default();
            return Loaded {
                file: StateFile::create(dir, slot, &state.encode()),
                state,
                note: None,
            };
        }
        Err(e) => return lost(dir, slot, format!("cannot open {}: {e}", path.display()), salt),
    };
    let image = match read_all(&file) {
        Ok(image) => image,
        Err(e) => return lost(dir, slot, format!("cannot read {}: {e}", path.display()), salt),
    };
    match choose(&image, slot) {
        Err(why) => lost(
            dir,
            slot,
            format!("state file {} is corrupt: {why}", path.display()),
            salt,
        ),
        Ok(found) if image.len() != 2 * slot => {
            // Another size was configured, or the end is missing: begin a file of the right size.
            let new = StateFile::create(dir, slot, &found.state.encode());
            let note = format!("{} had {} bytes, now {}", path.display(), image.len(), 2 * slot);
            Loaded {
                state: found.state,
                file: new,
                note: Some(note),
            }
        }
        Ok(found) => {
            let mut file = StateFile {
                file,
                path,
                slot,
                good: found.good,
                generation: found.generation,
                image: found.image,
            };
            let note = found
                .broken
                .map(|why| format!("{}: {why}; rewritten from the other", file.path.display()));
            // In place, and so that one whole copy stands at every moment.
            let repaired = match found.format {
                FORMAT => file.finish(),
                _ => file.write(&found.state.encode()).and_then(|()| file.finish()),
            };
            let note = match repaired {
                Ok(()) if found.format != FORMAT => {
                    let was = format!("{}: format {}, now {FORMAT}", file.path.display(), found.format);
                    Some(note.map_or(was.clone(), |note| format!("{note}; {was}")))
                }
                Ok(()) => note,
                Err(e) => Some(format!(
                    "one copy of the state is broken and cannot be rewritten: {e}"
                )),
            };
            Loaded {
                state: found.state,
                file: Ok(file),
                note,
            }
        }
    }
}

/// Keeps the corrupt file under another name and begins a locked one, which says so after a restart as well.
fn lost(dir: &Path, slot: usize, why: String, salt: u64) -> Loaded {
    let path = dir.join(NAME);
    let free = (1..=ASIDE_KEPT)
        .map(|n| dir.join(format!("{NAME}.corrupt-{n}")))
        .find(|aside| !aside.exists())
        .unwrap_or_else(|| dir.join(format!("{NAME}.corrupt-{ASIDE_KEPT}")));
    let _ = fs::remove_file(&free);
    // A second name, not a rename: until the locked file takes its place the corrupt one must stay there, or a
    // crash in between would look like a first start.
    let note = match fs::hard_link(&path, &free) {
        Ok(()) => format!("kept as {}", free.display()),
        Err(e) => format!("could not be kept as {}: {e}", free.display()),
    };
    let state = State::lost(why, salt);
    Loaded {
        file: StateFile::create(dir, slot, &state.encode()),
        state,
        note: Some(note),
    }
}

fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let len = file.metadata()?.len();
    let most = 2 * *SLOT_RANGE.end() as u64;
    if len > most {
        return Err(io::Error::other(format!(
            "{len} bytes, at most {most} are expected"
        )));
    }
    let mut image = vec![0; len as usize];
    file.read_exact_at(&mut image, 0)?;
    Ok(image)
}

#[derive(Debug)]
struct Found {
    state: State,
    generation: u64,
    /// Of the copy to believe.
    format: u32,
    good: [Option<u64>; 2],
    image: Vec<u8>,
    broken: Option<String>,
}

/// Picks the copy to believe. Pure. `slot` is the configured size: a file of another size has its second copy in
/// its middle, a file that lost its end where it always was.
fn choose(image: &[u8], slot: usize) -> Result<Found, String> {
    let at = |offset: usize| read_copy(image.get(offset..).unwrap_or_default());
    // Copies of (generation, format, payload).
    let copies = [
        at(0),
        at(slot).or_else(|why| at(image.len() / 2).map_err(|_| why)),
    ];
    let good = [
        copies[0].as_ref().ok().map(|c| c.0),
        copies[1].as_ref().ok().map(|c| c.0),
    ];
    let broken = match (&copies[0], &copies[1]) {
        (Err(a), Err(b)) => return Err(format!("copy A: {a}; copy B: {b}")),
        (Err(why), Ok(_)) => Some(format!("copy A: {why}")),
        (Ok(_), Err(why)) => Some(format!("copy B: {why}")),
        (Ok(_), Ok(_)) => None,
    };
    let newest = usize::from(good[1] > good[0]);
    let [a, b] = copies;
    let (generation, format, payload) = if newest == 0 { a? } else { b? };
    let state = State::decode(payload).map_err(|e| e.to_string())?;
    Ok(Found {
        state,
        generation,
        format,
        good,
        image: frame(generation, payload),
        broken,
    })
}

/// Generation, format and payload of one copy, or what is wrong with it.
fn read_copy(bytes: &[u8]) -> Result<(u64, u32, &[u8]), String> {
    let header = bytes
        .get(..HEADER)
        .ok_or_else(|| format!("only {} bytes", bytes.len()))?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if header[..8] != MAGIC {
        return Err("no magic".into());
    }
    if !READABLE.contains(&word(8)) {
        return Err(format!(
            "format {}, this program reads {} to {FORMAT}",
            word(8),
            READABLE.start()
        ));
    }
    let length = word(12) as usize;
    let payload = bytes
        .get(HEADER..)
        .and_then(|rest| rest.get(..length))
        .ok_or_else(|| format!("says {length} bytes, {} are there", bytes.len() - HEADER))?;
    let sum = crc32c::crc32c_append(crc32c::crc32c(&header[..CHECKED]), payload);
    if sum != word(24) {
        return Err(format!("checksum {:08x}, expected {sum:08x}", word(24)));
    }
    Ok((u64::from(word(16)) | u64::from(word(20)) << 32, word(8), payload))
}

/// Header and payload of one copy.
fn frame(generation: u64, payload: &[u8]) -> Vec<u8> {
    let mut image = Vec::with_capacity(HEADER + payload.len());
    frame_into(&mut image, generation, payload);
    image
}

fn frame_into(image: &mut Vec<u8>, generation: u64, payload: &[u8]) {
    image.clear();
    image.extend_from_slice(&MAGIC);
    image.extend_from_slice(&FORMAT.to_le_bytes());
    image.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    image.extend_from_slice(&generation.to_le_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(image), payload);
    image.extend_from_slice(&sum.to_le_bytes());
    image.extend_from_slice(&[0; 4]);
    image.extend_from_slice(payload);
}

impl StateFile {
    /// Begins a file beside the old one, really written to its full size, and puts it in the old one's place.
    ///
    /// # Errors
    /// When the disk refuses; the old file, if any, is as it was.
    pub fn create(dir: &Path, slot: usize, payload: &[u8]) -> Result<Self, FileError> {
        let path = dir.join(NAME);
        let new = dir.join(format!("{NAME}.new"));
        let image = frame(1, payload);
        if image.len() > slot {
            return Err(FileError::Full {
                path,
                len: image.len(),
                slot,
            });
        }
        let mut whole = image.clone();
        whole.resize(slot, 0);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .map_err(io_error("cannot create", &new))?;
        let write = || -> io::Result<()> {
            file.write_all_at(&whole, 0)?;
            file.write_all_at(&whole, slot as u64)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(dir)?.sync_all()
        };
        if let Err(source) = write() {
            let _ = fs::remove_file(&new);
            return Err(FileError::Io {
                what: "cannot write",
                path: new,
                source,
            });
        }
        Ok(Self {
            file,
            path,
            slot,
            good: [Some(1); 2],
            generation: 1,
            image,
        })
    }

    /// Writes a new state into one copy; durable when this returns. The other copy is brought along first if a
    /// failure has left it behind.
    ///
    /// # Errors
    /// When the disk refuses or the state has outgrown a copy. The last durable state still stands.
    pub fn write(&mut self, payload: &[u8]) -> Result<(), FileError> {
        let len = HEADER + payload.len();
        if len > self.slot {
            return Err(FileError::Full {
                path: self.path.clone(),
                len,
                slot: self.slot,
            });
        }
        // The copy that may be lost: never the only one that holds the newest durable state.
        let target = usize::from(self.good[0] > self.good[1]);
        self.generation += 1;
        frame_into(&mut self.image, self.generation, payload);
        self.put(target)
    }

    /// Brings the other copy along.
    ///
    /// # Errors
    /// When the disk refuses; what [`Self::write`] made durable still is.
    pub fn finish(&mut self) -> Result<(), FileError> {
        for copy in 0..2 {
            if self.good[copy] != Some(self.generation) && self.good[1 - copy] == Some(self.generation) {
                self.put(copy)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, copy: usize) -> Result<(), FileError> {
        self.good[copy] = None;
        let at = if copy == 0 { 0 } else { self.slot as u64 };
        // Everything is written again after a failed sync: the kernel may have dropped the pages it could not write.
        self.file
            .write_all_at(&self.image, at)
            .map_err(io_error("cannot write", &self.path))?;
        self.file
            .sync_data()
            .map_err(io_error("cannot sync", &self.path))?;
        self.good[copy] = Some(self.generation);
        Ok(())
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
