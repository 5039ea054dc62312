//! Subscriptions as they are asked for, read value by value.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::beyond_reach;
use crate::api::Result;
use crate::api::resources::fields::{self, Faults};
use crate::domain::filter::{EventFilter, EventTypeError, MAX_EVENT_TYPE_BYTES};
use crate::domain::headers::CustomHeaders;
use crate::domain::ids::ProjectId;
use crate::domain::reach::Reach;
use crate::domain::retry::RetrySchedule;
use crate::domain::secret::SigningSecret;
use crate::domain::subscription::{
    BodyFormat, FieldError, Ordering, Subscription, SubscriptionSpec, SubscriptionStatus, TargetUrl,
};

/// The reason where an admin gives none.
const NO_REASON: &str = "disabled by an admin";

/// A subscription that is asked for.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewSubscription, example = json!({
    "url": "https://erp.example.com/hooks/report-forge",
    "event_types": ["edition.submitted", "output.*"],
    "project_ids": ["pr_1"],
    "description": "Submitted reports, for the ERP",
    "headers": {"authorization": "Bearer token-of-the-erp"},
}))]
#[serde(deny_unknown_fields)]
pub(super) struct NewOne {
    /// Where deliveries go: an `https` URL that leads to a public address.
    #[schema(
        format = "uri",
        max_length = 2048,
        pattern = r"^https?://[^/?#@\\]+([/?][^#]*)?$",
        example = "https://erp.example.com/hooks/report-forge"
    )]
    url: String,
    /// Which events: a type, all below a prefix (`edition.*`), or `*`.
    #[schema(schema_with = fields::event_types_schema)]
    event_types: Vec<String>,
    /// Only events of these projects; null, or left out, for all.
    #[schema(schema_with = fields::project_ids_schema)]
    project_ids: Option<Vec<String>>,
    /// Which body; `standard` unless it is said.
    #[schema(schema_with = fields::format_or_null_schema)]
    format: Option<BodyFormat>,
    /// A note for people.
    #[schema(max_length = 500, pattern = r"^[^\x00]*$")]
    description: Option<String>,
    /// Headers that go with every delivery, by name. They are kept sealed, and their values are not
    /// shown again. Those of the connection, of the message and of the signature are not taken.
    #[schema(schema_with = fields::headers_schema)]
    headers: Option<BTreeMap<String, String>>,
    /// Requests in flight at once, from all replicas together; null, or left out, for the deployment's default.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4_294_967_295_u64)]
    max_concurrency: Option<NonZeroU32>,
    /// Deliveries a second, from all replicas together, in bursts of one second at most; null, or left
    /// out, for no limit.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4_294_967_295_u64)]
    rate_limit: Option<NonZeroU32>,
    /// Whole seconds to wait before the second attempt, the third, and so on; null, or left out, for
    /// the deployment's schedule.
    #[schema(schema_with = fields::schedule_schema)]
    retry_schedule: Option<Vec<u64>>,
    /// `edition`: the events of an edition are sent one by one, in the order in which they were
    /// accepted, each when the one before it has succeeded or failed for good; `none` unless it is said.
    #[schema(schema_with = fields::ordering_or_null_schema)]
    ordering: Option<Ordering>,
    /// A signing secret, if you bring one: `whsec_` and 24 to 64 bytes in base64, or, with `kazinex`,
    /// any 16 to 128 characters. One is made otherwise.
    #[schema(min_length = 16, max_length = 128)]
    secret: Option<String>,
}

/// What is to be changed.
#[derive(Deserialize, ToSchema)]
#[schema(as = SubscriptionChange, example = json!({
    "status": "disabled",
    "disabled_reason": "The ERP is being moved",
}))]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::option_option,
    reason = "left out, null and a value are three things (RFC 7396)"
)]
pub(super) struct Change {
    /// Where deliveries go from now on, what waits included.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = String, required = false, format = "uri", max_length = 2048, pattern = r"^https?://[^/?#@\\]+([/?][^#]*)?$")]
    url: Option<String>,
    /// Which events.
    #[serde(default, deserialize_with = "given")]
    #[schema(required = false, schema_with = fields::event_types_schema)]
    event_types: Option<Vec<String>>,
    /// Only events of these projects; null for all (of the key's, where it is restricted).
    #[serde(default, deserialize_with = "given")]
    #[schema(schema_with = fields::project_ids_schema)]
    project_ids: Option<Option<Vec<String>>>,
    /// Which body; null for `standard`.
    #[serde(default, deserialize_with = "given")]
    #[schema(schema_with = fields::format_or_null_schema)]
    format: Option<Option<BodyFormat>>,
    /// A note for people; null for none.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 500, pattern = r"^[^\x00]*$")]
    description: Option<Option<String>>,
    /// Headers to set, by name, and with null those to take away; the others stay. Null for none at
    /// all.
    #[serde(default, deserialize_with = "given")]
    #[schema(schema_with = fields::headers_change_schema)]
    headers: Option<Option<BTreeMap<String, Option<String>>>>,
    /// Requests in flight at once, from all replicas together; null for the deployment's default.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4_294_967_295_u64)]
    max_concurrency: Option<Option<NonZeroU32>>,
    /// Deliveries a second, from all replicas together; null for no limit.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4_294_967_295_u64)]
    rate_limit: Option<Option<NonZeroU32>>,
    /// Whole seconds to wait before each further attempt; null for the deployment's schedule.
    #[serde(default, deserialize_with = "given")]
    #[schema(schema_with = fields::schedule_schema)]
    retry_schedule: Option<Option<Vec<u64>>>,
    /// Whether the events of an edition are sent one by one, for what is accepted from now on; null for
    /// `none`. What is in order already stays in it.
    #[serde(default, deserialize_with = "given")]
    #[schema(schema_with = fields::ordering_or_null_schema)]
    ordering: Option<Option<Ordering>>,
    /// `disabled`: nothing is sent, new events are not kept for it, what waits stays. `active`: it is
    /// served again.
    #[serde(default, deserialize_with = "given")]
    #[schema(required = false, schema_with = fields::status_schema)]
    status: Option<Status>,
    /// Why it is disabled, in words for people; with `status` `disabled` only.
    #[schema(
        min_length = 1,
        max_length = 500,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    disabled_reason: Option<String>,
}

/// What a client can make of a subscription.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Status {
    Active,
    Disabled,
}

/// Tells null from what is left out: null where it means nothing is an error.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl NewOne {
    /// What is asked for, checked, and the secret that was brought.
    pub(super) fn read(&self, reach: &Reach) -> Result<(SubscriptionSpec, Option<SigningSecret>)> {
        let mut faults = Faults::default();
        let url = faults.check(TargetUrl::new(&self.url));
        let event_types = event_types(&mut faults, &self.event_types);
        let project_ids = faults.projects("/project_ids", self.project_ids.as_deref());
        let retry_schedule = schedule(&mut faults, self.retry_schedule.as_deref());
        let headers = CustomHeaders::new(self.headers.clone().unwrap_or_default());
        let headers = faults.check(headers).unwrap_or_default();
        let format = self.format.unwrap_or_default();
        let secret = self
            .secret
            .as_deref()
            .map(|text| SigningSecret::bring(text, format));
        let secret = secret.and_then(|secret| faults.check(secret));
        let Some(url) = url else {
            return Err(faults.problem());
        };
        let spec = SubscriptionSpec {
            url,
            description: self.description.clone().unwrap_or_default(),
            event_types,
            project_ids,
            format,
            headers,
            max_concurrency: self.max_concurrency,
            rate_limit: self.rate_limit,
            retry_schedule,
            ordering: self.ordering.unwrap_or_default(),
        };
        faults.check(spec.check());
        faults.none()?;
        Ok((within(spec, reach)?, secret))
    }
}

impl Change {
    /// What the subscription is to become.
    pub(super) fn apply(
        &self,
        found: &Subscription,
        reach: &Reach,
    ) -> Result<(SubscriptionSpec, SubscriptionStatus)> {
        let mut faults = Faults::default();
        let mut spec = found.spec.clone();
        if let Some(url) = self
            .url
            .as_deref()
            .and_then(|url| faults.check(TargetUrl::new(url)))
        {
            spec.url = url;
        }
        if let Some(texts) = &self.event_types {
            spec.event_types = event_types(&mut faults, texts);
        }
        if let Some(given) = &self.project_ids {
            spec.project_ids = faults.projects("/project_ids", given.as_deref());
        }
        if let Some(format) = self.format {
            spec.format = format.unwrap_or_default();
        }
        if let Some(description) = &self.description {
            spec.description = description.clone().unwrap_or_default();
        }
        if let Some(asked) = &self.headers {
            let headers = with_headers(&spec.headers, asked.as_ref());
            spec.headers = faults.check(headers).unwrap_or_default();
        }
        if let Some(most) = self.max_concurrency {
            spec.max_concurrency = most;
        }
        if let Some(most) = self.rate_limit {
            spec.rate_limit = most;
        }
        if let Some(delays) = &self.retry_schedule {
            spec.retry_schedule = schedule(&mut faults, delays.as_deref());
        }
        if let Some(ordering) = self.ordering {
            spec.ordering = ordering.unwrap_or_default();
        }
        if spec.url.as_url().origin() != found.spec.url.as_url().origin()
            && self.keeps_headers(&found.spec.headers)
        {
            // Who may change where it goes is not thereby one who may read what goes along.
            faults.add(
                "/headers",
                "must be set anew, or to null, with a `url` of another host: they may be credentials",
            );
        }
        let status = self.status(found, &mut faults);
        faults.check(spec.check());
        faults.none()?;
        Ok((within(spec, reach)?, status))
    }

    /// Whether a header of before stays as it was.
    fn keeps_headers(&self, before: &CustomHeaders) -> bool {
        match &self.headers {
            None => !before.is_empty(),
            Some(None) => false,
            Some(Some(asked)) => before
                .names()
                .any(|name| !asked.keys().any(|key| key.eq_ignore_ascii_case(name))),
        }
    }

    fn status(&self, found: &Subscription, faults: &mut Faults) -> SubscriptionStatus {
        let disabled = self.status == Some(Status::Disabled);
        if self.disabled_reason.is_some() && !disabled {
            faults.add("/disabled_reason", "goes with `status` `disabled` only");
        }
        match self.status {
            None => found.status.clone(),
            Some(Status::Active) => SubscriptionStatus::Active,
            Some(Status::Disabled) => {
                // Disabled already, and nothing new to say: the reason of before stays.
                if self.disabled_reason.is_none() && found.status != SubscriptionStatus::Active {
                    return found.status.clone();
                }
                let reason = self.disabled_reason.as_deref().unwrap_or(NO_REASON);
                let disabled = faults.check(SubscriptionStatus::disabled(reason));
                disabled.unwrap_or_else(|| found.status.clone())
            }
        }
    }
}

/// Whether a change sends elsewhere, or something else.
pub(super) fn retargets(before: &SubscriptionSpec, after: &SubscriptionSpec) -> bool {
    before.url != after.url
        || before.event_types != after.event_types
        || before.project_ids != after.project_ids
}

/// Holds what is asked for against what the caller may hand out: a restricted key's own projects, all
/// of them where it names none.
fn within(mut spec: SubscriptionSpec, reach: &Reach) -> Result<SubscriptionSpec> {
    if spec.project_ids.is_none() {
        spec.project_ids.clone_from(&reach.projects);
    }
    let projects: Option<&[ProjectId]> = spec.project_ids.as_deref();
    if reach.covers(projects) {
        Ok(spec)
    } else {
        Err(beyond_reach())
    }
}

/// The headers of before with those that are asked for in place of their own, by names that differ in
/// capitals alone as well.
fn with_headers(
    before: &CustomHeaders,
    asked: Option<&BTreeMap<String, Option<String>>>,
) -> std::result::Result<CustomHeaders, FieldError> {
    let Some(asked) = asked else {
        return Ok(CustomHeaders::default());
    };
    let named = |name: &str| asked.keys().any(|key| key.eq_ignore_ascii_case(name));
    let stay = before.iter().filter(|(name, _)| !named(name));
    let stay = stay.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let set = asked
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
    CustomHeaders::new(stay.chain(set))
}

fn event_types(faults: &mut Faults, texts: &[String]) -> Vec<EventFilter> {
    let mut filters = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match text.parse::<EventFilter>() {
            Ok(_) if text.len() > MAX_EVENT_TYPE_BYTES => {
                faults.add(
                    format!("/event_types/{index}"),
                    EventTypeError::TooLong.to_string(),
                );
            }
            Ok(filter) if !filters.contains(&filter) => filters.push(filter),
            Ok(_) => {}
            Err(error) => faults.add(format!("/event_types/{index}"), error.to_string()),
        }
    }
    filters
}

fn schedule(faults: &mut Faults, seconds: Option<&[u64]>) -> Option<RetrySchedule> {
    let delays = seconds?.iter().copied().map(Duration::from_secs).collect();
    match RetrySchedule::new(delays) {
        Ok(schedule) => Some(schedule),
        Err(error) => {
            faults.add("/retry_schedule", error.to_string());
            None
        }
    }
}
