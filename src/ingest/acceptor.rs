//! Events into the store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metrics::{counter, histogram};

use super::batch::Batch;
use super::decode::Decoder;
use super::sink::{Message, Outcome, Sink};
use crate::domain::payload::Payload;
use crate::reconnect::Reconnect;
use crate::store::intake::Intake;
use crate::store::{AcceptOutcome, Accepted, Leasing, Result, Store};
use crate::telemetry::trace::{Period, SpanKind};
use crate::telemetry::{Tracer, metric};

/// Where events are committed, and who is told of the deliveries that come of them.
#[derive(Clone)]
pub struct Acceptor {
    /// Reads them.
    pub decoder: Decoder,
    /// Keeps them.
    pub store: Arc<dyn Store>,
    /// Takes what is born leased. [`crate::store::intake::NoDispatch`] in a process that does not
    /// send.
    pub intake: Arc<dyn Intake>,
    /// Who leases, and for how long.
    pub leasing: Leasing,
    /// Tells of what was committed.
    pub tracer: Tracer,
}

#[async_trait]
impl Sink for Acceptor {
    type Item = Arc<Payload>;

    fn decode(&self, message: Message<'_>) -> std::result::Result<Self::Item, String> {
        self.decoder
            .decode_traced(message.bytes, message.traceparent)
            .map_err(|error| error.to_string())
    }

    async fn keep(&self, events: &[Self::Item]) -> Result<Vec<Outcome>> {
        let began = self.decoder.now();
        self.intake.relief().await;
        // A batch that would make too many rows is taken in part.
        let Accepted {
            outcomes,
            leased,
            pending,
            pending_of,
        } = self
            .store
            .accept(events, self.leasing, &*self.intake)
            .await?;
        // First of all: these are committed and leased, and each moment counts against the lease.
        self.intake.hand_over(leased);
        if pending > 0 {
            self.intake.left_waiting(&pending_of);
            self.store.announce();
        }
        count(&outcomes);
        if self.tracer.is_on() {
            let ended = self.decoder.now();
            traced(&self.tracer, Period { began, ended }, events, &outcomes);
        }
        Ok(outcomes.into_iter().map(Outcome::from).collect())
    }

    async fn ready(&self) -> Result<()> {
        self.store.ready().await
    }
}

/// Commits events and says what became of each, in the order given. All that can be kept is kept,
/// whatever else is refused. An unavailable database is asked again for as long as `patience`
/// lasts; what was committed until then stays.
pub async fn accept_all(
    acceptor: &Acceptor,
    events: Vec<Arc<Payload>>,
    patience: Duration,
) -> Result<Vec<Outcome>> {
    let mut batch = Batch::new(events);
    let mut reconnect = Reconnect::default();
    let patience = tokio::time::Instant::now() + patience;
    loop {
        match batch.commit(acceptor).await {
            Ok(()) => return Ok(batch.into_outcomes()),
            Err(error) if error.is_unavailable() => {
                // Only the pause is cut short, never a transaction.
                let pause = tokio::time::timeout_at(patience, reconnect.pause());
                if pause.await.is_err() {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

impl From<AcceptOutcome> for Outcome {
    fn from(outcome: AcceptOutcome) -> Self {
        match outcome {
            AcceptOutcome::Stored => Self::Stored,
            AcceptOutcome::Duplicate => Self::Duplicate,
        }
    }
}

fn count(outcomes: &[AcceptOutcome]) {
    let stored = outcomes
        .iter()
        .filter(|outcome| **outcome == AcceptOutcome::Stored)
        .count();
    let (stored, taken) = (stored as u64, outcomes.len() as u64);
    counter!(metric::EVENTS, "outcome" => "accepted").increment(stored);
    counter!(metric::EVENTS, "outcome" => "duplicate").increment(taken - stored);
    #[expect(clippy::cast_precision_loss, reason = "a batch has hundreds of events")]
    histogram!(metric::ACCEPT_BATCH).record(taken as f64);
}

/// A span for each event that was taken, in the trace that it came with: the commit of its batch, as
/// it is seen from there. (One span for the batch, with links to them all, would be in a trace that
/// nobody finds from the event's.) It is made when all is over, so that a batch that is refused or
/// offered again tells nothing, and for an event that its producer did not sample it costs next to
/// nothing.
fn traced(tracer: &Tracer, period: Period, events: &[Arc<Payload>], outcomes: &[AcceptOutcome]) {
    let batch = i64::try_from(outcomes.len()).unwrap_or(i64::MAX);
    for (payload, outcome) in events.iter().zip(outcomes) {
        let parent = payload.traceparent();
        tracer.tell(SpanKind::Consumer, "process", parent, period, |span| {
            let event = payload.event();
            span.name(format!("process {}", event.event_type));
            span.set("messaging.system", "rabbitmq");
            span.set("messaging.operation.name", "process");
            span.set("messaging.operation.type", "process");
            span.set("messaging.message.id", event.external_id.clone());
            span.set("forge.event.id", event.id.to_string());
            span.set("forge.event.type", event.event_type.as_str().to_owned());
            span.set("forge.workspace", event.workspace.as_str().to_owned());
            span.set("forge.batch.size", batch);
            span.set("forge.outcome", name(*outcome));
        });
    }
}

fn name(outcome: AcceptOutcome) -> &'static str {
    match outcome {
        AcceptOutcome::Stored => "accepted",
        AcceptOutcome::Duplicate => "duplicate",
    }
}
