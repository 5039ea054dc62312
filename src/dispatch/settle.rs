//! Writing outcomes: gathered into batches, one transaction each, under their lease tokens.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Parts;
use super::lines::Lines;
use super::tips::{Tips, Work};
use crate::domain::delivery::Verdict;
use crate::domain::ids::OwnerId;
use crate::health::Part;
use crate::reconnect::Reconnect;
use crate::store::{SettleOutcome, Settlement, Store, StoreError};
use crate::telemetry::metric;
use crate::wake::Wake;

/// How much sooner outcomes are written when the next delivery of an edition waits for them.
const WAITED_FOR: u32 = 10;

/// What writes outcomes.
pub(super) struct Settler {
    pub(super) parts: Arc<Parts>,
    pub(super) lines: Arc<Lines>,
    pub(super) wake: Arc<Wake>,
    pub(super) tips: Arc<Tips>,
}

impl Settler {
    /// Runs until `finish`, and then until all that was sent by then is written; or until the hard
    /// token.
    pub(super) async fn run(
        self,
        mut settlements: mpsc::Receiver<Settlement>,
        finish: CancellationToken,
        hard: CancellationToken,
    ) {
        let work = async {
            let mut batch = Vec::new();
            while self.gather(&mut settlements, &finish, &mut batch).await == More::Yes {
                self.write_and_tell(&batch).await;
                batch.clear();
                // Only when all that was held is written may work be claimed again: a lease of ours
                // that ran out meanwhile belongs to an outcome still in the channel.
                if settlements.is_empty() {
                    self.lines.resume();
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = hard.cancelled() => {}
        }
    }

    /// Fills the batch up to its size, or as far as it gets within the linger after the first one. What keeps
    /// an edition's order is held back for less, since that bounds how fast the edition goes, and for
    /// nothing where hardly another outcome is to come.
    async fn gather(
        &self,
        settlements: &mut mpsc::Receiver<Settlement>,
        finish: &CancellationToken,
        batch: &mut Vec<Settlement>,
    ) -> More {
        let size = self.parts.settings.settle_batch;
        // A closed channel still gives what is in it, and then says that there is no more.
        if finish.is_cancelled() {
            settlements.close();
        }
        tokio::select! {
            count = settlements.recv_many(batch, size) => if count == 0 {
                return More::No;
            },
            () = finish.cancelled(), if !settlements.is_closed() => {
                settlements.close();
                if settlements.recv_many(batch, size).await == 0 {
                    return More::No;
                }
            }
        }
        let linger = self.parts.settings.settle_linger;
        let mut ends = Instant::now() + linger;
        let fill = async {
            let mut seen = 0;
            while batch.len() < size {
                if batch.iter().skip(seen).any(|it| it.gate.is_some()) {
                    // Those in the batch may count as in flight for a moment more.
                    if self.lines.in_flight() <= batch.len() {
                        break;
                    }
                    ends = ends.min(Instant::now() + linger / WAITED_FOR);
                }
                seen = batch.len();
                let more = settlements.recv_many(batch, size - seen);
                if timeout_at(ends, more).await.unwrap_or_default() == 0 {
                    break;
                }
            }
        };
        tokio::select! {
            () = fill => {}
            () = finish.cancelled() => {}
        }
        More::Yes
    }

    /// Writes a batch, and says what is due by that: nothing else would.
    async fn write_and_tell(&self, batch: &[Settlement]) {
        let written = write(&self.parts, &self.lines, batch).await;
        if written.is_certain {
            self.tips.tell(made_way(batch, &written.outcomes));
        }
        if !written.is_certain || batch.iter().any(leaves_work) {
            self.wake.ring();
        }
    }
}

/// Where the next of an edition became due.
fn made_way(batch: &[Settlement], outcomes: &[SettleOutcome]) -> impl Iterator<Item = Work> {
    let pairs = batch.iter().zip(outcomes);
    pairs.filter_map(|(settlement, outcome)| match outcome {
        SettleOutcome::MadeWay(lane) => Some((settlement.subscription, *lane)),
        SettleOutcome::Settled | SettleOutcome::LeaseLost => None,
    })
}

/// Whether there may be something to be sent for it: what was given back, and what is told of failures.
fn leaves_work(settlement: &Settlement) -> bool {
    matches!(
        settlement.verdict,
        Verdict::Released | Verdict::Failed | Verdict::Gone
    )
}

/// Whether there is a batch to write.
#[derive(PartialEq, Eq)]
enum More {
    Yes,
    No,
}

/// What became of a batch.
struct Written {
    outcomes: Vec<SettleOutcome>,
    /// Whether they tell of all that was made way for: what a try made way for whose answer was lost,
    /// no later one tells of.
    is_certain: bool,
}

/// Writes a batch, for as long as it takes: while the database is away the outcomes are held here,
/// the channel fills, attempts keep their slots, and nothing new is sent.
async fn write(parts: &Parts, lines: &Lines, batch: &[Settlement]) -> Written {
    let mut reconnect = Reconnect::default();
    let mut tries = 0;
    loop {
        match settle(&*parts.store, parts.leasing.owner, batch).await {
            Ok(outcomes) => {
                parts.health.up(Part::Database);
                record(&outcomes);
                return Written {
                    outcomes,
                    is_certain: tries == 0,
                };
            }
            Err(error) => {
                tries += 1;
                lines.suspend();
                parts.health.down(Part::Database, "does not take outcomes");
                let held = batch.len();
                if error.is_unavailable() {
                    tracing::warn!(%error, held, "outcomes cannot be written; trying again");
                } else {
                    tracing::error!(%error, held, "outcomes are not taken; trying again");
                }
                reconnect.pause().await;
            }
        }
    }
}

/// Settles a batch. What the database refuses for its content is taken apart until the culprit
/// stands alone, and that one is written without what the receiver said.
async fn settle(
    store: &dyn Store,
    owner: OwnerId,
    batch: &[Settlement],
) -> Result<Vec<SettleOutcome>, StoreError> {
    match store.settle(owner, batch).await {
        Err(error) if error.is_rejected() && batch.len() > 1 => {
            let (left, right) = batch.split_at(batch.len() / 2);
            let mut outcomes = Box::pin(settle(store, owner, left)).await?;
            outcomes.extend(Box::pin(settle(store, owner, right)).await?);
            Ok(outcomes)
        }
        Err(error) if error.is_rejected() => {
            tracing::warn!(%error, "an outcome is written without the receiver's answer");
            let bare: Vec<Settlement> = batch.iter().cloned().map(without_answer).collect();
            store.settle(owner, &bare).await
        }
        other => other,
    }
}

fn without_answer(mut settlement: Settlement) -> Settlement {
    if let Some(attempt) = &mut settlement.attempt {
        attempt.response_headers.clear();
        attempt.response_excerpt.clear();
    }
    settlement
}

fn record(outcomes: &[SettleOutcome]) {
    #[expect(clippy::cast_precision_loss, reason = "a batch has thousands at most")]
    metrics::histogram!(metric::SETTLE_BATCH).record(outcomes.len() as f64);
    let lost = outcomes
        .iter()
        .filter(|outcome| **outcome == SettleOutcome::LeaseLost)
        .count();
    if lost > 0 {
        tracing::warn!(lost, "leases were lost before their outcomes were written");
        metrics::counter!(metric::LOST_LEASES).increment(lost as u64);
    }
}
