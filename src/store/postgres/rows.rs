//! Rows as the domain's types. What does not fit was not written by this program.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Result, StoreError};
use crate::domain::attempt::Attempt;
use crate::domain::delivery::{DeliveryState, Lane};
use crate::domain::event::Event;
use crate::domain::filter::{EventFilter, EventType};
use crate::domain::ids::{
    DeliveryId, EditionId, EventId, ProjectId, SecretId, SubscriptionId, WorkspaceId, created_at,
};
use crate::domain::reach::Reach;
use crate::domain::retry::RetrySchedule;
use crate::domain::subscription::{Subscription, SubscriptionSpec, SubscriptionStatus, TargetUrl};
use crate::store::circuits::StateColumns;
use crate::store::vault::Vault;
use crate::store::{AttemptRecord, DeliveryRecord, EventRecord, headers};

/// A duration as `interval` takes it: whole microseconds.
pub(super) fn interval(duration: Duration) -> Duration {
    Duration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

/// A count as `limit` takes it.
pub(super) fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Projects as an array of their names.
pub(super) fn project_names(projects: &[ProjectId]) -> Vec<&str> {
    projects.iter().map(ProjectId::as_str).collect()
}

/// The projects at which a reach ends, as an array; null is all.
pub(super) fn projects(reach: &Reach) -> Option<Vec<&str>> {
    let projects = reach.projects.as_deref()?;
    Some(projects.iter().map(ProjectId::as_str).collect())
}

/// What a sealed secret is bound to, so that it opens in its own row only.
pub(super) fn secret_context(id: SecretId) -> String {
    format!("subscription_secret/{id}")
}

/// A lane as the queue keeps it.
pub(super) fn lane_number(lane: Lane) -> i16 {
    match lane {
        Lane::Fresh => 0,
        Lane::Retry => 1,
        Lane::Replay => 2,
    }
}

/// A lane out of the queue.
pub(super) fn lane_of(number: i16) -> Result<Lane> {
    Lane::ALL
        .into_iter()
        .find(|lane| lane_number(*lane) == number)
        .ok_or_else(|| StoreError::Corrupt(format!("no lane {number}")))
}

/// A count that is never negative.
pub(super) fn count(column: &'static str, value: i32) -> Result<u32> {
    u32::try_from(value).map_err(|_| StoreError::Corrupt(format!("{column} is {value}")))
}

/// What our own types make of a text.
pub(super) fn parse<T: FromStr<Err: Display>>(column: &'static str, text: &str) -> Result<T> {
    text.parse()
        .map_err(|error| StoreError::Corrupt(format!("{column}: {error}")))
}

/// The same, or nothing.
pub(super) fn optional<T: FromStr<Err: Display>>(
    column: &'static str,
    text: Option<String>,
) -> Result<Option<T>> {
    text.map(|text| parse(column, &text)).transpose()
}

/// The columns of [`SubscriptionRow`].
macro_rules! subscription_columns {
    () => {
        "id, workspace, url, description, event_types, project_ids, format, headers,
                max_concurrency, rate_limit, retry_schedule_ms, ordering, status, disabled_reason,
                missing_since, version, created_at, updated_at,
                (select c.state from circuit c where c.subscription_id = subscription.id)
                    as circuit_state,
                (select c.since from circuit c where c.subscription_id = subscription.id)
                    as circuit_since,
                (select c.until from circuit c where c.subscription_id = subscription.id)
                    as circuit_until,
                (select c.pause_ms from circuit c where c.subscription_id = subscription.id)
                    as circuit_pause_ms,
                (select c.probing from circuit c where c.subscription_id = subscription.id)
                    as circuit_probing"
    };
}
pub(super) use subscription_columns;

#[derive(FromRow)]
pub(super) struct SubscriptionRow {
    pub(super) id: Uuid,
    workspace: String,
    url: String,
    description: String,
    event_types: Vec<String>,
    project_ids: Option<Vec<String>>,
    format: String,
    headers: Option<Vec<u8>>,
    max_concurrency: Option<i64>,
    rate_limit: Option<i64>,
    retry_schedule_ms: Option<Vec<i64>>,
    ordering: String,
    status: String,
    disabled_reason: Option<String>,
    missing_since: Option<DateTime<Utc>>,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    circuit_state: Option<String>,
    circuit_since: Option<DateTime<Utc>>,
    circuit_until: Option<DateTime<Utc>>,
    circuit_pause_ms: Option<i64>,
    circuit_probing: Option<bool>,
}

impl SubscriptionRow {
    pub(super) fn is_active(&self) -> bool {
        self.status == SubscriptionStatus::Active.as_str()
    }

    pub(super) fn into_subscription(self, vault: &Vault) -> Result<Subscription> {
        let status = match self.disabled_reason {
            Some(reason) => SubscriptionStatus::Disabled { reason },
            None => SubscriptionStatus::Active,
        };
        if status.as_str() != self.status {
            return Err(StoreError::Corrupt(format!(
                "subscription status {} without its reason",
                self.status
            )));
        }
        let event_types: Vec<EventFilter> = self
            .event_types
            .iter()
            .map(|text| parse("subscription.event_types", text))
            .collect::<Result<_>>()?;
        let project_ids: Option<Vec<ProjectId>> = self
            .project_ids
            .map(|texts| {
                texts
                    .iter()
                    .map(|text| parse("subscription.project_ids", text))
                    .collect::<Result<_>>()
            })
            .transpose()?;
        let circuit = StateColumns {
            state: self.circuit_state.as_deref(),
            since: self.circuit_since,
            until: self.circuit_until,
            pause_ms: self.circuit_pause_ms,
            probing: self.circuit_probing,
        };
        let id = SubscriptionId::from_uuid(self.id);
        Ok(Subscription {
            id,
            workspace: parse("subscription.workspace", &self.workspace)?,
            spec: SubscriptionSpec {
                url: TargetUrl::new(&self.url).map_err(StoreError::corrupt)?,
                description: self.description,
                event_types,
                project_ids,
                format: parse("subscription.format", &self.format)?,
                headers: headers::open(vault, id, self.headers.as_deref())?,
                max_concurrency: optional_nonzero(
                    "subscription.max_concurrency",
                    self.max_concurrency,
                )?,
                rate_limit: optional_nonzero("subscription.rate_limit", self.rate_limit)?,
                retry_schedule: self.retry_schedule_ms.map(schedule).transpose()?,
                ordering: parse("subscription.ordering", &self.ordering)?,
            },
            status,
            circuit: circuit.read()?,
            missing_since: self.missing_since,
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

/// A number that is at least one, or nothing.
pub(super) fn optional_nonzero(
    column: &'static str,
    value: Option<i64>,
) -> Result<Option<NonZeroU32>> {
    let Some(value) = value else {
        return Ok(None);
    };
    u32::try_from(value)
        .ok()
        .and_then(NonZeroU32::new)
        .map(Some)
        .ok_or_else(|| StoreError::Corrupt(format!("{column} is {value}")))
}

fn schedule(delays_ms: Vec<i64>) -> Result<RetrySchedule> {
    let delays = delays_ms
        .into_iter()
        .map(|delay| u64::try_from(delay).map(Duration::from_millis))
        .collect::<std::result::Result<_, _>>()
        .map_err(StoreError::corrupt)?;
    RetrySchedule::new(delays).map_err(StoreError::corrupt)
}

#[derive(FromRow)]
pub(super) struct EventRow {
    pub(super) id: Uuid,
    workspace: String,
    source: String,
    external_id: String,
    r#type: String,
    project: Option<String>,
    edition: Option<String>,
    body: String,
    occurred_at: DateTime<Utc>,
}

impl EventRow {
    pub(super) fn into_event(self) -> Result<Event> {
        Ok(Event {
            id: EventId::from_uuid(self.id),
            workspace: parse::<WorkspaceId>("event.workspace", &self.workspace)?,
            source: self.source,
            external_id: self.external_id,
            event_type: parse::<EventType>("event.type", &self.r#type)?,
            project: optional::<ProjectId>("event.project", self.project)?,
            edition: optional::<EditionId>("event.edition", self.edition)?,
            occurred_at: self.occurred_at,
            envelope: self.body.into_boxed_str(),
        })
    }
}

/// An event, and when it was kept.
#[derive(FromRow)]
pub(super) struct KeptEventRow {
    #[sqlx(flatten)]
    event: EventRow,
    accepted_at: DateTime<Utc>,
}

impl KeptEventRow {
    pub(super) fn into_record(self) -> Result<EventRecord> {
        Ok(EventRecord::of(self.event.into_event()?, self.accepted_at))
    }
}

#[derive(FromRow)]
pub(super) struct DeliveryRow {
    id: Uuid,
    event_id: Uuid,
    event_type: String,
    project: Option<String>,
    edition: Option<String>,
    subscription_id: Uuid,
    state: String,
    attempts: i32,
    due_at: Option<DateTime<Utc>>,
    settled_at: Option<DateTime<Utc>>,
}

impl DeliveryRow {
    pub(super) fn into_record(self) -> Result<DeliveryRecord> {
        Ok(DeliveryRecord {
            id: DeliveryId::from_uuid(self.id),
            event_id: EventId::from_uuid(self.event_id),
            event_type: parse("event.type", &self.event_type)?,
            project: optional("event.project", self.project)?,
            edition: optional("event.edition", self.edition)?,
            subscription_id: SubscriptionId::from_uuid(self.subscription_id),
            state: parse::<DeliveryState>("delivery.state", &self.state)?,
            attempts: count("attempts", self.attempts)?,
            created_at: created_at(self.id),
            due_at: self.due_at.map(|time| time.trunc_subsecs(3)),
            settled_at: self.settled_at,
        })
    }
}

#[derive(FromRow)]
pub(super) struct AttemptRow {
    epoch: i32,
    at: DateTime<Utc>,
    duration_ms: i64,
    trigger: String,
    status: Option<i32>,
    error: Option<String>,
    response_headers: String,
    response_excerpt: String,
    lease_lost: bool,
}

impl AttemptRow {
    pub(super) fn into_record(self) -> Result<AttemptRecord> {
        let duration_ms = u64::try_from(self.duration_ms).map_err(StoreError::corrupt)?;
        let error = self
            .error
            .map(|text| parse("attempt.error", &text))
            .transpose()?;
        Ok(AttemptRecord {
            epoch: self.epoch,
            attempt: Attempt {
                at: self.at,
                duration: Duration::from_millis(duration_ms),
                trigger: parse("attempt.trigger", &self.trigger)?,
                status: self
                    .status
                    .map(u16::try_from)
                    .transpose()
                    .map_err(StoreError::corrupt)?,
                error,
                response_headers: serde_json::from_str(&self.response_headers)
                    .map_err(StoreError::corrupt)?,
                response_excerpt: self.response_excerpt,
            },
            lease_lost: self.lease_lost,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_read_as_it_is_written() {
        for lane in Lane::ALL {
            assert_eq!(lane_of(lane_number(lane)).unwrap(), lane);
        }
        assert!(lane_of(7).is_err());
    }

    #[test]
    fn an_interval_is_cut_to_what_the_database_keeps() {
        let jittered = Duration::new(5, 123_456_789);
        assert_eq!(interval(jittered), Duration::new(5, 123_456_000));
    }
}
