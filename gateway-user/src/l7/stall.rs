//! Noticing that nothing moves: on bodies that wait for their next bytes, and on sockets whose
//! peer does not read.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// Time waited without progress. The timer is made at the first wait and moved only when it
/// fires, so that a body that flows pays for reading a clock and nothing else.
pub(super) struct Stall {
    limit: Duration,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    pub(super) fn new(limit: Duration) -> Stall {
        Stall { limit, waiting_since: None, timer: None }
    }

    /// Something moved.
    pub(super) fn moved(&mut self) {
        self.waiting_since = None;
    }

    /// Call when waiting; ready once the wait has lasted for the limit.
    pub(super) fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let due = since + self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}

/// A socket that counts what it reads and fails when its peer takes no bytes for too long.
///
/// The bodies cannot notice the latter: hyper does not poll them while the socket is full.
pub(super) struct Watched {
    stream: TcpStream,
    stall: Stall,
    bytes_read: Rc<Cell<u64>>,
}

impl Watched {
    pub(super) fn new(stream: TcpStream, write_stall_max: Duration) -> Watched {
        Watched { stream, stall: Stall::new(write_stall_max), bytes_read: Rc::default() }
    }

    /// Bytes read so far, readable while hyper owns the socket.
    pub(super) fn bytes_read(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.bytes_read)
    }

    fn watch_write(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stall.moved();
            return written;
        }
        self.stall.poll_stalled(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        let read = (buffer.filled().len() - before) as u64;
        this.bytes_read.set(this.bytes_read.get() + read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buffer);
        this.watch_write(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, buffers);
        this.watch_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_wait_without_progress_is_a_stall() {
        let limit = Duration::from_secs(10);
        let mut stall = Stall::new(limit);
        for _ in 0..3 {
            let wait = poll_fn(|cx| stall.poll_stalled(cx));
            let stalled = tokio::time::timeout(Duration::from_secs(6), wait).await;
            assert!(stalled.is_err(), "6 s after progress is no stall of 10 s");
            stall.moved();
        }
        let start = Instant::now();
        poll_fn(|cx| stall.poll_stalled(cx)).await;
        assert_eq!(start.elapsed(), limit);
    }
}
