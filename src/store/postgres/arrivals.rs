//! Writing what came: one statement for a batch of new events and all that comes of them.

use sqlx::PgTransaction;
use sqlx::postgres::PgBindIterExt;
use uuid::Uuid;

use super::Result;
use super::births::Birth;
use super::errors::{expect_rows, from_sqlx};
use super::events::{FIRST_EPOCH, Taken};
use super::projection::{Shown, bind_editions, remembered};
use super::rows::{interval, lane_number};
use crate::domain::delivery::Lane;
use crate::domain::event::Event;
use crate::domain::ids::{EditionId, ProjectId};
use crate::store::Leasing;
use crate::store::projection::MovedEditions;

/// The lock under which feed positions are drawn.
const FEED_LOCK: i64 = 0x666f_7267_6566_6565;

/// See [`write()`].
const WRITE: &str = concat!(
    "-- postgres::arrivals::write
    with ",
    remembered!(),
    ", keyed as (
        insert into event_key (key, event_id)
        select unnest($6::uuid[]), unnest($7::uuid[])
        where (select count(*) from remembered) >= 0
        returning 1
    ), kept as (
        insert into event (
            id, workspace, source, external_id, type, project, edition, body, occurred_at
        )
        select
            unnest($8::uuid[]), unnest($9::text[]), unnest($10::text[]), unnest($11::text[]),
            unnest($12::text[]), unnest($13::text[]), unnest($14::text[]), unnest($15::text[]),
            unnest($16::timestamptz[])
        returning 1
    ), queued as (
        insert into delivery_queue (
            delivery_id, event_id, workspace, subscription_id, bytes,
            lane, visible_at, owner, epoch, attempts, lost_leases
        )
        select
            delivery_id, event_id, workspace, subscription_id, bytes,
            $23,
            case when leased then clock_timestamp() + $24::interval else clock_timestamp() end,
            case when leased then $25::uuid end,
            case when leased then $26::integer else 0 end,
            0,
            0
        from (
            select
                unnest($17::uuid[]) as delivery_id,
                unnest($18::uuid[]) as event_id,
                unnest($19::text[]) as workspace,
                unnest($20::uuid[]) as subscription_id,
                unnest($21::integer[]) as bytes,
                unnest($22::boolean[]) as leased
        ) as born
        returning 1
    ), turn as materialized (
        select pg_advisory_xact_lock($27)
        where (select count(*) from keyed) = cardinality($6)
          and (select count(*) from kept) = cardinality($8)
          and (select count(*) from queued) = cardinality($17)
    ), placed as (
        insert into event_feed (workspace, position, event_id)
        select arriving.workspace, nextval('event_feed_position'), arriving.event_id
        from turn
        cross join (
            select unnest($9::text[]) as workspace, unnest($8::uuid[]) as event_id
        ) as arriving
        returning 1
    )
    select (select count(*) from placed), shown.workspace, shown.id
    from (values (true)) as always
    left join (select workspace, id from remembered where is_shown) as shown on true
    order by shown.workspace, shown.id"
);

/// Writes new events: their keys, themselves, those of their deliveries that wait for nobody, their
/// places in the feed; and what they told of these editions, which comes first. Answers what of that is to
/// be shown.
///
/// Editions come first since the keys ask how many were remembered, whatever the answer: two accepts that
/// share both wait for each other in one order.
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
    editions: Option<&MovedEditions<'_>>,
    leasing: Leasing,
) -> Result<Shown> {
    let events = || new.iter().map(|taken| taken.payload.event());
    let born = || births.iter().map(|birth| (birth, birth.payload.event()));
    let mut keys: Vec<(Uuid, Uuid)> = new
        .iter()
        .map(|taken| (taken.key, taken.payload.event().id.uuid()))
        .collect();
    keys.sort_unstable();
    let none = MovedEditions::new();
    let rows: Vec<(i64, Option<String>, Option<String>)> =
        bind_editions(sqlx::query_as(WRITE), editions.unwrap_or(&none))
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
            .fetch_all(&mut **tx)
            .await
            .map_err(from_sqlx)?;
    let placed = rows.first().map_or(0, |(placed, ..)| placed.unsigned_abs());
    expect_rows("event_feed", new.len(), placed)?;
    let shown = rows.into_iter();
    Ok(shown
        .filter_map(|(_, workspace, id)| workspace.zip(id))
        .collect())
}

pub(super) fn text_length(event: &Event) -> i32 {
    i32::try_from(event.envelope.len()).unwrap_or(i32::MAX)
}
