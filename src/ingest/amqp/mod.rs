//! The way in from RabbitMQ (product.md §3).
//!
//! [`run`] keeps one session after another going, for ever: connect, declare ([`crate::broker`]), consume
//! (`consumer`, `subscription`), and on any fault begin anew. A session acknowledges only what is
//! committed or confirmed as a dead letter (`dead_letter`), and only as a contiguous prefix
//! (`watermark`); how much it has open at once is up to `window`.

use std::sync::Arc;
use std::time::Duration;

use lapin::message::Delivery;
use lapin::types::AMQPValue;
use metrics::gauge;
use secrecy::SecretString;

use crate::clock::Clock;
use crate::health::{Health, Part, Reporter};
use crate::ingest::{Message, Sink};
use crate::reconnect::Reconnect;
use crate::shutdown::Shutdown;
use crate::telemetry::metric;
use crate::telemetry::trace::TRACEPARENT;

mod consumer;
mod dead_letter;
mod source;
mod storing;
mod subscription;
mod watermark;
mod window;

pub use source::Source;

use consumer::{Ended, Session};

/// A session that lasted so long was no failed attempt: after it, the first one comes quickly.
const STEADY: Duration = Duration::from_secs(30);

/// Consumes a queue until the shutdown: softly, everything that was delivered is committed and
/// acknowledged first; hard, at once. Whatever else happens, it goes on.
pub async fn run<S: Sink>(
    url: SecretString,
    source: Source,
    sink: S,
    clock: Arc<dyn Clock>,
    health: Arc<Health>,
    shutdown: Shutdown,
) {
    let sink = Arc::new(sink);
    let connected = gauge!(metric::AMQP_CONNECTED, "queue" => source.name);
    let mut reporter = Reporter::new(Arc::clone(&health));
    let mut reconnect = Reconnect::default();
    connected.set(0.0);
    health.down(source.part, "not connected yet");
    while !shutdown.soft.is_cancelled() {
        let session = async {
            // Only a session that stands has something to finish.
            let opened = tokio::select! {
                opened = open(&url, &source, &sink, &*clock, &health, &shutdown) => opened,
                () = shutdown.soft.cancelled() => Err(Ended::Stopped),
            };
            let mut session = match opened {
                Ok(session) => session,
                Err(ended) => return ended,
            };
            reporter.up(source.part);
            connected.set(1.0);
            tracing::info!(
                queue = source.inbox.queue,
                exchange = source.inbox.exchange,
                "broker: consuming"
            );
            let since = clock.monotonic();
            let ended = session.run().await;
            let lasted = clock.monotonic().saturating_sub(since);
            if session.made_progress() || lasted > STEADY {
                reconnect.reset();
            }
            session.close().await;
            ended
        };
        let ended = tokio::select! {
            ended = session => ended,
            () = shutdown.hard.cancelled() => Ended::Stopped,
        };
        connected.set(0.0);
        match ended {
            Ended::Stopped => break,
            Ended::StoreAway(reason) => reporter.down(Part::Database, reason),
            Ended::Fault(error) => reporter.down(source.part, error.to_string()),
        }
        tokio::select! {
            () = reconnect.pause() => {}
            () = shutdown.soft.cancelled() => {}
        }
    }
    tracing::info!(queue = source.inbox.queue, "broker: consumption stopped");
}

/// A session, once the database answers: messages that cannot be stored would only cost
/// redeliveries.
async fn open<'a, S: Sink>(
    url: &SecretString,
    source: &'a Source,
    sink: &'a Arc<S>,
    clock: &'a dyn Clock,
    health: &'a Health,
    shutdown: &'a Shutdown,
) -> Result<Session<'a, S>, Ended> {
    if let Err(error) = sink.ready().await {
        return Err(Ended::StoreAway(error.to_string()));
    }
    health.up(Part::Database);
    Session::connect(url, source, sink, clock, health, shutdown)
        .await
        .map_err(Ended::Fault)
}

/// What a sink looks at of a message.
fn message(delivery: &Delivery) -> Message<'_> {
    let headers = delivery.properties.headers().as_ref();
    let trace = headers.and_then(|headers| headers.inner().get(TRACEPARENT));
    let trace = match trace {
        Some(AMQPValue::LongString(text)) => std::str::from_utf8(text.as_bytes()).ok(),
        Some(AMQPValue::ShortString(text)) => Some(text.as_str()),
        _ => None,
    };
    Message {
        bytes: &delivery.data,
        traceparent: trace,
    }
}
