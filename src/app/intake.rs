//! The ways in of what happened and of how things stand: the broker's queues, and the one without a
//! broker.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::Amqp;
use crate::domain::event::EventError;
use crate::health::Health;
use crate::ingest::amqp::{self, Source};
use crate::ingest::{Acceptor, Applier, Outcome, accept_all};
use crate::shutdown::Shutdown;
use crate::store::StoreError;

/// How long an event that is handed in waits for a database that is away.
const ENTRANCE_PATIENCE: Duration = Duration::from_secs(30);

/// Where the messages of each queue go.
pub(super) struct Sinks {
    pub(super) events: Acceptor,
    pub(super) snapshots: Applier,
}

/// Consumes the queues side by side until the shutdown; without a broker only waits for it.
pub(super) async fn consume(
    settings: &Amqp,
    sinks: Sinks,
    clock: &Arc<dyn Clock>,
    health: &Arc<Health>,
    shutdown: &Shutdown,
) {
    let Some(url) = &settings.url else {
        shutdown.soft.cancelled().await;
        return;
    };
    // A task each, so that a large snapshot is read beside events and not before them.
    let mut consumers = JoinSet::new();
    consumers.spawn(amqp::run(
        url.clone(),
        Source::events(settings),
        sinks.events,
        Arc::clone(clock),
        Arc::clone(health),
        shutdown.clone(),
    ));
    consumers.spawn(amqp::run(
        url.clone(),
        Source::snapshots(settings),
        sinks.snapshots,
        Arc::clone(clock),
        Arc::clone(health),
        shutdown.clone(),
    ));
    consumers.join_all().await;
}

/// The way in without a broker, for those that run the program inside another (`demo`, tests).
#[derive(Clone)]
pub struct Entrance {
    pub(super) acceptor: Acceptor,
}

/// Why events were not taken.
#[derive(Debug, thiserror::Error)]
pub enum EntranceError {
    /// One of them is no event; none was taken.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The store; what was committed before stays.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Entrance {
    /// Takes CloudEvents envelopes in, as if they had come over the broker; returns when they are
    /// committed, with what became of each.
    pub async fn publish(&self, envelopes: &[Vec<u8>]) -> Result<Vec<Outcome>, EntranceError> {
        let events = envelopes
            .iter()
            .map(|envelope| self.acceptor.decoder.decode(envelope))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(accept_all(&self.acceptor, events, ENTRANCE_PATIENCE).await?)
    }
}
