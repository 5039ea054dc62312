//! Replay: deliveries that are sent again, or sooner, because somebody says so (docs/DELIVERY.md).
//!
//! One delivery is put into the queue at once. Many are a row of `replay`, which a runner takes forward
//! step by step: it looks for what is next ([`look()`]), and one transaction puts it into the queue and
//! moves the row's cursor. A step that finds the cursor moved meanwhile does nothing, so two runners
//! do each step once, and a crash between two steps costs nothing.

use std::collections::HashMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{Creation, Idempotency, Page, PageRequest, Result, Standing};
use crate::domain::audit::{Act, Actor, Audited};
use crate::domain::delivery::DeliveryState;
use crate::domain::filter::EventType;
use crate::domain::ids::{
    DeliveryId, EditionId, EventId, ProjectId, ReplayId, SubscriptionId, WorkspaceId,
};
use crate::domain::payload::timestamp;
use crate::domain::reach::Reach;
use crate::domain::replay::{Refusal, Was};
use crate::domain::selection::{About, ReplayState, Selection, Skipped};

mod account;
mod bounds;
mod cursor;
mod judge;
mod look;
mod start;
mod tally;

pub(super) use account::account;
pub(super) use bounds::Bounds;
pub use cursor::{Cursor, Held};
pub(super) use judge::{Place, Taker, judge};
pub use look::{Count, Look, Missed, count, count_for, look, missed};
pub(super) use tally::{Progress, ReplayTally};

/// The most replays of many that a workspace has under way at once.
pub const MAX_UNFINISHED: usize = 20;

/// The most deliveries that one step looks at, or puts into the queue.
pub const STEP: usize = 1_000;

/// What became of a delivery that was to be replayed: what it was before, or why it is not.
pub type Requeued = std::result::Result<Was, Refusal>;

/// Whether what was asked for happens, now or since an earlier call.
pub(super) fn is_under_way(answer: Requeued) -> bool {
    matches!(answer, Ok(_) | Err(Refusal::AlreadyReplaying))
}

/// A replay of many that is asked for.
#[derive(Clone, Debug)]
pub struct NewReplay {
    /// Its id, made by the caller.
    pub id: ReplayId,
    /// Which deliveries.
    pub selection: Selection,
    /// How many a second, at most.
    pub rate: u32,
}

/// A replay of many, as clients see it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayRecord {
    /// Its id.
    pub id: ReplayId,
    /// What of the workspace it is within: as far as whoever asked for it sees.
    pub reach: Reach,
    /// Which deliveries.
    pub selection: Selection,
    /// How many a second, at most.
    pub rate: u32,
    /// Where it stands.
    pub state: ReplayState,
    /// How many were selected; while it is pending, as far as they are counted.
    pub total: u64,
    /// How many were put into the queue.
    pub queued: u64,
    /// How many of those were taken by their receivers.
    pub done: u64,
    /// How many of those were not. One that has a schedule is tried again by it.
    pub failed: u64,
    /// How many were not put into the queue, by the reason.
    pub skipped: Skipped,
    /// Who asked for it.
    pub created_by: Actor,
    /// When.
    pub created_at: DateTime<Utc>,
    /// When nothing of it was in the queue any more.
    pub finished_at: Option<DateTime<Utc>>,
}

impl Audited for ReplayRecord {
    fn workspace(&self) -> &WorkspaceId {
        &self.reach.workspace
    }

    fn object(&self) -> String {
        self.id.to_string()
    }

    fn state(&self) -> serde_json::Value {
        serde_json::json!({
            "selection": self.selection,
            "rate": self.rate,
            "state": self.state.as_str(),
            "total": self.total,
            "queued": self.queued,
            "done": self.done,
            "failed": self.failed,
            "created_at": timestamp(self.created_at),
        })
    }
}

/// A replay of many as a runner takes it forward.
#[derive(Clone, Debug)]
pub struct Running {
    /// As clients see it.
    pub record: ReplayRecord,
    /// How far it came.
    pub cursor: Cursor,
}

/// A delivery that may be one of those selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: DeliveryId,
    /// To whom it is.
    pub subscription: SubscriptionId,
    /// Its event's type.
    pub event_type: EventType,
    /// Its event's project.
    pub project: Option<ProjectId>,
    /// Its event's edition.
    pub edition: Option<EditionId>,
    /// Where it stands.
    pub state: DeliveryState,
}

impl Candidate {
    fn about(&self) -> About<'_> {
        About {
            event_type: &self.event_type,
            project: self.project.as_ref(),
            edition: self.edition.as_ref(),
        }
    }
}

/// What cancelling came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Cancelled {
    /// It is cancelled, now or since an earlier call.
    Done(Box<ReplayRecord>),
    /// It had been done with before.
    TooLate,
}

/// Replaying. Every act tells the audit log in its own transaction, where anything was changed.
///
/// A replay of many is in reach where all of what it is within is: a restricted caller sees those of
/// its own projects only.
#[async_trait]
pub trait Replays: Send + Sync {
    /// Replays one delivery: it is due now, in the lane of replays, and its next attempt is the
    /// replay's. `None` if there is none of that id in reach.
    ///
    /// Its lease token goes on from the last one, so that no attempt of its earlier life is taken for
    /// one of the next.
    async fn replay_delivery(
        &self,
        reach: &Reach,
        id: DeliveryId,
        act: &Act,
    ) -> Result<Option<Requeued>>;

    /// The same for a request that may be sent again: what the first one did is not done a second time,
    /// however long ago the delivery was sent since. One that is refused leaves its key unused.
    async fn replay_delivery_once(
        &self,
        reach: &Reach,
        id: DeliveryId,
        act: &Act,
        once: &Idempotency,
    ) -> Result<Option<Creation<Requeued>>>;

    /// Begins a replay of many, within this reach; with `once`, unless an earlier call did. `None` where
    /// the workspace has [`MAX_UNFINISHED`] under way.
    async fn create_replay(
        &self,
        reach: &Reach,
        new: &NewReplay,
        act: &Act,
        once: Option<&Idempotency>,
    ) -> Result<Option<Creation<ReplayRecord>>>;

    /// Whether an earlier call began one with this key. To be asked before what is selected is looked
    /// for: a repeat is answered as the first call was, whatever is gone since.
    async fn is_repeat(&self, workspace: &WorkspaceId, once: &Idempotency) -> Result<bool>;

    /// One of them; `None` if there is none of that id in reach.
    async fn replay(&self, reach: &Reach, id: ReplayId) -> Result<Option<ReplayRecord>>;

    /// All that are in reach, newest first.
    async fn replays(
        &self,
        reach: &Reach,
        page: PageRequest<ReplayId>,
    ) -> Result<Page<ReplayRecord, ReplayId>>;

    /// Ends a replay early: nothing more is put into the queue, and what is there and was not sent is
    /// taken out as it was, at once or, where a process has it in hand, by
    /// [`settle_replay`](Self::settle_replay). `None` if there is none of that id in reach.
    async fn cancel_replay(
        &self,
        reach: &Reach,
        id: ReplayId,
        act: &Act,
    ) -> Result<Option<Cancelled>>;

    /// Replays that are not finished, of all workspaces, oldest first; those behind one go on from it.
    async fn unfinished_replays(&self, page: PageRequest<ReplayId>) -> Result<Vec<Running>>;

    /// How many deliveries of a replay are in the queue, by the subscription.
    async fn replay_in_queue(&self, id: ReplayId) -> Result<HashMap<SubscriptionId, usize>>;

    /// Deliveries that may be selected, oldest first, made before `until`: what an index tells (event,
    /// subscription, time, and whether only what did not succeed is asked for) and the reach hold for
    /// them, the rest is for the caller to see to. At most `page.limit` are looked at;
    /// [`Page::next`] is the last of those, and `None` at the end only.
    async fn replay_candidates(
        &self,
        reach: &Reach,
        selection: &Selection,
        until: DateTime<Utc>,
        page: PageRequest<DeliveryId>,
    ) -> Result<Page<Candidate, DeliveryId>>;

    /// Those of these events that a subscription never had a delivery of.
    async fn undelivered(
        &self,
        workspace: &WorkspaceId,
        subscription: SubscriptionId,
        events: &[EventId],
    ) -> Result<Vec<EventId>>;

    /// Notes what was counted up to a cursor; at the end, sending begins. Does nothing where the replay
    /// was moved on meanwhile, or ended.
    async fn count_replay(
        &self,
        running: &Running,
        counted: u64,
        next: &Cursor,
    ) -> Result<Standing>;

    /// Puts these deliveries into the queue, each as it can be, and makes those of these events that
    /// were never made, up to a cursor. Does nothing where the replay was moved on meanwhile, or ended.
    async fn advance_replay(
        &self,
        running: &Running,
        deliveries: &[DeliveryId],
        events: &[EventId],
        next: &Cursor,
    ) -> Result<Standing>;

    /// Finishes a replay that is through, or cancelled, once nothing of it is in the queue any more.
    /// What was taken from it there (its subscription was deleted) counts as skipped.
    async fn settle_replay(&self, running: &Running) -> Result<()>;
}
