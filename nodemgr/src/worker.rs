//! A thread made beforehand for work that blocks: reports, process lists, journals. Never tokio's blocking pool, which
//! wants to make threads exactly when a fork bomb lets nobody make any.

use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Stack of each thread that we make: all memory is locked, so what is asked for is what it costs.
pub(crate) const STACK: usize = 512 << 10;
/// Jobs that may wait; more are refused.
const WAITING: usize = 64;

/// The thread; it ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Worker(SyncSender<Job>);

/// Too much waits for the thread already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests of this kind wait on this node")]
pub(crate) struct Busy;

impl Worker {
    /// Makes the thread.
    pub(crate) fn start(name: &str) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(WAITING);
        std::thread::Builder::new()
            .name(name.into())
            .stack_size(STACK)
            .spawn(move || {
                // Threads inherit niceness; this work is for people and may wait.
                let _ = crate::sys::nice(0);
                for job in queue {
                    // A bug in one request must not cost the node its thread.
                    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
                        tracing::error!("a request panicked");
                    }
                }
            })?;
        Ok(Self(jobs))
    }

    /// Starts a job that answers by itself.
    pub(crate) fn begin(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Busy> {
        self.0.try_send(Box::new(job)).map_err(|_| Busy)
    }

    /// Runs a job and gives what it returns.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, Busy> {
        let (reply, result) = oneshot::channel();
        self.begin(move || {
            let _ = reply.send(job());
        })?;
        result.await.map_err(|_| Busy)
    }
}
