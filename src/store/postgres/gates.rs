//! The gates of ordered subscriptions: coming to them, and leaving them.
//!
//! A gate's row is locked by whoever changes its queue, to the end of the transaction; several in their
//! order. What a transaction waits for, it waits for in this order: rows of replays, old events (replay),
//! heads of editions, gates, and then the keys of events and the feed (accept), or the row of the next
//! head (settle), which nobody holds who waits for a gate.

use std::collections::HashMap;

use sqlx::PgTransaction;
use sqlx::postgres::PgBindIterExt;
use uuid::Uuid;

use super::Result;
use super::arrivals::text_length;
use super::births::Birth;
use super::errors::{expect_rows, from_sqlx};
use super::events::FIRST_EPOCH;
use super::rows::{interval, lane_number, lane_of};
use crate::domain::delivery::Lane;
use crate::domain::ids::EditionId;
use crate::store::Leasing;
use crate::store::gates::{Comer, Crowd, Kept, Place, Places, Released, columns};

/// Brings a crowd to its gates; what is made for them must be queued in the same transaction.
pub(super) async fn come(tx: &mut PgTransaction<'_>, crowd: Crowd) -> Result<Places> {
    if crowd.is_empty() {
        return Ok(Places::default());
    }
    let rows: Vec<(Uuid, String, i64, i64)> = sqlx::query_as(
        "-- postgres::gates::come
        insert into order_gate (subscription_id, edition, workspace, depth, tail)
        select
            unnest($1::uuid[]), unnest($2::text[]), unnest($3::text[]), unnest($4::bigint[]),
            unnest($4)
        on conflict on constraint order_gate_pk do update
        set depth = order_gate.depth + excluded.depth, tail = order_gate.tail + excluded.tail
        returning subscription_id, edition, depth, tail",
    )
    .bind(
        crowd
            .gates()
            .map(|gate| gate.subscription.uuid())
            .bind_iter(),
    )
    .bind(crowd.gates().map(|gate| gate.edition.as_str()).bind_iter())
    .bind(
        crowd
            .gates()
            .map(|gate| gate.workspace.as_str())
            .bind_iter(),
    )
    .bind(crowd.iter().map(|(_, count)| count).bind_iter())
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    let kept = rows
        .into_iter()
        .map(|(subscription, edition, depth, tail)| Kept {
            subscription,
            edition,
            depth,
            tail,
        });
    Places::of(crowd, kept)
}

/// Queues new deliveries at their gates: a head may be leased, the others wait behind it.
pub(super) async fn queue(
    tx: &mut PgTransaction<'_>,
    births: &[&Birth<'_>],
    leasing: Leasing,
) -> Result<()> {
    if births.is_empty() {
        return Ok(());
    }
    let events = || births.iter().map(|birth| birth.payload.event());
    let places = || births.iter().filter_map(|birth| birth.place);
    let queued = sqlx::query(
        "-- postgres::gates::queue
        insert into delivery_queue (
            delivery_id, event_id, workspace, subscription_id, bytes, gate, ord,
            lane, visible_at, owner, epoch, attempts, lost_leases
        )
        select
            delivery_id, event_id, workspace, subscription_id, bytes, gate, ord,
            $10,
            case
                when leased then clock_timestamp() + $11::interval
                when is_head then clock_timestamp()
                else 'infinity'
            end,
            case when leased then $12::uuid end,
            case when leased then $13::integer else 0 end,
            0,
            0
        from (
            select
                unnest($1::uuid[]) as delivery_id,
                unnest($2::uuid[]) as event_id,
                unnest($3::text[]) as workspace,
                unnest($4::uuid[]) as subscription_id,
                unnest($5::integer[]) as bytes,
                unnest($6::text[]) as gate,
                unnest($7::bigint[]) as ord,
                unnest($8::boolean[]) as is_head,
                unnest($9::boolean[]) as leased
        ) as born",
    )
    .bind(births.iter().map(|birth| birth.id.uuid()).bind_iter())
    .bind(events().map(|event| event.id.uuid()).bind_iter())
    .bind(events().map(|event| event.workspace.as_str()).bind_iter())
    .bind(
        births
            .iter()
            .map(|birth| birth.target.id().uuid())
            .bind_iter(),
    )
    .bind(events().map(text_length).bind_iter())
    .bind(
        births
            .iter()
            .map(|birth| birth.gate().map(EditionId::as_str))
            .bind_iter(),
    )
    .bind(places().map(|place| place.ord).bind_iter())
    .bind(places().map(|place| place.is_head).bind_iter())
    .bind(
        births
            .iter()
            .map(|birth| birth.permit.is_some())
            .bind_iter(),
    )
    .bind(lane_number(Lane::Fresh))
    .bind(interval(leasing.lease))
    .bind(leasing.owner.uuid())
    .bind(FIRST_EPOCH)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    expect_rows("delivery_queue", births.len(), queued.rows_affected())
}

/// Brings deliveries that are replayed to the tails of their gates, in this order; by delivery, where
/// each stands.
pub(super) async fn line_up(
    tx: &mut PgTransaction<'_>,
    comers: Vec<Comer>,
) -> Result<HashMap<Uuid, (EditionId, Place)>> {
    let mut places = come(tx, Crowd::of(&comers)).await?;
    comers
        .into_iter()
        .map(|comer| {
            let place = places.next(&comer.gate)?;
            Ok((comer.delivery.uuid(), (comer.gate.edition, place)))
        })
        .collect()
}

/// The places of deliveries that are put into the queue, as columns.
pub(super) struct Columns<'a> {
    pub(super) gates: Vec<Option<&'a str>>,
    pub(super) ords: Vec<Option<i64>>,
    /// Whether somebody is before it.
    pub(super) waits: Vec<bool>,
}

impl<'a> Columns<'a> {
    /// In the order of the deliveries.
    pub(super) fn of(ids: &[Uuid], places: &'a HashMap<Uuid, (EditionId, Place)>) -> Self {
        let mut of = Self {
            gates: Vec::with_capacity(ids.len()),
            ords: Vec::with_capacity(ids.len()),
            waits: Vec::with_capacity(ids.len()),
        };
        for id in ids {
            let (gate, ord, waits) = columns(places.get(id));
            of.gates.push(gate);
            of.ords.push(ord);
            of.waits.push(waits);
        }
        of
    }
}

/// Holds gates, in their order, for whoever takes deliveries out of their queues.
pub(super) async fn hold(tx: &mut PgTransaction<'_>, gates: &Crowd) -> Result<()> {
    lower(tx, gates, Leaving::Nobody).await.map(drop)
}

/// Who of a crowd leaves.
#[derive(Clone, Copy)]
enum Leaving {
    Nobody,
    All,
}

/// Lets a crowd leave its gates, whose rows in the queue are gone by now, and makes those due who are
/// first there then; answers at which gates.
///
/// Two statements: one that waits for the gates, and one that begins when it has them. What an accept
/// queued that held a gate until a moment ago is seen by the second one only.
pub(super) async fn leave(tx: &mut PgTransaction<'_>, crowd: &Crowd) -> Result<Released> {
    if crowd.is_empty() {
        return Ok(Released::default());
    }
    let rows = lower(tx, crowd, Leaving::All).await?;
    let (empty, busy): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(.., depth)| *depth == 0);
    let subscriptions = |rows: &[(Uuid, String, i64)]| -> Vec<Uuid> {
        rows.iter()
            .map(|(subscription, ..)| *subscription)
            .collect()
    };
    let editions = |rows: &[(Uuid, String, i64)]| -> Vec<String> {
        rows.iter().map(|(_, edition, _)| edition.clone()).collect()
    };
    let released: Vec<(Uuid, String, i16)> = sqlx::query_as(
        "-- postgres::gates::leave (release)
        with closed as (
            delete from order_gate
            where ctid = any(array(
                select held.found_at
                from (
                    select unnest($1::uuid[]) as subscription_id, unnest($2::text[]) as edition
                ) as empty
                cross join lateral (
                    select g.ctid as found_at
                    from order_gate g
                    where g.subscription_id = empty.subscription_id
                      and g.edition = empty.edition
                    limit 1
                ) as held
            ))
        )
        update delivery_queue
        set visible_at = clock_timestamp()
        where ctid = any(array(
            select head.found_at
            from (
                select unnest($3::uuid[]) as subscription_id, unnest($4::text[]) as edition
            ) as busy
            cross join lateral (
                select q.ctid as found_at, q.visible_at
                from delivery_queue q
                where q.subscription_id = busy.subscription_id
                  and q.gate = busy.edition
                order by q.ord
                limit 1
            ) as head
            where head.visible_at = 'infinity'
        ))
          and visible_at = 'infinity'
        returning subscription_id, gate, lane",
    )
    .bind(subscriptions(&empty))
    .bind(editions(&empty))
    .bind(subscriptions(&busy))
    .bind(editions(&busy))
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    released
        .into_iter()
        .map(|(subscription, edition, lane)| Ok(((subscription, edition), lane_of(lane)?)))
        .collect()
}

/// Locks gates in their order and lowers their depths; answers these.
///
/// An insert that always finds its row: unlike a join it looks the gates up one by one, in the order
/// given, whatever the planner takes the table for. (A count travels as `tail`, which stays as it is.)
/// A gate that went with its subscription comes back empty, and is removed like one that became so.
async fn lower(
    tx: &mut PgTransaction<'_>,
    crowd: &Crowd,
    leaving: Leaving,
) -> Result<Vec<(Uuid, String, i64)>> {
    if crowd.is_empty() {
        return Ok(Vec::new());
    }
    let counts = crowd.iter().map(|(_, count)| match leaving {
        Leaving::Nobody => 0,
        Leaving::All => count,
    });
    sqlx::query_as(
        "-- postgres::gates::leave (lower)
        insert into order_gate (subscription_id, edition, workspace, depth, tail)
        select
            unnest($1::uuid[]), unnest($2::text[]), unnest($3::text[]), 0, unnest($4::bigint[])
        on conflict on constraint order_gate_pk do update
        set depth = greatest(order_gate.depth - excluded.tail, 0)
        returning subscription_id, edition, depth",
    )
    .bind(
        crowd
            .gates()
            .map(|gate| gate.subscription.uuid())
            .bind_iter(),
    )
    .bind(crowd.gates().map(|gate| gate.edition.as_str()).bind_iter())
    .bind(
        crowd
            .gates()
            .map(|gate| gate.workspace.as_str())
            .bind_iter(),
    )
    .bind(counts.bind_iter())
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)
}
