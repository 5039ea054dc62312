//! Being one of those that send, so that limits are divided among as many as there are.

use std::time::Duration;

use tokio::time::timeout;

use super::Dispatcher;
use crate::clock::pause;
use crate::store::Leasing;

/// How often it is said, and for how long it holds. One that comes is counted by the others within the
/// first, one that died within both; until then, limits are divided by the number of before.
const EVERY: Duration = Duration::from_secs(5);
const HOLDS: Duration = Duration::from_secs(15);

/// How long leaving may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Says it, once.
pub(super) async fn beat(dispatcher: &Dispatcher) {
    let leasing = Leasing {
        lease: HOLDS,
        ..dispatcher.parts.leasing
    };
    match dispatcher.parts.store.beat(leasing).await {
        Ok(replicas) => dispatcher.lines.set_replicas(replicas),
        Err(error) => tracing::warn!(%error, "the processes that send could not be counted"),
    }
}

/// Goes on saying it.
pub(super) async fn beat_loop(dispatcher: &Dispatcher) {
    loop {
        pause(EVERY).await;
        beat(dispatcher).await;
    }
}

/// Leaves its part to the others.
pub(super) async fn leave(dispatcher: &Dispatcher) {
    let left = dispatcher.parts.store.leave(dispatcher.parts.leasing.owner);
    // A database that is away does not hold up the end.
    if !matches!(timeout(GOODBYE, left).await, Ok(Ok(()))) {
        tracing::debug!("the others count this process for a while longer");
    }
}
