//! The parts that a role has, and the order in which they end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{OptionFuture, join3};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::front_door::{self, FrontDoor};
use super::intake::{self, Entrance};
use super::outputs::{OutputRoom, Shared};
use super::sending::Sending;
use super::{AppError, Surroundings};
use crate::api;
use crate::api::listener::Fingerprint;
use crate::config::{Config, Role};
use crate::dispatch::{self, Broken};
use crate::domain::retry::RetrySchedule;
use crate::egress::WebhookClient;
use crate::health::Health;
use crate::ingest::{Acceptor, Applier, Decoder};
use crate::maintenance;
use crate::outbox;
use crate::replay;
use crate::shutdown::Shutdown;
use crate::store::intake::{Intake, NoDispatch};
use crate::store::{CoreFiles, Leasing, Store};
use crate::telemetry::Tracer;
use crate::wake::Wake;

/// What a role does, built and not yet running.
pub(super) struct Work {
    config: Config,
    surroundings: Surroundings,
    store: Arc<dyn Store>,
    health: Arc<Health>,
    leasing: Leasing,
    /// Where those who write hand leased deliveries to.
    intake: Arc<dyn Intake>,
    sending: Option<Sending>,
    /// Begun after that of the ways in, so that what those hand over last is still sent.
    sending_shutdown: Shutdown,
    front_door: Option<FrontDoor>,
    /// Where files of outputs can be kept.
    outputs: Option<OutputRoom>,
    tracer: Tracer,
    shutdown: Shutdown,
}

impl Work {
    /// Builds what the role has, and opens the API's port if that is part of it.
    pub(super) async fn build(
        mut config: Config,
        surroundings: Surroundings,
        store: Arc<dyn Store>,
        health: Arc<Health>,
        tracer: Tracer,
        shutdown: Shutdown,
    ) -> Result<Self, AppError> {
        let role = config.role;
        let listener = if role.serves_api() {
            Some(front_door::listen(&mut config.api).await?)
        } else {
            None
        };
        let client = surroundings.client(&config)?;
        let leasing = Leasing {
            owner: surroundings.entropy.id(surroundings.clock.now()),
            lease: config.dispatch.lease,
        };
        let outputs = if role.serves_api() || role.dispatches() {
            OutputRoom::open(&config, &surroundings, &store, &client)?
        } else {
            // The files are others' to keep; that there are some to be taken is told here.
            store.open_output_jobs(Arc::default(), CoreFiles::of(&config.outputs));
            None
        };
        let outbox_bell = Arc::new(Wake::default());
        if config.amqp.url.is_some() {
            store.open_outbox(Arc::clone(&outbox_bell));
        }
        let mut work = Self {
            leasing,
            // Where nobody sends, what is written waits for a replica that does.
            intake: Arc::new(NoDispatch),
            sending: None,
            sending_shutdown: Shutdown {
                soft: CancellationToken::new(),
                hard: shutdown.hard.clone(),
            },
            front_door: None,
            outputs,
            tracer,
            config,
            surroundings,
            store,
            health,
            shutdown,
        };
        let schedule = RetrySchedule::new(work.config.retry.schedule.clone())?;
        if role.dispatches() {
            let rules = work.config.dispatch.circuit.rules(&schedule);
            work.store.judge_receivers(rules);
            let sending = work.sending(&client, schedule, outbox_bell);
            work.intake = sending.intake();
            work.sending = Some(sending);
        }
        if let Some(listener) = listener {
            let parts = work.api_parts(client);
            work.front_door = Some(FrontDoor::open(listener, &work.config, parts)?);
        }
        Ok(work)
    }

    pub(super) fn role(&self) -> Role {
        self.config.role
    }

    pub(super) fn drain_timeout(&self) -> Duration {
        self.config.dispatch.drain_timeout
    }

    pub(super) fn api_address(&self) -> std::io::Result<Option<SocketAddr>> {
        self.front_door.as_ref().map(FrontDoor::address).transpose()
    }

    pub(super) fn api_fingerprint(&self) -> Option<Fingerprint> {
        self.front_door.as_ref()?.fingerprint()
    }

    pub(super) fn entrance(&self) -> Entrance {
        let Surroundings { clock, entropy, .. } = &self.surroundings;
        Entrance {
            acceptor: Acceptor {
                decoder: Decoder::new(Arc::clone(clock), entropy.clone()),
                store: Arc::clone(&self.store),
                intake: Arc::clone(&self.intake),
                leasing: self.leasing,
                tracer: self.tracer.clone(),
            },
        }
    }

    /// Works until the soft token, then drains: the ways in first, so that what was taken in is
    /// committed, then what goes out, so that what was sent is written.
    pub(super) async fn run(mut self) -> Result<(), AppError> {
        let role = self.role();
        let sending = tokio::spawn(send(
            self.sending.take(),
            self.sending_shutdown.soft.clone(),
        ));
        let serving = self.front_door.take();
        let serving = serving.map(|door| door.serve(self.shutdown.clone()));
        let outputs = self.outputs.take().filter(|_| role.dispatches());
        // Ways in too: what is made is told to subscribers, and what is replayed is sent.
        let taking = join3(
            OptionFuture::from(role.ingests().then(|| self.consume())),
            OptionFuture::from(outputs.map(|room| self.make(room))),
            OptionFuture::from(role.dispatches().then(|| self.replay())),
        );
        let serving = OptionFuture::from(serving).map(|served| served.unwrap_or(Ok(())));
        let ways_in = until_one_breaks(taking, serving);
        Box::pin(drain(ways_in, sending, &self.sending_shutdown)).await
    }

    async fn consume(&self) {
        let Surroundings { clock, .. } = &self.surroundings;
        let sinks = intake::Sinks {
            events: self.entrance().acceptor,
            snapshots: Applier {
                clock: Arc::clone(clock),
                store: Arc::clone(&self.store),
            },
        };
        intake::consume(
            &self.config.amqp,
            sinks,
            clock,
            &self.health,
            &self.shutdown,
        )
        .await;
    }

    async fn make(&self, room: OutputRoom) {
        let shared = Shared {
            store: Arc::clone(&self.store),
            leasing: self.leasing,
            intake: Arc::clone(&self.intake),
        };
        room.run(
            &self.config,
            &self.surroundings,
            shared,
            self.shutdown.clone(),
        )
        .await;
    }

    async fn replay(&self) {
        let parts = replay::Parts {
            store: Arc::clone(&self.store),
            intake: Arc::clone(&self.intake),
            clock: Arc::clone(&self.surroundings.clock),
            entropy: self.surroundings.entropy.clone(),
            owner: self.leasing.owner,
            pace: replay::Pace::default(),
        };
        replay::run(parts, self.shutdown.clone()).await;
    }

    fn sending(
        &self,
        client: &Arc<WebhookClient>,
        schedule: RetrySchedule,
        bell: Arc<Wake>,
    ) -> Sending {
        let Surroundings { clock, entropy, .. } = self.surroundings.clone();
        let dispatch = dispatch::Parts {
            store: Arc::clone(&self.store),
            client: Arc::clone(client),
            clock: Arc::clone(&clock),
            entropy: entropy.clone(),
            health: Arc::clone(&self.health),
            leasing: self.leasing,
            settings: self.config.dispatch.clone(),
            schedule,
            attempt_timeout: self.config.egress.timeout,
            tracer: self.tracer.clone(),
        };
        let relay = outbox::Parts {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&clock),
            entropy: entropy.clone(),
            health: Arc::clone(&self.health),
            owner: self.leasing.owner,
            settings: self.config.amqp.clone(),
            bell,
            pace: outbox::Pace::default(),
            tracer: self.tracer.clone(),
        };
        let upkeep = maintenance::Parts {
            store: Arc::clone(&self.store),
            clock,
            entropy,
            owner: self.leasing.owner,
            settings: self.config.retention.clone(),
            pace: maintenance::Pace::default(),
        };
        Sending::new(dispatch, relay, upkeep, self.sending_shutdown.clone())
    }

    fn api_parts(&self, client: Arc<WebhookClient>) -> api::Parts {
        let outputs = self.outputs.as_ref();
        api::Parts {
            outputs: outputs.map(|room| room.for_api(&self.config)),
            store: Arc::clone(&self.store),
            tester: Arc::new(self.surroundings.tester(&self.store, &client)),
            client,
            leasing: self.leasing,
            intake: Arc::clone(&self.intake),
            clock: Arc::clone(&self.surroundings.clock),
            entropy: self.surroundings.entropy.clone(),
            settings: self.config.api.clone(),
            stop: self.shutdown.soft.clone(),
            tracer: self.tracer.clone(),
        }
    }
}

/// Sends until the soft token; where another replica does, waits for it.
async fn send(sending: Option<Sending>, end: CancellationToken) -> Result<(), Broken> {
    if let Some(sending) = sending {
        return sending.run().await;
    }
    end.cancelled().await;
    Ok(())
}

/// The ways in, for as long as they work: where the API breaks, nothing is taken in any more.
async fn until_one_breaks(
    taking: impl Future,
    serving: impl Future<Output = Result<(), AppError>>,
) -> Result<(), AppError> {
    tokio::try_join!(taking.map(|_| Ok(())), serving).map(|((), ())| ())
}

/// Keeps the ways in open until they are told to end, or one breaks; then what goes out finishes what
/// they let in. That ends before it is told to only when it broke; then nothing may be taken in any
/// more, and what was not acknowledged comes again.
async fn drain(
    ways_in: impl Future<Output = Result<(), AppError>>,
    mut sending: JoinHandle<Result<(), Broken>>,
    shutdown: &Shutdown,
) -> Result<(), AppError> {
    tokio::select! {
        outcome = ways_in => {
            shutdown.begin();
            ended(sending.await).and(outcome)
        }
        broken = &mut sending => ended(broken),
    }
}

fn ended(sending: Result<Result<(), Broken>, JoinError>) -> Result<(), AppError> {
    Ok(sending.map_err(Broken)??)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;
    use crate::store::StoreError;

    #[test]
    fn an_api_that_breaks_ends_the_other_ways_in() {
        let broken = || AppError::Store(StoreError::Stale);
        let ended = until_one_breaks(pending::<()>(), ready(Err(broken()))).now_or_never();
        assert!(matches!(ended, Some(Err(AppError::Store(_)))));
        let open = until_one_breaks(pending::<()>(), ready(Ok(()))).now_or_never();
        assert!(open.is_none(), "those that work go on");
    }
}
