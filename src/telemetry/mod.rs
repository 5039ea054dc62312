//! What the program tells its operators: logs, metrics for Prometheus, and, where a collector is named,
//! traces and metrics over OTLP.
//!
//! Logs go to standard error, so that standard output stays for data. Metrics are kept in this
//! process and read by `ops`; the parts write them by the names of [`metric`].
//!
//! - [`recorder`]: what is counted.
//! - [`trace`]: spans, which are nothing at all where nothing is exported.
//! - [`export`]: both on their way to a collector.

use std::io::{self, IsTerminal};

use metrics_exporter_prometheus::BuildError;
use opentelemetry_otlp::ExporterBuildError;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

mod collector;
pub mod export;
pub mod metric;
pub mod recorder;
pub mod trace;

pub use export::Export;
pub use recorder::Metrics;
pub use trace::Tracer;

/// Why there is no telemetry.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter of the logs is none.
    #[error("log.filter: {0}")]
    Filter(#[from] ParseError),

    /// The metrics cannot be kept.
    #[error("metrics: {0}")]
    Metrics(#[from] BuildError),

    /// What is told cannot be exported.
    #[error("telemetry.otlp_endpoint: {0}")]
    Export(#[from] ExporterBuildError),

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

#[cfg(test)]
mod tests {
    use super::*;

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
