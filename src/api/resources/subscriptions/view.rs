//! Subscriptions as they are shown.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::resources::fields;
use crate::domain::payload::timestamp;
use crate::domain::subscription::{BodyFormat, Subscription};

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
    /// Requests in flight at once, in each replica; null is the deployment's default.
    #[schema(example = json!(null))]
    max_concurrency: Option<u32>,
    /// Seconds to wait before the second attempt, the third, and so on; null is the deployment's.
    #[schema(example = json!(null))]
    retry_schedule: Option<Vec<u64>>,
    /// `active` or `disabled`.
    #[schema(schema_with = fields::status_schema)]
    status: &'static str,
    /// Why it is disabled.
    #[schema(example = json!(null))]
    disabled_reason: Option<String>,
    /// When it was registered.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last changed, by whomever.
    #[schema(format = DateTime)]
    updated_at: String,
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

impl View {
    /// As it is.
    pub(super) fn new(subscription: &Subscription) -> Self {
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
            retry_schedule: spec.retry_schedule.as_ref().map(seconds),
            status: subscription.status.as_str(),
            disabled_reason: subscription.status.reason().map(str::to_owned),
            created_at: timestamp(subscription.created_at),
            updated_at: timestamp(subscription.updated_at),
        }
    }
}
