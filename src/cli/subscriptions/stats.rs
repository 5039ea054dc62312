//! `subscriptions stats`

use std::time::Duration;

use serde::Serialize;

use super::view::CircuitView;
use super::{OneArgs, missing};
use crate::cli::output::{fields, or_dash};
use crate::cli::{CliError, Context, parse};
use crate::domain::payload::timestamp;
use crate::store::{RECENTLY, SubscriptionStats, Tally};

/// How it goes with a subscription, as it is printed: in JSON under the API's names.
#[derive(Serialize)]
struct View {
    circuit: CircuitView,
    pending: Count,
    in_flight: Count,
    oldest_due_seconds: Option<u64>,
    since: String,
    succeeded: u64,
    failed: u64,
    cancelled: u64,
    attempts: u64,
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
pub(super) async fn run(args: OneArgs, context: &Context) -> Result<(), CliError> {
    let reach = args.workspace.reach()?;
    let id = parse::id("id", &args.id)?;
    let (found, stats) = context
        .with_store(async |store| {
            let found = store.subscription(&reach, id).await?;
            Ok((found, store.subscription_stats(&reach, id, RECENTLY).await?))
        })
        .await?;
    let (found, stats) = found
        .zip(stats)
        .ok_or_else(|| missing(&args.id, &args.workspace))?;
    let circuit = CircuitView::new(&found.circuit, context.clock.now());
    context
        .output
        .print(&View::new(&stats, circuit), View::describe)
}

impl View {
    fn new(stats: &SubscriptionStats, circuit: CircuitView) -> Self {
        Self {
            circuit,
            pending: stats.pending.into(),
            in_flight: stats.in_flight.into(),
            oldest_due_seconds: stats.oldest_due.map(|age| age.as_secs()),
            since: timestamp(stats.since),
            succeeded: stats.succeeded,
            failed: stats.failed,
            cancelled: stats.cancelled,
            attempts: stats.attempts,
        }
    }

    fn describe(&self) -> String {
        let age = |secs| humantime::format_duration(Duration::from_secs(secs)).to_string();
        fields(&[
            ("circuit", self.circuit.describe()),
            ("pending", self.pending.describe()),
            ("in flight", self.in_flight.describe()),
            ("oldest due", or_dash(self.oldest_due_seconds.map(age))),
            ("since", self.since.clone()),
            ("succeeded", self.succeeded.to_string()),
            ("failed", self.failed.to_string()),
            ("cancelled", self.cancelled.to_string()),
            ("attempts", self.attempts.to_string()),
        ])
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
