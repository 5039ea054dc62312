//! The span of an attempt, and what the receiver is told of it.
//!
//! It stands in the trace that the event came with. An event that came with none has a trace of its own
//! for each attempt, of which the receiver is told nothing: no `traceparent` is made up (product.md §4).

use std::borrow::Cow;

use crate::domain::attempt::ErrorClass;
use crate::egress::Sent;
use crate::store::LeasedDelivery;
use crate::telemetry::Tracer;
use crate::telemetry::trace::{Notes, Span, SpanKind};

/// Begins the span of an attempt.
pub(super) fn begin(tracer: &Tracer, delivery: &LeasedDelivery) -> Span {
    // Without a collector the envelope is not even looked at.
    if !tracer.is_on() {
        return Span::none();
    }
    let parent = delivery.payload.traceparent();
    let mut span = tracer.start(SpanKind::Client, "POST", parent);
    span.note(|span| describe(span, delivery));
    span
}

/// By the semantic conventions for HTTP clients. Of the address only where it leads: its path may be
/// as secret as its query, and spans are kept by others.
fn describe(span: &mut Notes<'_>, delivery: &LeasedDelivery) {
    let event = delivery.payload.event();
    let url = delivery.target.subscription.spec.url.as_url();
    let host = url.host_str().unwrap_or_default();
    span.set("http.request.method", "POST");
    span.set("url.scheme", url.scheme().to_owned());
    span.set("server.address", host.to_owned());
    if let Some(port) = url.port_or_known_default() {
        span.set("server.port", i64::from(port));
    }
    if delivery.attempts > 0 {
        span.set("http.request.resend_count", i64::from(delivery.attempts));
    }
    span.set("forge.event.id", event.id.to_string());
    span.set("forge.event.type", event.event_type.as_str().to_owned());
    span.set("forge.workspace", event.workspace.as_str().to_owned());
    span.set("forge.delivery.id", delivery.id.to_string());
    span.set("forge.subscription.id", delivery.target.id().to_string());
    span.set("forge.lane", delivery.lane.as_str());
}

/// The `traceparent` that goes out: the attempt's own where it is exported, else the event's as it came.
pub(super) fn outgoing<'a>(span: &Span, delivery: &'a LeasedDelivery) -> Option<Cow<'a, str>> {
    let came = delivery.payload.traceparent()?;
    let own = span.traceparent().map(Cow::Owned);
    Some(own.unwrap_or(Cow::Borrowed(came)))
}

/// What came of it; nothing where it could not be signed.
pub(super) fn sent(span: &mut Span, sent: Option<&Sent>) {
    span.note(|span| match sent.map(|sent| &sent.answer) {
        Some(Ok(answer)) => {
            span.set("http.response.status_code", i64::from(answer.status));
            if !(200..300).contains(&answer.status) {
                span.failed(ErrorClass::HttpStatus.as_str());
            }
        }
        Some(Err(error)) => span.failed(error.class.as_str()),
        None => span.failed(ErrorClass::Internal.as_str()),
    });
}
