//! What was attempted, and what came of it, by the minute and by the hour: counted where outcomes are
//! written, so that statistics never look at deliveries.
//!
//! A settle appends a *delta* for each subscription and minute that its outcomes fall into, in its own
//! transaction. Deltas have no key and are only appended, so that settles of several processes do not
//! wait for each other there. The leader of [`LeaseName::RETENTION`](super::LeaseName) *folds* them into
//! the rollups every few seconds: it takes some away and adds them up there in one transaction, so each
//! counts once, whatever is interrupted. Who reads adds up both.
//!
//! What counts: an attempt that was made under a lease which still held when it was settled, in the
//! minute in which it began (by the clock of the process that made it), with what it was for its
//! delivery. A test send is no delivery's attempt and does not count. A delivery that failed, was
//! replayed and then taken counts as failed in one minute and as taken in another: that is what happened.
//! Only deliveries of deleted subscriptions are cancelled, and with a subscription its rollups go: there
//! is nothing to count of those.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::lease::Lease;
use super::{Result, Settlement, StoreError};
use crate::domain::attempt::ErrorClass;
use crate::domain::delivery::Verdict;
use crate::domain::ids::{SubscriptionId, WorkspaceId};
use crate::domain::latency::{BUCKETS, Latency};

/// How long the time of one rollup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// Kept for some days.
    Minute,
    /// Kept for a year and more.
    Hour,
}

impl Resolution {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Minute, Self::Hour];

    /// Its name in the database, the API and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
        }
    }

    /// So long.
    pub fn length(self) -> Duration {
        match self {
            Self::Minute => Duration::from_mins(1),
            Self::Hour => Duration::from_hours(1),
        }
    }

    /// The beginning of the one that an instant lies in.
    pub fn start(self, at: DateTime<Utc>) -> DateTime<Utc> {
        let length = i64::try_from(self.length().as_millis()).unwrap_or(i64::MAX);
        let millis = at.timestamp_millis();
        DateTime::from_timestamp_millis(millis - millis.rem_euclid(length)).unwrap_or(at)
    }
}

impl std::str::FromStr for Resolution {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|resolution| resolution.as_str() == text)
            .ok_or("must be `minute` or `hour`")
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Deliveries that the receiver took.
    pub succeeded: u64,
    /// Deliveries that were given up.
    pub failed: u64,
    /// Attempts, by what they were for their deliveries.
    pub attempts: AttemptCounts,
    /// How long attempts took; those of which nothing was sent are not in here.
    pub latency: Latency,
}

/// Attempts, by what they were for their deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttemptCounts {
    /// The receiver took it.
    pub succeeded: u64,
    /// It did not, and the delivery is tried again.
    pub retried: u64,
    /// It did not, and that was it.
    pub failed: u64,
}

impl AttemptCounts {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.succeeded + self.retried + self.failed
    }
}

impl Counts {
    /// And those of another.
    pub fn take_in(&mut self, other: &Self) {
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.attempts.succeeded += other.attempts.succeeded;
        self.attempts.retried += other.attempts.retried;
        self.attempts.failed += other.attempts.failed;
        self.latency.take_in(&other.latency);
    }

    fn add(&mut self, settlement: &Settlement) {
        let Some(attempt) = &settlement.attempt else {
            return;
        };
        match settlement.verdict {
            Verdict::Succeeded => self.attempts.succeeded += 1,
            Verdict::Retry { .. } | Verdict::Resumed { .. } => self.attempts.retried += 1,
            Verdict::Failed | Verdict::Gone | Verdict::Repeated => self.attempts.failed += 1,
            Verdict::Released => return,
        }
        // What had succeeded and was sent once more did so once.
        if !settlement.repeats() {
            match settlement.verdict {
                Verdict::Succeeded => self.succeeded += 1,
                Verdict::Failed | Verdict::Gone => self.failed += 1,
                _ => {}
            }
        }
        let unsent = [ErrorClass::Lost, ErrorClass::Internal];
        if attempt.error.is_none_or(|class| !unsent.contains(&class)) {
            self.latency.add(attempt.duration);
        }
    }

    /// As they are kept, in the order of [`count_columns`].
    pub(super) fn columns(&self) -> Columns {
        let mut columns = [0; COLUMNS];
        let numbers = [
            self.succeeded,
            self.failed,
            self.attempts.succeeded,
            self.attempts.retried,
            self.attempts.failed,
            self.latency.sum_ms,
        ];
        let all = numbers.into_iter().chain(self.latency.buckets);
        for (column, number) in columns.iter_mut().zip(all) {
            *column = i64::try_from(number).unwrap_or(i64::MAX);
        }
        columns
    }

    /// Out of the columns, in that order.
    pub(super) fn read(column: impl Fn(usize) -> Result<i64>) -> Result<Self> {
        let mut numbers = [0; COLUMNS];
        for (index, number) in numbers.iter_mut().enumerate() {
            *number = u64::try_from(column(index)?).map_err(StoreError::corrupt)?;
        }
        let [
            succeeded,
            failed,
            attempts_succeeded,
            attempts_retried,
            attempts_failed,
            sum_ms,
            buckets @ ..,
        ] = numbers;
        Ok(Self {
            succeeded,
            failed,
            attempts: AttemptCounts {
                succeeded: attempts_succeeded,
                retried: attempts_retried,
                failed: attempts_failed,
            },
            latency: Latency { buckets, sum_ms },
        })
    }
}

/// How many columns [`Counts`] are kept in.
pub(super) const COLUMNS: usize = 6 + BUCKETS;

/// The values of these columns.
pub(super) type Columns = [i64; COLUMNS];

/// Makes a part of a statement of the names of the columns that [`Counts`] are kept in:
/// `names` lists them, `sums` adds each up under its name, `added` adds a row that is there already to each.
macro_rules! count_columns {
    ($part:ident) => {
        $crate::store::rollups::count_columns!(@$part
            "succeeded" "failed" "attempts_succeeded" "attempts_retried" "attempts_failed"
            "duration_ms" "within_5" "within_10" "within_25" "within_50" "within_100" "within_250"
            "within_500" "within_1000" "within_2500" "within_5000" "within_10000" "within_30000"
            "longer"
        )
    };
    (@names $first:literal $($name:literal)*) => {
        concat!($first $(, ", ", $name)*)
    };
    (@sums $first:literal $($name:literal)*) => {
        concat!(
            "cast(sum(", $first, ") as bigint) as ", $first
            $(, ", cast(sum(", $name, ") as bigint) as ", $name)*
        )
    };
    (@added $first:literal $($name:literal)*) => {
        concat!(
            $first, " = rollup.", $first, " + excluded.", $first
            $(, ", ", $name, " = rollup.", $name, " + excluded.", $name)*
        )
    };
}
pub(super) use count_columns;

/// What one settle counts, by the subscription and the minute, in this order.
#[derive(Debug, Default)]
pub(super) struct Deltas(BTreeMap<(SubscriptionId, DateTime<Utc>), Delta>);

/// Some of it.
#[derive(Clone, Debug)]
pub(super) struct Delta {
    pub(super) workspace: WorkspaceId,
    pub(super) subscription: SubscriptionId,
    pub(super) minute: DateTime<Utc>,
    pub(super) counts: Counts,
}

impl Deltas {
    /// Of settlements that changed what they name, each once.
    pub(super) fn of<'a>(changed: impl IntoIterator<Item = &'a Settlement>) -> Self {
        let mut deltas = BTreeMap::new();
        for settlement in changed {
            let Some(attempt) = &settlement.attempt else {
                continue;
            };
            let minute = Resolution::Minute.start(attempt.at);
            let delta = deltas
                .entry((settlement.subscription, minute))
                .or_insert_with(|| Delta {
                    workspace: settlement.workspace.clone(),
                    subscription: settlement.subscription,
                    minute,
                    counts: Counts::default(),
                });
            delta.counts.add(settlement);
        }
        Self(deltas)
    }

    /// All of them.
    pub(super) fn to_vec(&self) -> Vec<&Delta> {
        self.0.values().collect()
    }
}

/// Keeping rollups.
#[async_trait]
pub trait Rollups: Send + Sync {
    /// Folds at most so many deltas into the rollups; answers how many they were. `None` to whoever was
    /// deposed, with nothing done.
    async fn fold_rollups(&self, held: &Lease, limit: usize) -> Result<Option<usize>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read_as_they_are_written() {
        let mut next = 2;
        let columns: Columns = std::array::from_fn(|_| {
            next += 1;
            next
        });
        let counts = Counts::read(|index| Ok(columns[index])).unwrap();
        assert_eq!(counts.columns(), columns);
        assert_eq!((counts.succeeded, counts.failed), (3, 4));
        assert_eq!(counts.attempts.total(), 5 + 6 + 7);
        assert_eq!(counts.latency.sum_ms, 8);
        assert_eq!(counts.latency.buckets[0], 9);
        let mut twice = counts;
        twice.take_in(&counts);
        assert_eq!(twice.columns(), columns.map(|column| 2 * column));
        assert!(Counts::read(|_| Ok(-1)).is_err());
    }

    #[test]
    fn there_is_a_column_for_each_number() {
        let names = count_columns!(names);
        assert_eq!(names.split(", ").count(), COLUMNS);
        let bounds = crate::domain::latency::BOUNDS_MS.map(|bound| format!("within_{bound}"));
        assert!(names.contains(&bounds.join(", ")));
    }

    #[test]
    fn an_instant_lies_in_the_minute_and_hour_that_began_last() {
        let at: DateTime<Utc> = "2026-05-01T09:59:59.999Z".parse().unwrap();
        let starts = Resolution::ALL.map(|resolution| resolution.start(at).to_rfc3339());
        assert_eq!(
            starts,
            ["2026-05-01T09:59:00+00:00", "2026-05-01T09:00:00+00:00"]
        );
        for resolution in Resolution::ALL {
            let start = resolution.start(at);
            assert_eq!(resolution.start(start), start);
            assert_eq!(resolution.as_str().parse(), Ok(resolution));
        }
    }
}
