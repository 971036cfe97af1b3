//! QEMU's machine protocol: one client for each guest (a second one would hang), commands answered in turn, events
//! kept in order so that a test asks for what came *after* a mark and can never miss one.
//!
//! A thread of its own reads; it ends with the connection. Protocol: QEMU, `docs/interop/qmp-spec`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How long QEMU may take for an answer. Under emulation with a busy machine its main loop is late, never lost.
const ANSWER: Duration = Duration::from_secs(30);

/// Something that QEMU told unasked.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `RESET`, `SHUTDOWN`, `STOP`, `RESUME`, `WATCHDOG`, `GUEST_PANICKED`, …
    pub name: String,
    /// Its `data`, or null.
    pub data: Value,
}

#[derive(Default)]
struct Inbox {
    events: Vec<Event>,
    answers: Vec<(u64, std::result::Result<Value, String>)>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `find` gives something, the connection ends, or the cap.
    fn wait<T>(&self, cap: Duration, mut find: impl FnMut(&mut Inbox) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + cap;
        let mut inbox = self.lock();
        loop {
            if let Some(found) = find(&mut inbox) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if inbox.closed || left.is_zero() {
                return None;
            }
            inbox = self
                .changed
                .wait_timeout(inbox, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// A place in the sequence of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(usize);

/// The connection.
pub struct Qmp {
    writer: Mutex<(UnixStream, u64)>,
    shared: Arc<Shared>,
}

impl Qmp {
    /// Connects to QEMU's `-qmp unix:PATH,server=on,wait=off` and negotiates.
    ///
    /// # Errors
    /// When nobody listens, or who does is not QEMU.
    pub fn connect(path: &Path) -> Result<Self> {
        Self::over(
            UnixStream::connect(path).with_context(|| format!("cannot connect to {}", path.display()))?,
        )
    }

    /// The same over a connection that stands already.
    ///
    /// # Errors
    /// When who answers is not QEMU.
    pub fn over(stream: UnixStream) -> Result<Self> {
        let reader = stream.try_clone().context("cannot share the QMP socket")?;
        let shared = Arc::new(Shared::default());
        let inbox = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("qmp".into())
            .spawn(move || read(reader, &inbox))
            .context("cannot start a thread")?;
        let qmp = Self {
            writer: Mutex::new((stream, 0)),
            shared,
        };
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and returns its `return`.
    ///
    /// # Errors
    /// When QEMU refuses it (its own words), is gone, or does not answer within 30 s.
    pub fn execute(&self, command: &str, arguments: &Value) -> Result<Value> {
        let id = {
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.1 += 1;
            let id = writer.1;
            let mut line = json!({"execute": command, "arguments": arguments, "id": id}).to_string();
            line.push('\n');
            writer
                .0
                .write_all(line.as_bytes())
                .with_context(|| format!("QEMU is gone: {command} could not be sent"))?;
            id
        };
        let answer = self.shared.wait(ANSWER, |inbox| {
            let at = inbox.answers.iter().position(|(of, _)| *of == id)?;
            Some(inbox.answers.swap_remove(at).1)
        });
        match answer {
            Some(Ok(value)) => Ok(value),
            Some(Err(why)) => bail!("QEMU refuses {command}: {why}"),
            None if self.shared.lock().closed => bail!("QEMU went away during {command}"),
            None => bail!("QEMU did not answer {command} within {ANSWER:?}"),
        }
    }

    /// Now: events before it do not count.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark(self.shared.lock().events.len())
    }

    /// The first event of this name after the mark, and the mark behind it.
    ///
    /// # Errors
    /// When none comes within the cap; the text lists what came instead.
    pub fn wait_event(&self, since: Mark, name: &str, cap: Duration) -> Result<(Event, Mark)> {
        let found = self.shared.wait(cap, |inbox| {
            let later = inbox.events.get(since.0..)?;
            let at = later.iter().position(|event| event.name == name)?;
            Some((later[at].clone(), Mark(since.0 + at + 1)))
        });
        found.with_context(|| {
            let inbox = self.shared.lock();
            let seen: Vec<&str> = inbox
                .events
                .iter()
                .skip(since.0)
                .map(|event| event.name.as_str())
                .collect();
            let end = if inbox.closed { "QEMU ended" } else { "not in time" };
            format!("no event {name} within {cap:?} ({end}); there were {seen:?}")
        })
    }

    /// Events since the mark.
    #[must_use]
    pub fn events(&self, since: Mark) -> Vec<Event> {
        self.shared
            .lock()
            .events
            .get(since.0..)
            .unwrap_or_default()
            .to_vec()
    }

    /// What the virtual processor does: `running`, `paused`, `prelaunch`, `shutdown`, `guest-panicked`, …
    ///
    /// # Errors
    /// When QEMU does not say.
    pub fn status(&self) -> Result<String> {
        let answer = self.execute("query-status", &json!({}))?;
        let status = answer["status"]
            .as_str()
            .with_context(|| format!("QEMU's status is {answer}"))?;
        Ok(status.to_owned())
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Ends the reading thread; QEMU may be gone already.
        let _ = writer.0.shutdown(std::net::Shutdown::Both);
    }
}

fn read(stream: UnixStream, shared: &Shared) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { break };
        let Ok(mut value) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        let mut inbox = shared.lock();
        if let Some(name) = value["event"].as_str().map(str::to_owned) {
            inbox.events.push(Event {
                name,
                data: value["data"].take(),
            });
        } else if let Some(id) = value["id"].as_u64() {
            let answer = if value.get("error").is_some() {
                Err(value["error"]["desc"]
                    .as_str()
                    .unwrap_or("no reason given")
                    .to_owned())
            } else {
                Ok(value["return"].take())
            };
            inbox.answers.push((id, answer));
        }
        drop(inbox);
        shared.changed.notify_all();
    }
    shared.lock().closed = true;
    shared.changed.notify_all();
}
