//! A subscription as it is printed.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::stats::describe_count;
use crate::cli::output::{fields, or_dash};
use crate::domain::circuit::CircuitState;
use crate::domain::payload::timestamp;
use crate::domain::retry::RetrySchedule;
use crate::domain::secret::SigningSecret;
use crate::domain::subscription::Subscription;
use crate::store::Tally;
use crate::store::replays::Missed;
use crate::store::stats::view::Count;

/// What is printed for the value of a header.
const HIDDEN: &str = "***";

/// What is printed where the deployment decides.
const DEFAULT: &str = "default";

/// A subscription as it is printed.
#[derive(Debug, Serialize)]
pub(super) struct View {
    id: String,
    workspace: String,
    url: String,
    description: String,
    event_types: Vec<String>,
    project_ids: Option<Vec<String>>,
    format: &'static str,
    headers: BTreeMap<String, &'static str>,
    max_concurrency: Option<NonZeroU32>,
    rate_limit: Option<NonZeroU32>,
    retry_schedule: Option<Vec<String>>,
    ordering: &'static str,
    status: &'static str,
    disabled_reason: Option<String>,
    circuit: CircuitView,
    version: i64,
    created_at: String,
    updated_at: String,
    /// How many deliveries wait, only where it was disabled before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<Count>,
    /// What it missed, only where it was disabled before.
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<MissedView>,
    /// Only where it is shown for the only time.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// What it missed while it was disabled, and since its receiver began to fail before that.
#[derive(Debug, Serialize)]
struct MissedView {
    #[serde(flatten)]
    count: Count,
    since: String,
}

impl MissedView {
    /// For people, with what sends it.
    fn describe(&self, id: &str, workspace: &str) -> String {
        let (count, since) = (describe_count(&self.count), &self.since);
        let workspace = match workspace {
            "default" => String::new(),
            other => format!(" --workspace {other}"),
        };
        format!(
            "{count} since {since}; to send that: \
             deliveries replay --subscription {id} --since {since} --backfill{workspace}"
        )
    }
}

/// Whether the receiver is left alone.
#[derive(Debug, Serialize)]
pub(super) struct CircuitView {
    state: &'static str,
    since: Option<String>,
    until: Option<String>,
}

impl CircuitView {
    /// As it is at this instant.
    pub(super) fn new(circuit: &CircuitState, now: DateTime<Utc>) -> Self {
        let times = circuit.times(now);
        Self {
            state: circuit.name(now).as_str(),
            since: times.map(|(since, _)| timestamp(since)),
            until: times.map(|(_, until)| timestamp(until)),
        }
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        match (&self.since, &self.until) {
            (Some(since), Some(until)) => format!("{} since {since}, until {until}", self.state),
            _ => self.state.to_owned(),
        }
    }
}

impl View {
    /// Without its secret.
    pub(super) fn new(subscription: &Subscription, now: DateTime<Utc>) -> Self {
        let spec = &subscription.spec;
        Self {
            id: subscription.id.to_string(),
            workspace: subscription.workspace.to_string(),
            url: spec.url.to_string(),
            description: spec.description.clone(),
            event_types: spec.event_types.iter().map(ToString::to_string).collect(),
            project_ids: spec
                .project_ids
                .as_ref()
                .map(|projects| projects.iter().map(ToString::to_string).collect()),
            format: spec.format.as_str(),
            headers: spec
                .headers
                .names()
                .map(|name| (name.to_owned(), HIDDEN))
                .collect(),
            max_concurrency: spec.max_concurrency,
            rate_limit: spec.rate_limit,
            retry_schedule: spec.retry_schedule.as_ref().map(delays),
            ordering: spec.ordering.as_str(),
            status: subscription.status.as_str(),
            disabled_reason: subscription.status.reason().map(str::to_owned),
            circuit: CircuitView::new(&subscription.circuit, now),
            version: subscription.version,
            created_at: timestamp(subscription.created_at),
            updated_at: timestamp(subscription.updated_at),
            pending: None,
            missed: None,
            secret: None,
        }
    }

    /// With what is sent now that it is served again, and what it missed.
    pub(super) fn back(self, back: Option<&(Tally, Missed)>) -> Self {
        Self {
            pending: back.map(|(pending, _)| Count::from(*pending)),
            missed: back.map(|(_, missed)| MissedView {
                count: Count {
                    count: missed.count.total(),
                    exact: missed.count.is_exact,
                },
                since: timestamp(missed.since),
            }),
            ..self
        }
    }

    /// With a secret that is shown this once.
    pub(super) fn with_secret(
        subscription: &Subscription,
        secret: &SigningSecret,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            secret: Some(secret.expose().to_owned()),
            ..Self::new(subscription, now)
        }
    }

    /// A line of a table.
    pub(super) fn row(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.url.clone(),
            self.event_types.join(" "),
            self.format.to_owned(),
            self.status.to_owned(),
            self.circuit.state.to_owned(),
        ]
    }

    /// All of it, for people.
    pub(super) fn describe(&self) -> String {
        let headers: Vec<&str> = self.headers.keys().map(String::as_str).collect();
        let retries = match self.retry_schedule.as_deref() {
            None => DEFAULT.to_owned(),
            Some([]) => "none".to_owned(),
            Some(delays) => delays.join(","),
        };
        let concurrency = self
            .max_concurrency
            .map_or_else(|| DEFAULT.to_owned(), |count| count.to_string());
        let mut pairs = vec![
            ("id", self.id.clone()),
            ("url", self.url.clone()),
            ("events", self.event_types.join(" ")),
            (
                "projects",
                or_dash(self.project_ids.as_ref().map(|ids| ids.join(" "))),
            ),
            ("format", self.format.to_owned()),
            (
                "headers",
                or_dash((!headers.is_empty()).then(|| headers.join(" "))),
            ),
            ("concurrency", concurrency),
            (
                "rate",
                or_dash(self.rate_limit.map(|rate| format!("{rate} a second"))),
            ),
            ("retries", retries),
            ("ordering", self.ordering.to_owned()),
            ("status", self.status.to_owned()),
        ];
        pairs.push(("circuit", self.circuit.describe()));
        if let Some(reason) = &self.disabled_reason {
            pairs.push(("reason", reason.clone()));
        }
        if let Some(pending) = &self.pending {
            pairs.push(("pending", describe_count(pending)));
        }
        if let Some(missed) = &self.missed {
            pairs.push(("missed", missed.describe(&self.id, &self.workspace)));
        }
        if !self.description.is_empty() {
            pairs.push(("note", self.description.clone()));
        }
        pairs.push(("version", self.version.to_string()));
        pairs.push(("created", self.created_at.clone()));
        pairs.push(("updated", self.updated_at.clone()));
        if let Some(secret) = &self.secret {
            pairs.push(("secret", secret.clone()));
        }
        fields(&pairs)
    }
}

/// A schedule as `--retry-schedule` takes it, delay by delay.
fn delays(schedule: &RetrySchedule) -> Vec<String> {
    let text = |delay: &std::time::Duration| humantime::format_duration(*delay).to_string();
    schedule.delays().iter().map(text).collect()
}
