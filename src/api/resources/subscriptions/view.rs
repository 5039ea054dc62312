//! Subscriptions as they are shown.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::etag::{JSON, Tag};
use crate::api::resources::fields;
use crate::domain::circuit::CircuitState;
use crate::domain::ids::SubscriptionId;
use crate::domain::payload::timestamp;
use crate::domain::subscription::{BodyFormat, Ordering, Subscription};
use crate::store::replays::Missed;
use crate::store::stats::view::Count;

/// What is shown in place of a header's value: it may be a credential.
const HIDDEN: &str = "***";

/// A subscription.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Subscription)]
pub struct View {
    /// Its id.
    #[schema(example = "sub_01h455vb4pex5vsknk084sn02q")]
    id: String,
    /// Where deliveries go.
    #[schema(format = "uri", example = "https://erp.example.com/hooks/report-forge")]
    url: String,
    /// A note for people.
    #[schema(example = "Submitted reports, for the ERP")]
    description: String,
    /// Which events: a type, all below a prefix (`edition.*`), or `*`.
    #[schema(example = json!(["edition.submitted", "output.*"]))]
    event_types: Vec<String>,
    /// Only events of these projects; null for all.
    #[schema(example = json!(["pr_1"]))]
    project_ids: Option<Vec<String>>,
    /// Which body.
    #[schema(schema_with = fields::format_schema)]
    format: BodyFormat,
    /// The names of the headers that go with every delivery. Their values are hidden.
    #[schema(example = json!({"authorization": "***"}))]
    headers: BTreeMap<String, &'static str>,
    /// Requests in flight at once, from all replicas together; null is the deployment's default.
    #[schema(example = json!(null))]
    max_concurrency: Option<u32>,
    /// Deliveries a second, from all replicas together; null is no limit.
    #[schema(example = json!(null))]
    rate_limit: Option<u32>,
    /// Seconds to wait before the second attempt, the third, and so on; null is the deployment's.
    #[schema(example = json!(null))]
    retry_schedule: Option<Vec<u64>>,
    /// `edition`: the events of an edition are sent one by one, in the order in which they were
    /// accepted. `none`: no delivery waits for another.
    #[schema(schema_with = fields::ordering_schema)]
    ordering: Ordering,
    /// `active` or `disabled`.
    #[schema(schema_with = fields::status_schema)]
    status: &'static str,
    /// Why it is disabled.
    #[schema(example = json!(null))]
    disabled_reason: Option<String>,
    /// Whether its receiver is left alone for a while.
    circuit: CircuitView,
    /// When it was registered.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last changed, by whomever.
    #[schema(format = DateTime)]
    updated_at: String,
}

/// Whether the receiver is left alone for a while, since it failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Circuit)]
pub struct CircuitView {
    /// `closed`: deliveries are sent. `open`: they wait, and spend no attempts; one at a time is sent to
    /// find out whether the receiver is back. `recovering`: it is, and they are sent at a rate that
    /// grows.
    #[schema(schema_with = fields::circuit_schema)]
    state: &'static str,
    /// Since when; null while it is closed.
    #[schema(format = DateTime, example = json!(null))]
    since: Option<String>,
    /// When it is tried next, or, while it recovers, when the limit ends; null while it is closed.
    #[schema(format = DateTime, example = json!(null))]
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
}

/// What tells one representation of a version from another: the circuit changes without a new version.
pub(super) fn tag(subscription: &Subscription, now: DateTime<Utc>) -> Tag {
    let circuit = &subscription.circuit;
    match circuit.times(now) {
        None => Tag::new(subscription.version, JSON),
        Some((since, until)) => {
            let (since, until) = (since.timestamp_millis(), until.timestamp_millis());
            let name = circuit.name(now);
            Tag::new(
                subscription.version,
                format_args!("{JSON}-{name}-{since}-{until}"),
            )
        }
    }
}

/// A subscription with a new secret, which is shown for the only time.
#[derive(Serialize, ToSchema)]
#[schema(as = SubscriptionWithSecret)]
pub struct WithSecret {
    #[serde(flatten)]
    pub(super) view: View,
    /// The signing secret. Receivers verify `webhook-signature` with it.
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    pub(super) secret: String,
}

/// A subscription as a change left it.
#[derive(Serialize, ToSchema)]
#[schema(as = ChangedSubscription)]
pub struct Changed {
    #[serde(flatten)]
    pub(super) view: View,
    /// How many deliveries wait for it and are sent from now on; only where it was disabled before, and
    /// they could be counted in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pending: Option<Count>,
    /// What it missed; only where it was disabled before, and that could be counted in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) missed: Option<MissedView>,
}

/// What a subscription missed while it was disabled, and since its receiver began to fail before that.
#[derive(Serialize, ToSchema)]
#[schema(as = Missed)]
pub struct MissedView {
    #[serde(flatten)]
    count: Count,
    /// What sends it: the body of a `POST /v1/replays`.
    replay: Offer,
}

/// A replay of many, to be asked for.
#[derive(Serialize, ToSchema)]
#[schema(as = OfferedReplay)]
pub(super) struct Offer {
    filter: OfferedFilter,
}

/// What failed, and what was never made, of one subscription.
#[derive(Serialize, ToSchema)]
pub(super) struct OfferedFilter {
    /// Which one.
    #[schema(example = "sub_01h455vb4pex5vsknk084sn02q")]
    subscription_id: String,
    /// Made at this instant or later.
    #[schema(format = DateTime)]
    from: String,
    /// With what was never made.
    backfill: bool,
}

impl MissedView {
    /// Of this one.
    pub(super) fn new(subscription: SubscriptionId, missed: &Missed) -> Self {
        Self {
            count: Count {
                count: missed.count.total(),
                exact: missed.count.is_exact,
            },
            replay: Offer {
                filter: OfferedFilter {
                    subscription_id: subscription.to_string(),
                    from: timestamp(missed.since),
                    backfill: true,
                },
            },
        }
    }
}

impl View {
    /// As it is.
    pub(super) fn new(subscription: &Subscription, now: DateTime<Utc>) -> Self {
        let spec = &subscription.spec;
        let seconds = |schedule: &crate::domain::retry::RetrySchedule| {
            schedule
                .delays()
                .iter()
                .map(std::time::Duration::as_secs)
                .collect()
        };
        Self {
            id: subscription.id.to_string(),
            url: spec.url.to_string(),
            description: spec.description.clone(),
            event_types: spec.event_types.iter().map(ToString::to_string).collect(),
            project_ids: fields::projects(spec.project_ids.as_deref()),
            format: spec.format,
            headers: spec
                .headers
                .names()
                .map(|name| (name.to_owned(), HIDDEN))
                .collect(),
            max_concurrency: spec.max_concurrency.map(std::num::NonZeroU32::get),
            rate_limit: spec.rate_limit.map(std::num::NonZeroU32::get),
            retry_schedule: spec.retry_schedule.as_ref().map(seconds),
            ordering: spec.ordering,
            status: subscription.status.as_str(),
            disabled_reason: subscription.status.reason().map(str::to_owned),
            circuit: CircuitView::new(&subscription.circuit, now),
            created_at: timestamp(subscription.created_at),
            updated_at: timestamp(subscription.updated_at),
        }
    }
}
