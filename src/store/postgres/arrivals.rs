//! Writing what came: one statement for a batch of new events and all that comes of them.

use sqlx::PgTransaction;
use sqlx::postgres::PgBindIterExt;
use uuid::Uuid;

use super::Result;
use super::births::Birth;
use super::errors::{expect_rows, from_sqlx};
use super::events::{FIRST_EPOCH, Taken};
use super::rows::{interval, lane_number};
use crate::domain::delivery::Lane;
use crate::domain::event::Event;
use crate::domain::ids::{EditionId, ProjectId};
use crate::store::Leasing;

/// The lock under which feed positions are drawn.
const FEED_LOCK: i64 = 0x666f_7267_6566_6565;

/// See [`write()`].
const WRITE: &str = "-- postgres::arrivals::write
    with keyed as (
        insert into event_key (key, event_id)
        select unnest($1::uuid[]), unnest($2::uuid[])
        returning 1
    ), kept as (
        insert into event (
            id, workspace, source, external_id, type, project, edition, body, occurred_at
        )
        select
            unnest($3::uuid[]), unnest($4::text[]), unnest($5::text[]), unnest($6::text[]),
            unnest($7::text[]), unnest($8::text[]), unnest($9::text[]), unnest($10::text[]),
            unnest($11::timestamptz[])
        returning 1
    ), queued as (
        insert into delivery_queue (
            delivery_id, event_id, workspace, subscription_id, bytes,
            lane, visible_at, owner, epoch, attempts, lost_leases
        )
        select
            delivery_id, event_id, workspace, subscription_id, bytes,
            $18,
            case when leased then clock_timestamp() + $19::interval else clock_timestamp() end,
            case when leased then $20::uuid end,
            case when leased then $21::integer else 0 end,
            0,
            0
        from (
            select
                unnest($12::uuid[]) as delivery_id,
                unnest($13::uuid[]) as event_id,
                unnest($14::text[]) as workspace,
                unnest($15::uuid[]) as subscription_id,
                unnest($16::integer[]) as bytes,
                unnest($17::boolean[]) as leased
        ) as born
        returning 1
    ), turn as materialized (
        select pg_advisory_xact_lock($22)
        where (select count(*) from keyed) = cardinality($1)
          and (select count(*) from kept) = cardinality($3)
          and (select count(*) from queued) = cardinality($12)
    )
    insert into event_feed (workspace, position, event_id)
    select arriving.workspace, nextval('event_feed_position'), arriving.event_id
    from turn
    cross join (
        select unnest($4::text[]) as workspace, unnest($3::uuid[]) as event_id
    ) as arriving";

/// Writes new events: their keys, themselves, those of their deliveries that wait for nobody, their
/// places in the feed.
///
/// Keys go in sorted: batches that share keys in another order would wait for each other for ever.
/// The feed's lock is the last thing that the statement waits for, since it is asked for only when
/// the rest was counted; it is held to the end of the transaction, so positions become visible in
/// their order.
///
/// `unnest` stands in the select lists, where arrays go side by side a row at a time; in `from`,
/// each would be written out to a table of its own first.
pub(super) async fn write(
    tx: &mut PgTransaction<'_>,
    new: &[&Taken<'_>],
    births: &[&Birth<'_>],
    leasing: Leasing,
) -> Result<()> {
    let events = || new.iter().map(|taken| taken.payload.event());
    let born = || births.iter().map(|birth| (birth, birth.payload.event()));
    let mut keys: Vec<(Uuid, Uuid)> = new
        .iter()
        .map(|taken| (taken.key, taken.payload.event().id.uuid()))
        .collect();
    keys.sort_unstable();
    let placed = sqlx::query(WRITE)
        .bind(keys.iter().map(|(key, _)| key).bind_iter())
        .bind(keys.iter().map(|(_, event_id)| event_id).bind_iter())
        .bind(events().map(|event| event.id.uuid()).bind_iter())
        .bind(events().map(|event| event.workspace.as_str()).bind_iter())
        .bind(events().map(|event| event.source.as_str()).bind_iter())
        .bind(events().map(|event| event.external_id.as_str()).bind_iter())
        .bind(events().map(|event| event.event_type.as_str()).bind_iter())
        .bind(
            events()
                .map(|event| event.project.as_ref().map(ProjectId::as_str))
                .bind_iter(),
        )
        .bind(
            events()
                .map(|event| event.edition.as_ref().map(EditionId::as_str))
                .bind_iter(),
        )
        .bind(events().map(|event| &*event.envelope).bind_iter())
        .bind(events().map(|event| event.occurred_at).bind_iter())
        .bind(births.iter().map(|birth| birth.id.uuid()).bind_iter())
        .bind(born().map(|(_, event)| event.id.uuid()).bind_iter())
        .bind(
            born()
                .map(|(_, event)| event.workspace.as_str())
                .bind_iter(),
        )
        .bind(
            births
                .iter()
                .map(|birth| birth.target.id().uuid())
                .bind_iter(),
        )
        .bind(born().map(|(_, event)| text_length(event)).bind_iter())
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
        .bind(FEED_LOCK)
        .execute(&mut **tx)
        .await
        .map_err(from_sqlx)?;
    expect_rows("event_feed", new.len(), placed.rows_affected())
}

pub(super) fn text_length(event: &Event) -> i32 {
    i32::try_from(event.envelope.len()).unwrap_or(i32::MAX)
}
