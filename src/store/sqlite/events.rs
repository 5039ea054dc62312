//! Accepting events: dedupe, keep, fan out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};
use uuid::Uuid;

use super::SqliteStore;
use super::error::store_error;
use super::rows::{count, duration_millis, get, id, lane_number, millis, statements, unsigned};
use crate::domain::delivery::Lane;
use crate::domain::event::Event;
use crate::domain::ids::{DeliveryId, EditionId, EventId, ProjectId};
use crate::domain::payload::Payload;
use crate::store::intake::{Intake, Permit};
use crate::store::targets::{Target, Targets};
use crate::store::{
    AcceptOutcome, Accepted, EventStore, LeasedDelivery, Leasing, MAX_FAN_OUT_ROWS, Result,
    StoreError,
};

/// What an event is recognised by.
type Key = [u8; 16];

#[async_trait]
impl EventStore for SqliteStore {
    async fn accept(
        &self,
        events: &[Arc<Payload>],
        leasing: Leasing,
        intake: &dyn Intake,
    ) -> Result<Accepted> {
        let asked_at = self.clock.monotonic();
        let keys: Vec<Key> = events.iter().map(|payload| key(payload.event())).collect();

        let mut transaction = self.write().await?;
        let now = millis(self.clock.now());
        let leased_until = now.saturating_add(duration_millis(leasing.lease));
        let targets = self.targets(&mut transaction).await?;
        let known = known_keys(&mut transaction, &keys).await?;
        let batch = Batch::sort(events, &keys, &known, &targets);

        let mut accepted = Accepted {
            outcomes: batch.outcomes,
            ..Accepted::default()
        };
        if !batch.repeated.is_empty() {
            let held =
                held_already(&mut transaction, &batch.repeated, &targets, leasing, now).await?;
            accepted.adopt(held, asked_at, intake);
        }
        if !batch.fresh.is_empty() {
            let born = self.bear(&batch.fresh, intake);
            write_keys(&mut transaction, &batch.fresh, now).await?;
            write_events(&mut transaction, &batch.fresh, now).await?;
            write_feed(&mut transaction, &batch.fresh).await?;
            write_queue(&mut transaction, &born, leasing, now, leased_until).await?;
            accepted.take_born(born, asked_at.saturating_add(leasing.lease));
        }
        self.commit(transaction).await?;
        Ok(accepted)
    }
}

/// The first half of sha256(source, NUL, id); neither holds a NUL.
fn key(event: &Event) -> Key {
    let digest = Sha256::new()
        .chain_update(event.source.as_bytes())
        .chain_update([0])
        .chain_update(event.external_id.as_bytes())
        .finalize();
    let mut key = Key::default();
    key.copy_from_slice(&digest[..16]);
    key
}

/// A new event of a batch.
struct Fresh<'a> {
    key: Key,
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
        keys: &[Key],
        known: &HashMap<Key, EventId>,
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
}

/// A delivery that comes into being with its event.
struct Born {
    id: DeliveryId,
    payload: Arc<Payload>,
    target: Arc<Target>,
    /// With a permit it is born leased, without one it waits.
    permit: Option<Permit>,
}

/// A delivery that an earlier, unanswered accept left leased to us.
struct Held {
    id: DeliveryId,
    payload: Arc<Payload>,
    target: Arc<Target>,
    /// How much of its lease is left.
    left: Duration,
}

impl SqliteStore {
    fn bear(&self, fresh: &[Fresh<'_>], intake: &dyn Intake) -> Vec<Born> {
        let now = self.clock.now();
        let mut born = Vec::with_capacity(fresh.iter().map(|new| new.targets.len()).sum());
        for new in fresh {
            for target in &new.targets {
                let bytes = new.payload.event().envelope.len();
                born.push(Born {
                    id: self.entropy.id(now),
                    payload: Arc::clone(new.payload),
                    target: Arc::clone(target),
                    permit: intake.admit(target, bytes),
                });
            }
        }
        born
    }
}

impl Accepted {
    fn take_born(&mut self, born: Vec<Born>, leased_until: Duration) {
        for delivery in born {
            let Some(permit) = delivery.permit else {
                self.pending += 1;
                continue;
            };
            let leased = first_lease(delivery.id, delivery.payload, delivery.target, leased_until);
            self.leased.push((leased, permit));
        }
    }

    /// What is not admitted now runs out and is taken over, like any lease that nobody serves.
    fn adopt(&mut self, held: Vec<Held>, asked_at: Duration, intake: &dyn Intake) {
        for delivery in held {
            let bytes = delivery.payload.event().envelope.len();
            if let Some(permit) = intake.admit(&delivery.target, bytes) {
                let leased_until = asked_at.saturating_add(delivery.left);
                let leased =
                    first_lease(delivery.id, delivery.payload, delivery.target, leased_until);
                self.leased.push((leased, permit));
            }
        }
    }
}

fn first_lease(
    id: DeliveryId,
    payload: Arc<Payload>,
    target: Arc<Target>,
    leased_until: Duration,
) -> LeasedDelivery {
    LeasedDelivery {
        id,
        epoch: 1,
        attempts: 0,
        lost_leases: 0,
        lane: Lane::Fresh,
        payload,
        target,
        leased_until,
    }
}

/// Which of the keys are taken, and by which event.
async fn known_keys(
    transaction: &mut SqliteConnection,
    keys: &[Key],
) -> Result<HashMap<Key, EventId>> {
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
            let key = Key::try_from(get::<&[u8]>(row, "key")?).map_err(StoreError::corrupt)?;
            known.insert(key, id(row, "event_id")?);
        }
    }
    Ok(known)
}

/// The deliveries of these events that are still under their first lease, and that lease ours.
///
/// Found through the subscriptions: what is leased of each lies at the end of its lane, so this
/// looks at no more rows than there are requests in flight.
async fn held_already(
    transaction: &mut SqliteConnection,
    repeated: &[&Arc<Payload>],
    targets: &Targets,
    leasing: Leasing,
    now: i64,
) -> Result<Vec<Held>> {
    let mut by_event: HashMap<EventId, &Arc<Payload>> = HashMap::new();
    let mut concerned: HashMap<Uuid, &Arc<Target>> = HashMap::new();
    for payload in repeated {
        by_event.insert(payload.event().id, payload);
        for target in targets.matching(payload.event()) {
            concerned.insert(target.id().uuid(), target);
        }
    }
    let mut held = Vec::new();
    for (subscription, target) in concerned {
        let rows = sqlx::query(
            "-- sqlite::events::held_already
            select delivery_id, event_id, visible_at - ?4 as lease_left
            from delivery_queue
            where subscription_id = ?1 and workspace = ?2 and lane = ?3 and visible_at > ?4
                and owner = ?5 and epoch = 1",
        )
        .bind(subscription)
        .bind(target.subscription.workspace.as_str())
        .bind(lane_number(Lane::Fresh))
        .bind(now)
        .bind(leasing.owner.uuid())
        .fetch_all(&mut *transaction)
        .await
        .map_err(store_error)?;
        for row in &rows {
            let Some(payload) = by_event.get(&id(row, "event_id")?) else {
                continue;
            };
            held.push(Held {
                id: id(row, "delivery_id")?,
                payload: Arc::clone(payload),
                target: Arc::clone(target),
                left: Duration::from_millis(unsigned(row, "lease_left")?),
            });
        }
    }
    Ok(held)
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
    born: &[Born],
    leasing: Leasing,
    now: i64,
    leased_until: i64,
) -> Result<()> {
    for part in statements(born) {
        QueryBuilder::<Sqlite>::new(
            "-- sqlite::events::write_queue
            insert into delivery_queue (delivery_id, event_id, workspace, subscription_id, lane,
                visible_at, owner, epoch, attempts, lost_leases, bytes) ",
        )
        .push_values(part, |mut row, delivery| {
            let event = delivery.payload.event();
            let (visible_at, owner, epoch) = match delivery.permit {
                Some(_) => (leased_until, Some(leasing.owner.uuid()), 1),
                None => (now, None, 0),
            };
            row.push_bind(delivery.id.uuid())
                .push_bind(event.id.uuid())
                .push_bind(event.workspace.as_str())
                .push_bind(delivery.target.id().uuid())
                .push_bind(lane_number(Lane::Fresh))
                .push_bind(visible_at)
                .push_bind(owner)
                .push_bind(epoch)
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
