//! Deliveries of events that came before their subscription asked for them.

use std::collections::{HashMap, HashSet};

use sqlx::PgTransaction;
use uuid::Uuid;

use super::errors::{from_sqlx, reading};
use super::requeue::Requeue;
use super::rows::{lane_number, optional, parse};
use super::{PostgresStore, Result, gates};
use crate::domain::delivery::Lane;
use crate::domain::filter::EventType;
use crate::domain::ids::{EditionId, EventId, SubscriptionId, WorkspaceId};
use crate::domain::replay::Refusal;
use crate::domain::subscription::Ordering;
use crate::store::gates::{Comer, Crowd, Gate, Place};
use crate::store::identity::delivery_id;
use crate::store::replays::Taker;

impl PostgresStore {
    pub(super) async fn without_delivery(
        &self,
        workspace: &WorkspaceId,
        subscription: SubscriptionId,
        events: &[EventId],
    ) -> Result<Vec<EventId>> {
        let (deliveries, events) = pairs(subscription, events);
        let found: Vec<Uuid> = reading(async {
            sqlx::query_scalar(
                "-- postgres::backfill::without_delivery
                select asked.event_id
                from unnest($2::uuid[], $3::uuid[]) as asked (delivery_id, event_id)
                where not exists (
                    select from delivery_queue q
                    where q.delivery_id = asked.delivery_id and q.workspace = $1
                ) and not exists (
                    select from delivery d
                    where d.workspace = $1 and d.id = asked.delivery_id
                )
                order by asked.event_id",
            )
            .bind(workspace.as_str())
            .bind(deliveries)
            .bind(events)
            .fetch_all(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        Ok(found.into_iter().map(EventId::from_uuid).collect())
    }
}

/// Makes the deliveries of these events that are not there yet; how many, or why none. The events are
/// held to the end, so that retention removes none that a delivery begins of.
pub(super) async fn make(
    tx: &mut PgTransaction<'_>,
    requeue: &Requeue<'_>,
    subscription: SubscriptionId,
    events: &[EventId],
) -> Result<std::result::Result<u64, Refusal>> {
    if events.is_empty() {
        return Ok(Ok(0));
    }
    let found: Option<(String, String)> = sqlx::query_as(
        "-- postgres::backfill::make (subscription)
        select status, ordering from subscription where workspace = $1 and id = $2",
    )
    .bind(requeue.workspace.as_str())
    .bind(subscription.uuid())
    .fetch_optional(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    let (status, ordering) = found.unzip();
    if let Err(refusal) = Taker::of(status.as_deref()).takes() {
        return Ok(Err(refusal));
    }
    let ordering: Option<Ordering> = optional("subscription.ordering", ordering)?;
    let places = match ordering {
        Some(Ordering::ByEdition) => line_up(tx, requeue, subscription, events).await?,
        _ => HashMap::new(),
    };
    let (deliveries, events) = pairs(subscription, events);
    let columns = gates::Columns::of(&deliveries, &places);
    let made: Vec<Uuid> = sqlx::query_scalar(
        "-- postgres::backfill::make
        insert into delivery_queue (
            delivery_id, event_id, workspace, subscription_id, lane, visible_at, epoch, attempts,
            lost_leases, bytes, base, replayed, replay_id, gate, ord
        )
        select
            asked.delivery_id, event.id, event.workspace, $4, $5,
            case when asked.waits then 'infinity' else clock_timestamp() end, 0, 0, 0,
            octet_length(event.body), 0, 'unmade', $6, asked.gate, asked.ord
        from unnest($2::uuid[], $3::uuid[], $7::text[], $8::bigint[], $9::boolean[])
            as asked (delivery_id, event_id, gate, ord, waits)
        join event on event.id = asked.event_id and event.workspace = $1
        where not exists (
            select from delivery_queue q where q.delivery_id = asked.delivery_id
        ) and not exists (
            select from delivery d where d.workspace = $1 and d.id = asked.delivery_id
        )
        order by event.id
        for key share of event
        on conflict do nothing
        returning delivery_id",
    )
    .bind(requeue.workspace.as_str())
    .bind(deliveries)
    .bind(events)
    .bind(subscription.uuid())
    .bind(lane_number(Lane::Replay))
    .bind(requeue.bulk.map(|id| id.uuid()))
    .bind(columns.gates)
    .bind(columns.ords)
    .bind(columns.waits)
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    let made: HashSet<Uuid> = made.into_iter().collect();
    let mut missing = Crowd::default();
    for (delivery, (edition, _)) in places {
        if !made.contains(&delivery) {
            missing.add(Gate {
                subscription,
                edition,
                workspace: requeue.workspace.clone(),
            });
        }
    }
    gates::leave(tx, &missing).await?;
    Ok(Ok(made.len() as u64))
}

/// Brings those that are to be made, as far as can be seen, to the tails of their gates, in the order
/// given, which is that of the feed. Those that another transaction makes meanwhile leave again. The
/// events are held first, like those of all replays: who has a gate waits for no event.
async fn line_up(
    tx: &mut PgTransaction<'_>,
    requeue: &Requeue<'_>,
    subscription: SubscriptionId,
    events: &[EventId],
) -> Result<HashMap<Uuid, (EditionId, Place)>> {
    let rows: Vec<(Uuid, String, Option<String>)> = sqlx::query_as(
        "-- postgres::backfill::line_up
        select event.id, event.type, event.edition
        from event
        where event.id = any($2) and event.workspace = $1
        order by event.id
        for key share",
    )
    .bind(requeue.workspace.as_str())
    .bind(events.iter().map(EventId::uuid).collect::<Vec<_>>())
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    let mut gates_of = HashMap::with_capacity(rows.len());
    for (event, event_type, edition) in rows {
        let is_told = parse::<EventType>("event.type", &event_type)?.is_operational();
        if let Some(edition) = edition.filter(|_| !is_told) {
            let gate = Gate {
                subscription,
                edition: parse("event.edition", &edition)?,
                workspace: requeue.workspace.clone(),
            };
            gates_of.insert(event, gate);
        }
    }
    let comers = events.iter().filter_map(|event| {
        Some(Comer {
            delivery: delivery_id(*event, subscription),
            gate: gates_of.remove(&event.uuid())?,
        })
    });
    gates::line_up(tx, comers.collect()).await
}

/// Each event beside the delivery that it would have.
fn pairs(subscription: SubscriptionId, events: &[EventId]) -> (Vec<Uuid>, Vec<Uuid>) {
    events
        .iter()
        .map(|event| (delivery_id(*event, subscription).uuid(), event.uuid()))
        .unzip()
}
