//! What a collector is told: begun before all other parts, and ended behind them.

use std::time::Duration;

use opentelemetry::metrics::Meter;

use super::{AppError, Surroundings};
use crate::config::Config;
use crate::domain::ids::OwnerId;
use crate::egress::client::for_configured_host;
use crate::shutdown::Shutdown;
use crate::telemetry::{Export, TelemetryError, Tracer};

/// The export, where there is one.
pub(super) struct Telling {
    export: Option<Export>,
    /// How long the last of it may take.
    timeout: Duration,
}

impl Telling {
    /// Begins to export, where a collector is named.
    pub(super) fn start(config: &Config, surroundings: &Surroundings) -> Result<Self, AppError> {
        let settings = &config.telemetry;
        let export = if settings.otlp_endpoint.is_some() {
            let instance: OwnerId = surroundings.entropy.id(surroundings.clock.now());
            let client = for_configured_host(&config.egress)?;
            Export::start(settings, &client, instance.to_string()).map_err(TelemetryError::from)?
        } else {
            None
        };
        Ok(Self {
            export,
            timeout: settings.export_timeout,
        })
    }

    pub(super) fn tracer(&self) -> Tracer {
        self.export.as_ref().map(Export::tracer).unwrap_or_default()
    }

    pub(super) fn meter(&self) -> Option<Meter> {
        self.export.as_ref().map(Export::meter)
    }

    /// Sends what is left, in what is `left` of the drain's time; with the hard token nothing more.
    pub(super) async fn end(self, left: Duration, shutdown: &Shutdown) {
        let Some(export) = self.export else { return };
        let within = if shutdown.hard.is_cancelled() {
            Duration::ZERO
        } else {
            left.min(self.timeout)
        };
        tokio::select! {
            () = export.end(within) => {}
            () = shutdown.hard.cancelled() => {}
        }
    }
}
