//! Statistics as they are told: what the API serves is what the command line prints in JSON.

use serde::Serialize;
use utoipa::ToSchema;

use super::{Point, Series, SubscriptionStats, Tally};
use crate::domain::latency::Latency;
use crate::domain::payload::timestamp;
use crate::store::rollups::{Counts, Resolution};

/// What waits for a subscription.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Waiting)]
pub struct WaitingView {
    /// Deliveries that wait for their time.
    pub pending: Count,
    /// Deliveries that are under way.
    pub in_flight: Count,
    /// For how many seconds the oldest due delivery has been waiting.
    pub oldest_due_seconds: Option<u64>,
}

/// What was attempted of late, and what came of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryStats)]
pub struct PastView {
    /// From when on attempts are counted, and the deliveries that they ended: the beginning of the window
    /// in whole minutes or hours, or later where no numbers are kept of its beginning.
    #[schema(format = DateTime)]
    pub since: String,
    /// Whether all of them are in these numbers; otherwise there may be more, which are added up soon.
    pub exact: bool,
    /// All of it together.
    #[serde(flatten)]
    pub counts: CountsView,
    /// What was counted in each minute or hour, the oldest first, where `resolution` asks for it. Those
    /// in which nothing was attempted are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series: Option<Vec<PointView>>,
}

/// What was attempted, by when the attempts began. Tests are not counted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryCounts)]
pub struct CountsView {
    /// Deliveries that the receiver took.
    pub succeeded: u64,
    /// Deliveries that were given up.
    pub failed: u64,
    /// Attempts: the three that follow together.
    pub attempts: u64,
    /// Attempts that the receiver took.
    pub attempts_succeeded: u64,
    /// Attempts that it did not take, with another to follow.
    pub attempts_retried: u64,
    /// Attempts that it did not take, with none to follow.
    pub attempts_failed: u64,
    /// How long attempts took; null where there were none.
    pub latency: Option<LatencyView>,
}

/// How long attempts took, in milliseconds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Latency)]
pub struct LatencyView {
    /// In the mean.
    pub mean_ms: u64,
    /// Half of them took no longer. The percentiles are estimated from a histogram with bounds at 5, 10,
    /// 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000 and 30000 ms; what took longer counts as 30000.
    pub p50_ms: u64,
    /// Of a hundred 95 took no longer.
    pub p95_ms: u64,
    /// Of a hundred 99 took no longer.
    pub p99_ms: u64,
}

/// What was attempted in one minute or hour.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StatsPoint)]
pub struct PointView {
    /// When it began.
    #[schema(format = DateTime)]
    pub start: String,
    /// What it holds.
    #[serde(flatten)]
    pub counts: CountsView,
}

/// A number that is counted up to a bound.
#[derive(Debug, Serialize, ToSchema)]
pub struct Count {
    /// How many.
    pub count: u64,
    /// Whether that is all of them; otherwise there may be more.
    pub exact: bool,
}

impl WaitingView {
    /// Of these.
    pub fn new(stats: &SubscriptionStats) -> Self {
        Self {
            pending: stats.pending.into(),
            in_flight: stats.in_flight.into(),
            oldest_due_seconds: stats.oldest_due.map(|age| age.as_secs()),
        }
    }
}

impl PastView {
    /// All together, and step by step where steps were asked for.
    pub fn new(past: &Series, asked: Option<Resolution>) -> Self {
        Self {
            since: timestamp(past.since),
            exact: past.is_exact,
            counts: CountsView::new(&past.total()),
            series: asked.map(|_| past.points.iter().map(PointView::new).collect()),
        }
    }
}

impl PointView {
    fn new(point: &Point) -> Self {
        Self {
            start: timestamp(point.start),
            counts: CountsView::new(&point.counts),
        }
    }
}

impl CountsView {
    fn new(counts: &Counts) -> Self {
        Self {
            succeeded: counts.succeeded,
            failed: counts.failed,
            attempts: counts.attempts.total(),
            attempts_succeeded: counts.attempts.succeeded,
            attempts_retried: counts.attempts.retried,
            attempts_failed: counts.attempts.failed,
            latency: LatencyView::new(&counts.latency),
        }
    }
}

impl LatencyView {
    fn new(latency: &Latency) -> Option<Self> {
        Some(Self {
            mean_ms: latency.mean_ms()?,
            p50_ms: latency.percentile_ms(50)?,
            p95_ms: latency.percentile_ms(95)?,
            p99_ms: latency.percentile_ms(99)?,
        })
    }
}

impl From<Tally> for Count {
    fn from(tally: Tally) -> Self {
        Self {
            count: tally.counted(),
            exact: matches!(tally, Tally::Exactly(_)),
        }
    }
}
