//! Health and metrics, on a port of their own for operators.
//!
//! - `/healthz`: the process runs.
//! - `/readyz` ([`ready`]): the database can be used. A broker that is away does not unready a
//!   replica: what is queued is still delivered.
//! - `/metrics` ([`scrape`]): for Prometheus.
//!
//! Nothing that comes from outside (a database's error texts) is shown here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::health::Health;
use crate::store::Store;
use crate::telemetry::Metrics;

pub mod ready;
pub mod scrape;

/// How long the database may take to answer a question of ours.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the metrics' samples are folded, whether or not somebody reads them.
const FOLD_INTERVAL: Duration = Duration::from_secs(5);

/// How long requests under way may take after the end was asked for.
const GOODBYE: Duration = Duration::from_secs(2);

/// What is told about.
#[derive(Clone, Debug)]
pub struct Ops {
    /// Asked whether it can be used, and how much waits.
    pub store: Arc<dyn Store>,
    /// What the parts say of themselves.
    pub health: Arc<Health>,
    /// What they counted.
    pub metrics: Metrics,
    /// Paces the questions to the database.
    pub clock: Arc<dyn Clock>,
    /// How often they are sent to a collector, where there is one: what waits is counted as often.
    pub exported_every: Option<Duration>,
}

/// Serves until `end` is cancelled; requests under way are finished, but not waited for long.
pub async fn serve(listener: TcpListener, ops: Ops, end: CancellationToken) -> io::Result<()> {
    let metrics = ops.metrics.clone();
    let pace = Arc::new(scrape::Pace::default());
    let mut counting = std::pin::pin!(scrape::count_for_export(ops.clone(), Arc::clone(&pace)));
    let server = axum::serve(listener, router(ops, pace))
        .with_graceful_shutdown(end.clone().cancelled_owned());
    let mut folding = tokio::time::interval(FOLD_INTERVAL);
    folding.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut server = std::pin::pin!(server.into_future());
    loop {
        tokio::select! {
            result = &mut server => return result,
            _ = folding.tick() => metrics.fold(),
            () = &mut counting => {}
            () = end.cancelled() => break,
        }
    }
    match tokio::time::timeout(GOODBYE, server).await {
        Ok(result) => result,
        // A client that holds its connection open is no reason to stay.
        Err(_) => Ok(()),
    }
}

fn router(ops: Ops, pace: Arc<scrape::Pace>) -> Router {
    let readyz = {
        let ops = ops.clone();
        move || ready::readyz(ops)
    };
    let metrics = move || scrape::metrics(ops, pace);
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}
