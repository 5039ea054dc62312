//! Accepting events: dedupe, keep, fan out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};
use uuid::Uuid;

use super::SqliteStore;
use super::error::store_error;
use super::rows::{count, duration_millis, get, id, lane_number, millis, statements};
use crate::domain::delivery::Lane;
use crate::domain::ids::{DeliveryId, EditionId, EventId, ProjectId};
use crate::domain::payload::Payload;
use crate::store::identity::{EventKey, delivery_id, event_key};
use crate::store::intake::{Intake, Permit};
use crate::store::targets::{Target, Targets};
use crate::store::{
    AcceptOutcome, Accepted, EventStore, LeasedDelivery, Leasing, MAX_FAN_OUT_ROWS, Result,
    StoreError,
};

/// The lease token of a delivery that is born leased.
const FIRST_EPOCH: i32 = 1;

#[async_trait]
impl EventStore for SqliteStore {
    async fn accept(
        &self,
        events: &[Arc<Payload>],
        leasing: Leasing,
        intake: &dyn Intake,
    ) -> Result<Accepted> {
        let asked_at = self.clock.monotonic();
        let keys: Vec<EventKey> = events
            .iter()
            .map(|payload| event_key(payload.event()))
            .collect();

        let mut transaction = self.write().await?;
        let lease = Lease::begin(leasing, millis(self.clock.now()));
        let targets = self.targets(&mut transaction).await?;
        let known = known_keys(&mut transaction, &keys).await?;
        let batch = Batch::sort(events, &keys, &known, &targets);

        let mut deliveries = Vec::new();
        if !batch.repeated.is_empty() {
            let held = held_already(&mut transaction, &batch.repeated, &targets, leasing).await?;
            deliveries = admit(held, intake);
            renew(&mut transaction, &deliveries, &lease).await?;
        }
        if !batch.fresh.is_empty() {
            let born = admit(batch.fan_out(), intake);
            write_keys(&mut transaction, &batch.fresh, lease.now).await?;
            write_events(&mut transaction, &batch.fresh, lease.now).await?;
            write_feed(&mut transaction, &batch.fresh).await?;
            write_queue(&mut transaction, &born, &lease).await?;
            deliveries.extend(born);
        }
        self.commit(transaction).await?;

        let all = deliveries.len();
        let leased_until = asked_at.saturating_add(leasing.lease);
        let leased: Vec<_> = deliveries
            .into_iter()
            .filter_map(|delivery| delivery.leased(leased_until))
            .collect();
        Ok(Accepted {
            outcomes: batch.outcomes,
            pending: all - leased.len(),
            leased,
        })
    }
}

/// The lease that this accept gives, as it is written.
struct Lease {
    owner: Uuid,
    now: i64,
    until: i64,
}

impl Lease {
    fn begin(leasing: Leasing, now: i64) -> Self {
        Self {
            owner: leasing.owner.uuid(),
            now,
            until: now.saturating_add(duration_millis(leasing.lease)),
        }
    }

    /// The columns `visible_at` and `owner` of a delivery: leased, if it was admitted.
    fn columns(&self, delivery: &Delivery) -> (i64, Option<Uuid>) {
        match delivery.permit {
            Some(_) => (self.until, Some(self.owner)),
            None => (self.now, None),
        }
    }
}

/// A new event of a batch.
struct Fresh<'a> {
    key: EventKey,
    payload: &'a Arc<Payload>,
    targets: Vec<&'a Arc<Target>>,
}

/// A batch, as far as it is taken, sorted by what is to be done.
struct Batch<'a> {
    outcomes: Vec<AcceptOutcome>,
    fresh: Vec<Fresh<'a>>,
    /// Committed before, under the ids given now: the answer was lost.
    repeated: Vec<&'a Arc<Payload>>,
}

impl<'a> Batch<'a> {
    fn sort(
        events: &'a [Arc<Payload>],
        keys: &[EventKey],
        known: &HashMap<EventKey, EventId>,
        targets: &'a Targets,
    ) -> Self {
        let mut batch = Self {
            outcomes: Vec::with_capacity(events.len()),
            fresh: Vec::with_capacity(events.len()),
            repeated: Vec::new(),
        };
        let mut seen = HashSet::with_capacity(events.len());
        let mut rows = 0;
        for (payload, key) in events.iter().zip(keys) {
            let event = payload.event();
            let outcome = match known.get(key) {
                Some(committed) if *committed == event.id => {
                    batch.repeated.push(payload);
                    AcceptOutcome::Stored
                }
                Some(_) => AcceptOutcome::Duplicate,
                None if seen.contains(key) => AcceptOutcome::Duplicate,
                None => {
                    let targets: Vec<_> = targets.matching(event).collect();
                    if !batch.fresh.is_empty() && rows + targets.len() > MAX_FAN_OUT_ROWS {
                        break;
                    }
                    rows += targets.len();
                    seen.insert(*key);
                    batch.fresh.push(Fresh {
                        key: *key,
                        payload,
                        targets,
                    });
                    AcceptOutcome::Stored
                }
            };
            batch.outcomes.push(outcome);
        }
        batch
    }

    fn fan_out(&self) -> Vec<Delivery> {
        self.fresh
            .iter()
            .flat_map(|new| {
                new.targets
                    .iter()
                    .map(|target| Delivery::new(new.payload, target))
            })
            .collect()
    }
}

/// One of the first leases of an event's deliveries, about to be written.
struct Delivery {
    id: DeliveryId,
    payload: Arc<Payload>,
    target: Arc<Target>,
    /// With a permit it is leased, without one it waits.
    permit: Option<Permit>,
}

impl Delivery {
    fn new(payload: &Arc<Payload>, target: &Arc<Target>) -> Self {
        Self {
            id: delivery_id(payload.event().id, target.id()),
            payload: Arc::clone(payload),
            target: Arc::clone(target),
            permit: None,
        }
    }

    fn leased(self, leased_until: Duration) -> Option<(LeasedDelivery, Permit)> {
        let leased = LeasedDelivery {
            id: self.id,
            epoch: FIRST_EPOCH,
            attempts: 0,
            lost_leases: 0,
            lane: Lane::Fresh,
            payload: self.payload,
            target: self.target,
            leased_until,
        };
        Some((leased, self.permit?))
    }
}

fn admit(mut deliveries: Vec<Delivery>, intake: &dyn Intake) -> Vec<Delivery> {
    for delivery in &mut deliveries {
        let bytes = delivery.payload.event().envelope.len();
        delivery.permit = intake.admit(&delivery.target, bytes);
    }
    deliveries
}

/// Which of the keys are taken, and by which event.
async fn known_keys(
    transaction: &mut SqliteConnection,
    keys: &[EventKey],
) -> Result<HashMap<EventKey, EventId>> {
    let mut known = HashMap::new();
    for part in statements(keys) {
        let mut select = QueryBuilder::<Sqlite>::new(
            "-- sqlite::events::known_keys
            select key, event_id from event_key where key in (",
        );
        let mut list = select.separated(", ");
        for key in part {
            list.push_bind(key.as_slice());
        }
        select.push(")");
        let rows = select
            .build()
            .fetch_all(&mut *transaction)
            .await
            .map_err(store_error)?;
        for row in &rows {
            let key = EventKey::try_from(get::<&[u8]>(row, "key")?).map_err(StoreError::corrupt)?;
            known.insert(key, id(row, "event_id")?);
        }
    }
    Ok(known)
}

/// The deliveries of these events that are still under their first lease, and that lease ours.
async fn held_already(
    transaction: &mut SqliteConnection,
    repeated: &[&Arc<Payload>],
    targets: &Targets,
    leasing: Leasing,
) -> Result<Vec<Delivery>> {
    let asked: HashMap<DeliveryId, Delivery> = repeated
        .iter()
        .flat_map(|payload| {
            targets
                .matching(payload.event())
                .map(|target| Delivery::new(payload, target))
        })
        .map(|delivery| (delivery.id, delivery))
        .collect();
    let mut asked: Vec<Delivery> = asked.into_values().collect();
    let mut held: HashSet<DeliveryId> = HashSet::new();
    for part in statements(&asked) {
        let mut select = QueryBuilder::<Sqlite>::new(
            "-- sqlite::events::held_already
            select delivery_id from delivery_queue where owner = ",
        );
        select
            .push_bind(leasing.owner.uuid())
            .push(" and epoch = ")
            .push_bind(FIRST_EPOCH)
            .push(" and (delivery_id, workspace) in (")
            .push_values(part, |mut row, delivery| {
                row.push_bind(delivery.id.uuid())
                    .push_bind(delivery.target.subscription.workspace.as_str());
            })
            .push(")");
        let rows = select
            .build()
            .fetch_all(&mut *transaction)
            .await
            .map_err(store_error)?;
        for row in &rows {
            held.insert(id(row, "delivery_id")?);
        }
    }
    asked.retain(|delivery| held.contains(&delivery.id));
    Ok(asked)
}

/// Leases anew what was admitted again, and gives back what was not.
async fn renew(transaction: &mut SqliteConnection, held: &[Delivery], lease: &Lease) -> Result<()> {
    for part in statements(held) {
        let mut update = QueryBuilder::<Sqlite>::new(
            "-- sqlite::events::renew
            with held (delivery_id, workspace, visible_at, owner) as (",
        );
        update.push_values(part, |mut row, delivery| {
            let (visible_at, owner) = lease.columns(delivery);
            row.push_bind(delivery.id.uuid())
                .push_bind(delivery.target.subscription.workspace.as_str())
                .push_bind(visible_at)
                .push_bind(owner);
        });
        update.push(
            ")
            update delivery_queue
            set visible_at = held.visible_at, owner = held.owner
            from held
            where delivery_queue.delivery_id = held.delivery_id
                and delivery_queue.workspace = held.workspace",
        );
        update
            .build()
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
    }
    Ok(())
}

async fn write_keys(
    transaction: &mut SqliteConnection,
    fresh: &[Fresh<'_>],
    now: i64,
) -> Result<()> {
    for part in statements(fresh) {
        QueryBuilder::<Sqlite>::new(
            "-- sqlite::events::write_keys
            insert into event_key (key, event_id, at) ",
        )
        .push_values(part, |mut row, new| {
            row.push_bind(new.key.as_slice())
                .push_bind(new.payload.event().id.uuid())
                .push_bind(now);
        })
        .build()
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
    }
    Ok(())
}

async fn write_events(
    transaction: &mut SqliteConnection,
    fresh: &[Fresh<'_>],
    now: i64,
) -> Result<()> {
    for part in statements(fresh) {
        QueryBuilder::<Sqlite>::new(
            "-- sqlite::events::write_events
            insert into event (id, workspace, source, external_id, type, project, edition, body,
                occurred_at, accepted_at) ",
        )
        .push_values(part, |mut row, new| {
            let event = new.payload.event();
            row.push_bind(event.id.uuid())
                .push_bind(event.workspace.as_str())
                .push_bind(event.source.as_str())
                .push_bind(event.external_id.as_str())
                .push_bind(event.event_type.as_str())
                .push_bind(event.project.as_ref().map(ProjectId::as_str))
                .push_bind(event.edition.as_ref().map(EditionId::as_str))
                .push_bind(&*event.envelope)
                .push_bind(millis(event.occurred_at))
                .push_bind(now);
        })
        .build()
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
    }
    Ok(())
}

/// Positions in the order of the batch. There is one writer, so their order is that of the commits.
async fn write_feed(transaction: &mut SqliteConnection, fresh: &[Fresh<'_>]) -> Result<()> {
    let last: i64 = sqlx::query_scalar(
        "-- sqlite::events::write_feed
        update event_feed_position set last = last + ?1 returning last",
    )
    .bind(count(fresh.len()))
    .fetch_one(&mut *transaction)
    .await
    .map_err(store_error)?;
    let mut position = last - count(fresh.len());
    for part in statements(fresh) {
        QueryBuilder::<Sqlite>::new(
            "-- sqlite::events::write_feed
            insert into event_feed (workspace, position, event_id) ",
        )
        .push_values(part, |mut row, new| {
            position += 1;
            let event = new.payload.event();
            row.push_bind(event.workspace.as_str())
                .push_bind(position)
                .push_bind(event.id.uuid());
        })
        .build()
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
    }
    Ok(())
}

async fn write_queue(
    transaction: &mut SqliteConnection,
    born: &[Delivery],
    lease: &Lease,
) -> Result<()> {
    for part in statements(born) {
        QueryBuilder::<Sqlite>::new(
            "-- sqlite::events::write_queue
            insert into delivery_queue (delivery_id, event_id, workspace, subscription_id, lane,
                visible_at, owner, epoch, attempts, lost_leases, bytes) ",
        )
        .push_values(part, |mut row, delivery| {
            let event = delivery.payload.event();
            let (visible_at, owner) = lease.columns(delivery);
            row.push_bind(delivery.id.uuid())
                .push_bind(event.id.uuid())
                .push_bind(event.workspace.as_str())
                .push_bind(delivery.target.id().uuid())
                .push_bind(lane_number(Lane::Fresh))
                .push_bind(visible_at)
                .push_bind(owner)
                .push_bind(owner.map_or(0, |_| FIRST_EPOCH))
                .push_bind(0)
                .push_bind(0)
                .push_bind(count(event.envelope.len()));
        })
        .build()
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::domain::event::Event;
    use crate::domain::ids::{SubscriptionId, WorkspaceId, new_id};
    use crate::domain::subscription::{
        BodyFormat, Subscription, SubscriptionSpec, SubscriptionStatus, TargetUrl,
    };
    use crate::store::targets::TargetChange;

    fn payload(number: u8) -> Arc<Payload> {
        let now = DateTime::UNIX_EPOCH;
        let text = format!(r#"{{"specversion":"1.0","id":"{number}","source":"s","type":"x.y"}}"#);
        let event = Event::decode(text.as_bytes(), new_id(now, [number; 10]), now);
        Arc::new(Payload::new(event.unwrap()))
    }

    fn target(number: usize) -> Target {
        let id = SubscriptionId::from_uuid(Uuid::from_u128(number as u128));
        Target {
            subscription: Subscription {
                id,
                workspace: WorkspaceId::default(),
                spec: SubscriptionSpec {
                    url: TargetUrl::new("https://receiver.example/").unwrap(),
                    description: String::new(),
                    event_types: vec!["*".parse().unwrap()],
                    project_ids: None,
                    format: BodyFormat::Standard,
                    max_concurrency: None,
                    retry_schedule: None,
                },
                status: SubscriptionStatus::Active,
                version: 1,
                created_at: DateTime::UNIX_EPOCH,
                updated_at: DateTime::UNIX_EPOCH,
            },
            keys: Vec::new(),
        }
    }

    #[test]
    fn one_event_for_more_subscriptions_than_the_cap_is_taken_alone_and_whole() {
        let all = (0..=MAX_FAN_OUT_ROWS)
            .map(|number| TargetChange::Active(Box::new(target(number))))
            .collect();
        let targets = Targets::default().with(1, all);
        let events = [payload(1), payload(2)];
        let keys: Vec<_> = events
            .iter()
            .map(|payload| event_key(payload.event()))
            .collect();
        let batch = Batch::sort(&events, &keys, &HashMap::new(), &targets);
        assert_eq!(batch.outcomes, [AcceptOutcome::Stored]);
        assert_eq!(batch.fan_out().len(), MAX_FAN_OUT_ROWS + 1);

        // Known events make no rows, so they do not end a batch.
        let known = HashMap::from([(keys[0], new_id(DateTime::UNIX_EPOCH, [9; 10]))]);
        let batch = Batch::sort(&events, &keys, &known, &targets);
        assert_eq!(
            batch.outcomes,
            [AcceptOutcome::Duplicate, AcceptOutcome::Stored]
        );
    }
}
