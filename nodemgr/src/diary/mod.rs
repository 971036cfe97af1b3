//! The node's own audit: every act, allowed or refused, of a person who stands at the node's door.
//!
//! ```text
//! direct ── write(draft) ──▶ thread "diary": seal ─▶ append ─▶ fsync ──▶ Written
//!                                              └─ disk refuses: kept, tried again with the next one
//! ```
//! The file is a chain of crate `audit`, a JSON line an entry: `redbutton audit verify FILE` reads it as it is. Each
//! line carries the hash of its content, so that is its checksum as well. A torn tail is cut at the start; a chain
//! that is broken before its end is set aside under another name, and the new one says so.
//!
//! Room is taken beforehand, so that a disk that is full later refuses no entry. Refusals stop being written at
//! [`REFUSALS_UNTIL`]: whoever is refused all day must not crowd out what was done.

mod file;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use audit::{Draft, Entry, Head, Outcome};
use tokio::sync::oneshot;

use self::file::DiaryFile;

/// Bytes from which on refusals are not written any more.
pub const REFUSALS_UNTIL: u64 = 32 << 20;
/// Bytes from which on nothing is written any more.
pub const MOST: u64 = 64 << 20;
/// Entries that wait for a disk that refuses; beyond them the newest are lost, and that is said.
const WAITING: usize = 4_096;

/// What became of an entry.
#[derive(Debug, Clone)]
pub struct Written {
    /// Where the chain stands with it; `None`: it was not taken at all.
    pub head: Option<Head>,
    /// Why it is not on the disk; empty: it is.
    pub not_durable: String,
}

#[derive(Debug, Default)]
struct Shared {
    head: Head,
    /// Not on the disk yet.
    waiting: VecDeque<Entry>,
    trouble: String,
}

enum Job {
    Write(Box<Draft>, oneshot::Sender<Written>),
    Read {
        from: u64,
        limit: usize,
        reply: oneshot::Sender<io::Result<Vec<Entry>>>,
    },
}

/// A handle to the thread. The thread ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Diary {
    jobs: Sender<Job>,
    shared: Arc<Mutex<Shared>>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Diary {
    /// Takes up the chain in this directory, or begins one. A disk that cannot be read or written is said with each
    /// entry and tried again; it is no error here.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let (file, opened) = DiaryFile::open(dir);
        let shared = Arc::new(Mutex::new(Shared {
            head: opened.head,
            waiting: VecDeque::new(),
            trouble: opened.trouble,
        }));
        let (jobs, queue) = channel();
        let theirs = shared.clone();
        std::thread::Builder::new()
            .name("diary".into())
            .stack_size(crate::worker::STACK)
            .spawn(move || {
                drop(crate::sys::nice(-20));
                run(file, &queue, &theirs);
            })?;
        let diary = Self { jobs, shared };
        if let Some(note) = opened.note {
            tracing::error!(%note, "diary");
            drop(diary.write(file::lost(note)));
        }
        Ok(diary)
    }

    /// Adds an entry; the answer comes when the disk has it or has refused it. Dropping the answer stops nothing.
    pub fn write(&self, draft: Draft) -> oneshot::Receiver<Written> {
        let (reply, written) = oneshot::channel();
        // Without the thread the sender is dropped, which the reader takes for "not written".
        let _ = self.jobs.send(Job::Write(Box::new(draft), reply));
        written
    }

    /// Entries from `from` on, at most `limit`, in order.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn read(&self, from: u64, limit: usize) -> io::Result<Vec<Entry>> {
        let (reply, entries) = oneshot::channel();
        let _ = self.jobs.send(Job::Read { from, limit, reply });
        entries
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the diary's thread has ended")))
    }

    /// The end of the chain.
    #[must_use]
    pub fn head(&self) -> Head {
        lock(&self.shared).head
    }

    /// Why something is not on the disk; empty: all of it is.
    #[must_use]
    pub fn trouble(&self) -> String {
        lock(&self.shared).trouble.clone()
    }
}

fn run(mut file: DiaryFile, queue: &Receiver<Job>, shared: &Mutex<Shared>) {
    for job in queue {
        match job {
            Job::Write(draft, reply) => {
                let written = write(&mut file, shared, *draft);
                // Nobody waiting is fine: the caller may be gone.
                let _ = reply.send(written);
            }
            Job::Read { from, limit, reply } => {
                let waiting: Vec<Entry> = lock(shared).waiting.iter().cloned().collect();
                let read = file.read(from, limit).map(|mut entries| {
                    let unwritten = waiting.into_iter().filter(|entry| entry.sequence >= from);
                    let room = limit.saturating_sub(entries.len());
                    entries.extend(unwritten.take(room));
                    entries
                });
                let _ = reply.send(read);
            }
        }
    }
}

fn write(file: &mut DiaryFile, shared: &Mutex<Shared>, draft: Draft) -> Written {
    let full = match draft.outcome {
        Outcome::Refused => file.len() >= REFUSALS_UNTIL,
        Outcome::Allowed | Outcome::Failed | Outcome::Done => file.len() >= MOST,
    };
    let lost = |why: String| {
        lock(shared).trouble.clone_from(&why);
        tracing::error!(%why, "the diary takes no entry");
        Written {
            head: None,
            not_durable: why,
        }
    };
    if full {
        return lost(format!("the diary is full ({} bytes)", file.len()));
    }
    let (head, pending) = {
        let mut shared = lock(shared);
        if shared.waiting.len() >= WAITING {
            drop(shared);
            return lost(format!("{WAITING} entries wait for the disk already"));
        }
        let entry = audit::seal(&shared.head, draft);
        shared.head = entry.head();
        shared.waiting.push_back(entry);
        (shared.head, shared.waiting.iter().cloned().collect::<Vec<_>>())
    };
    let saved = file.append(&pending);
    let mut shared = lock(shared);
    match saved {
        Ok(()) => {
            shared.waiting.clear();
            shared.trouble.clear();
        }
        Err(error) => shared.trouble = error,
    }
    Written {
        head: Some(head),
        not_durable: shared.trouble.clone(),
    }
}

#[cfg(test)]
mod tests;
