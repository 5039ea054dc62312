//! A batch of messages on its way into the store.

use std::sync::Arc;

use lapin::message::Delivery;

use crate::ingest::batch::Batch;
use crate::ingest::{Outcome, Sink};
use crate::reconnect::Reconnect;
use crate::store::Result;

/// A message that was delivered this often before is stored alone: if it is what kills the
/// process, it takes no others with it.
const ALONE_FROM: u64 = 3;

/// The most bytes of messages that one transaction takes, so that large events make it neither long
/// nor large in memory, where each is held a few times over.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// How many of the waiting messages make the next batch, by how often each was delivered before and
/// by its size: up to `most` and [`MAX_BATCH_BYTES`], up to the first suspicious one, and that one
/// alone.
pub(super) fn batch_length(messages: impl Iterator<Item = (u64, usize)>, most: usize) -> usize {
    let mut bytes = 0;
    let fitting = messages.take(most).take_while(|(count, size)| {
        bytes += size;
        *count < ALONE_FROM && bytes <= MAX_BATCH_BYTES
    });
    fitting.count().max(1)
}

/// Messages that are committed together, each with its item.
pub(super) struct Work<T> {
    batch: Batch<T>,
    deliveries: Vec<Delivery>,
    /// How often the database has been asked in vain.
    reconnect: Reconnect,
}

impl<T> Work<T> {
    /// An item for each message, in the same order.
    pub(super) fn new(batch: Batch<T>, deliveries: Vec<Delivery>) -> Self {
        debug_assert_eq!(batch.len(), deliveries.len(), "an item for each message");
        Self {
            batch,
            deliveries,
            reconnect: Reconnect::default(),
        }
    }

    /// Commits what is not committed yet. After an error, the work is there to go on with.
    pub(super) async fn commit<S: Sink<Item = T>>(mut self, sink: Arc<S>) -> (Self, Result<()>) {
        let result = self.batch.commit(&*sink).await;
        (self, result)
    }

    /// The same after a pause, and only once the database answers at all.
    pub(super) async fn commit_later<S: Sink<Item = T>>(
        mut self,
        sink: Arc<S>,
    ) -> (Self, Result<()>) {
        self.reconnect.pause().await;
        match sink.ready().await {
            Ok(()) => self.commit(sink).await,
            Err(error) => (self, Err(error)),
        }
    }

    /// What became of each message, once all is committed.
    pub(super) fn into_outcomes(self) -> impl Iterator<Item = (Delivery, Outcome)> {
        self.deliveries.into_iter().zip(self.batch.into_outcomes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_at_its_limit_and_before_a_message_that_keeps_coming_back() {
        let length = |counts: &[u64]| batch_length(counts.iter().map(|count| (*count, 1)), 3);
        assert_eq!(length(&[0, 0, 0, 0]), 3);
        assert_eq!(length(&[0, 2, 3, 0]), 2);
        assert_eq!(length(&[3, 0, 0, 0]), 1, "alone");
        assert_eq!(length(&[7, 7]), 1, "each of them");
        assert_eq!(length(&[0]), 1);
    }

    #[test]
    fn large_messages_make_small_batches() {
        let length = |sizes: &[usize]| batch_length(sizes.iter().map(|size| (0, *size)), 1_000);
        assert_eq!(length(&[MAX_BATCH_BYTES / 4; 9]), 4);
        assert_eq!(length(&[MAX_BATCH_BYTES, 1]), 1);
        assert_eq!(length(&[MAX_BATCH_BYTES + 1, 1]), 1, "alone, but taken");
    }
}
