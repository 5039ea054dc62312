//! `/metrics`: what the parts counted, and how much waits in the queue.

use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use metrics::gauge;

use super::{DATABASE_TIMEOUT, Ops};
use crate::clock::pause;
use crate::store::{OutboxDepth, QueueDepth, Result, Store};
use crate::telemetry::metric;

/// How old what is told of the queue may be: counting it costs the database something, and not
/// every scrape need pay.
const QUEUE_INTERVAL: Duration = Duration::from_secs(5);

/// Prometheus's text form.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// When the queue was counted last, on the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<Option<Duration>>);

impl Pace {
    /// Whether it is time to count again; if so, this caller is the one to do it.
    fn is_due(&self, now: Duration) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.saturating_sub(last) >= QUEUE_INTERVAL);
        if due {
            *last = Some(now);
        }
        due
    }
}

/// A database that is away does not fail the scrape: that is when the other numbers are wanted.
pub(super) async fn metrics(ops: Ops, pace: Arc<Pace>) -> Response {
    look(&ops, &pace).await;
    ([(CONTENT_TYPE, TEXT_FORMAT)], ops.metrics.render()).into_response()
}

/// Counts for a collector, which does not ask; never ends.
pub(super) async fn count_for_export(ops: Ops, pace: Arc<Pace>) {
    let Some(interval) = ops.exported_every else {
        return pending().await;
    };
    // Not at once: a database that is new has no tables yet.
    pause(interval.min(QUEUE_INTERVAL)).await;
    loop {
        look(&ops, &pace).await;
        pause(interval).await;
    }
}

/// Counts what waits, if that is due.
async fn look(ops: &Ops, pace: &Pace) {
    if pace.is_due(ops.clock.monotonic()) {
        let counted = tokio::time::timeout(DATABASE_TIMEOUT, count(&*ops.store)).await;
        match counted {
            Ok(Ok((queue, outbox))) => {
                tell(queue, outbox);
                #[expect(clippy::cast_precision_loss, reason = "thousands")]
                gauge!(metric::OPEN_CIRCUITS).set(ops.store.open_circuits() as f64);
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the queue could not be counted");
                tell_uncounted(ops).await;
            }
            Err(_) => {
                tracing::warn!("the queue could not be counted in time");
                tell_uncounted(ops).await;
            }
        }
    }
}

/// A queue that cannot be counted is not a database that is down: it is asked. What was counted last
/// stays told.
async fn tell_uncounted(ops: &Ops) {
    let ready = tokio::time::timeout(DATABASE_TIMEOUT, ops.store.ready()).await;
    let is_up = matches!(ready, Ok(Ok(())));
    gauge!(metric::DATABASE_UP).set(if is_up { 1.0 } else { 0.0 });
}

async fn count(store: &dyn Store) -> Result<(QueueDepth, OutboxDepth)> {
    Ok((store.queue_depth().await?, store.outbox_depth().await?))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a queue of 2^53 deliveries is not told apart from one more"
)]
fn tell(depth: QueueDepth, outbox: OutboxDepth) {
    gauge!(metric::DATABASE_UP).set(1.0);
    gauge!(metric::QUEUED, "state" => "pending").set(depth.pending as f64);
    gauge!(metric::QUEUED, "state" => "in_flight").set(depth.in_flight as f64);
    gauge!(metric::OLDEST_DUE).set(depth.oldest_due.unwrap_or_default().as_secs_f64());
    gauge!(metric::OUTBOX_WAITING).set(outbox.waiting as f64);
    gauge!(metric::OUTBOX_OLDEST).set(outbox.oldest.unwrap_or_default().as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_counted_at_most_every_few_seconds() {
        let pace = Pace::default();
        let start = Duration::from_secs(1_000);
        assert!(pace.is_due(start));
        assert!(!pace.is_due(start + Duration::from_secs(4)));
        assert!(pace.is_due(start + Duration::from_secs(5)));
        assert!(!pace.is_due(start + Duration::from_secs(9)));
    }
}
