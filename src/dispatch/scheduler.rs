//! Finding due work and claiming it, as much as there is room for.
//!
//! Waits on events: a ring (commit, notification), a line with room again while work waits, the
//! next due time; and behind them a jittered poll, so that a lost ring costs a second, not a
//! delivery.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;

use super::Dispatcher;
use super::lines::{Hunger, Room};
use super::permits::PerLane;
use crate::clock::pause;
use crate::domain::delivery::Lane;
use crate::domain::event::MAX_EVENT_BYTES;
use crate::domain::ids::SubscriptionId;
use crate::health::Part;
use crate::reconnect::Reconnect;
use crate::store::intake::Permit;
use crate::store::targets::Target;
use crate::store::{Claim, Due, StoreError};
use crate::telemetry::metric;

/// The most deliveries that one claim takes.
const CLAIM_SIZE: usize = 500;

/// How many rooms a subscription takes in its turn, before the next one's.
const QUANTUM: usize = 16;

/// How often deliveries of deleted subscriptions are looked for, and how many go at once.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
const SWEEP_SIZE: usize = 1_000;

/// Runs until the soft token. A claim that was begun is ended and its deliveries are started: they
/// are part of what is drained.
pub async fn run(dispatcher: &Dispatcher) {
    tokio::select! {
        () = claim_loop(dispatcher) => {}
        () = sweep_loop(dispatcher) => {}
    }
}

/// What was found due at the last look, and when to look again.
struct View {
    work: Vec<(Arc<Target>, Lane)>,
    /// Which lane is first at the next claim.
    first_lane: usize,
    /// The subscription that was served last in each lane: the next one is first at the next claim,
    /// so that a thousand with work come round within as many as a claim does not serve.
    last_served: PerLane<Option<SubscriptionId>>,
    look_at: Instant,
}

/// What a round of claiming came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Something was claimed: there may be more.
    Claimed,
    /// Nothing is due.
    NothingDue,
    /// Something is due, but nothing may be sent now.
    NoRoom,
}

async fn claim_loop(dispatcher: &Dispatcher) {
    let soft = &dispatcher.shutdown.soft;
    let mut reconnect = Reconnect::default();
    let mut view = View {
        work: Vec::new(),
        first_lane: 0,
        last_served: PerLane::default(),
        look_at: Instant::now(),
    };
    while !soft.is_cancelled() {
        let step = async {
            // However much is being claimed, others' work is looked for as it comes and as it
            // becomes due: one long backlog must not hide it.
            let rung = dispatcher.wake.rung().now_or_never().is_some();
            if rung || Instant::now() >= view.look_at {
                view.refresh(dispatcher).await?;
            }
            view.claim(dispatcher).await
        };
        let pause = match step.await {
            Ok(progress) => {
                reconnect.reset();
                wait(dispatcher, progress, view.look_at).left_future()
            }
            Err(error) => {
                fault(dispatcher, &error);
                view.look_at = Instant::now();
                reconnect.pause().right_future()
            }
        };
        tokio::select! {
            () = pause => {}
            () = soft.cancelled() => return,
        }
    }
}

/// Waits for a reason to go on: a ring, room if it is missing, or the time to look again.
async fn wait(dispatcher: &Dispatcher, progress: Progress, look_at: Instant) {
    if progress == Progress::Claimed {
        return;
    }
    tokio::select! {
        // Rung once more, for the next round to see that it was.
        () = dispatcher.wake.rung() => dispatcher.wake.ring(),
        () = tokio::time::sleep_until(look_at) => {}
        () = dispatcher.lines.room_freed(), if progress == Progress::NoRoom => {}
    }
}

async fn look_around(dispatcher: &Dispatcher) -> Result<Due, StoreError> {
    let parts = &dispatcher.parts;
    let due = parts.store.due(parts.settings.lease_grace).await?;
    parts.health.up(Part::Database);
    let waiting: HashSet<SubscriptionId> = due
        .work
        .iter()
        .filter(|(_, lane)| *lane == Lane::Fresh)
        .map(|(target, _)| target.id())
        .collect();
    dispatcher.lines.set_backlogged(|id| waiting.contains(&id));
    Ok(due)
}

impl View {
    async fn refresh(&mut self, dispatcher: &Dispatcher) -> Result<(), StoreError> {
        #[expect(clippy::cast_precision_loss, reason = "hundreds")]
        metrics::gauge!(metric::IN_FLIGHT).set(dispatcher.lines.in_flight() as f64);
        let due = look_around(dispatcher).await?;
        let jitter = 0.8 + 0.4 * dispatcher.parts.entropy.unit();
        let poll = dispatcher.parts.settings.poll_interval.mul_f64(jitter);
        let patience = due.next_in.map_or(poll, |next| next.min(poll));
        self.look_at = Instant::now() + patience;
        self.work = due.work;
        Ok(())
    }

    /// Claims in both lanes what there is room for, and starts it.
    async fn claim(&mut self, dispatcher: &Dispatcher) -> Result<Progress, StoreError> {
        if self.work.is_empty() {
            dispatcher.lines.mark_hungry(Hunger::Sated);
            return Ok(Progress::NothingDue);
        }
        // Before room is asked for: what comes back from here on rings.
        dispatcher.lines.mark_hungry(Hunger::Hungry);
        let mut progress = Progress::NoRoom;
        let mut lanes = Lane::ALL;
        lanes.rotate_left(self.first_lane);
        self.first_lane = (self.first_lane + 1) % Lane::ALL.len();
        for lane in lanes {
            let reserved = self.reserve(dispatcher, lane);
            if reserved.is_empty() {
                continue;
            }
            self.claim_lane(dispatcher, lane, reserved).await?;
            progress = Progress::Claimed;
        }
        Ok(progress)
    }

    /// Rooms for a claim, in rounds over the subscriptions that have work in the lane.
    fn reserve(&mut self, dispatcher: &Dispatcher, lane: Lane) -> Reserved {
        let mut open: Vec<&Arc<Target>> = self
            .work
            .iter()
            .filter(|(target, of)| *of == lane && dispatcher.lines.has_room(target, lane))
            .map(|(target, _)| target)
            .collect();
        let last_served = self.last_served.of_mut(lane);
        begin_behind(&mut open, last_served.as_ref(), |target| target.id());

        let mut reserved = Reserved::new();
        let mut left = CLAIM_SIZE;
        while left > 0 && !open.is_empty() {
            open.retain(|target| {
                let wanted = QUANTUM.min(left);
                let got = dispatcher.lines.reserve(target, lane, wanted);
                left -= got.len();
                let full = got.len() == wanted;
                if !got.is_empty() {
                    *last_served = Some(target.id());
                    reserved.entry(target.id()).or_default().extend(got);
                }
                full
            });
        }
        reserved
    }

    async fn claim_lane(
        &mut self,
        dispatcher: &Dispatcher,
        lane: Lane,
        mut reserved: Reserved,
    ) -> Result<(), StoreError> {
        let parts = &dispatcher.parts;
        // Half of what is free: the other half is for those that come while this is being sent.
        let max_bytes = dispatcher.lines.bytes_free() / 2;
        let claim = Claim {
            leasing: parts.leasing,
            grace: parts.settings.lease_grace,
            lane,
            wants: reserved
                .iter()
                .map(|(id, rooms)| (*id, rooms.len()))
                .collect(),
            max_bytes,
        };
        let claimed = parts.store.claim(&claim).await?;
        let nothing = claimed.is_empty();
        let mut bytes = 0;
        let mut ready = Vec::with_capacity(claimed.len());
        for delivery in claimed {
            let rooms = reserved.get_mut(&delivery.target.id());
            // A store gives no more than it was asked for; without room there would be no bound.
            let Some(mut room) = rooms.and_then(Vec::pop) else {
                tracing::error!(delivery = %delivery.id, "claimed, but not asked for");
                continue;
            };
            let size = delivery.payload.event().envelope.len();
            bytes += size;
            room.charge(size);
            ready.push((delivery, Permit::new(room)));
        }
        dispatcher.start(ready);
        // What has rooms left over gave less than it was asked for.
        let spent: HashSet<SubscriptionId> = reserved
            .into_iter()
            .filter(|(_, rooms)| !rooms.is_empty())
            .map(|(id, _)| id)
            .collect();
        // A subscription that gave less than it was asked for has no more, unless it may have been
        // the bytes that ended the claim: the next event could have been the largest there is.
        if nothing || bytes + MAX_EVENT_BYTES <= max_bytes {
            self.work
                .retain(|(target, of)| *of != lane || !spent.contains(&target.id()));
        }
        Ok(())
    }
}

/// Puts things in the order of their keys, the first one behind `last` first.
fn begin_behind<T, K: Ord>(items: &mut [T], last: Option<&K>, key: impl Fn(&T) -> K) {
    items.sort_by_key(&key);
    let first = items.partition_point(|item| Some(&key(item)) <= last);
    items.rotate_left(first);
}

/// Rooms in hand, by the subscription that they are for.
type Reserved = HashMap<SubscriptionId, Vec<Room>>;

/// Cancels what waits for subscriptions that were deleted.
async fn sweep_loop(dispatcher: &Dispatcher) {
    let parts = &dispatcher.parts;
    let grace = parts.settings.lease_grace;
    loop {
        match parts.store.cancel_orphans(grace, SWEEP_SIZE).await {
            Ok(SWEEP_SIZE..) => continue,
            Ok(_) => {}
            Err(error) => fault(dispatcher, &error),
        }
        pause(SWEEP_EVERY).await;
    }
}

fn fault(dispatcher: &Dispatcher, error: &StoreError) {
    if error.is_unavailable() {
        let health = &dispatcher.parts.health;
        health.down(Part::Database, "does not answer");
        tracing::warn!(%error, "the queue cannot be read; trying again");
    } else {
        tracing::error!(%error, "the queue cannot be read; trying again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_turn_before_anybody_has_two() {
        let mut served = Vec::new();
        let mut last = None;
        for _ in 0..4 {
            let mut open = [40, 10, 30, 20, 50];
            begin_behind(&mut open, last.as_ref(), |number| *number);
            served.extend_from_slice(&open[..2]);
            last = Some(open[1]);
        }
        assert_eq!(served, [10, 20, 30, 40, 50, 10, 20, 30]);
    }

    #[test]
    fn one_that_is_gone_by_now_keeps_its_place() {
        let mut open = [10, 30];
        begin_behind(&mut open, Some(&20), |number| *number);
        assert_eq!(open, [30, 10]);
        begin_behind(&mut open, Some(&30), |number| *number);
        assert_eq!(open, [10, 30]);
        begin_behind(&mut [0; 0], Some(&1), |number| *number);
    }
}
