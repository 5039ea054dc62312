//! A collector of traces and metrics: a receiver that decodes what a program exports to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use forge_dispatch::config;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;

use super::receiver::{Receiver, Reply};

/// What arrives stays, encoded as it came.
pub(crate) struct Collector {
    pub(crate) receiver: Receiver,
}

/// A span, with what tests look at.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty where it has none.
    pub(crate) parent: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) took: Duration,
}

impl Collector {
    /// One that takes everything.
    pub(crate) fn start() -> Self {
        Self {
            receiver: Receiver::start(|_| Reply::status(200)),
        }
    }

    /// How a program is told of it. What is left when the program ends is sent then: long before the
    /// interval is over.
    pub(crate) fn settings(&self) -> config::Telemetry {
        exported_to(self.receiver.address())
    }

    /// All spans that came, in the order of their beginning.
    pub(crate) fn spans(&self) -> Vec<Told> {
        let mut spans: Vec<Span> = Vec::new();
        for request in self.to("/v1/traces") {
            let told = ExportTraceServiceRequest::decode(request).expect("traces");
            for resource in told.resource_spans {
                let named = resource.resource.expect("whose they are").attributes;
                assert_eq!(texts(&named)["service.name"], "forge-dispatch");
                spans.extend(resource.scope_spans.into_iter().flat_map(|it| it.spans));
            }
        }
        spans.sort_by_key(|span| span.start_time_unix_nano);
        spans.iter().map(Told::of).collect()
    }

    /// The newest of each metric that came, by its name.
    pub(crate) fn metrics(&self) -> BTreeMap<String, Metric> {
        let mut metrics = BTreeMap::new();
        for request in self.to("/v1/metrics") {
            let told = ExportMetricsServiceRequest::decode(request).expect("metrics");
            let scopes = told.resource_metrics.into_iter();
            let scopes = scopes.flat_map(|it| it.scope_metrics);
            for metric in scopes.flat_map(|it| it.metrics) {
                metrics.insert(metric.name.clone(), metric);
            }
        }
        metrics
    }

    fn to(&self, path: &str) -> Vec<bytes::Bytes> {
        let requests = self.receiver.received();
        let requests = requests.iter().filter(|request| request.path == path);
        requests.map(|request| request.body.clone()).collect()
    }
}

/// What a program exports to this address.
pub(crate) fn exported_to(address: SocketAddr) -> config::Telemetry {
    config::Telemetry {
        otlp_endpoint: Some(format!("http://{address}").parse().expect("a URL")),
        export_interval: Duration::from_hours(1),
        export_timeout: Duration::from_secs(5),
        ..config::Telemetry::default()
    }
}

impl Told {
    fn of(span: &Span) -> Self {
        let took = span.end_time_unix_nano - span.start_time_unix_nano;
        Self {
            name: span.name.clone(),
            kind: span.kind(),
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            attributes: texts(&span.attributes),
            took: Duration::from_nanos(took),
        }
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        other => format!("{other:?}"),
    };
    let of = |it: &KeyValue| {
        let value = it.value.as_ref().and_then(|value| value.value.as_ref());
        (it.key.clone(), value.map(text).unwrap_or_default())
    };
    attributes.iter().map(of).collect()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").expect("text can be written");
    }
    text
}
