//! Keeping house, in the background: what has been kept for long enough is removed, and what settles
//! counted is folded into the rollups that statistics are read from.
//!
//! One leader of all replicas looks through the store every few minutes, and removes what is old in small
//! steps with pauses between them, so that those who wait for the store hardly notice. Nothing is
//! remembered between runs but what the rows say: whoever comes next goes on.
//!
//! - [`sweeper`]: one run. [`folder`]: rollups, between and beside the runs.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, pause};
use crate::config;
use crate::domain::ids::OwnerId;
use crate::entropy::Entropy;
use crate::reconnect::Reconnect;
use crate::shutdown::Shutdown;
use crate::store::leadership::Leadership;
use crate::store::{LeaseName, Leasing, Result, Store};

mod folder;
mod sweeper;

use folder::Folder;
use sweeper::{Ended, Sweeper};

/// What maintenance is built of.
pub struct Parts {
    /// What is looked through.
    pub store: Arc<dyn Store>,
    /// Measures leases, and how long steps take.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub entropy: Entropy,
    /// Under whose name the lease is taken.
    pub owner: OwnerId,
    /// How long things are kept.
    pub settings: config::Retention,
    /// How often, and how much at once.
    pub pace: Pace,
}

/// How maintenance spends its time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long a lease holds: after a crash, others wait for its end.
    pub lease: Duration,
    /// How long the leader rests between two runs, and how often the others ask whether they can lead.
    pub every: Duration,
    /// How many rows of a kind one step removes: few enough for a transaction of some milliseconds.
    pub step: usize,
    /// How long the leader rests between two turns of folding rollups, at most: less where more than a step
    /// comes meanwhile.
    pub fold_every: Duration,
    /// How many deltas of rollups one step folds.
    pub fold_step: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            every: Duration::from_mins(5),
            step: 250,
            fold_every: Duration::from_secs(5),
            fold_step: 10_000,
        }
    }
}

/// Keeps house until the shutdown, whatever happens. A step that is under way then is undone, and another
/// process can lead at once.
pub async fn run(parts: Parts, shutdown: Shutdown) {
    let mut patience = Reconnect::default();
    while !shutdown.soft.is_cancelled() {
        let again = match lead(&parts, &shutdown, &mut patience).await {
            // Others lead.
            Ok(()) => jittered(&parts),
            Err(error) => {
                tracing::warn!(%error, "retention: the store does not work; trying again");
                patience.next_delay()
            }
        };
        tokio::select! {
            () = pause(again) => {}
            () = shutdown.soft.cancelled() => {}
        }
    }
}

/// Runs again and again for as long as this process leads, which it may not do at all.
async fn lead(parts: &Parts, shutdown: &Shutdown, patience: &mut Reconnect) -> Result<()> {
    let leasing = Leasing {
        owner: parts.owner,
        lease: parts.pace.lease,
    };
    let taken = Leadership::take(&parts.store, &parts.clock, LeaseName::RETENTION, leasing);
    let Some(leadership) = taken.await? else {
        return Ok(());
    };
    tracing::debug!(fence = leadership.lease().fence, "retention: leading");
    let sweeper = Sweeper::new(parts, leadership.lease());
    let runs = async {
        while sweeper.run().await? == Ended::Done {
            patience.reset();
            pause(jittered(parts)).await;
        }
        Ok(())
    };
    let folder = Folder::new(parts, leadership.lease());
    let ended = tokio::select! {
        biased;
        () = leadership.keep() => Ok(()),
        () = shutdown.soft.cancelled() => Ok(()),
        ended = runs => ended,
        ended = folder.run() => ended,
    };
    leadership.give_up().await;
    ended
}

/// So that replicas do not come all at once.
fn jittered(parts: &Parts) -> Duration {
    parts.pace.every.mul_f64(0.75 + 0.5 * parts.entropy.unit())
}
