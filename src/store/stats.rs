//! How it goes with a subscription, counted when it is asked for.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Result;
use crate::domain::ids::{SubscriptionId, created_at};
use crate::domain::reach::Reach;

/// How many rows of a kind are counted, at most.
pub const MAX_COUNTED: usize = 10_000;

/// How far back history is counted, for whoever asks how it goes.
pub const RECENTLY: Duration = Duration::from_hours(24);

/// A count that may have been ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// So many.
    Exactly(u64),
    /// So many were counted, and there may be more.
    AtLeast(u64),
}

impl Tally {
    /// So many, unless the count was cut short.
    pub(super) fn of(count: u64, cut: bool) -> Self {
        if cut {
            Self::AtLeast(count)
        } else {
            Self::Exactly(count)
        }
    }

    /// How many were counted.
    pub fn counted(self) -> u64 {
        match self {
            Self::Exactly(count) | Self::AtLeast(count) => count,
        }
    }
}

/// What waits for a subscription, and what became of its deliveries of late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionStats {
    /// Due or waiting for their time, unleased.
    pub pending: Tally,
    /// Leased.
    pub in_flight: Tally,
    /// How long the oldest due and unleased delivery has been waiting.
    pub oldest_due: Option<Duration>,
    /// From when on the counts below are whole, by the deliveries' creation: the window's beginning,
    /// or the creation of the oldest one counted, where [`MAX_COUNTED`] ended the count before it.
    pub since: DateTime<Utc>,
    /// Made since then, and taken by the receiver.
    pub succeeded: u64,
    /// Made since then, and given up.
    pub failed: u64,
    /// Made since then, and cancelled.
    pub cancelled: u64,
    /// The attempts that these three took.
    pub attempts: u64,
}

/// Counting.
#[async_trait]
pub trait Stats: Send + Sync {
    /// One subscription's; `None` if there is none of that id in reach, or it was deleted. History is
    /// counted back to `window` ago. The numbers are of all that the subscription gets and got: whose
    /// projects were cut down to those in reach is counted with what it got before.
    ///
    /// What is looked at is bounded, whatever waits or was: [`MAX_COUNTED`] settled deliveries, the
    /// newest; and of the queue, in each lane, as many that are due and as many that are not.
    async fn subscription_stats(
        &self,
        reach: &Reach,
        id: SubscriptionId,
        window: Duration,
    ) -> Result<Option<SubscriptionStats>>;
}

/// When a window that ends now began; one that is too long began with time itself.
pub(super) fn window_start(now: DateTime<Utc>, window: Duration) -> DateTime<Utc> {
    chrono::Duration::from_std(window)
        .ok()
        .and_then(|window| now.checked_sub_signed(window))
        .unwrap_or(DateTime::UNIX_EPOCH)
}

/// From when on history was counted: from the window's beginning, or from the last delivery counted
/// where that was one too many.
pub(super) fn counted_since(begin: DateTime<Utc>, edge: Option<Uuid>) -> DateTime<Utc> {
    edge.map_or(begin, created_at)
}
