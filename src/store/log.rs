//! Reading what came, and what was and is delivered.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{Page, PageRequest, Result};
use crate::domain::attempt::Attempt;
use crate::domain::delivery::DeliveryState;
use crate::domain::event::Event;
use crate::domain::filter::EventType;
use crate::domain::ids::{DeliveryId, EditionId, EventId, ProjectId, SubscriptionId};
use crate::domain::payload::Payload;
use crate::domain::reach::Reach;

/// How many deliveries one call looks at, at most, where no index knows what is asked for.
pub const MAX_LOOKED_AT: usize = 10_000;

/// An event as clients see it.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRecord {
    /// Its id, the `webhook-id`.
    pub id: EventId,
    /// What happened.
    pub event_type: EventType,
    /// Who told us: the envelope's `source`.
    pub source: String,
    /// The envelope's `id`.
    pub external_id: String,
    /// The project it is about.
    pub project: Option<ProjectId>,
    /// The edition it is about.
    pub edition: Option<EditionId>,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// When it was kept.
    pub accepted_at: DateTime<Utc>,
    /// The envelope's `data`: JSON as it was written, key order and number spelling kept; `null`
    /// where it had none.
    pub data: String,
}

impl EventRecord {
    /// What clients see of an event that is kept.
    pub(super) fn of(event: Event, accepted_at: DateTime<Utc>) -> Self {
        let payload = Payload::new(event);
        let event = payload.event();
        Self {
            id: event.id,
            event_type: event.event_type.clone(),
            source: event.source.clone(),
            external_id: event.external_id.clone(),
            project: event.project.clone(),
            edition: event.edition.clone(),
            occurred_at: event.occurred_at,
            accepted_at,
            data: payload.data().to_owned(),
        }
    }
}

/// Reading what came.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// One event; `None` if there is none of that id in reach. A restricted reach ends at the events
    /// of its projects.
    async fn event(&self, reach: &Reach, id: EventId) -> Result<Option<EventRecord>>;
}

/// A delivery as clients see it: the union of the queue and the history.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryRecord {
    /// Its id.
    pub id: DeliveryId,
    /// The event.
    pub event_id: EventId,
    /// The event's type.
    pub event_type: EventType,
    /// The event's project.
    pub project: Option<ProjectId>,
    /// The event's edition.
    pub edition: Option<EditionId>,
    /// Where it goes.
    pub subscription_id: SubscriptionId,
    /// Where it stands.
    pub state: DeliveryState,
    /// Attempts settled so far.
    pub attempts: u32,
    /// When its event came: the time in its id.
    pub created_at: DateTime<Utc>,
    /// When it is due, while it is pending and does not wait for its turn.
    pub due_at: Option<DateTime<Utc>>,
    /// When it reached its final state.
    pub settled_at: Option<DateTime<Utc>>,
}

/// An attempt as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptRecord {
    /// The lease token it was made under; with the delivery's id it identifies the attempt.
    pub epoch: i32,
    /// What it met.
    pub attempt: Attempt,
    /// Whether its lease was another's when it was settled: it counted for nothing.
    pub lease_lost: bool,
}

/// Which deliveries a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// To this subscription only.
    pub subscription: Option<SubscriptionId>,
    /// Of this event only.
    pub event: Option<EventId>,
    /// Of events of this type only.
    pub event_type: Option<EventType>,
    /// Of events about this edition only.
    pub edition: Option<EditionId>,
    /// In this state only.
    pub state: Option<DeliveryState>,
    /// Made at this instant or later.
    pub since: Option<DateTime<Utc>>,
    /// Made before this instant.
    pub until: Option<DateTime<Utc>>,
}

/// Reading what was and is delivered. A restricted reach ends at deliveries of its projects' events
/// to subscriptions that are within its projects themselves; those that were deleted count as they
/// were.
#[async_trait]
pub trait DeliveryLog: Send + Sync {
    /// Deliveries, newest first. **A short page is not the last one**: one call looks at no more
    /// than [`MAX_LOOKED_AT`] deliveries to find those of a type, an edition, a state, or a restricted
    /// reach. [`Page::next`] is then the last one that was looked at, and `None` at the end only.
    async fn deliveries(
        &self,
        reach: &Reach,
        filter: &DeliveryFilter,
        page: PageRequest<DeliveryId>,
    ) -> Result<Page<DeliveryRecord, DeliveryId>>;

    /// One delivery; `None` if there is none of that id in reach.
    async fn delivery(&self, reach: &Reach, id: DeliveryId) -> Result<Option<DeliveryRecord>>;

    /// The attempts of a delivery, oldest first; the key is the epoch. None of a delivery that is
    /// out of reach.
    async fn attempts(
        &self,
        reach: &Reach,
        id: DeliveryId,
        page: PageRequest<i32>,
    ) -> Result<Page<AttemptRecord, i32>>;
}
