//! Finding due work and claiming it, as much as there is room for.
//!
//! Waits on events: a tip (work that this process left or made way for itself, which it claims without a
//! look), a ring (a notification, whatever else may be due), a line with room again while work waits, the
//! next due time; and behind them a jittered poll, so that a lost ring costs a second, not a delivery.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;

use super::Dispatcher;
use super::lines::{Hunger, Room};
use super::permits::PerLane;
use super::presence;
use super::tips::Work;
use super::turns::Turns;
use crate::clock::pause;
use crate::domain::delivery::Lane;
use crate::domain::event::MAX_EVENT_BYTES;
use crate::domain::ids::{SubscriptionId, WorkspaceId};
use crate::health::Part;
use crate::reconnect::Reconnect;
use crate::store::intake::Permit;
use crate::store::targets::Target;
use crate::store::{Claim, Due, StoreError};
use crate::telemetry::metric;

/// The most deliveries that one claim takes.
const CLAIM_SIZE: usize = 500;

/// How far apart claims lie, at least, that wait for tokens: what is saved up meanwhile is not lost.
const TOKENS_APART: Duration = Duration::from_millis(100);

/// How often deliveries of deleted subscriptions are looked for, and how many go at once.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
const SWEEP_SIZE: usize = 1_000;

/// Runs until the soft token. A claim that was begun is ended and its deliveries are started: they
/// are part of what is drained.
pub async fn run(dispatcher: &Dispatcher) {
    tokio::select! {
        () = presence::beat(dispatcher) => {}
        () = dispatcher.shutdown.soft.cancelled() => return,
    }
    tokio::select! {
        () = claim_loop(dispatcher) => {}
        () = sweep_loop(dispatcher) => {}
        () = presence::beat_loop(dispatcher) => {}
    }
    presence::leave(dispatcher).await;
}

/// What was found due at the last look, or told of since, and when to look again.
struct View {
    work: HashMap<Work, Arc<Target>>,
    /// Which lane is first at the next claim.
    first_lane: usize,
    /// Whose turn it is, in each lane.
    turns: PerLane<Turns<WorkspaceId, SubscriptionId>>,
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
        work: HashMap::new(),
        first_lane: 0,
        turns: PerLane::default(),
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
            view.hear(dispatcher);
            view.claim(dispatcher).await
        };
        let pause = match step.await {
            Ok(progress) => {
                reconnect.reset();
                view.wait(dispatcher, progress).left_future()
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
    /// Adds what was told; whether any of it was not known. What is told of a receiver that is left alone
    /// waits for a probe, whose time a look tells; but for replays, which somebody may have asked for.
    fn hear(&mut self, dispatcher: &Dispatcher) -> bool {
        let known = self.work.len();
        for work in dispatcher.tips.take() {
            if let Some(target) = dispatcher.parts.store.held(work.0)
                && (work.1 == Lane::Replay || target.subscription.circuit.open_until().is_none())
            {
                self.work.insert(work, target);
            }
        }
        self.work.len() > known
    }

    /// Waits for a reason to go on: a ring, news, room if it is missing, or the time.
    async fn wait(&mut self, dispatcher: &Dispatcher, progress: Progress) {
        if progress == Progress::Claimed {
            return;
        }
        let go_on_at = self.go_on_at(dispatcher, progress);
        loop {
            tokio::select! {
                // Rung once more, for the next round to see that it was.
                () = dispatcher.wake.rung() => return dispatcher.wake.ring(),
                () = dispatcher.tips.told() => if self.hear(dispatcher) {
                    return;
                },
                () = tokio::time::sleep_until(go_on_at) => return,
                () = dispatcher.lines.room_freed(), if progress == Progress::NoRoom => return,
            }
        }
    }

    /// When to go on at the latest: to look again, or to claim for one that has a token again by then.
    fn go_on_at(&self, dispatcher: &Dispatcher, progress: Progress) -> Instant {
        if progress != Progress::NoRoom {
            return self.look_at;
        }
        let targets = self.work.values().map(|target| &**target);
        let token_at = dispatcher.lines.next_token(targets);
        let token_at = token_at.map(|at| at.max(Instant::now() + TOKENS_APART));
        token_at.map_or(self.look_at, |at| at.min(self.look_at))
    }

    async fn refresh(&mut self, dispatcher: &Dispatcher) -> Result<(), StoreError> {
        #[expect(clippy::cast_precision_loss, reason = "hundreds")]
        metrics::gauge!(metric::IN_FLIGHT).set(dispatcher.lines.in_flight() as f64);
        let due = look_around(dispatcher).await?;
        let jitter = 0.8 + 0.4 * dispatcher.parts.entropy.unit();
        let poll = dispatcher.parts.settings.poll_interval.mul_f64(jitter);
        let patience = due.next_in.map_or(poll, |next| next.min(poll));
        self.look_at = Instant::now() + patience;
        let found = due.work.into_iter();
        self.work = found
            .map(|(target, lane)| ((target.id(), lane), target))
            .collect();
        Ok(())
    }

    /// Claims in all lanes what there is room for, and starts it.
    async fn claim(&mut self, dispatcher: &Dispatcher) -> Result<Progress, StoreError> {
        if self.is_outdated(dispatcher) {
            self.refresh(dispatcher).await?;
        }
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

    /// Whether a subscription or its circuit changed since it was looked: what was found then would be
    /// claimed by a rate that is no longer its own.
    fn is_outdated(&self, dispatcher: &Dispatcher) -> bool {
        let is_as_it_was = |found: &Target| {
            let held = dispatcher.parts.store.held(found.id());
            held.is_some_and(|held| {
                let (held, found) = (&held.subscription, &found.subscription);
                held.version == found.version && held.circuit == found.circuit
            })
        };
        self.work.values().any(|target| !is_as_it_was(target))
    }

    /// Rooms for a claim, in turns over those that have work in the lane.
    fn reserve(&mut self, dispatcher: &Dispatcher, lane: Lane) -> Reserved {
        let open = self
            .work
            .iter()
            .filter(|((_, of), target)| *of == lane && dispatcher.lines.has_room(target, lane))
            .map(|((id, _), target)| (target.subscription.workspace.clone(), *id, target));
        let mut reserved = Reserved::new();
        let turns = self.turns.of_mut(lane);
        turns.share(open, CLAIM_SIZE, |target, wanted| {
            // Of one that is left alone there is a probe. It has no rate, and by the time of the claim
            // it may be served again.
            let is_left_alone = target.subscription.circuit.open_until().is_some();
            let wanted = if is_left_alone { 1 } else { wanted };
            let rooms = dispatcher.lines.reserve(target, lane, wanted);
            let got = rooms.len();
            if got > 0 {
                reserved.entry(target.id()).or_default().extend(rooms);
            }
            got
        });
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
        // A subscription that gave less than it was asked for has no more, unless it may have been
        // the bytes that ended the claim: the next event could have been the largest there is.
        let may_be_spent = nothing || bytes + MAX_EVENT_BYTES <= max_bytes;
        for (id, rooms) in reserved {
            if may_be_spent && !rooms.is_empty() {
                self.work.remove(&(id, lane));
                if lane == Lane::Fresh && !dispatcher.tips.names((id, lane)) {
                    dispatcher.lines.caught_up(id);
                }
            }
            rooms.into_iter().for_each(Room::unused);
        }
        Ok(())
    }
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
