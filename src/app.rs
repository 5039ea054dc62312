//! The composition root: builds the parts, starts them in order, and drains them in order.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, SystemClock, pause};
use crate::config::Config;
use crate::dispatch::{self, Dispatcher, Settlements};
use crate::domain::retry::{RetrySchedule, ScheduleError};
use crate::egress::client::WebhookClient;
use crate::egress::resolver::{Lookup, SystemLookup};
use crate::entropy::Entropy;
use crate::health::{Health, Part};
use crate::ingest::{self, Entrance};
use crate::ops;
use crate::reconnect::Reconnect;
use crate::shutdown::Shutdown;
use crate::store::{self, Leasing, Store, StoreError};
use crate::telemetry;

/// What the program takes from its surroundings, and what a test may replace.
#[derive(Clone)]
pub struct Surroundings {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Entropy,
    /// Name resolution.
    pub lookup: Arc<dyn Lookup>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            entropy: Entropy::system(),
            lookup: Arc::new(SystemLookup),
        }
    }
}

/// Why the program cannot start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The store cannot be used as it is configured.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The client cannot be built.
    #[error("egress: {0}")]
    Egress(#[from] crate::egress::client::ClientError),
    /// The retry schedule breaks its rules.
    #[error("retry.schedule: {0}")]
    Schedule(#[from] ScheduleError),
    /// The ops port cannot be opened.
    #[error("ops.listen {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// The program, built and not yet running.
pub struct App {
    config: Config,
    surroundings: Surroundings,
    store: Arc<dyn Store>,
    health: Arc<Health>,
    dispatcher: Dispatcher,
    settlements: Settlements,
    /// Stops after ingest, so that what ingest hands over last is still sent.
    dispatch_shutdown: Shutdown,
    leasing: Leasing,
    ops: TcpListener,
    shutdown: Shutdown,
}

impl App {
    /// Builds the parts and opens the ops port. Does not wait for a database or a broker.
    pub async fn build(
        config: Config,
        surroundings: Surroundings,
        shutdown: Shutdown,
    ) -> Result<Self, AppError> {
        let Surroundings {
            clock,
            entropy,
            lookup,
        } = surroundings.clone();
        let store = store::open::open(&config, Arc::clone(&clock), entropy.clone())?;
        let client = WebhookClient::new(&config.egress, lookup, Arc::clone(&clock))?;
        let health = Arc::new(Health::default());
        health.down(Part::Database, "starting");
        let leasing = Leasing {
            owner: entropy.id(clock.now()),
            lease: config.dispatch.lease,
        };
        let dispatch_shutdown = Shutdown {
            soft: CancellationToken::new(),
            hard: shutdown.hard.clone(),
        };
        let (dispatcher, settlements) = Dispatcher::new(
            dispatch::Parts {
                store: Arc::clone(&store),
                client: Arc::new(client),
                clock,
                entropy,
                health: Arc::clone(&health),
                leasing,
                settings: config.dispatch.clone(),
                schedule: RetrySchedule::new(config.retry.schedule.clone())?,
                attempt_timeout: config.egress.timeout,
            },
            dispatch_shutdown.clone(),
        );
        let address = config.ops.listen;
        let ops = TcpListener::bind(address)
            .await
            .map_err(|source| AppError::Listen { address, source })?;
        Ok(Self {
            config,
            surroundings,
            store,
            health,
            dispatcher,
            settlements,
            dispatch_shutdown,
            leasing,
            ops,
            shutdown,
        })
    }

    /// Where `/healthz`, `/readyz` and `/metrics` are.
    pub fn ops_address(&self) -> std::io::Result<SocketAddr> {
        self.ops.local_addr()
    }

    /// The store, for those that run the program inside another (`demo`, tests).
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// The way in without a broker.
    pub fn entrance(&self) -> Entrance {
        Entrance {
            store: Arc::clone(&self.store),
            intake: Arc::new(self.dispatcher.clone()),
            leasing: self.leasing,
            clock: Arc::clone(&self.surroundings.clock),
            entropy: self.surroundings.entropy.clone(),
        }
    }

    /// Runs until the shutdown's soft token, then drains: ingest first, so that what was taken in
    /// is committed, then dispatch, so that what was sent is written, then the store.
    pub async fn run(self) -> Result<(), AppError> {
        let ops_end = CancellationToken::new();
        let ops = tokio::spawn(ops::serve(
            self.ops,
            Arc::clone(&self.store),
            Arc::clone(&self.health),
            telemetry::metrics_handle(),
            ops_end.clone(),
        ));
        let deadline = self.config.dispatch.drain_timeout;
        let shutdown = self.shutdown.clone();
        let watchdog = tokio::spawn(async move {
            shutdown.soft.cancelled().await;
            pause(deadline).await;
            tracing::warn!(?deadline, "the drain's deadline has passed: ending at once");
            shutdown.abort();
        });

        let entrance = self.entrance();
        let outcome = match prepare(&*self.store, &self.health, &self.shutdown).await {
            Ok(Prepared::Ready) => {
                tracing::info!(database = self.store.kind(), "ready");
                let dispatch = tokio::spawn(self.dispatcher.run(self.settlements));
                if self.config.amqp.url.is_some() {
                    ingest::amqp::run(
                        self.config.amqp.clone(),
                        entrance,
                        Arc::clone(&self.health),
                        self.shutdown.clone(),
                    )
                    .await;
                } else {
                    self.shutdown.soft.cancelled().await;
                }
                self.dispatch_shutdown.begin();
                if let Err(error) = dispatch.await {
                    tracing::error!(%error, "dispatch broke");
                }
                Ok(())
            }
            Ok(Prepared::Stopped) => Ok(()),
            Err(error) => Err(error.into()),
        };
        watchdog.abort();
        self.store.close().await;
        ops_end.cancel();
        if let Err(error) = ops.await {
            tracing::error!(%error, "the ops port broke");
        }
        tracing::info!("stopped");
        outcome
    }
}

/// Whether the database could be waited for.
enum Prepared {
    Ready,
    Stopped,
}

/// Waits for the database and brings its schema up to date.
async fn prepare(
    store: &dyn Store,
    health: &Health,
    shutdown: &Shutdown,
) -> Result<Prepared, StoreError> {
    let mut reconnect = Reconnect::default();
    loop {
        match store.migrate().await {
            Ok(()) => {
                health.up(Part::Database);
                return Ok(Prepared::Ready);
            }
            Err(error) if error.is_unavailable() => {
                health.down(Part::Database, "does not answer");
                tracing::warn!(%error, "the database does not answer; trying again");
                tokio::select! {
                    () = reconnect.pause() => {}
                    () = shutdown.soft.cancelled() => return Ok(Prepared::Stopped),
                }
            }
            Err(error) => return Err(error),
        }
    }
}
