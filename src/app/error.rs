//! Why the program cannot start, or ended.

use std::net::SocketAddr;

use crate::api::listener::ListenError;
use crate::dispatch::Broken;
use crate::domain::retry::ScheduleError;
use crate::egress::client::ClientError;
use crate::outputs::files::FilesError;
use crate::store::StoreError;
use crate::telemetry::TelemetryError;

/// Why the program cannot start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The store cannot be used as it is configured.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The client cannot be built.
    #[error("egress: {0}")]
    Egress(#[from] ClientError),
    /// The retry schedule breaks its rules.
    #[error("retry.schedule: {0}")]
    Schedule(#[from] ScheduleError),
    /// Dispatch panicked.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// Metrics cannot be counted.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The API's listener: its certificate, or a fault while it serves.
    #[error(transparent)]
    Api(#[from] ListenError),
    /// Files of outputs cannot be kept where the configuration says.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A port cannot be opened.
    #[error("{key} {address}: {source}")]
    Listen {
        /// The key of the configuration that names it.
        key: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}
