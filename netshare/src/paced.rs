//! A socket that gives up on a peer which takes nothing any more.
//!
//! From the moment a write has to wait, so many bytes must get through in so much time, over and over until everything
//! is flushed. A peer that takes a byte now and then is thereby as good as gone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A socket whose writes do not wait forever.
#[derive(Debug)]
pub(crate) struct Paced<S> {
    socket: S,
    window: Duration,
    least_bytes: u64,
    /// Set while a write waits.
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    until: Pin<Box<Sleep>>,
    written: u64,
}

impl<S> Paced<S> {
    pub(crate) fn new(socket: S, window: Duration, least_bytes: u64) -> Self {
        Self { socket, window, least_bytes, waiting: None }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let window = self.window;
        let waiting =
            self.waiting.get_or_insert_with(|| Waiting { until: Box::pin(sleep(window)), written: 0 });
        while waiting.until.as_mut().poll(cx).is_ready() {
            if waiting.written < self.least_bytes {
                return Poll::Ready(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the peer takes nothing any more",
                ));
            }
            waiting.written = 0;
            waiting.until.as_mut().reset(Instant::now() + window);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.socket).poll_write(cx, bytes) {
            Poll::Ready(Ok(len)) => {
                if let Some(waiting) = &mut self.waiting {
                    waiting.written += u64::try_from(len).unwrap_or(u64::MAX);
                }
                Poll::Ready(Ok(len))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Ready(Err(ready!(self.wait(cx)))),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waiting = None;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
