//! Deliveries of events that came before their subscription asked for them.

use std::collections::HashMap;

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::SqliteStore;
use super::error::store_error;
use super::gates;
use super::requeue::Requeue;
use super::rows::{get, id, lane_number, list, parsed};
use crate::domain::delivery::Lane;
use crate::domain::filter::EventType;
use crate::domain::ids::{EditionId, EventId, SubscriptionId, WorkspaceId};
use crate::domain::replay::Refusal;
use crate::domain::subscription::Ordering;
use crate::store::Result;
use crate::store::gates::{Comer, Gate, Place, columns};
use crate::store::identity::delivery_id;
use crate::store::replays::Taker;

impl SqliteStore {
    pub(super) async fn without_delivery(
        &self,
        workspace: &WorkspaceId,
        subscription: SubscriptionId,
        events: &[EventId],
    ) -> Result<Vec<EventId>> {
        let rows = sqlx::query(
            "-- sqlite::backfill::without_delivery
            with asked (delivery_id, event_id) as (
                select unhex(value ->> 0), unhex(value ->> 1) from json_each(?1)
            )
            select event_id as id
            from asked
            where not exists (
                    select 1 from delivery_queue as queued
                    where queued.delivery_id = asked.delivery_id and queued.workspace = ?2
                )
                and not exists (
                    select 1 from delivery as settled
                    where settled.workspace = ?2 and settled.id = asked.delivery_id
                )
            order by event_id",
        )
        .bind(pairs(subscription, events)?)
        .bind(workspace.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(store_error)?;
        rows.iter().map(|row| id(row, "id")).collect()
    }
}

/// Makes the deliveries of these events that are not there yet; how many, or why none.
pub(super) async fn make(
    transaction: &mut SqliteConnection,
    requeue: &Requeue<'_>,
    subscription: SubscriptionId,
    events: &[EventId],
) -> Result<std::result::Result<i64, Refusal>> {
    if events.is_empty() {
        return Ok(Ok(0));
    }
    let found = sqlx::query(
        "-- sqlite::backfill::make (subscription)
        select status, ordering from subscription where workspace = ?1 and id = ?2",
    )
    .bind(requeue.workspace.as_str())
    .bind(subscription.uuid())
    .fetch_optional(&mut *transaction)
    .await
    .map_err(store_error)?;
    let status = found.as_ref().map(|row| get(row, "status")).transpose()?;
    if let Err(refusal) = Taker::of(status).takes() {
        return Ok(Err(refusal));
    }
    let ordering = found.as_ref().map(|row| parsed(row, "ordering"));
    let places = match ordering.transpose()? {
        Some(Ordering::ByEdition) => line_up(transaction, requeue, subscription, events).await?,
        _ => HashMap::new(),
    };
    let made = sqlx::query(
        "-- sqlite::backfill::make
        with asked (delivery_id, event_id, gate, ord, waits) as (
            select unhex(value ->> 0), unhex(value ->> 1), value ->> 2, value ->> 3, value ->> 4
            from json_each(?1)
        )
        insert into delivery_queue (delivery_id, event_id, workspace, subscription_id, lane,
            visible_at, owner, epoch, attempts, lost_leases, bytes, base, replayed, replay_id, gate,
            ord)
        select asked.delivery_id, event.id, event.workspace, ?3, ?4,
            iif(asked.waits, 9223372036854775807, ?5), null, 0, 0, 0,
            length(cast(event.body as blob)), 0, 'unmade', ?6, asked.gate, asked.ord
        from asked
        cross join event
        where event.id = asked.event_id and event.workspace = ?2
            and not exists (
                select 1 from delivery_queue as queued
                where queued.delivery_id = asked.delivery_id
            )
            and not exists (
                select 1 from delivery as settled
                where settled.workspace = ?2 and settled.id = asked.delivery_id
            )",
    )
    .bind(rows(subscription, events, &places)?)
    .bind(requeue.workspace.as_str())
    .bind(subscription.uuid())
    .bind(lane_number(Lane::Replay))
    .bind(requeue.now)
    .bind(requeue.bulk.map(|id| id.uuid()))
    .execute(transaction)
    .await
    .map_err(store_error)?
    .rows_affected();
    Ok(Ok(i64::try_from(made).unwrap_or(i64::MAX)))
}

/// Brings those that are to be made to the tails of their gates, in the order given, which is that of
/// the feed.
async fn line_up(
    transaction: &mut SqliteConnection,
    requeue: &Requeue<'_>,
    subscription: SubscriptionId,
    events: &[EventId],
) -> Result<HashMap<Uuid, (EditionId, Place)>> {
    let found = sqlx::query(
        "-- sqlite::backfill::line_up
        with asked (delivery_id, event_id) as (
            select unhex(value ->> 0), unhex(value ->> 1) from json_each(?1)
        )
        select event.id, event.type, event.edition
        from asked
        cross join event
        where event.id = asked.event_id and event.workspace = ?2 and event.edition is not null
            and not exists (
                select 1 from delivery_queue as queued
                where queued.delivery_id = asked.delivery_id
            )
            and not exists (
                select 1 from delivery as settled
                where settled.workspace = ?2 and settled.id = asked.delivery_id
            )",
    )
    .bind(pairs(subscription, events)?)
    .bind(requeue.workspace.as_str())
    .fetch_all(&mut *transaction)
    .await
    .map_err(store_error)?;
    let mut gates_of = HashMap::with_capacity(found.len());
    for row in &found {
        if !parsed::<EventType>(row, "type")?.is_operational() {
            let gate = Gate {
                subscription,
                edition: parsed(row, "edition")?,
                workspace: requeue.workspace.clone(),
            };
            gates_of.insert(get::<Uuid>(row, "id")?, gate);
        }
    }
    let comers = events.iter().filter_map(|event| {
        Some(Comer {
            delivery: delivery_id(*event, subscription),
            gate: gates_of.remove(&event.uuid())?,
        })
    });
    gates::line_up(transaction, comers.collect()).await
}

/// Each event with the delivery that it gets and the place of that, as `json_each` and `unhex` read
/// them.
fn rows(
    subscription: SubscriptionId,
    events: &[EventId],
    places: &HashMap<Uuid, (EditionId, Place)>,
) -> Result<String> {
    let ids: Vec<[Uuid; 2]> = events
        .iter()
        .map(|event| [delivery_id(*event, subscription).uuid(), event.uuid()])
        .collect();
    let rows = ids.iter().map(|[delivery, event]| {
        let (gate, ord, waits) = columns(places.get(delivery));
        (delivery.as_simple(), event.as_simple(), gate, ord, waits)
    });
    list(&rows.collect::<Vec<_>>())
}

/// Each event with the delivery that it would have, as `json_each` and `unhex` read them.
fn pairs(subscription: SubscriptionId, events: &[EventId]) -> Result<String> {
    let ids: Vec<[Uuid; 2]> = events
        .iter()
        .map(|event| [delivery_id(*event, subscription).uuid(), event.uuid()])
        .collect();
    let hex: Vec<_> = ids
        .iter()
        .map(|[delivery, event]| [delivery.as_simple(), event.as_simple()])
        .collect();
    list(&hex)
}
