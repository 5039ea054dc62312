//! Spans. Without a collector there are none: every call returns at once, and nothing is formatted,
//! allocated or looked up for it.
//!
//! They are made by hand and not by `tracing`, whose spans would have to be filtered on the hot path,
//! and which can say neither which trace a span belongs to nor when it began.

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
pub use opentelemetry::trace::SpanKind;
use opentelemetry::trace::{Span as _, SpanBuilder, Status, Tracer as _};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, Span as SdkSpan};

/// The header, and the attribute of an envelope, that says which trace something belongs to (W3C
/// Trace Context).
pub const TRACEPARENT: &str = "traceparent";

/// Makes spans, where they are exported.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<SdkTracer>);

/// When something began and ended that is told of afterwards.
#[derive(Clone, Copy, Debug)]
pub struct Period {
    /// Its beginning.
    pub began: DateTime<Utc>,
    /// Its end.
    pub ended: DateTime<Utc>,
}

impl Tracer {
    pub(super) fn exporting(tracer: SdkTracer) -> Self {
        Self(Some(tracer))
    }

    /// Whether spans are exported: for work that is done for them alone.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a span, in the trace of `parent` (a `traceparent`) or, where there is none, in one of
    /// its own. It ends when it is dropped.
    pub fn start(&self, kind: SpanKind, name: &'static str, parent: Option<&str>) -> Span {
        Span(self.0.as_ref().map(|tracer| {
            let builder = SpanBuilder::from_name(name).with_kind(kind);
            tracer.build_with_context(builder, &context(parent))
        }))
    }

    /// Tells of what is over already: where a span is only worth making once it is known what came of
    /// it.
    pub fn tell(
        &self,
        kind: SpanKind,
        name: &'static str,
        parent: Option<&str>,
        period: Period,
        note: impl FnOnce(&mut Notes<'_>),
    ) {
        let Some(tracer) = &self.0 else { return };
        let builder = SpanBuilder::from_name(name)
            .with_kind(kind)
            .with_start_time(SystemTime::from(period.began));
        let mut span = tracer.build_with_context(builder, &context(parent));
        if span.is_recording() {
            note(&mut Notes(&mut span));
        }
        span.end_with_timestamp(SystemTime::from(period.ended));
    }
}

/// A span that is under way, or nothing.
#[derive(Debug)]
pub struct Span(Option<SdkSpan>);

impl Span {
    /// One that nobody reads.
    pub fn none() -> Self {
        Self(None)
    }

    /// Adds to it what `note` says, if anybody will read it.
    pub fn note(&mut self, note: impl FnOnce(&mut Notes<'_>)) {
        if let Some(span) = self.0.as_mut().filter(|span| span.is_recording()) {
            note(&mut Notes(span));
        }
    }

    /// What those that it calls are to take for their parent; `None` where it is not exported, so that
    /// they keep to what they would have been told without it.
    pub fn traceparent(&self) -> Option<String> {
        let context = self.0.as_ref()?.span_context();
        context.is_sampled().then(|| {
            let (trace, span) = (context.trace_id(), context.span_id());
            format!("00-{trace}-{span}-01")
        })
    }
}

/// What can be said of a span.
#[derive(Debug)]
pub struct Notes<'a>(&'a mut SdkSpan);

impl Notes<'_> {
    /// Its name, where only what is exported is worth making one for.
    pub fn name(&mut self, name: String) {
        self.0.update_name(name);
    }

    /// An attribute, by its name in the semantic conventions where there is one.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.set_attribute(KeyValue::new(key, value));
    }

    /// That it failed, and how, as a class.
    pub fn failed(&mut self, class: &'static str) {
        self.set("error.type", class);
        self.0.set_status(Status::error(class));
    }
}

/// A `traceparent` as the propagator takes it.
struct Carrier<'a>(&'a str);

impl Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

/// The context that a `traceparent` stands for; an empty one for none, or one that is malformed.
fn context(parent: Option<&str>) -> Context {
    parent.map_or_else(Context::new, |parent| {
        TraceContextPropagator::new().extract_with_context(&Context::new(), &Carrier(parent))
    })
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};

    use super::*;

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn tracer() -> Tracer {
        let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
        let provider = SdkTracerProvider::builder().with_sampler(sampler).build();
        Tracer::exporting(provider.tracer("test"))
    }

    #[test]
    fn a_span_stands_in_the_trace_of_its_parent_and_is_a_parent_itself() {
        let span = tracer().start(SpanKind::Client, "POST", Some(SAMPLED));
        let told = span.traceparent().unwrap();
        assert!(told.starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
        assert!(told.ends_with("-01") && told != SAMPLED);
    }

    #[test]
    fn what_is_not_sampled_is_nobodys_parent_and_notes_nothing() {
        let unsampled = SAMPLED.replace("331-01", "331-00");
        let mut span = tracer().start(SpanKind::Client, "POST", Some(&unsampled));
        span.note(|_| panic!("nobody reads it"));
        assert_eq!(span.traceparent(), None);
    }

    #[test]
    fn without_a_parent_that_can_be_read_a_span_begins_a_trace() {
        for parent in [None, Some("00-zz"), Some("")] {
            let span = tracer().start(SpanKind::Client, "POST", parent);
            assert!(span.traceparent().is_some(), "{parent:?}");
        }
    }

    #[test]
    fn without_a_collector_there_is_no_span() {
        let tracer = Tracer::default();
        let mut span = tracer.start(SpanKind::Client, "POST", Some(SAMPLED));
        span.note(|_| panic!("nobody reads it"));
        assert_eq!(span.traceparent(), None);
        let period = Period {
            began: DateTime::UNIX_EPOCH,
            ended: DateTime::UNIX_EPOCH,
        };
        tracer.tell(SpanKind::Consumer, "process", None, period, |_| {
            panic!("nobody reads it")
        });
    }
}
