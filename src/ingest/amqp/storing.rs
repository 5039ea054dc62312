//! A batch of messages on its way into the store.

use lapin::message::Delivery;

use crate::ingest::batch::Batch;
use crate::ingest::{Acceptor, Outcome};
use crate::reconnect::Reconnect;
use crate::store::Result;

/// Messages that are committed together, each with its event.
pub(super) struct Work {
    batch: Batch,
    deliveries: Vec<Delivery>,
    /// How often the database has been asked in vain.
    reconnect: Reconnect,
}

impl Work {
    /// An event for each message, in the same order.
    pub(super) fn new(batch: Batch, deliveries: Vec<Delivery>) -> Self {
        debug_assert_eq!(batch.len(), deliveries.len(), "an event for each message");
        Self {
            batch,
            deliveries,
            reconnect: Reconnect::default(),
        }
    }

    /// Commits what is not committed yet. After an error, the work is there to go on with.
    pub(super) async fn commit(mut self, acceptor: Acceptor) -> (Self, Result<()>) {
        let result = self.batch.commit(&acceptor).await;
        (self, result)
    }

    /// The same after a pause, and only once the database answers at all.
    pub(super) async fn commit_later(mut self, acceptor: Acceptor) -> (Self, Result<()>) {
        self.reconnect.pause().await;
        match acceptor.store.ready().await {
            Ok(()) => self.commit(acceptor).await,
            Err(error) => (self, Err(error)),
        }
    }

    /// What became of each message, once all is committed.
    pub(super) fn into_outcomes(self) -> impl Iterator<Item = (Delivery, Outcome)> {
        self.deliveries.into_iter().zip(self.batch.into_outcomes())
    }
}
