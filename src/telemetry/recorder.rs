//! What is counted: kept in this process for Prometheus, and counted a second time for a collector,
//! where there is one.

use std::sync::{Mutex, PoisonError};

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use metrics_opentelemetry::{OpenTelemetryMetrics, OpenTelemetryRecorder};
use metrics_util::layers::FanoutBuilder;
use opentelemetry::metrics::Meter;

use super::{TelemetryError, metric};

/// From a receiver in the same rack to the timeout, in seconds.
const SECONDS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// From a few rows to the longest fetch, in seconds.
const LONG_SECONDS: [f64; 12] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1_800.0,
];

/// From one by one to full batches.
const BATCH_SIZES: [f64; 10] = [
    1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0,
];

/// The metrics of this process, to be read.
#[derive(Clone, Debug)]
pub struct Metrics(PrometheusHandle);

/// What is installed in this process: the recorder is the process's, not ours to replace.
static INSTALLED: Mutex<Option<Metrics>> = Mutex::new(None);

impl Metrics {
    /// Starts keeping metrics, for the rest of the process; the second call gives the same. With a
    /// meter they are counted there too: that of the first call, since the recorder is the process's.
    pub fn install(exported: Option<Meter>) -> Result<Self, TelemetryError> {
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = &*installed {
            return Ok(metrics.clone());
        }
        let recorder = recorder()?;
        let metrics = Self(recorder.handle());
        match exported {
            None => metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::Taken)?,
            Some(meter) => {
                let both = FanoutBuilder::default()
                    .add_recorder(recorder)
                    .add_recorder(bridge(meter))
                    .build();
                metrics::set_global_recorder(both).map_err(|_| TelemetryError::Taken)?;
            }
        }
        describe();
        begin_at_zero();
        *installed = Some(metrics.clone());
        Ok(metrics)
    }

    /// All metrics in Prometheus's text form.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds what was measured since the last time into the histograms. Samples pile up until
    /// then, so it must be called now and then also where nobody reads the metrics.
    pub fn fold(&self) {
        self.0.run_upkeep();
    }
}

/// Counters that alerts look at exist from the start, not from the first time on.
fn begin_at_zero() {
    metrics::counter!(metric::LOST_LEASES).increment(0);
    for outcome in ["accepted", "duplicate", "dead_lettered"] {
        metrics::counter!(metric::EVENTS, "outcome" => outcome).increment(0);
        metrics::counter!(metric::SNAPSHOTS, "outcome" => outcome).increment(0);
    }
    for to in ["opened", "still_open", "recovering", "closed", "given_up"] {
        metrics::counter!(metric::CIRCUIT_TRANSITIONS, "to" => to).increment(0);
    }
    for outcome in ["generated", "failed"] {
        metrics::counter!(metric::OUTPUTS, "outcome" => outcome).increment(0);
    }
    for outcome in ["published", "unroutable", "failed"] {
        metrics::counter!(metric::OUTBOX_PUBLISHED, "outcome" => outcome).increment(0);
    }
}

/// The histograms and their buckets: the same wherever they are read.
const HISTOGRAMS: [(&str, &[f64]); 4] = [
    (metric::ATTEMPT_DURATION, &SECONDS),
    (metric::OUTPUT_DURATION, &LONG_SECONDS),
    (metric::ACCEPT_BATCH, &BATCH_SIZES),
    (metric::SETTLE_BATCH, &BATCH_SIZES),
];

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for (name, buckets) in HISTOGRAMS {
        builder = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)?;
    }
    Ok(builder.build_recorder())
}

/// What hands everything that is counted on to OpenTelemetry, under the same names.
fn bridge(meter: Meter) -> OpenTelemetryRecorder {
    let mut recorder = OpenTelemetryRecorder::new(OpenTelemetryMetrics::new(meter));
    for (name, buckets) in HISTOGRAMS {
        recorder.set_histogram_bounds_mut([name].into_iter(), buckets);
    }
    recorder
}

fn describe() {
    describe_counter!(metric::EVENTS, "Events taken in, by outcome");
    describe_counter!(metric::SNAPSHOTS, "Snapshots taken in, by outcome");
    describe_histogram!(
        metric::ACCEPT_BATCH,
        Unit::Count,
        "Events stored in one transaction"
    );
    describe_counter!(metric::ATTEMPTS, "Attempts, by outcome and error class");
    describe_histogram!(
        metric::ATTEMPT_DURATION,
        Unit::Seconds,
        "Duration of an attempt"
    );
    describe_histogram!(
        metric::SETTLE_BATCH,
        Unit::Count,
        "Outcomes written in one transaction"
    );
    describe_counter!(
        metric::LOST_LEASES,
        "Outcomes that came after their lease had gone to another process"
    );
    describe_gauge!(metric::QUEUED, "Deliveries in the queue, by state");
    describe_gauge!(
        metric::OLDEST_DUE,
        Unit::Seconds,
        "How long the oldest due delivery has been waiting"
    );
    describe_gauge!(
        metric::AMQP_CONNECTED,
        "Whether a queue of the broker is consumed"
    );
    describe_counter!(
        metric::OUTBOX_PUBLISHED,
        "Events of our own given to the broker, by outcome"
    );
    describe_gauge!(
        metric::OUTBOX_WAITING,
        "Events of our own that wait to be published"
    );
    describe_gauge!(
        metric::OUTBOX_OLDEST,
        Unit::Seconds,
        "How long the first event that waits to be published has been waiting"
    );
    describe_counter!(
        metric::RETENTION_REMOVED,
        "Rows that had been kept for long enough and were removed, by table"
    );
    describe_gauge!(
        metric::RETENTION_LAST_RUN,
        Unit::Seconds,
        "When this process last removed all that was old, since 1970"
    );
    describe_gauge!(
        metric::OLDEST_EVENT,
        Unit::Seconds,
        "How long ago the oldest event that is kept came, when retention last ran here"
    );
    describe_counter!(metric::OUTPUTS, "Jobs of outputs, by outcome");
    describe_histogram!(
        metric::OUTPUT_DURATION,
        Unit::Seconds,
        "Duration of a job of an output"
    );
    describe_gauge!(metric::IN_FLIGHT, "Requests in flight in this process");
    describe_gauge!(
        metric::OPEN_CIRCUITS,
        "Subscriptions whose receivers are left alone"
    );
    describe_counter!(
        metric::CIRCUIT_TRANSITIONS,
        "What became of circuits, by where they went"
    );
    describe_gauge!(
        metric::DATABASE_UP,
        "Whether the database answered when it was last asked for its queue"
    );
}

#[cfg(test)]
mod tests {
    use metrics::{counter, histogram};

    use super::*;

    #[test]
    fn metrics_are_installed_once_however_often_they_are_asked_for() {
        let first = Metrics::install(None).unwrap();
        let second = Metrics::install(None).unwrap();
        counter!("forge_test_total").increment(3);
        for metrics in [first, second] {
            assert!(metrics.render().contains("forge_test_total 3"));
        }
    }

    #[test]
    fn durations_and_batches_are_histograms_with_buckets() {
        // A recorder of its own: other tests of this process write to the installed one.
        let recorder = recorder().unwrap();
        let metrics = Metrics(recorder.handle());
        metrics::with_local_recorder(&recorder, || {
            describe();
            histogram!(metric::ATTEMPT_DURATION).record(0.3);
            histogram!(metric::ACCEPT_BATCH).record(20.0);
        });
        metrics.fold();
        let text = metrics.render();
        for line in [
            "# TYPE forge_attempt_duration_seconds histogram",
            "# HELP forge_attempt_duration_seconds Duration of an attempt",
            r#"forge_attempt_duration_seconds_bucket{le="0.25"} 0"#,
            r#"forge_attempt_duration_seconds_bucket{le="0.5"} 1"#,
            r#"forge_accept_batch_size_bucket{le="25"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
