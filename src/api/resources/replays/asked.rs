//! Replays of many as they are asked for, read value by value.

use std::str::FromStr;

use serde::Deserialize;
use utoipa::openapi::schema::Schema;
use utoipa::{IntoParams, ToSchema};

use crate::api::Result;
use crate::api::body::Object;
use crate::api::resources::fields::{self, Faults};
use crate::domain::delivery::DeliveryState;
use crate::domain::filter::EventFilter;
use crate::domain::ids::{EditionId, ProjectId, SubscriptionId};
use crate::domain::selection::{DEFAULT_RATE, MAX_RATE, MAX_TYPES, ReplayState, Selection};

/// The header of the calls that replay.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header that an extractor reads")]
pub(super) struct OnceHeader {
    /// Names the request, so that it does nothing when it is sent again within 24 hours: a repeat is
    /// answered with what became of the first one; where something else is asked for, 422
    /// `idempotency-key-reused`.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        value_type = String,
        required = false,
        pattern = "^[!-~]([ -~]*[!-~])?$"
    )]
    idempotency_key: Option<String>,
}

/// A replay that is asked for: of an event, or of what a filter selects.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewReplay, example = json!({
    "filter": {"states": ["failed"], "from": "2026-05-01T00:00:00Z"},
    "subscription_id": "sub_01h455vb4pex5vsknk084sn02q",
    "dry_run": true,
}))]
#[serde(deny_unknown_fields)]
pub(super) struct NewOne {
    /// All deliveries of this event, whatever their state; with a subscription also one that was never
    /// made. Either this or `filter`.
    #[schema(
        example = "evt_01h455vb4pex5vsknk084sn02q",
        pattern = "^evt_[0-7][0-9a-hjkmnp-tv-z]{25}$"
    )]
    event_id: Option<String>,
    /// The deliveries that meet all of its conditions. Either this or `event_id`.
    #[schema(value_type = Option<Filter>)]
    filter: Option<Object<Filter>>,
    /// Only those to this subscription.
    #[schema(
        example = "sub_01h455vb4pex5vsknk084sn02q",
        pattern = "^sub_[0-7][0-9a-hjkmnp-tv-z]{25}$"
    )]
    subscription_id: Option<String>,
    /// Only count them.
    dry_run: Option<bool>,
    /// How many a second, at most: from 1 to 5,000; 500 unless it is said.
    #[schema(minimum = 1, maximum = 5_000)]
    rate: Option<u32>,
}

/// Which deliveries.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = NewReplayFilter)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Filter {
    /// Only those to this subscription.
    #[schema(
        example = "sub_01h455vb4pex5vsknk084sn02q",
        pattern = "^sub_[0-7][0-9a-hjkmnp-tv-z]{25}$"
    )]
    subscription_id: Option<String>,
    /// Of events of these types: a type, or all below a prefix (`edition.*`); all unless it is said.
    #[schema(schema_with = fields::event_types_or_null_schema)]
    types: Option<Vec<String>>,
    /// In these states; `failed` unless it is said.
    #[schema(schema_with = fields::states_or_null_schema)]
    states: Option<Vec<String>>,
    /// Made at this instant or later (RFC 3339).
    #[schema(format = DateTime)]
    from: Option<String>,
    /// Made before this instant (RFC 3339).
    #[schema(format = DateTime)]
    to: Option<String>,
    /// Of events about this edition.
    #[schema(
        example = "ed_123",
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    edition_id: Option<String>,
    /// Of events about this project.
    #[schema(
        example = "pr_1",
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    project_id: Option<String>,
    /// And those that were never made, of events that came before the subscription asked for them. It
    /// needs a subscription.
    backfill: Option<bool>,
}

impl NewOne {
    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run.unwrap_or_default()
    }

    /// Which deliveries, and how many a second.
    pub(super) fn read(&self) -> Result<(Selection, u32)> {
        let mut faults = Faults::default();
        let rate = self.rate.unwrap_or(DEFAULT_RATE);
        if !(1..=MAX_RATE).contains(&rate) {
            faults.add("/rate", format!("must be from 1 to {MAX_RATE}"));
        }
        let subscription = id(
            &mut faults,
            "/subscription_id",
            self.subscription_id.as_deref(),
        );
        let selection = match (&self.event_id, &self.filter) {
            (Some(text), None) => id(&mut faults, "/event_id", Some(text))
                .map(|event| Selection::of_event(event, subscription)),
            (None, Some(Object(filter))) => Some(filter.read(subscription, &mut faults)),
            (Some(_), Some(_)) => {
                faults.add("/filter", "goes without `event_id`");
                None
            }
            (None, None) => {
                faults.add("/filter", "must be given, or `event_id`");
                None
            }
        };
        match selection {
            Some(selection) => faults.none().map(|()| (selection, rate)),
            None => Err(faults.problem()),
        }
    }
}

impl Filter {
    fn read(&self, subscription: Option<SubscriptionId>, faults: &mut Faults) -> Selection {
        let own = id(
            faults,
            "/filter/subscription_id",
            self.subscription_id.as_deref(),
        );
        if let (Some(own), Some(other)) = (own, subscription)
            && own != other
        {
            faults.add(
                "/filter/subscription_id",
                "is another than `subscription_id`",
            );
        }
        let subscription = own.or(subscription);
        let backfill = self.backfill.unwrap_or_default();
        let names_one = self.subscription_id.is_some() || subscription.is_some();
        if backfill && !names_one {
            faults.add("/filter/backfill", "needs a `subscription_id`");
        }
        let types = self.types.as_deref().unwrap_or_default();
        if types.len() > MAX_TYPES {
            faults.add("/filter/types", "must name at most 100 event types");
        }
        let default = Selection::default();
        Selection {
            event_id: None,
            subscription_id: subscription,
            types: each(faults, "/filter/types", types, str::parse::<EventFilter>),
            states: match &self.states {
                Some(states) => each(
                    faults,
                    "/filter/states",
                    states,
                    str::parse::<DeliveryState>,
                ),
                None => default.states,
            },
            from: faults.time("/filter/from", self.from.as_deref()),
            to: faults.time("/filter/to", self.to.as_deref()),
            edition_id: made(
                faults,
                "/filter/edition_id",
                self.edition_id.as_deref(),
                EditionId::new,
            ),
            project_id: made(
                faults,
                "/filter/project_id",
                self.project_id.as_deref(),
                ProjectId::new,
            ),
            backfill,
        }
    }
}

fn id<T: FromStr>(faults: &mut Faults, pointer: &str, text: Option<&str>) -> Option<T> {
    made(faults, pointer, text, |text| {
        text.parse::<T>().map_err(|_| "must be an id of its kind")
    })
}

fn made<T, E: ToString>(
    faults: &mut Faults,
    pointer: &str,
    text: Option<&str>,
    make: impl FnOnce(&str) -> std::result::Result<T, E>,
) -> Option<T> {
    match make(text?) {
        Ok(value) => Some(value),
        Err(error) => {
            faults.add(pointer, error.to_string());
            None
        }
    }
}

/// Each of these once.
fn each<T: PartialEq, E: ToString>(
    faults: &mut Faults,
    pointer: &str,
    texts: &[String],
    make: impl Fn(&str) -> std::result::Result<T, E>,
) -> Vec<T> {
    let mut values = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let value = made(faults, &format!("{pointer}/{index}"), Some(text), &make);
        values.extend(value.filter(|value| !values.contains(value)));
    }
    values
}

/// Where a replay may stand.
pub(super) fn replay_states_schema() -> Schema {
    fields::names(ReplayState::ALL.map(ReplayState::as_str))
}
