//! Request bodies that must keep coming.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Limits, problem};

/// Whether the body of a request came too slowly, in its extensions.
#[derive(Clone, Debug, Default)]
struct Late(Arc<AtomicBool>);

impl Late {
    fn note(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Answers 408 where the handler made something else of a body that came too slowly. It belongs
/// inside of whatever keeps a record of answers; [`paced`] does the same for all the others.
pub async fn on_time(request: Request, next: Next) -> Response {
    let late = request.extensions().get::<Late>().cloned();
    let version = request.version();
    let response = next.run(request).await;
    if late.is_some_and(|late| late.is()) {
        return problem::request_timeout(version);
    }
    response
}

/// Cuts request bodies off that come too slowly, and answers 408 whatever the handler made of it.
pub(super) fn paced(router: Router, limits: Limits) -> Router {
    router.layer(from_fn_with_state(limits, pace))
}

async fn pace(State(limits): State<Limits>, mut request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let version = request.version();
    let late = Late::default();
    request.extensions_mut().insert(late.clone());
    let request = request.map(|body| Body::new(Paced::new(body, limits, late.clone())));
    let response = next.run(request).await;
    if late.is() {
        let mut answer = problem::request_timeout(version);
        // What the rest of the API says of every request (its id, its limits) holds for this too.
        for (name, value) in response.headers() {
            answer
                .headers_mut()
                .entry(name)
                .or_insert_with(|| value.clone());
        }
        answer
    } else {
        response
    }
}

/// A body that fails when it comes too slowly.
struct Paced {
    body: Body,
    limits: Limits,
    late: Late,
    /// When all of it must be there.
    whole: Pin<Box<Sleep>>,
    /// When the next step must be, once it is waited for.
    step: Option<Pin<Box<Sleep>>>,
    /// Bytes since the last step.
    came: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("the body of the request came too slowly")]
struct TooSlow;

impl Paced {
    fn new(body: Body, limits: Limits, late: Late) -> Self {
        Self {
            body,
            limits,
            late,
            whole: Box::pin(sleep_until(Instant::now() + limits.body)),
            step: None,
            came: 0,
        }
    }

    /// Whether the client has used up its time; else, wakes when it has.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let pace = self.limits.body_pace;
        let step = self
            .step
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + pace)));
        step.as_mut().poll(cx).is_ready() || self.whole.as_mut().poll(cx).is_ready()
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let poll = Pin::new(&mut self.body).poll_frame(cx);
        if poll.is_pending() && self.is_late(cx) {
            self.late.note();
            return Poll::Ready(Some(Err(axum::Error::new(TooSlow))));
        }
        let frame = ready!(poll);
        if let Some(Ok(frame)) = &frame {
            self.came += frame.data_ref().map_or(0, Bytes::len);
            if self.came >= self.limits.body_step {
                self.came = 0;
                self.step = None;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        HttpBody::size_hint(&self.body)
    }
}
