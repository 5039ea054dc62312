//! Replays of many, taken forward step by step in the background (docs/DELIVERY.md).
//!
//! One process of all does it, under a lease, so that work is not done twice; were there two, the steps
//! are such that each is done once (`store::replays`). What a step puts into the queue is sent by
//! dispatch, in the lane of replays and by the share of that lane. No replay has more than a bounded
//! number of deliveries there, nor more than a share of those to one subscription, and none gets them there
//! faster than its rate: so what is live goes on beside it, and so do others that are replayed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, pause};
use crate::domain::ids::{OwnerId, ReplayId};
use crate::domain::selection::ReplayState;
use crate::entropy::Entropy;
use crate::shutdown::Shutdown;
use crate::store::intake::Intake;
use crate::store::replays::{STEP, look};
use crate::store::{
    Cursor, Lease, LeaseName, Leasing, PageRequest, Result, Running, Standing, Store, StoreError,
};

mod allowance;
mod room;
mod step;
mod stuck;

use allowance::Allowance;
use room::Room;
use step::First;
use stuck::Stuck;

pub use room::{LEAST_OF_ONE, MAX_OF_ONE};

/// How many replays get a turn side by side; where there are more, the next ones get theirs after that.
const AT_ONCE: usize = 16;

/// How many times in a turn a replay looks on where nothing was selected, or only counted.
const LOOKS: usize = 20;

/// What the runner is built of.
pub struct Parts {
    /// Where replays are kept.
    pub store: Arc<dyn Store>,
    /// The dispatcher of this process: told that there is work.
    pub intake: Arc<dyn Intake>,
    /// Measures rates and leases.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub entropy: Entropy,
    /// Under whose name the lease is taken.
    pub owner: OwnerId,
    /// How often, and for how long.
    pub pace: Pace,
}

/// How the runner spends its time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long a lease holds: after a crash, others wait for its end.
    pub lease: Duration,
    /// How often it looks whether there is a replay.
    pub poll: Duration,
    /// How often each replay gets its turn.
    pub turn: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            poll: Duration::from_secs(1),
            turn: Duration::from_millis(200),
        }
    }
}

/// Takes replays forward until the soft token. A step that was begun is ended.
pub async fn run(parts: Parts, shutdown: Shutdown) {
    let mut runner = Runner::new(parts);
    while !shutdown.soft.is_cancelled() {
        let wait = runner.turn_or_tell().await;
        tokio::select! {
            () = pause(wait) => {}
            () = shutdown.soft.cancelled() => {}
        }
    }
    tokio::select! {
        () = runner.give_up() => {}
        () = shutdown.hard.cancelled() => {}
    }
}

/// Takes replays forward.
pub struct Runner {
    parts: Parts,
    /// The lease, and when it is to be renewed, on the monotonic clock.
    held: Option<(Lease, Duration)>,
    paces: HashMap<ReplayId, Sending>,
    stuck: Stuck,
    /// Behind which one the next turn begins: none waits for another to end, which can take for ever
    /// where a subscription is disabled.
    behind: Option<ReplayId>,
}

/// How a replay goes on from turn to turn.
struct Sending {
    allowance: Allowance,
    /// What its next step looks at first. It changes with each, since one may take all that may be sent.
    first: First,
}

/// What a turn found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing to do, or another process does it.
    Idle,
    /// There are replays under way.
    Busy,
}

impl Runner {
    /// Leads nothing yet.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            held: None,
            paces: HashMap::new(),
            stuck: Stuck::default(),
            behind: None,
        }
    }

    /// One turn of every replay that is under way. What goes wrong with one is told and tried again
    /// later; the others go on.
    pub async fn turn(&mut self) -> Result<Turn> {
        let unfinished = self.next().await?;
        let now = self.parts.clock.monotonic();
        self.paces.retain(|_, pace| !pace.allowance.is_idle(now));
        self.stuck.forget_old(now);
        if unfinished.is_empty() {
            self.give_up().await;
            return Ok(Turn::Idle);
        }
        if self.lead().await? == Standing::Deposed {
            return Ok(Turn::Idle);
        }
        for running in unfinished {
            let id = running.record.id;
            if self.stuck.waits(id, now) {
                continue;
            }
            match self.take_forward(running).await {
                Ok(()) => self.stuck.freed(id),
                Err(error) => {
                    self.stuck.failed(id, now);
                    told(&error, Some(id));
                }
            }
        }
        Ok(Turn::Busy)
    }

    /// Those whose turn it is.
    async fn next(&mut self) -> Result<Vec<Running>> {
        let page = |after| PageRequest {
            limit: AT_ONCE,
            after,
        };
        let store = &*self.parts.store;
        let mut found = store.unfinished_replays(page(self.behind)).await?;
        if found.is_empty() && self.behind.is_some() {
            found = store.unfinished_replays(page(None)).await?;
        }
        let last = found.last().map(|running| running.record.id);
        self.behind = last.filter(|_| found.len() == AT_ONCE);
        Ok(found)
    }

    /// A turn, and how long to wait for the next.
    async fn turn_or_tell(&mut self) -> Duration {
        let pace = self.parts.pace;
        match self.turn().await {
            Ok(Turn::Busy) => pace.turn,
            Ok(Turn::Idle) => self.jittered(pace.poll),
            Err(error) => {
                told(&error, None);
                self.jittered(pace.poll)
            }
        }
    }

    async fn take_forward(&mut self, running: Running) -> Result<()> {
        match running.record.state {
            ReplayState::Pending => self.count(running).await,
            ReplayState::Running if running.cursor == Cursor::End => {
                self.parts.store.settle_replay(&running).await
            }
            ReplayState::Running => self.send(running).await,
            ReplayState::Cancelled | ReplayState::Done => {
                self.parts.store.settle_replay(&running).await
            }
        }
    }

    async fn count(&self, mut running: Running) -> Result<()> {
        let store = &*self.parts.store;
        for _ in 0..LOOKS {
            let record = &running.record;
            let seen = look(
                store,
                &record.reach,
                &record.selection,
                record.created_at,
                &running.cursor,
                usize::MAX,
            )
            .await?;
            let counted = (seen.deliveries.len() + seen.events.len()) as u64;
            let standing = store.count_replay(&running, counted, &seen.next).await?;
            if standing == Standing::Deposed || seen.next == Cursor::End {
                break;
            }
            running.cursor = seen.next;
        }
        Ok(())
    }

    async fn send(&mut self, mut running: Running) -> Result<()> {
        let id = running.record.id;
        let now = self.parts.clock.monotonic();
        let turn = self.parts.pace.turn;
        let sending = self.paces.entry(id).or_insert_with(|| Sending {
            allowance: Allowance::new(running.record.rate, turn, now),
            first: First::Held,
        });
        let mut left = sending.allowance.at(now).min(STEP);
        if left == 0 {
            return Ok(());
        }
        let store = &*self.parts.store;
        let mut room = Room::new(store.replay_in_queue(id).await?);
        for _ in 0..LOOKS {
            let first = sending.first;
            let Some(step) = step::next(store, &running, &mut room, first, left).await? else {
                break;
            };
            let standing = store
                .advance_replay(&running, &step.deliveries, &step.events, &step.next)
                .await?;
            if standing == Standing::Deposed {
                break;
            }
            let sent = step.len();
            if sent > 0 {
                self.parts.intake.something_is_due();
                store.announce();
            }
            sending.allowance.spend(sent);
            sending.first = first.other();
            left -= sent.min(left);
            running.cursor = step.next;
            if left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Takes the lease, or keeps it. That it may end unnoticed is no matter: no step depends on it.
    async fn lead(&mut self) -> Result<Standing> {
        let leasing = Leasing {
            owner: self.parts.owner,
            lease: self.parts.pace.lease,
        };
        let now = self.parts.clock.monotonic();
        let renew_at = now + leasing.lease / 3;
        let store = &*self.parts.store;
        let lease = match self.held.take() {
            Some(held) if now < held.1 => {
                self.held = Some(held);
                return Ok(Standing::Leads);
            }
            Some((lease, _)) => match store.renew_lease(&lease, leasing).await? {
                Standing::Leads => Some(lease),
                Standing::Deposed => store.take_lease(LeaseName::REPLAY, leasing).await?,
            },
            None => store.take_lease(LeaseName::REPLAY, leasing).await?,
        };
        self.held = lease.map(|lease| (lease, renew_at));
        Ok(match self.held {
            Some(_) => Standing::Leads,
            None => Standing::Deposed,
        })
    }

    /// Lets others lead.
    async fn give_up(&mut self) {
        if let Some((lease, _)) = self.held.take()
            && let Err(error) = self.parts.store.release_lease(&lease).await
        {
            tracing::debug!(%error, "replay: the lease was not released");
        }
    }

    /// So that replicas do not come all at once.
    fn jittered(&self, time: Duration) -> Duration {
        time.mul_f64(0.75 + 0.5 * self.parts.entropy.unit())
    }
}

fn told(error: &StoreError, replay: Option<ReplayId>) {
    let replay = replay.map(tracing::field::display);
    if error.is_unavailable() {
        tracing::warn!(%error, replay, "a replay waits for the database; trying again");
    } else {
        tracing::error!(%error, replay, "a replay cannot be taken forward; trying again");
    }
}
