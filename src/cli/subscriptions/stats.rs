//! `subscriptions stats`

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::missing;
use super::view::CircuitView;
use crate::cli::output::{fields, or_dash, table};
use crate::cli::parse::WorkspaceArgs;
use crate::cli::{CliError, Context, parse};
use crate::domain::ids::SubscriptionId;
use crate::domain::subscription::FieldError;
use crate::store::stats::view::{Count, CountsView, PastView, PointView, WaitingView};
use crate::store::{Resolution, Window, stats};

/// Which subscription, and how far to look back.
#[derive(Clone, Debug, Args)]
pub struct StatsArgs {
    /// The subscription (`sub_…`); without it, what was attempted for all of them together.
    id: Option<String>,

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

/// How it goes with a subscription, as it is printed.
#[derive(Serialize)]
struct View {
    circuit: CircuitView,
    #[serde(flatten)]
    waiting: WaitingView,
    #[serde(flatten)]
    past: PastView,
}

/// Counts and shows.
pub(super) async fn run(args: StatsArgs, context: &Context) -> Result<(), CliError> {
    match &args.id {
        Some(id) => one(parse::id("id", id)?, &args, context).await,
        None => all(&args, context).await,
    }
}

async fn one(id: SubscriptionId, args: &StatsArgs, context: &Context) -> Result<(), CliError> {
    let reach = args.workspace.reach()?;
    let window = Window::looking_back(args.window, args.steps());
    let (found, stats) = context
        .with_store(async |store| {
            let found = store.subscription(&reach, id).await?;
            Ok((found, store.subscription_stats(&reach, id, window).await?))
        })
        .await?;
    let (found, stats) = found
        .zip(stats)
        .ok_or_else(|| missing(&id.to_string(), &args.workspace))?;
    let view = View {
        circuit: CircuitView::new(&found.circuit, context.clock.now()),
        waiting: WaitingView::new(&stats),
        past: PastView::new(&stats.past, args.steps()),
    };
    context.output.print(&view, View::describe)
}

async fn all(args: &StatsArgs, context: &Context) -> Result<(), CliError> {
    let reach = args.workspace.reach()?;
    let (window, steps) = (args.window, args.steps());
    let past = context
        .with_store(async |store| Ok(stats::workspace(&**store, &reach, window, steps).await?))
        .await?;
    let past = past.ok_or_else(|| too_much(steps))?;
    let view = PastView::new(&past, steps);
    context
        .output
        .print(&view, |view| describe_past(view, Vec::new()))
}

/// More than the store adds up at once.
fn too_much(steps: Option<Resolution>) -> FieldError {
    let way_out = match steps {
        Some(Resolution::Minute) => "a shorter one, or `--by hour`",
        Some(Resolution::Hour) | None => "a shorter one",
    };
    let rule = format!("is too long for as many subscriptions as there are: take {way_out}");
    FieldError::new("window", rule)
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
    /// Those that are asked for.
    fn steps(&self) -> Option<Resolution> {
        self.by.map(|step| match step {
            Step::Minute => Resolution::Minute,
            Step::Hour => Resolution::Hour,
        })
    }
}

impl View {
    fn describe(&self) -> String {
        let age = |secs| humantime::format_duration(Duration::from_secs(secs)).to_string();
        let waiting = &self.waiting;
        let pairs = vec![
            ("circuit", self.circuit.describe()),
            ("pending", describe_count(&waiting.pending)),
            ("in flight", describe_count(&waiting.in_flight)),
            ("oldest due", or_dash(waiting.oldest_due_seconds.map(age))),
        ];
        describe_past(&self.past, pairs)
    }
}

/// What was attempted, below what is told already.
fn describe_past(past: &PastView, mut pairs: Vec<(&str, String)>) -> String {
    let counts = &past.counts;
    pairs.push(("since", past.since.clone()));
    if !past.exact {
        let behind = "not all of this: the rest is added up soon";
        pairs.push(("counted", behind.to_owned()));
    }
    pairs.extend([
        ("succeeded", counts.succeeded.to_string()),
        ("failed", counts.failed.to_string()),
        ("attempts", describe_attempts(counts)),
        ("latency", describe_latency(counts)),
    ]);
    let mut text = fields(&pairs);
    if let Some(series) = &past.series {
        let header = ["START", "SUCCEEDED", "FAILED", "ATTEMPTS", "LATENCY"];
        text.push('\n');
        text.push_str(&table(&header, series.iter().map(cells)));
    }
    text
}

fn cells(point: &PointView) -> Vec<String> {
    vec![
        point.start.clone(),
        point.counts.succeeded.to_string(),
        point.counts.failed.to_string(),
        describe_attempts(&point.counts),
        describe_latency(&point.counts),
    ]
}

fn describe_attempts(counts: &CountsView) -> String {
    format!(
        "{} ({} succeeded, {} retried, {} failed)",
        counts.attempts, counts.attempts_succeeded, counts.attempts_retried, counts.attempts_failed
    )
}

fn describe_latency(counts: &CountsView) -> String {
    or_dash(counts.latency.as_ref().map(|latency| {
        format!(
            "p50 {} ms, p95 {} ms, p99 {} ms",
            latency.p50_ms, latency.p95_ms, latency.p99_ms
        )
    }))
}

/// A count for people.
pub(super) fn describe_count(count: &Count) -> String {
    if count.exact {
        count.count.to_string()
    } else {
        format!("{} or more", count.count)
    }
}
