//! The file: lines of a chain, appended and synced, its torn tail cut at the start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use audit::lines::{self, Lines, MAX_LINE_BYTES};
use audit::{Draft, Entry, Head, Outcome, Verifier};
use nix::fcntl::{FallocateFlags, fallocate};

const NAME: &str = "diary";
/// Room that is taken beforehand, bytes.
const RESERVE: i64 = 1 << 20;
/// Broken chains that are kept.
const ASIDE: u32 = 9;
/// Largest file that is read at start.
const READABLE: u64 = super::MOST + (1 << 20);

#[derive(Debug)]
pub(super) struct DiaryFile {
    dir: PathBuf,
    file: Option<File>,
    /// Bytes that are whole.
    len: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub(super) head: Head,
    /// Why nothing can be written now.
    pub(super) trouble: String,
    /// What was lost.
    pub(super) note: Option<String>,
}

/// What the new chain says when the one before was broken.
pub(super) fn lost(note: String) -> Draft {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Draft {
        at_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        version: proto::Version::default(),
        person: None,
        role: None,
        action: "diary-lost".into(),
        target: "this node".into(),
        reason: String::new(),
        evidence: String::new(),
        outcome: Outcome::Failed,
        detail: note,
        order: None,
    }
}

impl DiaryFile {
    pub(super) fn open(dir: &Path) -> (Self, Opened) {
        let mut this = Self {
            dir: dir.to_owned(),
            file: None,
            len: 0,
        };
        let opened = this.take_up().unwrap_or_else(|error| Opened {
            trouble: error,
            ..Opened::default()
        });
        (this, opened)
    }

    fn path(&self) -> PathBuf {
        self.dir.join(NAME)
    }

    fn take_up(&mut self) -> Result<Opened, String> {
        let path = self.path();
        let said = |what: &str, e: io::Error| format!("{what} {}: {e}", path.display());
        let file = create_or_open(&path, false).map_err(|e| said("cannot open", e))?;
        let found = file.metadata().map_err(|e| said("cannot look at", e))?.len();
        let checked = if found > READABLE {
            Err(format!("it has {found} bytes"))
        } else {
            check(&file).map_err(|e| said("cannot read", e))?
        };
        match checked {
            Ok((head, whole)) => {
                if whole < found {
                    file.set_len(whole)
                        .and_then(|()| file.sync_all())
                        .map_err(|e| said("cannot cut the torn tail of", e))?;
                    tracing::warn!(bytes = found - whole, "the diary's torn tail was cut");
                }
                self.keep(file, whole);
                sync_dir(&self.dir).map_err(|e| said("cannot sync the directory of", e))?;
                Ok(Opened {
                    head,
                    ..Opened::default()
                })
            }
            Err(why) => {
                drop(file);
                let aside = set_aside(&path).map_err(|e| said("cannot set aside the broken", e))?;
                let file = create_or_open(&path, true).map_err(|e| said("cannot make", e))?;
                self.keep(file, 0);
                sync_dir(&self.dir).map_err(|e| said("cannot sync the directory of", e))?;
                let note = format!(
                    "the diary before was broken ({why}) and is kept as {}",
                    aside.display()
                );
                Ok(Opened {
                    note: Some(note),
                    ..Opened::default()
                })
            }
        }
    }

    fn keep(&mut self, file: File, len: u64) {
        reserve(&file, len);
        self.file = Some(file);
        self.len = len;
    }

    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Appends and syncs; on an error nothing of it is in the file.
    pub(super) fn append(&mut self, entries: &[Entry]) -> Result<(), String> {
        let path = self.path();
        let said = |e: io::Error| format!("diary {}: {e}", path.display());
        if self.file.is_none() {
            // What could not be opened at the start: perhaps the disk is there now. A chain that we have not read
            // is not continued.
            let file = create_or_open(&path, true).map_err(said)?;
            self.keep(file, 0);
            sync_dir(&self.dir).map_err(said)?;
        }
        let Some(file) = &self.file else {
            return Err("no file".into());
        };
        let mut text = Vec::new();
        for entry in entries {
            lines::write(&mut text, entry).map_err(said)?;
        }
        let written = file
            .write_all_at(&text, self.len)
            .and_then(|()| file.sync_data())
            .map_err(said);
        if let Err(error) = written {
            // What is half there would be taken for a torn tail; better that it is not there at all.
            let _ = file.set_len(self.len);
            return Err(error);
        }
        crate::crash::point("nodemgr.after-diary");
        self.len += text.len() as u64;
        reserve(file, self.len);
        Ok(())
    }

    /// Entries on the disk from `from` on.
    pub(super) fn read(&self, from: u64, limit: usize) -> io::Result<Vec<Entry>> {
        let Some(file) = &self.file else {
            return Ok(Vec::new());
        };
        let mut file = file;
        file.seek(SeekFrom::Start(0))?;
        Lines::new(BufReader::new(file.take(self.len)))
            .skip_while(|entry| entry.as_ref().is_ok_and(|entry| entry.sequence < from))
            .take(limit)
            .collect::<Result<_, _>>()
            .map_err(io::Error::other)
    }
}

/// Takes room without making the file longer. Where the file system cannot, a full disk is said when it comes.
fn reserve(file: &File, len: u64) {
    let from = i64::try_from(len).unwrap_or(i64::MAX - RESERVE);
    let _ = fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, from, RESERVE);
}

fn create_or_open(path: &Path, new: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .create_new(new)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The end of the chain and the bytes up to it, a torn tail not counted; or why it is no chain.
fn check(file: &File) -> io::Result<Result<(Head, u64), String>> {
    let mut reader = BufReader::new(file);
    let mut verifier = Verifier::new(None, &[]);
    let mut whole = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = {
            use std::io::BufRead;
            reader
                .by_ref()
                .take(MAX_LINE_BYTES as u64 + 1)
                .read_until(b'\n', &mut line)?
        };
        let complete = line.last() == Some(&b'\n');
        if read == 0 || !complete && read <= MAX_LINE_BYTES {
            // The end, or the last line without its end: torn.
            break;
        }
        let Some(Ok(entry)) = Lines::new(&line[..]).next() else {
            // A whole line that is no entry: torn only if nothing follows.
            let mut rest = Vec::new();
            reader.by_ref().take(1).read_to_end(&mut rest)?;
            if complete && rest.is_empty() {
                break;
            }
            return Ok(Err(format!("what stands at byte {whole} is no entry")));
        };
        verifier.push(&entry);
        if let Some(fault) = verifier.fault() {
            return Ok(Err(fault.to_string()));
        }
        whole += read as u64;
    }
    match verifier.finish() {
        Ok(verified) => Ok(Ok((verified.head, whole))),
        Err(fault) => Ok(Err(fault.to_string())),
    }
}

fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let free = (1..=ASIDE)
        .map(|n| path.with_extension(format!("broken-{n}")))
        .find(|aside| aside.symlink_metadata().is_err())
        .unwrap_or_else(|| path.with_extension(format!("broken-{ASIDE}")));
    fs::rename(path, &free)?;
    Ok(free)
}
