//! The composition root: builds the parts, starts them in order, and drains them in order.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::api::listener::Fingerprint;
use crate::clock::pause;
use crate::config::Config;
use crate::health::{Health, Part};
use crate::ops::{self, Ops};
use crate::shutdown::Shutdown;
use crate::store::{self, Store};
use crate::telemetry::Metrics;

mod error;
mod front_door;
mod intake;
mod outputs;
mod preparation;
mod sending;
mod surroundings;
mod telling;
mod work;

pub use error::AppError;
pub use intake::{Entrance, EntranceError};
pub use surroundings::{Surroundings, tester};

use preparation::{Prepared, prepare};
use telling::Telling;
use work::Work;

/// The program, built and not yet running.
pub struct App {
    store: Arc<dyn Store>,
    work: Work,
    ops: TcpListener,
    ops_parts: Ops,
    telling: Telling,
    shutdown: Shutdown,
}

impl App {
    /// Builds the parts of the role and opens the ports. Does not wait for a database or a broker.
    pub async fn build(
        config: Config,
        surroundings: Surroundings,
        shutdown: Shutdown,
    ) -> Result<Self, AppError> {
        let clock = Arc::clone(&surroundings.clock);
        let store = store::open(&config, Arc::clone(&clock), &surroundings.entropy).await?;
        let health = Arc::new(Health::default());
        health.down(Part::Database, "starting");
        let address = config.ops.listen;
        let telling = Telling::start(&config, &surroundings)?;
        let metrics = Metrics::install(telling.meter())?;
        let exported_every = telling.meter().map(|_| config.telemetry.export_interval);
        let work = Work::build(
            config,
            surroundings,
            Arc::clone(&store),
            Arc::clone(&health),
            telling.tracer(),
            shutdown.clone(),
        )
        .await?;
        let ops = TcpListener::bind(address)
            .await
            .map_err(|source| AppError::Listen {
                key: "ops.listen",
                address,
                source,
            })?;
        let ops_parts = Ops {
            store: Arc::clone(&store),
            health,
            metrics,
            clock,
            exported_every,
        };
        Ok(Self {
            store,
            work,
            ops,
            ops_parts,
            telling,
            shutdown,
        })
    }

    /// Where `/healthz`, `/readyz` and `/metrics` are.
    pub fn ops_address(&self) -> std::io::Result<SocketAddr> {
        self.ops.local_addr()
    }

    /// Where the API is, if this role serves it.
    pub fn api_address(&self) -> std::io::Result<Option<SocketAddr>> {
        self.work.api_address()
    }

    /// By what clients of the API know its certificate; `None` behind proxies.
    pub fn api_fingerprint(&self) -> Option<Fingerprint> {
        self.work.api_fingerprint()
    }

    /// The store, for those that run the program inside another (`demo`, tests).
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// The way in without a broker.
    pub fn entrance(&self) -> Entrance {
        self.work.entrance()
    }

    /// Runs until the shutdown's soft token, then drains: the ways in first (ingest and the API), so
    /// that what was taken in is committed, then dispatch, so that what was sent is written, then the store.
    pub async fn run(self) -> Result<(), AppError> {
        let Self {
            store,
            work,
            telling,
            ..
        } = self;
        let ops_end = CancellationToken::new();
        let health = Arc::clone(&self.ops_parts.health);
        let ops = tokio::spawn(ops::serve(self.ops, self.ops_parts, ops_end.clone()));
        let deadline = work.drain_timeout();
        let shutdown = self.shutdown.clone();
        let asked: Arc<OnceLock<Instant>> = Arc::default();
        let asking = Arc::clone(&asked);
        let watchdog = tokio::spawn(async move {
            shutdown.soft.cancelled().await;
            asking.get_or_init(Instant::now);
            pause(deadline).await;
            tracing::warn!(?deadline, "the drain's deadline has passed: ending at once");
            shutdown.abort();
        });

        let outcome = match prepare(&*store, &health, &self.shutdown).await {
            Ok(Prepared::Ready) => {
                tracing::info!(database = store.kind(), role = %work.role(), "ready");
                Box::pin(work.run()).await
            }
            Ok(Prepared::Stopped) => Ok(()),
            Err(error) => Err(error.into()),
        };
        watchdog.abort();
        store.close().await;
        ops_end.cancel();
        match ops.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the ops port broke"),
            Err(error) => tracing::error!(%error, "the ops port broke"),
        }
        // Behind all that counts: what it counted of a database that is closed would be told as an outage.
        let taken = asked.get().map(Instant::elapsed).unwrap_or_default();
        telling
            .end(deadline.saturating_sub(taken), &self.shutdown)
            .await;
        tracing::info!("stopped");
        outcome
    }
}

/// The OpenAPI description of the API, as JSON.
pub fn openapi() -> String {
    api::openapi::write(&api::openapi::document())
}
