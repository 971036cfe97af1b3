//! A second opinion on whether the peer is alive, and one view of how it goes.
//!
//! HTTP/2 pings begin only after the preface, and hyper's server wants to write a GOAWAY before it ends a connection
//! whose ping was not answered: with a full socket it would wait for ever. So every read is counted, and a whole
//! period without one ends the connection whatever state it is in.
//!
//! A peer that closes TCP without TLS's goodbye (a process that died, a link that was cut) is an end of file like
//! any other: HTTP/2 frames and gRPC trailers tell a truncated answer from a whole one, so that rustls' error would
//! only hide the plain fact.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How often something was read from a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reads(Arc<AtomicU64>);

impl Reads {
    /// Ends after a whole `period` without a single read.
    pub(crate) async fn silence(self, period: Duration) {
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(period).await;
            let now = self.0.load(Ordering::Relaxed);
            if now == before {
                return;
            }
            before = now;
        }
    }
}

/// Counts the reads of a connection.
#[derive(Debug)]
pub(crate) struct Watched<IO> {
    io: IO,
    reads: Reads,
}

impl<IO> Watched<IO> {
    pub(crate) fn new(io: IO) -> (Self, Reads) {
        let reads = Reads::default();
        (
            Self {
                io,
                reads: reads.clone(),
            },
            reads,
        )
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if polled.is_ready() {
            self.reads.0.fetch_add(1, Ordering::Relaxed);
        }
        match polled {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            polled => polled,
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
