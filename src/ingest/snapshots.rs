//! Snapshots into the read model.

use std::sync::Arc;

use async_trait::async_trait;
use metrics::counter;

use super::sink::{Message, Outcome, Sink};
use crate::clock::Clock;
use crate::domain::snapshot::Snapshot;
use crate::store::{Applied, Result, Store};
use crate::telemetry::metric;

/// Where the core's state is applied.
#[derive(Clone)]
pub struct Applier {
    /// The time of those that name none.
    pub clock: Arc<dyn Clock>,
    /// Keeps the read model.
    pub store: Arc<dyn Store>,
}

#[async_trait]
impl Sink for Applier {
    type Item = Snapshot;

    fn decode(&self, message: Message<'_>) -> std::result::Result<Snapshot, String> {
        Snapshot::decode(message.bytes, self.clock.now()).map_err(|error| error.to_string())
    }

    async fn keep(&self, snapshots: &[Snapshot]) -> Result<Vec<Outcome>> {
        let applied = self.store.apply(snapshots).await?;
        count(&applied);
        Ok(applied.into_iter().map(Outcome::from).collect())
    }

    async fn ready(&self) -> Result<()> {
        self.store.ready().await
    }
}

impl From<Applied> for Outcome {
    fn from(applied: Applied) -> Self {
        match applied {
            Applied::Changed => Self::Stored,
            Applied::Older => Self::Duplicate,
        }
    }
}

/// In the words of events, so that both queues are read alike.
fn count(applied: &[Applied]) {
    let changed = applied
        .iter()
        .filter(|one| **one == Applied::Changed)
        .count();
    let (changed, taken) = (changed as u64, applied.len() as u64);
    counter!(metric::SNAPSHOTS, "outcome" => "accepted").increment(changed);
    counter!(metric::SNAPSHOTS, "outcome" => "duplicate").increment(taken - changed);
}
