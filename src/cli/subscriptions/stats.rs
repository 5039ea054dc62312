//! `subscriptions stats`

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::missing;
use super::view::CircuitView;
use crate::cli::output::{fields, or_dash, table};
use crate::cli::parse::WorkspaceArgs;
use crate::cli::{CliError, Context, parse};
use crate::domain::latency::Latency;
use crate::domain::payload::timestamp;
use crate::store::{Counts, Resolution, SubscriptionStats, Tally, Window};

/// Which subscription, and how far to look back.
#[derive(Clone, Debug, Args)]
pub struct StatsArgs {
    /// The subscription (`sub_…`).
    id: String,

    /// How far to look back: `90m`, `7d`; at most 400 days.
    #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = window)]
    window: Duration,

    /// List what was counted in each minute or hour.
    #[arg(long, value_name = "STEP")]
    by: Option<Step>,

    #[command(flatten)]
    workspace: WorkspaceArgs,
}

/// The steps of a list.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Step {
    /// By the minute: the last 9,600 at most.
    Minute,
    /// By the hour.
    Hour,
}

/// How it goes with a subscription, as it is printed: in JSON under the API's names.
#[derive(Serialize)]
struct View {
    circuit: CircuitView,
    pending: Count,
    in_flight: Count,
    oldest_due_seconds: Option<u64>,
    since: String,
    #[serde(flatten)]
    counts: CountsView,
    #[serde(skip_serializing_if = "Option::is_none")]
    series: Option<Vec<PointView>>,
}

#[derive(Serialize)]
struct CountsView {
    succeeded: u64,
    failed: u64,
    attempts: u64,
    attempts_succeeded: u64,
    attempts_retried: u64,
    attempts_failed: u64,
    latency: Option<LatencyView>,
}

#[derive(Serialize)]
#[expect(
    clippy::struct_field_names,
    reason = "names that say their unit, as they are printed"
)]
struct LatencyView {
    mean_ms: u64,
    p50_ms: u64,
    p95_ms: u64,
    p99_ms: u64,
}

#[derive(Serialize)]
struct PointView {
    start: String,
    #[serde(flatten)]
    counts: CountsView,
}

#[derive(Debug, Serialize)]
pub(super) struct Count {
    count: u64,
    exact: bool,
}

impl Count {
    /// So many, and whether that is all.
    pub(super) fn of(count: u64, exact: bool) -> Self {
        Self { count, exact }
    }
}

/// Counts and shows.
pub(super) async fn run(args: StatsArgs, context: &Context) -> Result<(), CliError> {
    let reach = args.workspace.reach()?;
    let id = parse::id("id", &args.id)?;
    let window = Window::new(args.window, args.resolution());
    let (found, stats) = context
        .with_store(async |store| {
            let found = store.subscription(&reach, id).await?;
            Ok((found, store.subscription_stats(&reach, id, window).await?))
        })
        .await?;
    let (found, stats) = found
        .zip(stats)
        .ok_or_else(|| missing(&args.id, &args.workspace))?;
    let circuit = CircuitView::new(&found.circuit, context.clock.now());
    let mut view = View::new(&stats, circuit);
    if args.by.is_some() {
        view.series = Some(stats.past.points.iter().map(PointView::new).collect());
    }
    context.output.print(&view, View::describe)
}

/// Reads how far to look back.
fn window(text: &str) -> Result<Duration, String> {
    let longest = Window::longest(Resolution::Hour);
    humantime::parse_duration(text)
        .ok()
        .filter(|window| (Duration::from_mins(1)..=longest).contains(window))
        .ok_or_else(|| "must be a duration of 1m to 400d, such as `90m` or `7d`".to_owned())
}

impl StatsArgs {
    /// Minutes for as long as they are kept, unless it is said.
    fn resolution(&self) -> Resolution {
        match self.by {
            Some(Step::Minute) => Resolution::Minute,
            None if self.window <= Duration::from_hours(48) => Resolution::Minute,
            Some(Step::Hour) | None => Resolution::Hour,
        }
    }
}

impl View {
    fn new(stats: &SubscriptionStats, circuit: CircuitView) -> Self {
        Self {
            circuit,
            pending: stats.pending.into(),
            in_flight: stats.in_flight.into(),
            oldest_due_seconds: stats.oldest_due.map(|age| age.as_secs()),
            since: timestamp(stats.past.since),
            counts: CountsView::new(&stats.past.total()),
            series: None,
        }
    }

    fn describe(&self) -> String {
        let age = |secs| humantime::format_duration(Duration::from_secs(secs)).to_string();
        let counts = &self.counts;
        let mut text = fields(&[
            ("circuit", self.circuit.describe()),
            ("pending", self.pending.describe()),
            ("in flight", self.in_flight.describe()),
            ("oldest due", or_dash(self.oldest_due_seconds.map(age))),
            ("since", self.since.clone()),
            ("succeeded", counts.succeeded.to_string()),
            ("failed", counts.failed.to_string()),
            ("attempts", counts.describe_attempts()),
            ("latency", counts.describe_latency()),
        ]);
        if let Some(series) = &self.series {
            let header = ["START", "SUCCEEDED", "FAILED", "ATTEMPTS", "LATENCY"];
            text.push('\n');
            text.push_str(&table(&header, series.iter().map(PointView::cells)));
        }
        text
    }
}

impl PointView {
    fn new(point: &crate::store::Point) -> Self {
        Self {
            start: timestamp(point.start),
            counts: CountsView::new(&point.counts),
        }
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.start.clone(),
            self.counts.succeeded.to_string(),
            self.counts.failed.to_string(),
            self.counts.describe_attempts(),
            self.counts.describe_latency(),
        ]
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

    fn describe_attempts(&self) -> String {
        format!(
            "{} ({} succeeded, {} retried, {} failed)",
            self.attempts, self.attempts_succeeded, self.attempts_retried, self.attempts_failed
        )
    }

    fn describe_latency(&self) -> String {
        or_dash(self.latency.as_ref().map(|latency| {
            format!(
                "p50 {} ms, p95 {} ms, p99 {} ms",
                latency.p50_ms, latency.p95_ms, latency.p99_ms
            )
        }))
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

impl Count {
    pub(super) fn describe(&self) -> String {
        if self.exact {
            self.count.to_string()
        } else {
            format!("{} or more", self.count)
        }
    }
}
