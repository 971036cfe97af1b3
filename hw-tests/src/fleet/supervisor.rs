//! What a service manager does: starts a program, and again whenever it ends, until it is told to stop.

use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

/// Between an end and the next start.
const AGAIN: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_millis(10);

/// A program that is kept running. Dropped, it is killed.
pub struct Supervisor {
    stop: Arc<AtomicBool>,
    starts: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Starts it; `command` makes each start.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(command: impl Fn() -> Result<Command> + Send + 'static) -> Result<Self> {
        let (stop, starts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (stopped, started) = (stop.clone(), starts.clone());
        let thread = std::thread::Builder::new()
            .name("supervisor".into())
            .spawn(move || {
                while !stopped.load(Ordering::Acquire) {
                    let child = command().and_then(|mut command| Ok(command.spawn()?));
                    match child {
                        Ok(child) => {
                            started.fetch_add(1, Ordering::AcqRel);
                            attend(child, &stopped);
                        }
                        Err(error) => eprintln!("supervisor: {error:#}"),
                    }
                    std::thread::park_timeout(AGAIN);
                }
            });
        Ok(Self {
            stop,
            starts,
            thread: Some(thread.context("a supervisor's thread")?),
        })
    }

    /// How often it was started.
    #[must_use]
    pub fn starts(&self) -> u32 {
        self.starts.load(Ordering::Acquire)
    }
}

fn attend(mut child: Child, stop: &AtomicBool) {
    while matches!(child.try_wait(), Ok(None)) {
        if stop.load(Ordering::Acquire) {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::park_timeout(LOOK);
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
