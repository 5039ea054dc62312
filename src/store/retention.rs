//! Removing what has been kept for long enough, step by step.
//!
//! Each call is one short transaction over few rows, asked for by the leader of
//! [`LeaseName::RETENTION`](super::LeaseName), who comes again until [`Rest::Nothing`] is left. Ages are
//! measured by the store's clock. What is old is found at the beginning of an index, in whose order it
//! is removed: nothing that is young is looked at.
//!
//! The places of a workspace's feed go in their order, and with each its event, unless a delivery of it
//! is still under way. Such an event, and one that was never in a feed (a test's `ping`), is *loose*,
//! and goes once nothing holds it any more.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::Result;
use super::lease::Lease;
use super::rollups::Resolution;
use crate::domain::ids::{EventId, created_at, first_at};

/// How much later than an event of a feed a loose one goes. Events have their times before they have
/// their places: an old one may still be behind a younger one in its feed, and must not go before its
/// place. No transaction takes nearly as long.
pub const LOOSE_FOR: Duration = Duration::from_hours(1);

/// How much later than its event the first attempt at a delivery may be made for its answer to be
/// removed in time; a later one's goes with the delivery.
pub(super) const FIRST_ATTEMPT_WITHIN: Duration = Duration::from_hours(24);

/// About so many bytes of events' text go in one step.
pub(super) const MOST_BYTES: i64 = 4 * 1024 * 1024;

/// What is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// An event.
    Event,
    /// Its place in the feed.
    FeedPlace,
    /// A delivery that is settled.
    Delivery,
    /// An attempt, with its delivery.
    Attempt,
    /// What a receiver answered: the attempt stays.
    Answer,
    /// An entry of the audit log.
    AuditEntry,
    /// What an event is recognised by when it comes again.
    EventKey,
    /// The key of a call that may be repeated.
    IdempotencyKey,
    /// A replay of many that ended.
    Replay,
    /// What was attempted in a minute or an hour.
    Rollup,
}

impl Kept {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Event,
        Self::FeedPlace,
        Self::Delivery,
        Self::Attempt,
        Self::Answer,
        Self::AuditEntry,
        Self::EventKey,
        Self::IdempotencyKey,
        Self::Replay,
        Self::Rollup,
    ];

    /// Its name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::FeedPlace => "event_feed",
            Self::Delivery => "delivery",
            Self::Attempt => "attempt",
            Self::Answer => "attempt_answer",
            Self::AuditEntry => "audit_log",
            Self::EventKey => "event_key",
            Self::IdempotencyKey => "idempotency_key",
            Self::Replay => "replay",
            Self::Rollup => "rollup",
        }
    }
}

/// How much was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed(BTreeMap<Kept, u64>);

impl Removed {
    /// So many of these.
    pub fn of(kept: Kept, rows: u64) -> Self {
        let mut removed = Self::default();
        removed.add(kept, rows);
        removed
    }

    /// And so many of these.
    pub fn add(&mut self, kept: Kept, rows: u64) {
        if rows > 0 {
            *self.0.entry(kept).or_default() += rows;
        }
    }

    /// And what another step removed.
    pub fn take_in(&mut self, other: &Self) {
        for (kept, rows) in other.iter() {
            self.add(kept, rows);
        }
    }

    /// How many of these.
    pub fn rows(&self, kept: Kept) -> u64 {
        self.0.get(&kept).copied().unwrap_or_default()
    }

    /// What was removed at all.
    pub fn iter(&self) -> impl Iterator<Item = (Kept, u64)> {
        self.0.iter().map(|(kept, rows)| (*kept, *rows))
    }

    /// Whether there was nothing to remove.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a step leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing that is old enough.
    Nothing,
    /// Perhaps more: the same step is to be made again.
    Some,
    /// Perhaps more, behind this event.
    Behind(EventId),
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swept {
    /// What it removed.
    pub removed: Removed,
    /// What it left.
    pub rest: Rest,
}

impl Swept {
    /// A step that removed so many of these, of at most `limit`.
    pub(super) fn of(kept: Kept, rows: u64, limit: usize) -> Self {
        let full = usize::try_from(rows).is_ok_and(|rows| rows >= limit.max(1));
        Self {
            removed: Removed::of(kept, rows),
            rest: if full { Rest::Some } else { Rest::Nothing },
        }
    }

    /// A step after which there may be more.
    pub(super) fn some(removed: Removed) -> Self {
        Self {
            removed,
            rest: Rest::Some,
        }
    }

    /// A step that found nothing to do.
    pub(super) fn nothing() -> Self {
        Self {
            removed: Removed::default(),
            rest: Rest::Nothing,
        }
    }
}

/// Removing. Each method answers `None` to whoever was deposed, and has then done nothing.
#[async_trait]
pub trait Retention: Send + Sync {
    /// Takes the oldest events of a workspace out of its feed that were accepted more than `age` ago,
    /// and raises the feed's floor. Those with no delivery under way, and none that was settled within
    /// `age`, are removed with their deliveries and attempts; the others are loose from then on. An
    /// event with many deliveries takes several steps, and keeps its place until the last.
    async fn remove_events(
        &self,
        held: &Lease,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>>;

    /// Looks at events behind `after` that were accepted more than `age` ago, and removes what nothing
    /// holds, as [`Retention::remove_events`] does. To be called when that has left nothing, with an age
    /// that is greater by [`LOOSE_FOR`].
    async fn remove_loose_events(
        &self,
        held: &Lease,
        age: Duration,
        after: Option<EventId>,
        limit: usize,
    ) -> Result<Option<Swept>>;

    /// Removes what receivers answered (headers and excerpt) to attempts that were made more than `age`
    /// ago. The answer to a first attempt that was made more than a day after its event may stay
    /// until the event goes.
    async fn remove_answers(
        &self,
        held: &Lease,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>>;

    /// Removes the oldest entries of a workspace's audit log that were made more than `age` ago.
    async fn remove_audit_entries(
        &self,
        held: &Lease,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>>;

    /// Forgets what events were recognised by that were accepted more than `age` ago and are removed.
    async fn remove_event_keys(
        &self,
        held: &Lease,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>>;

    /// Removes the keys of calls that are remembered no longer (see [`super::idempotency`]).
    async fn remove_idempotency_keys(&self, held: &Lease, limit: usize) -> Result<Option<Swept>>;

    /// Removes replays of many that ended more than `age` ago.
    async fn remove_replays(
        &self,
        held: &Lease,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>>;

    /// Removes the rollups of this resolution that began more than `age` ago.
    async fn remove_rollups(
        &self,
        held: &Lease,
        resolution: Resolution,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>>;

    /// Removes the rollups of subscriptions that were deleted.
    async fn remove_orphaned_rollups(&self, held: &Lease, limit: usize) -> Result<Option<Swept>>;

    /// How long ago the oldest event that is kept came; `None` if there is none.
    async fn oldest_event(&self) -> Result<Option<Duration>>;
}

/// An event that is old enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Old {
    pub(super) id: Uuid,
    pub(super) workspace: String,
}

impl Old {
    /// The bounds of the ids that its deliveries have, which carry its time ([`super::identity`]): from
    /// the first, and below the second.
    pub(super) fn deliveries(&self) -> (Uuid, Uuid) {
        let made = created_at(self.id);
        (first_at(made), first_at(made + Duration::from_millis(1)))
    }
}

/// How many of the first things stay within [`MOST_BYTES`]; at least one.
pub(super) fn fitting(bytes: impl IntoIterator<Item = i64>) -> usize {
    let mut left = MOST_BYTES;
    let within = bytes.into_iter().take_while(|bytes| {
        left = left.saturating_sub(*bytes);
        left >= 0
    });
    within.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_takes_few_bytes_and_one_event_at_least() {
        assert_eq!(fitting([1, 2, 3]), 3);
        assert_eq!(fitting([MOST_BYTES, 1]), 1);
        assert_eq!(fitting([MOST_BYTES + 1, 1]), 1);
        assert_eq!(fitting([MOST_BYTES - 1, 1, 1]), 2);
    }

    #[test]
    fn removed_rows_are_added_up() {
        let mut removed = Removed::of(Kept::Event, 2);
        removed.take_in(&Removed::of(Kept::Event, 3));
        removed.take_in(&Removed::of(Kept::Answer, 0));
        assert_eq!(removed.rows(Kept::Event), 5);
        assert_eq!(removed.iter().collect::<Vec<_>>(), [(Kept::Event, 5)]);
    }

    #[test]
    fn a_full_step_is_followed_by_another() {
        assert_eq!(Swept::of(Kept::EventKey, 5, 5).rest, Rest::Some);
        assert_eq!(Swept::of(Kept::EventKey, 4, 5).rest, Rest::Nothing);
    }
}
