//! What goes with an event: its deliveries and their attempts, and what is remembered of it.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::PgTransaction;
use sqlx::postgres::PgBindIterExt;
use uuid::Uuid;

use super::super::Result;
use super::super::errors::from_sqlx;
use super::super::rows::limit;
use super::counted;
use crate::store::identity::key_of;
use crate::store::retention::{Kept, Old, Removed, Rest, Swept};

/// The most deliveries that go in one step, each with its attempts.
const MOST_DELIVERIES: usize = 500;

/// An event that is old, and what is needed of it.
pub(super) struct Past {
    pub(super) old: Old,
    pub(super) key: Uuid,
    pub(super) accepted_at: DateTime<Utc>,
}

impl Past {
    pub(super) fn new(
        old: Old,
        source: &str,
        external_id: &str,
        accepted_at: DateTime<Utc>,
    ) -> Self {
        Self {
            old,
            key: Uuid::from_bytes(key_of(source, external_id)),
            accepted_at,
        }
    }
}

/// The columns of a list of events, as they are bound: id, workspace, and the bounds of its deliveries'
/// ids.
#[derive(Default)]
struct Columns<'p> {
    ids: Vec<Uuid>,
    workspaces: Vec<&'p str>,
    firsts: Vec<Uuid>,
    behinds: Vec<Uuid>,
}

impl<'p> Columns<'p> {
    fn of(past: &[&'p Past]) -> Self {
        let mut columns = Self::default();
        for past in past {
            let (first, behind) = past.old.deliveries();
            columns.ids.push(past.old.id);
            columns.workspaces.push(&past.old.workspace);
            columns.firsts.push(first);
            columns.behinds.push(behind);
        }
        columns
    }
}

/// Removes those that nothing holds, each with what was delivered of it before then. Where that is too
/// much for one step ([`Rest::Some`]), the events stay until it is done.
pub(super) async fn remove(
    tx: &mut PgTransaction<'_>,
    past: &[Past],
    before: DateTime<Utc>,
) -> Result<Swept> {
    let past: Vec<&Past> = past.iter().collect();
    // What is under way is only looked at: a lock is a write, and a disabled subscription can hold
    // millions. Nothing that began since is missed behind the locks.
    let past = settled(tx, &past).await?;
    hold(tx, &past).await?;
    let settled = settled(tx, &past).await?;
    let (deliveries, attempts) = delete_deliveries(tx, &settled, before).await?;
    let mut removed = Removed::of(Kept::Delivery, deliveries);
    removed.add(Kept::Attempt, attempts);
    if deliveries >= MOST_DELIVERIES as u64 {
        return Ok(Swept::some(removed));
    }
    let bare = bare(tx, &settled).await?;
    list_keys(tx, &bare).await?;
    removed.add(Kept::Event, delete_events(tx, &bare).await?);
    Ok(Swept {
        removed,
        rest: Rest::Nothing,
    })
}

/// Locks them to the end: no delivery of theirs begins meanwhile.
async fn hold(tx: &mut PgTransaction<'_>, past: &[&Past]) -> Result<()> {
    sqlx::query(
        "-- postgres::retention::hold
        select 1 from event where id = any($1) and workspace = any($2) order by id for update",
    )
    .bind(past.iter().map(|past| past.old.id).bind_iter())
    .bind(
        past.iter()
            .map(|past| past.old.workspace.as_str())
            .bind_iter(),
    )
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

/// Those that no delivery is under way of.
async fn settled<'p>(tx: &mut PgTransaction<'_>, past: &[&'p Past]) -> Result<Vec<&'p Past>> {
    let columns = Columns::of(past);
    let under_way: Vec<Uuid> = sqlx::query_scalar(
        "-- postgres::retention::settled
        select old.id
        from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[])
            as old (id, workspace, first, behind)
        cross join lateral (
            select 1
            from delivery_queue q
            where q.delivery_id >= old.first
              and q.delivery_id < old.behind
              and q.event_id = old.id
              and q.workspace = old.workspace
            limit 1
        ) as under_way",
    )
    .bind(columns.ids)
    .bind(columns.workspaces)
    .bind(columns.firsts)
    .bind(columns.behinds)
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(without(past, under_way))
}

/// Those that have no history any more.
async fn bare<'p>(tx: &mut PgTransaction<'_>, past: &[&'p Past]) -> Result<Vec<&'p Past>> {
    let columns = Columns::of(past);
    let delivered: Vec<Uuid> = sqlx::query_scalar(
        "-- postgres::retention::bare
        select old.id
        from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[])
            as old (id, workspace, first, behind)
        cross join lateral (
            select 1
            from delivery d
            where d.workspace = old.workspace
              and d.id >= old.first
              and d.id < old.behind
              and d.event_id = old.id
            limit 1
        ) as delivered",
    )
    .bind(columns.ids)
    .bind(columns.workspaces)
    .bind(columns.firsts)
    .bind(columns.behinds)
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(without(past, delivered))
}

fn without<'p>(past: &[&'p Past], found: Vec<Uuid>) -> Vec<&'p Past> {
    let found: HashSet<Uuid> = found.into_iter().collect();
    let left = past.iter().filter(|past| !found.contains(&past.old.id));
    left.copied().collect()
}

/// Removes what was settled of these before then, at most [`MOST_DELIVERIES`]; answers how many
/// deliveries, and how many attempts.
async fn delete_deliveries(
    tx: &mut PgTransaction<'_>,
    past: &[&Past],
    before: DateTime<Utc>,
) -> Result<(u64, u64)> {
    let columns = Columns::of(past);
    let (deliveries, attempts): (i64, i64) = sqlx::query_as(
        "-- postgres::retention::delete_deliveries
        with old as materialized (
            select d.id, d.workspace, d.found_at
            from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[])
                as event (id, workspace, first, behind)
            cross join lateral (
                select delivery.id, delivery.workspace, delivery.ctid as found_at
                from delivery
                where delivery.workspace = event.workspace
                  and delivery.id >= event.first
                  and delivery.id < event.behind
                  and delivery.event_id = event.id
                  and delivery.settled_at < $5
                limit $6
            ) as d
            limit $6
        ), tried as (
            delete from attempt
            where ctid = any(array(
                select a.found_at
                from old
                cross join lateral (
                    select attempt.ctid as found_at
                    from attempt
                    where attempt.delivery_id = old.id and attempt.workspace = old.workspace
                    offset 0
                ) as a
            ))
            returning 1
        ), gone as (
            delete from delivery where ctid = any(array(select found_at from old)) returning 1
        )
        select (select count(*) from gone), (select count(*) from tried)",
    )
    .bind(columns.ids)
    .bind(columns.workspaces)
    .bind(columns.firsts)
    .bind(columns.behinds)
    .bind(before)
    .bind(limit(MOST_DELIVERIES))
    .fetch_one(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok((counted(deliveries), counted(attempts)))
}

/// Lists what the events are recognised by, so that it can be forgotten in its time.
async fn list_keys(tx: &mut PgTransaction<'_>, past: &[&Past]) -> Result<()> {
    sqlx::query(
        "-- postgres::retention::list_keys
        insert into event_key_age (at, key)
        select unnest($1::timestamptz[]), unnest($2::uuid[])
        on conflict on constraint event_key_age_pk do nothing",
    )
    .bind(past.iter().map(|past| past.accepted_at).bind_iter())
    .bind(past.iter().map(|past| past.key).bind_iter())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

async fn delete_events(tx: &mut PgTransaction<'_>, past: &[&Past]) -> Result<u64> {
    let done = sqlx::query(
        "-- postgres::retention::delete_events
        delete from event where id = any($1) and workspace = any($2)",
    )
    .bind(past.iter().map(|past| past.old.id).bind_iter())
    .bind(
        past.iter()
            .map(|past| past.old.workspace.as_str())
            .bind_iter(),
    )
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(done.rows_affected())
}
