//! Traces and metrics to a collector, over OTLP (HTTP, protobuf).
//!
//! Each signal has a thread of its own that gathers and sends, behind a queue that is bounded: a
//! collector that is away or slow costs what it would have been told, and nobody waits for it.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider,
};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use url::Url;

use super::Tracer;
use super::collector::{Collector, Signal};
use crate::config;

/// Spans that wait for their export; further ones are dropped. About a kilobyte each.
const MOST_WAITING: usize = 8_192;

/// Spans in one request: so many are sent before the interval is over.
const MOST_AT_ONCE: usize = 1_024;

/// The scope of all that is told: the program itself.
const SCOPE: &str = env!("CARGO_PKG_NAME");

/// What is told, on its way to a collector. To be ended with [`Self::end`].
#[derive(Debug)]
pub struct Export {
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
}

impl Export {
    /// Begins to export, where a collector is named. `client` may go to any address: the collector's is
    /// the operator's choice. `instance` tells this process from its replicas.
    pub fn start(
        settings: &config::Telemetry,
        client: &reqwest::Client,
        instance: String,
    ) -> Result<Option<Self>, ExporterBuildError> {
        let Some(endpoint) = &settings.otlp_endpoint else {
            return Ok(None);
        };
        let collector = |signal| Collector {
            signal,
            client: client.clone(),
            headers: settings.headers().unwrap_or_default(),
            timeout: settings.export_timeout,
            runtime: Handle::current(),
            away: false.into(),
        };
        let spans = SpanExporter::builder()
            .with_http()
            .with_http_client(collector(Signal::Traces))
            .with_endpoint(path(endpoint, Signal::Traces))
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(settings.export_timeout)
            .build()?;
        let metrics = MetricExporter::builder()
            .with_http()
            .with_http_client(collector(Signal::Metrics))
            .with_endpoint(path(endpoint, Signal::Metrics))
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(settings.export_timeout)
            .build()?;
        // Said here in full, so that our configuration is the only one.
        let resource = Resource::builder_empty()
            .with_service_name(settings.service_name.clone())
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", instance),
            ])
            .build();
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(MOST_WAITING)
            .with_max_export_batch_size(MOST_AT_ONCE)
            .with_scheduled_delay(settings.export_interval)
            .build();
        let spans = BatchSpanProcessor::builder(spans).with_batch_config(batches);
        let ratio = Sampler::TraceIdRatioBased(settings.sample_ratio);
        let traces = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_sampler(Sampler::ParentBased(Box::new(ratio)))
            .with_span_processor(spans.build())
            .build();
        let reader = PeriodicReader::builder(metrics).with_interval(settings.export_interval);
        let metrics = SdkMeterProvider::builder()
            .with_resource(resource)
            .with_reader(reader.build())
            .build();
        Ok(Some(Self { traces, metrics }))
    }

    /// Makes spans that are exported.
    pub fn tracer(&self) -> Tracer {
        Tracer::exporting(self.traces.tracer(SCOPE))
    }

    /// Where metrics are counted that are exported.
    pub fn meter(&self) -> Meter {
        self.metrics.meter(SCOPE)
    }

    /// Sends what is left, for so long at most.
    pub async fn end(self, within: Duration) {
        let Self { traces, metrics } = self;
        let traces = aside(move || traces.shutdown_with_timeout(within));
        let metrics = aside(move || metrics.shutdown_with_timeout(within));
        let (traces, metrics) = tokio::join!(traces, metrics);
        if !(matches!(traces, Ok(Ok(()))) && matches!(metrics, Ok(Ok(())))) {
            tracing::debug!("telemetry: not all was exported before the end");
        }
    }
}

/// Runs what blocks on a thread of its own: the runtime waits for its own threads when it ends, and a
/// program that is told to end at once must not wait for a collector.
fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (done, outcome) = oneshot::channel();
    std::thread::spawn(move || {
        // Nobody may be waiting any more.
        drop(done.send(work()));
    });
    outcome
}

/// Where a signal goes: its path under that of the endpoint (OTLP/HTTP).
fn path(endpoint: &Url, signal: Signal) -> String {
    let base = endpoint.as_str().trim_end_matches('/');
    format!("{base}/v1/{}", signal.as_str())
}
