//! The composition root: builds the parts, starts them in order, and drains them in order.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{OptionFuture, join};
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::api::listener::{Fingerprint, ListenError};
use crate::clock::{Clock, SystemClock, pause};
use crate::config::Config;
use crate::dispatch::{self, Broken, Dispatcher, Settlements, Tester};
use crate::domain::retry::{RetrySchedule, ScheduleError};
use crate::egress::client::ClientError;
use crate::egress::{Lookup, SystemLookup, WebhookClient};
use crate::entropy::Entropy;
use crate::health::{Health, Part};
use crate::ingest::{Acceptor, Applier, Decoder};
use crate::ops::{self, Ops};
use crate::outbox::{self, Pace};
use crate::outputs::files::FilesError;
use crate::reconnect::Reconnect;
use crate::replay;
use crate::shutdown::Shutdown;
use crate::store::{self, Leasing, Store, StoreError, TestSend};
use crate::telemetry::{Metrics, TelemetryError};
use crate::wake::Wake;

mod front_door;
mod intake;
mod outputs;

pub use intake::{Entrance, EntranceError};

use front_door::FrontDoor;
use outputs::{OutputRoom, Shared};

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

impl Surroundings {
    /// The client for webhooks, in these surroundings.
    fn client(&self, config: &Config) -> Result<Arc<WebhookClient>, ClientError> {
        let (lookup, clock) = (Arc::clone(&self.lookup), Arc::clone(&self.clock));
        WebhookClient::new(&config.egress, lookup, clock).map(Arc::new)
    }

    fn tester(&self, store: &Arc<dyn Store>, client: &Arc<WebhookClient>) -> Tester {
        let (store, client) = (Arc::clone(store), Arc::clone(client));
        Tester::new(store, client, Arc::clone(&self.clock), self.entropy.clone())
    }
}

/// What sends tests by the same road as the running program, for a command that sends one.
pub fn tester(
    config: &Config,
    surroundings: &Surroundings,
    store: &Arc<dyn Store>,
) -> Result<Arc<dyn TestSend>, AppError> {
    let client = surroundings.client(config)?;
    Ok(Arc::new(surroundings.tester(store, &client)))
}

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

/// The program, built and not yet running.
pub struct App {
    config: Config,
    surroundings: Surroundings,
    store: Arc<dyn Store>,
    health: Arc<Health>,
    metrics: Metrics,
    dispatcher: Dispatcher,
    settlements: Settlements,
    /// Stops after ingest, so that what ingest hands over last is still sent.
    dispatch_shutdown: Shutdown,
    leasing: Leasing,
    /// Rung by those who append to the outbox.
    outbox_bell: Arc<Wake>,
    front_door: FrontDoor,
    /// Where files of outputs can be kept.
    outputs: Option<OutputRoom>,
    ops: TcpListener,
    shutdown: Shutdown,
}

impl App {
    /// Builds the parts and opens the ports. Does not wait for a database or a broker.
    pub async fn build(
        config: Config,
        surroundings: Surroundings,
        shutdown: Shutdown,
    ) -> Result<Self, AppError> {
        let Surroundings { clock, entropy, .. } = surroundings.clone();
        let store = store::open(&config, Arc::clone(&clock), &entropy).await?;
        let outbox_bell = Arc::new(Wake::default());
        if config.amqp.url.is_some() {
            store.open_outbox(Arc::clone(&outbox_bell));
        }
        store.judge_receivers(config.dispatch.circuit.rules());
        let client = surroundings.client(&config)?;
        let tester = Arc::new(surroundings.tester(&store, &client));
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
                client: Arc::clone(&client),
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
        let outputs = OutputRoom::open(&config, &surroundings, &store, &client)?;
        let api = api::Parts {
            outputs: outputs.as_ref().map(|room| room.for_api(&config)),
            store: Arc::clone(&store),
            client,
            tester,
            leasing,
            intake: Arc::new(dispatcher.clone()),
            clock: Arc::clone(&surroundings.clock),
            entropy: surroundings.entropy.clone(),
            settings: config.api.clone(),
            stop: shutdown.soft.clone(),
        };
        let front_door = FrontDoor::open(&config, api).await?;
        let address = config.ops.listen;
        let ops = TcpListener::bind(address)
            .await
            .map_err(|source| AppError::Listen {
                key: "ops.listen",
                address,
                source,
            })?;
        Ok(Self {
            config,
            surroundings,
            store,
            health,
            metrics: Metrics::install()?,
            dispatcher,
            settlements,
            dispatch_shutdown,
            leasing,
            outbox_bell,
            front_door,
            outputs,
            ops,
            shutdown,
        })
    }

    /// Where `/healthz`, `/readyz` and `/metrics` are.
    pub fn ops_address(&self) -> std::io::Result<SocketAddr> {
        self.ops.local_addr()
    }

    /// Where the API is.
    pub fn api_address(&self) -> std::io::Result<SocketAddr> {
        self.front_door.address()
    }

    /// By what clients of the API know its certificate; `None` behind proxies.
    pub fn api_fingerprint(&self) -> Option<Fingerprint> {
        self.front_door.fingerprint()
    }

    /// The store, for those that run the program inside another (`demo`, tests).
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// The way in without a broker.
    pub fn entrance(&self) -> Entrance {
        Entrance {
            acceptor: Acceptor {
                decoder: Decoder::new(
                    Arc::clone(&self.surroundings.clock),
                    self.surroundings.entropy.clone(),
                ),
                store: Arc::clone(&self.store),
                intake: Arc::new(self.dispatcher.clone()),
                leasing: self.leasing,
            },
        }
    }

    /// Runs until the shutdown's soft token, then drains: the ways in first (ingest and the API), so
    /// that what was taken in is committed, then dispatch, so that what was sent is written, then the store.
    pub async fn run(self) -> Result<(), AppError> {
        let entrance = self.entrance();
        let ops_end = CancellationToken::new();
        let ops = tokio::spawn(ops::serve(
            self.ops,
            Ops {
                store: Arc::clone(&self.store),
                health: Arc::clone(&self.health),
                metrics: self.metrics.clone(),
                clock: Arc::clone(&self.surroundings.clock),
            },
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

        let outcome = match prepare(&*self.store, &self.health, &self.shutdown).await {
            Ok(Prepared::Ready) => {
                tracing::info!(database = self.store.kind(), "ready");
                let relay = outbox::run(
                    outbox::Parts {
                        store: Arc::clone(&self.store),
                        clock: Arc::clone(&self.surroundings.clock),
                        entropy: self.surroundings.entropy.clone(),
                        health: Arc::clone(&self.health),
                        owner: self.leasing.owner,
                        settings: self.config.amqp.clone(),
                        bell: self.outbox_bell,
                        pace: Pace::default(),
                    },
                    self.dispatch_shutdown.clone(),
                );
                let sender = Arc::new(self.dispatcher.clone());
                let dispatch = self.dispatcher.run(self.settlements);
                // What goes out: both end when the ways in have, so that what those left is sent.
                let dispatch = tokio::spawn(async move {
                    tokio::try_join!(dispatch, relay.map(Ok)).map(|((), ())| ())
                });
                let intake = intake::consume(
                    &self.config.amqp,
                    intake::Sinks {
                        events: entrance.acceptor,
                        snapshots: Applier {
                            clock: Arc::clone(&self.surroundings.clock),
                            store: Arc::clone(&self.store),
                        },
                    },
                    &self.surroundings.clock,
                    &self.health,
                    &self.shutdown,
                );
                let shared = Shared {
                    store: Arc::clone(&self.store),
                    leasing: self.leasing,
                    intake: sender.clone(),
                };
                let (config, surroundings) = (&self.config, &self.surroundings);
                // A way in too: what it makes is told to subscribers.
                let making = OptionFuture::from(
                    self.outputs
                        .map(|room| room.run(config, surroundings, shared, self.shutdown.clone())),
                );
                let replays = replay::run(
                    replay::Parts {
                        store: Arc::clone(&self.store),
                        intake: sender,
                        clock: Arc::clone(&self.surroundings.clock),
                        entropy: self.surroundings.entropy.clone(),
                        owner: self.leasing.owner,
                        pace: replay::Pace::default(),
                    },
                    self.shutdown.clone(),
                );
                let serving = self.front_door.serve(self.shutdown.clone());
                Box::pin(work(
                    dispatch,
                    &self.dispatch_shutdown,
                    join(intake, join(making, replays)).map(|_| Ok(())),
                    serving,
                ))
                .await
            }
            Ok(Prepared::Stopped) => Ok(()),
            Err(error) => Err(error.into()),
        };
        watchdog.abort();
        self.store.close().await;
        ops_end.cancel();
        match ops.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the ops port broke"),
            Err(error) => tracing::error!(%error, "the ops port broke"),
        }
        tracing::info!("stopped");
        outcome
    }
}

/// Keeps the ways in open until they are told to end, or one breaks; then dispatch finishes what they
/// let in. Dispatch ends before it is told to only when it broke; then nothing may be taken in any
/// more, and what was not acknowledged comes again.
async fn work(
    mut dispatch: JoinHandle<Result<(), Broken>>,
    dispatch_shutdown: &Shutdown,
    intake: impl Future<Output = Result<(), AppError>>,
    serving: impl Future<Output = Result<(), AppError>>,
) -> Result<(), AppError> {
    let ways_in = async { tokio::try_join!(intake, serving).map(|((), ())| ()) };
    tokio::select! {
        outcome = ways_in => {
            dispatch_shutdown.begin();
            ended(dispatch.await).and(outcome)
        }
        broken = &mut dispatch => ended(broken),
    }
}

fn ended(dispatch: Result<Result<(), Broken>, JoinError>) -> Result<(), AppError> {
    Ok(dispatch.map_err(Broken)??)
}

/// The OpenAPI description of the API, as JSON.
pub fn openapi() -> String {
    api::openapi::write(&api::openapi::document())
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
        let migrated = tokio::select! {
            migrated = store.migrate() => migrated,
            () = shutdown.soft.cancelled() => return Ok(Prepared::Stopped),
        };
        match migrated {
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
