//! The spans of what was published: one for each event, in the trace that it belongs to.

use super::Parts;
use super::post::Posted;
use crate::domain::envelope::Envelope;
use crate::store::Outgoing;
use crate::telemetry::trace::{Period, SpanKind};

/// Tells of what the broker confirmed of a batch.
pub(super) fn published(parts: &Parts, period: Period, batch: &[Outgoing], posted: &Posted) {
    if !parts.tracer.is_on() {
        return;
    }
    for event in batch.iter().filter(|it| posted.confirmed.contains(&it.seq)) {
        let envelope = Envelope::parse(&event.body).ok();
        let parent = envelope.as_ref().and_then(|it| it.traceparent.as_deref());
        let exchange = &parts.settings.dispatch_exchange;
        let kind = SpanKind::Producer;
        parts.tracer.tell(kind, "publish", parent, period, |span| {
            span.name(format!("publish {exchange}"));
            span.set("messaging.system", "rabbitmq");
            span.set("messaging.operation.name", "publish");
            span.set("messaging.operation.type", "send");
            span.set("messaging.destination.name", exchange.clone());
            let routing_key = event.event_type.as_str().to_owned();
            span.set("messaging.rabbitmq.destination.routing_key", routing_key);
            span.set("messaging.message.id", event.message_id.clone());
            span.set("forge.workspace", event.workspace.as_str().to_owned());
        });
    }
}
