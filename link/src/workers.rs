//! Threads for handshakes, behind everybody else's.
//!
//! A handshake costs about a millisecond of a processor, a press a few hundred microseconds in a dozen steps. In one
//! queue each step of a press waits for every handshake that is ready, and after a power cut of a whole testbed
//! thousands are. So handshakes have threads of their own, and the kernel lets these run when nobody else wants to
//! (nice, SCHED_BATCH): presses, links and what attaches go first. What goes first cannot starve them for long: it is
//! made of finished handshakes.
//!
//! A bound on handshakes at a time alone would not do: a press would still stand behind that many.
//!
//! Sockets stay with the runtime that accepted them: its threads hear of bytes at once, whoever reads them.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::sys;

/// A runtime whose threads yield to all others of the machine. Give it to [`Acceptor::bind_on`](crate::Acceptor::bind_on).
#[derive(Debug)]
pub struct Workers {
    handle: Handle,
    /// Taken when it is dropped.
    runtime: Option<Runtime>,
}

impl Workers {
    /// Starts `threads` threads called `name`, at least one, with `nice` (0 to 19) added to our nice value.
    ///
    /// # Errors
    /// When the kernel gives no thread.
    pub fn start(name: &str, threads: usize, nice: i32) -> io::Result<Self> {
        let number = AtomicUsize::new(0);
        let name = name.to_owned();
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name_fn(move || format!("{name}-{}", number.fetch_add(1, Ordering::Relaxed)))
            .on_thread_start(move || {
                // Asking for less is never refused; if it were, it would only be slower.
                let _ = sys::step_back(nice.clamp(0, 19));
            })
            .enable_all()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Waits for nobody, so that it may happen anywhere, also on a thread of its own.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_threads_stand_back_and_ours_do_not() {
        let before = sys::niceness().expect("own nice value");
        let workers = Workers::start("test", 2, 7).expect("threads");
        let handle = workers.handle();
        let (theirs, batch) = handle
            .block_on(handle.spawn(async { (sys::niceness().expect("nice value"), sys::is_batch()) }))
            .expect("a task");
        assert_eq!((theirs, batch), ((before + 7).min(19), true));
        assert_eq!(sys::niceness().expect("own nice value"), before);
    }

    #[tokio::test]
    async fn it_may_be_dropped_anywhere() {
        drop(Workers::start("test", 1, 19).expect("threads"));
    }
}
