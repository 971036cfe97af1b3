//! The thread that puts the state on disk while others kill.
//!
//! Made at start, so that a press needs no new thread. Whoever changes the state hands over its bytes under the
//! lock that orders the changes; the thread always writes the newest and answers everybody whom that covers, so
//! a burst of orders costs one sync. The answer comes after the first copy; the second follows before the next
//! write begins. A write that failed is tried again at the next change and every few seconds.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::file::{FileError, StateFile};
use super::state::State;

/// How soon a failed write is tried again by itself.
const RETRY: Duration = Duration::from_secs(5);

/// What became of one save.
#[derive(Debug, Clone)]
pub struct Saved {
    /// When the disk had it, or refused.
    pub at: Instant,
    /// Why it is not durable.
    pub error: Option<String>,
}

#[derive(Debug, Default)]
struct Desk {
    newest: Option<Vec<u8>>,
    waiting: Vec<oneshot::Sender<Saved>>,
    trouble: Option<String>,
    stop: bool,
}

/// A handle to the thread. Dropping it writes what is left and ends the thread.
#[derive(Debug)]
pub struct Writer {
    desk: Arc<(Mutex<Desk>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

fn lock(desk: &(Mutex<Desk>, Condvar)) -> MutexGuard<'_, Desk> {
    desk.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writer {
    /// Starts the thread. `prepare` runs on it first (priority, name of the thread's class).
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(
        dir: PathBuf,
        slot: usize,
        file: Result<StateFile, FileError>,
        prepare: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<Self> {
        Self::with_retry(dir, slot, file, prepare, RETRY)
    }

    fn with_retry(
        dir: PathBuf,
        slot: usize,
        file: Result<StateFile, FileError>,
        prepare: impl FnOnce() + Send + 'static,
        retry: Duration,
    ) -> std::io::Result<Self> {
        let trouble = file.as_ref().err().map(ToString::to_string);
        let desk = Arc::new((
            Mutex::new(Desk {
                trouble,
                ..Desk::default()
            }),
            Condvar::new(),
        ));
        let theirs = desk.clone();
        let thread = std::thread::Builder::new()
            .name("state-writer".into())
            .stack_size(crate::worker::STACK)
            .spawn(move || {
                prepare();
                run(&theirs, file.ok(), &dir, slot, retry);
            })?;
        Ok(Self {
            desk,
            thread: Some(thread),
        })
    }

    /// Hands a state over. Call it under the lock that orders the changes; await the answer without it.
    pub fn save(&self, state: &State) -> oneshot::Receiver<Saved> {
        let (sender, receiver) = oneshot::channel();
        let bytes = state.encode();
        let mut desk = lock(&self.desk);
        desk.newest = Some(bytes);
        desk.waiting.push(sender);
        drop(desk);
        self.desk.1.notify_one();
        receiver
    }

    /// Why the newest state is not on disk, if it is not.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        lock(&self.desk).trouble.clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        lock(&self.desk).stop = true;
        self.desk.1.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(desk: &(Mutex<Desk>, Condvar), mut file: Option<StateFile>, dir: &Path, slot: usize, retry: Duration) {
    // The newest state that is not on disk yet; kept after a failure.
    let mut bytes: Option<Vec<u8>> = None;
    loop {
        let mut guard = lock(desk);
        let retry_at = Instant::now() + retry;
        while guard.newest.is_none() && !guard.stop {
            let left = retry_at.saturating_duration_since(Instant::now());
            if bytes.is_some() && left.is_zero() {
                break;
            }
            guard = if bytes.is_some() {
                desk.1
                    .wait_timeout(guard, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            } else {
                desk.1.wait(guard).unwrap_or_else(PoisonError::into_inner)
            };
        }
        if guard.newest.is_none() && guard.stop {
            return;
        }
        bytes = guard.newest.take().or(bytes);
        let waiting = std::mem::take(&mut guard.waiting);
        drop(guard);

        let Some(state) = bytes.as_deref() else { continue };
        let result = match &mut file {
            Some(file) => file.write(state),
            // There was no file to write to at start: perhaps the disk has room now.
            None => StateFile::create(dir, slot, state).map(|new| file = Some(new)),
        };
        let error = result.err().map(|e| e.to_string());
        let saved = Saved {
            at: Instant::now(),
            error: error.clone(),
        };
        crate::crash::point("nodemgr.after-write");
        for sender in waiting {
            // Nobody waiting is fine: the link may be gone.
            let _ = sender.send(saved.clone());
        }
        if error.is_none() {
            bytes = None;
        }
        let second = file
            .as_mut()
            .and_then(|file| file.finish().err())
            .map(|e| e.to_string());
        if let Some(why) = error.as_ref().or(second.as_ref()) {
            tracing::error!(%why, "the holds are not safe on disk");
        }
        lock(desk).trouble = error.or(second);
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::load;
    use super::*;
    use proto::Version;

    const SLOT: usize = 64 << 10;

    fn state(epoch: u64) -> State {
        State {
            seen: Version {
                incarnation: 1,
                epoch,
            },
            ..State::default()
        }
    }

    #[test]
    fn a_failed_write_is_tried_again_without_any_change() {
        let dir = tempfile::tempdir().expect("temp dir");
        let missing = dir.path().join("not-there-yet");
        let file = load(&missing, SLOT, 1).file;
        let writer = Writer::with_retry(missing.clone(), SLOT, file, || {}, Duration::from_millis(5))
            .expect("a thread");
        assert!(
            writer
                .save(&state(7))
                .blocking_recv()
                .expect("answered")
                .error
                .is_some()
        );
        std::fs::create_dir(&missing).expect("writable");
        let deadline = Instant::now() + Duration::from_secs(30);
        while writer.trouble().is_some() {
            assert!(Instant::now() < deadline, "{:?}", writer.trouble());
            std::thread::yield_now();
        }
        drop(writer);
        assert_eq!(load(&missing, SLOT, 1).state, state(7));
    }

    fn start(dir: &Path) -> Writer {
        let loaded = load(dir, SLOT, 1);
        Writer::start(dir.to_owned(), SLOT, loaded.file, || {}).expect("a thread")
    }

    #[test]
    fn what_was_answered_is_on_disk() {
        let dir = tempfile::tempdir().expect("temp dir");
        let writer = start(dir.path());
        for epoch in 1..20 {
            let saved = writer.save(&state(epoch)).blocking_recv().expect("answered");
            assert_eq!(saved.error, None);
            // Read by somebody else while the writer runs: copy A is whole whenever an answer was given.
            let image = std::fs::read(dir.path().join("holds")).expect("readable");
            let copy = tempfile::tempdir().expect("temp dir");
            std::fs::write(copy.path().join("holds"), image).expect("writable");
            assert_eq!(load(copy.path(), SLOT, 1).state, state(epoch));
        }
    }

    #[test]
    fn a_burst_ends_with_the_newest_and_everybody_is_answered() {
        let dir = tempfile::tempdir().expect("temp dir");
        let writer = start(dir.path());
        let answers: Vec<_> = (1..=500).map(|epoch| writer.save(&state(epoch))).collect();
        for answer in answers {
            assert_eq!(answer.blocking_recv().expect("answered").error, None);
        }
        drop(writer);
        assert_eq!(load(dir.path(), SLOT, 1).state, state(500));
    }

    #[test]
    fn a_failure_is_said_and_the_next_change_heals_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let missing = dir.path().join("not-there-yet");
        let loaded = load(&missing, SLOT, 1);
        let writer = Writer::start(missing.clone(), SLOT, loaded.file, || {}).expect("a thread");
        assert!(writer.trouble().is_some());
        let saved = writer.save(&state(1)).blocking_recv().expect("answered");
        assert!(saved.error.expect("no directory").contains("not-there-yet"));
        std::fs::create_dir(&missing).expect("writable");
        assert_eq!(
            writer.save(&state(2)).blocking_recv().expect("answered").error,
            None
        );
        drop(writer);
        assert_eq!(load(&missing, SLOT, 1).state, state(2));
    }
}
