//! What a receiver answers, and how its answer ends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use tokio_util::sync::CancellationToken;

/// What the receiver does with one request.
#[derive(Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    end: End,
    gate: Option<CancellationToken>,
}

/// How an answer's body ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// As it should.
    Whole,
    /// Nothing more comes, and the connection stays.
    Stall,
    /// The connection breaks off.
    Cut,
    /// It goes on for ever.
    Endless,
    /// One byte at a time, for ever.
    Drip(Duration),
    /// There is no answer at all: the connection is closed, …
    Close,
    /// … or stays open in silence.
    Hang,
}

impl Reply {
    /// An empty answer with this status.
    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            end: End::Whole,
            gate: None,
        }
    }

    /// No answer: the connection is closed.
    pub(crate) fn close() -> Self {
        Self::status(0).ending(End::Close)
    }

    /// No answer: the connection stays open in silence.
    pub(crate) fn hang() -> Self {
        Self::status(0).ending(End::Hang)
    }

    /// With a header.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With a body, or its beginning.
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// After the body's beginning nothing comes.
    pub(crate) fn then_stalls(self) -> Self {
        self.ending(End::Stall)
    }

    /// After the body's beginning the connection breaks off.
    pub(crate) fn then_cuts(self) -> Self {
        self.ending(End::Cut)
    }

    /// After the body's beginning zeros come for ever, as fast as they are taken.
    pub(crate) fn then_never_ends(self) -> Self {
        self.ending(End::Endless)
    }

    /// After the body's beginning one zero comes at each interval.
    pub(crate) fn then_drips(self, interval: Duration) -> Self {
        self.ending(End::Drip(interval))
    }

    /// The request is recorded at once and answered when the token is cancelled.
    pub(crate) fn held_until(mut self, gate: &CancellationToken) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    fn ending(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    /// The answer, when its time has come; an error closes the connection.
    pub(super) async fn play(self) -> io::Result<Response<Script>> {
        if let Some(gate) = &self.gate {
            gate.cancelled().await;
        }
        match self.end {
            End::Close => return Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
            End::Hang => std::future::pending::<()>().await,
            _ => {}
        }
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        let script = Script::new(self.body, self.end);
        response.body(script).map_err(io::Error::other)
    }
}

/// A body that plays its beginning and then its end.
pub(super) struct Script {
    beginning: Option<Bytes>,
    end: End,
    drip: Option<tokio::time::Interval>,
    /// Whether the server had a turn to send what it was given.
    flushed: bool,
}

impl Script {
    fn new(beginning: Bytes, end: End) -> Self {
        Self {
            beginning: Some(beginning).filter(|bytes| !bytes.is_empty()),
            end,
            drip: match end {
                End::Drip(interval) => Some(tokio::time::interval(interval)),
                _ => None,
            },
            flushed: false,
        }
    }
}

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(beginning) = self.beginning.take() {
            return Poll::Ready(Some(Ok(Frame::data(beginning))));
        }
        let zeros = |count: usize| Some(Ok(Frame::data(Bytes::from_static(&ZEROS[..count]))));
        match self.end {
            End::Endless => Poll::Ready(zeros(ZEROS.len())),
            End::Drip(_) => match self.drip.as_mut() {
                Some(drip) => drip.poll_tick(context).map(|_| zeros(1)),
                None => Poll::Pending,
            },
            End::Stall => Poll::Pending,
            End::Cut if !self.flushed => {
                self.flushed = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            End::Cut => Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::BrokenPipe)))),
            End::Whole | End::Close | End::Hang => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.beginning.is_none() && matches!(self.end, End::Whole)
    }

    fn size_hint(&self) -> SizeHint {
        match self.end {
            End::Whole => {
                SizeHint::with_exact(self.beginning.as_ref().map_or(0, Bytes::len) as u64)
            }
            _ => SizeHint::default(),
        }
    }
}
