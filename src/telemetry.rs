//! What the program tells its operators: logs, and metrics for Prometheus.
//!
//! Logs go to standard error, so that standard output stays for data. Metrics are kept in this
//! process and read by `ops`; the parts write them by the names of [`metric`].

use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// The names of all metrics.
pub mod metric {
    /// Events taken in, by `outcome`: `accepted`, `duplicate`, `dead_lettered`.
    pub const EVENTS: &str = "forge_events_total";
    /// Snapshots taken in, by `outcome` as events: a `duplicate` was not newer than what is known.
    pub const SNAPSHOTS: &str = "forge_snapshots_total";
    /// Events of one accept.
    pub const ACCEPT_BATCH: &str = "forge_accept_batch_size";
    /// Attempts, by `outcome` (`succeeded`, `retried`, `failed`) and error `class`.
    pub const ATTEMPTS: &str = "forge_attempts_total";
    /// How long attempts took.
    pub const ATTEMPT_DURATION: &str = "forge_attempt_duration_seconds";
    /// Outcomes of one settle.
    pub const SETTLE_BATCH: &str = "forge_settle_batch_size";
    /// Outcomes that came after their lease had gone to another.
    pub const LOST_LEASES: &str = "forge_lost_leases_total";
    /// Deliveries in the queue, by `state`: `pending`, `in_flight`.
    pub const QUEUED: &str = "forge_deliveries_queued";
    /// How long the oldest due delivery has been waiting.
    pub const OLDEST_DUE: &str = "forge_oldest_due_age_seconds";
    /// Whether a `queue` of the broker is consumed: 0 or 1.
    pub const AMQP_CONNECTED: &str = "forge_amqp_connected";
    /// Events of our own given to the broker, by `outcome`: `published`, `unroutable`, `failed`.
    pub const OUTBOX_PUBLISHED: &str = "forge_outbox_published_total";
    /// Events of our own that wait to be published.
    pub const OUTBOX_WAITING: &str = "forge_outbox_waiting";
    /// How long the first of them has been waiting.
    pub const OUTBOX_OLDEST: &str = "forge_outbox_oldest_age_seconds";
    /// Rows that were old and are removed, by `table`.
    pub const RETENTION_REMOVED: &str = "forge_retention_removed_total";
    /// When all that was old was last found removed, in seconds since 1970.
    pub const RETENTION_LAST_RUN: &str = "forge_retention_last_run_timestamp_seconds";
    /// How long ago the oldest event came that was kept then.
    pub const OLDEST_EVENT: &str = "forge_oldest_event_age_seconds";
    /// Jobs of outputs, by `outcome`: `generated`, `failed`, `postponed`, `released` (at a stop),
    /// `lease_lost`, `unsettled` (the database was away).
    pub const OUTPUTS: &str = "forge_outputs_total";
    /// How long they took.
    pub const OUTPUT_DURATION: &str = "forge_output_duration_seconds";
    /// Requests in flight in this process.
    pub const IN_FLIGHT: &str = "forge_in_flight";
    /// Subscriptions whose circuit is open.
    pub const OPEN_CIRCUITS: &str = "forge_open_circuits";
    /// What became of circuits, by where they went (`to`): `opened`, `still_open`, `recovering`,
    /// `closed`, `given_up`.
    pub const CIRCUIT_TRANSITIONS: &str = "forge_circuit_transitions_total";
    /// Whether the database answered when it was last asked for its queue: 0 or 1.
    pub const DATABASE_UP: &str = "forge_database_up";
}

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

/// Why there is no telemetry.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter of the logs is none.
    #[error("log.filter: {0}")]
    Filter(#[from] ParseError),

    /// The metrics cannot be kept.
    #[error("metrics: {0}")]
    Metrics(#[from] BuildError),

    /// Another recorder was there first.
    #[error("metrics: another recorder is installed in this process")]
    Taken,
}

/// The AMQP client logs whole messages and, at trace, passwords; each fault that it tells of is
/// told by `ingest` or `outbox` in a line of ours.
const SILENCED: &str = "lapin=off,amq_protocol=off";

/// Starts logging, for the rest of the process. Where a test did so before, that stays.
pub fn log_to_stderr(log: &Log) -> Result<(), TelemetryError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(format!("{},{SILENCED}", log.filter))?)
        // Where standard error is closed, telling of it there would panic.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    let started = match log.format {
        LogFormat::Human => builder
            .with_ansi(io::stderr().is_terminal())
            .finish()
            .try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .finish()
            .try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before; it stays as it is");
    }
    Ok(())
}

/// The metrics of this process, to be read.
#[derive(Clone, Debug)]
pub struct Metrics(PrometheusHandle);

/// What is installed in this process: the recorder is the process's, not ours to replace.
static INSTALLED: Mutex<Option<Metrics>> = Mutex::new(None);

impl Metrics {
    /// Starts keeping metrics, for the rest of the process; the second call gives the same.
    pub fn install() -> Result<Self, TelemetryError> {
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = &*installed {
            return Ok(metrics.clone());
        }
        let recorder = recorder()?;
        let metrics = Self(recorder.handle());
        metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::Taken)?;
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

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let full = |name: &str| Matcher::Full(name.to_owned());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(full(metric::ATTEMPT_DURATION), &SECONDS)?
        .set_buckets_for_metric(full(metric::OUTPUT_DURATION), &LONG_SECONDS)?
        .set_buckets_for_metric(full(metric::ACCEPT_BATCH), &BATCH_SIZES)?
        .set_buckets_for_metric(full(metric::SETTLE_BATCH), &BATCH_SIZES)?
        .build_recorder();
    Ok(recorder)
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
        let first = Metrics::install().unwrap();
        let second = Metrics::install().unwrap();
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

    #[test]
    fn a_filter_that_is_none_is_named() {
        let log = Log {
            format: LogFormat::Json,
            filter: "forge=loud".to_owned(),
        };
        let error = log_to_stderr(&log).unwrap_err();
        assert!(error.to_string().starts_with("log.filter: "));
    }
}
