use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a peer may take to close its side once we have closed ours.
const LINGER: Duration = Duration::from_secs(1);

/// A stream whose shutdown, where it was asked to linger, waits for the peer's and throws away what still comes.
///
/// Closing a socket with unread bytes in it resets the connection. A request that crosses our goodbye would then cost
/// the peer answers that it has not read yet: its next write fails, and with it the whole connection.
#[derive(Debug)]
pub(crate) struct Lingering<IO> {
    io: IO,
    asked: Linger,
    /// Runs since our side is closed.
    limit: Option<Pin<Box<Sleep>>>,
}

/// Asks a stream to linger: for peers that are told to go and have done nothing wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Linger(Arc<AtomicBool>);

impl Linger {
    pub(crate) fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<IO> Lingering<IO> {
    pub(crate) fn new(io: IO) -> (Self, Linger) {
        let asked = Linger::default();
        (Self { io, asked: asked.clone(), limit: None }, asked)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Lingering<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.limit.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
        }
        if !this.asked.0.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let limit = this.limit.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if limit.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut bytes = [0; 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut this.io).poll_read(cx, &mut buffer));
            // Whatever ended it, it is over.
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
