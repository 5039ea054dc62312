//! How it goes with a subscription, or with all of a workspace: what waits, counted when it is asked for,
//! and what was attempted, read from the rollups. [`view`] is how it is told.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::rollups::{Counts, Resolution};
use super::{Result, Store};
use crate::domain::ids::SubscriptionId;
use crate::domain::reach::Reach;

pub mod view;

/// How many rows of a kind in the queue are counted, at most.
pub const MAX_COUNTED: usize = 10_000;

/// How many minutes or hours a window has, at most: 400 days of hours, nearly seven of minutes.
pub const MAX_POINTS: u64 = 9_600;

/// How many deltas that are not folded yet are looked at, at most. There are more only where nobody has
/// folded for long: what is told then is not all ([`Series::is_exact`]).
pub const MAX_UNFOLDED: usize = 100_000;

/// How many rollups a series of several subscriptions adds up, at most.
pub const MAX_SUMMED: u64 = 500_000;

/// Up to here minutes are looked at where nobody says so: they are kept for no longer, unless an operator
/// wants it.
const BY_MINUTE: Duration = Duration::from_hours(48);

/// How far back one looks, and in which steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    length: Duration,
    resolution: Resolution,
}

impl Window {
    /// The last day, by the minute.
    pub const DAY: Self = Self {
        length: Duration::from_hours(24),
        resolution: Resolution::Minute,
    };

    /// No further back than this minute, for whoever asks what waits.
    pub const NOW: Self = Self {
        length: Duration::ZERO,
        resolution: Resolution::Minute,
    };

    /// The longest of a resolution.
    pub fn longest(resolution: Resolution) -> Duration {
        Duration::from_secs(resolution.length().as_secs() * MAX_POINTS)
    }

    /// One of this length, or the longest of its resolution where that is shorter.
    pub fn new(length: Duration, resolution: Resolution) -> Self {
        let length = length.min(Self::longest(resolution));
        Self { length, resolution }
    }

    /// One of this length, in the steps that are asked for: where nobody asks, minutes if these are kept
    /// for so long, and hours otherwise.
    pub fn looking_back(length: Duration, asked: Option<Resolution>) -> Self {
        let usual = if length <= BY_MINUTE {
            Resolution::Minute
        } else {
            Resolution::Hour
        };
        Self::new(length, asked.unwrap_or(usual))
    }

    /// In which steps.
    pub fn resolution(&self) -> Resolution {
        self.resolution
    }

    /// When the first minute or hour of one that ends now begins.
    pub(super) fn start(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.resolution.start(now - self.length)
    }

    /// How many steps it has at most: the first and the last are cut.
    pub(super) fn points(&self) -> u64 {
        self.length.as_secs() / self.resolution.length().as_secs() + 2
    }
}

/// What was counted in one minute or hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// When it began.
    pub start: DateTime<Utc>,
    /// What began in it.
    pub counts: Counts,
}

/// What was counted over some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// From when on it is whole: the window's beginning, or later where rollups do not reach back so far,
    /// because they were removed, or because nothing was counted then.
    pub since: DateTime<Utc>,
    /// Whether all that was counted is in it. Otherwise more than [`MAX_UNFOLDED`] deltas of all
    /// workspaces wait to be folded, and what is in the others of them is missing until it is.
    pub is_exact: bool,
    /// In the order of time. Where nothing was counted there is no point.
    pub points: Vec<Point>,
}

/// A row of what a store adds up: a point, or none where there are none, and whether deltas were left out.
pub(super) struct Summed {
    pub(super) point: Option<Point>,
    pub(super) cut: bool,
}

impl Series {
    pub(super) fn new(start: DateTime<Utc>, floor: DateTime<Utc>, rows: Vec<Summed>) -> Self {
        Self {
            since: start.max(floor),
            is_exact: !rows.iter().any(|row| row.cut),
            points: rows.into_iter().filter_map(|row| row.point).collect(),
        }
    }

    /// All of it together.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for point in &self.points {
            total.take_in(&point.counts);
        }
        total
    }
}

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
    /// What was attempted of late, and what came of it.
    pub past: Series,
}

/// Counting.
#[async_trait]
pub trait Stats: Send + Sync {
    /// One subscription's; `None` if there is none of that id in reach, or it was deleted. The numbers
    /// are of all that the subscription gets and got: whose projects were cut down to those in reach is
    /// counted with what it got before.
    ///
    /// What is looked at is bounded, whatever waits or was: in each lane of the queue [`MAX_COUNTED`] that
    /// are due and as many that are not; and the rollups of the window, with what is not folded into them
    /// yet. Deliveries and attempts that are over are not looked at.
    async fn subscription_stats(
        &self,
        reach: &Reach,
        id: SubscriptionId,
        window: Window,
    ) -> Result<Option<SubscriptionStats>>;

    /// What was attempted for all subscriptions in reach together. `None` where that would be more than
    /// [`MAX_SUMMED`] rollups: a shorter window, or hours instead of minutes, have fewer.
    async fn workspace_series(&self, reach: &Reach, window: Window) -> Result<Option<Series>>;
}

/// What was attempted for all subscriptions in reach together, in the steps that are asked for. Where nobody
/// asks, hours are added up if minutes are too many. `None` where it is too much all the same.
pub async fn workspace(
    store: &dyn Store,
    reach: &Reach,
    length: Duration,
    asked: Option<Resolution>,
) -> Result<Option<Series>> {
    let window = Window::looking_back(length, asked);
    let series = store.workspace_series(reach, window).await?;
    if series.is_some() || asked.is_some() {
        return Ok(series);
    }
    let by_hour = Window::new(length, Resolution::Hour);
    store.workspace_series(reach, by_hour).await
}

/// Whether the rollups of so many subscriptions are few enough to be added up.
pub(super) fn are_few(window: Window, subscriptions: u64) -> bool {
    window.points().saturating_mul(subscriptions) <= MAX_SUMMED
}
