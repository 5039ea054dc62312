//! A connection's bytes, with notes of whether they flow.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::watch::Watch;

/// How much is read at once of what nobody wants any more, in bytes.
const SCRAP_BYTES: usize = 16 * 1024;

/// A socket that tells its [`Watch`] what it sees.
///
/// When it is closed, what the client still sends is read for a while: an answer that came before
/// the end of its request (too large, too slow) would be lost to a reset otherwise.
pub(super) struct Watched {
    stream: TcpStream,
    watch: Watch,
    linger: Duration,
    /// Until when it waits for the client to close too.
    closing: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    pub(super) fn new(stream: TcpStream, watch: Watch, linger: Duration) -> Self {
        Self {
            stream,
            watch,
            linger,
            closing: None,
        }
    }

    fn note<T>(&self, poll: Poll<T>) -> Poll<T> {
        if poll.is_pending() {
            self.watch.blocked();
        } else {
            self.watch.flowing();
        }
        poll
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if poll.is_ready() {
            self.watch.read();
        }
        poll
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.note(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let closing = if let Some(closing) = &mut this.closing {
            closing
        } else {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            let until = Instant::now() + this.linger;
            this.closing.insert(Box::pin(sleep_until(until)))
        };
        // The time is asked first: a client that never stops sending does not keep us here.
        while closing.as_mut().poll(cx).is_pending() {
            let mut scrap = [0; SCRAP_BYTES];
            let mut scrap = ReadBuf::new(&mut scrap);
            match Pin::new(&mut this.stream).poll_read(cx, &mut scrap) {
                Poll::Ready(Ok(())) if !scrap.filled().is_empty() => {}
                Poll::Ready(_) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}
