//! Everything that one connection spawns, under one token.
//!
//! hyper runs the HTTP/2 connection and each call in tasks of their own. Aborting its `Connection` future leaves
//! them alive (LINK.md: a call on a frozen link then waited for the keepalive, 1.9 s); cancelling the token that
//! they all watch ends them in about a millisecond.

use hyper::rt::Executor;
use tokio_util::sync::CancellationToken;

/// Spawns on tokio; every task ends when the token is cancelled.
#[derive(Debug, Clone)]
pub(crate) struct LinkExecutor {
    token: CancellationToken,
}

impl LinkExecutor {
    pub(crate) fn new(token: CancellationToken) -> Self {
        Self { token }
    }
}

impl<F> Executor<F> for LinkExecutor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        // Boxed: an async function keeps what it is given twice, and hyper's futures are 4 KiB each, for ever.
        let task = Box::pin(task);
        // The handle is dropped on purpose: the token is how these tasks end.
        drop(tokio::spawn(self.token.clone().run_until_cancelled_owned(task)));
    }
}
