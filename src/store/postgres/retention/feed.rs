//! The oldest events of a feed, and events that are in none.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgTransaction};
use uuid::Uuid;

use super::super::errors::from_sqlx;
use super::super::rows::limit as rows;
use super::super::{PostgresStore, Result, commit};
use super::Turn;
use super::past::{self, Past};
use crate::domain::ids::{EventId, first_at};
use crate::store::lease::Lease;
use crate::store::retention::{Kept, Old, Rest, Swept, fitting};

/// A place of a feed with its event, if that is there.
#[derive(FromRow)]
struct PlaceRow {
    position: i64,
    id: Option<Uuid>,
    source: Option<String>,
    external_id: Option<String>,
    accepted_at: Option<DateTime<Utc>>,
    bytes: i64,
}

impl PlaceRow {
    fn into_past(self, workspace: &str) -> Option<Past> {
        let old = Old {
            id: self.id?,
            workspace: workspace.to_owned(),
        };
        let (source, external_id) = (self.source?, self.external_id?);
        Some(Past::new(old, &source, &external_id, self.accepted_at?))
    }
}

/// An event by itself.
#[derive(FromRow)]
struct EventRow {
    id: Uuid,
    workspace: String,
    source: String,
    external_id: String,
    accepted_at: DateTime<Utc>,
    bytes: i64,
}

impl PostgresStore {
    /// See [`crate::store::Retention::remove_events`].
    pub(super) async fn leave_feed(
        &self,
        held: &Lease,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>> {
        let Some(Turn { mut tx, before }) = self.turn(held, age).await? else {
            return Ok(None);
        };
        let Some(workspace) = begins_before(&mut tx, before).await? else {
            return Ok(Some(Swept::nothing()));
        };
        let places = places(&mut tx, &workspace, limit).await?;
        let many = fitting(places.iter().map(|place| place.bytes));
        let is_old = |place: &PlaceRow| place.accepted_at.is_none_or(|at| at < before);
        let mut up_to = 0;
        let mut events = Vec::with_capacity(many);
        for place in places.into_iter().take(many).take_while(is_old) {
            up_to = place.position;
            events.extend(place.into_past(&workspace));
        }
        let mut swept = past::remove(&mut tx, &events, before).await?;
        if swept.rest == Rest::Nothing {
            let gone = raise_floor(&mut tx, &workspace, up_to).await?;
            swept.removed.add(Kept::FeedPlace, gone);
            swept.rest = Rest::Some;
        }
        commit(tx).await?;
        Ok(Some(swept))
    }

    /// See [`crate::store::Retention::remove_loose_events`].
    pub(super) async fn sweep_loose(
        &self,
        held: &Lease,
        age: Duration,
        after: Option<EventId>,
        limit: usize,
    ) -> Result<Option<Swept>> {
        let Some(Turn { mut tx, before }) = self.turn(held, age).await? else {
            return Ok(None);
        };
        let mut found: Vec<EventRow> = sqlx::query_as(
            "-- postgres::retention::sweep_loose
            select
                id, workspace, source, external_id, accepted_at,
                octet_length(body)::bigint as bytes
            from event
            where id > $1 and id < $2
            order by id
            limit $3",
        )
        .bind(after.map_or(Uuid::nil(), |id| id.uuid()))
        .bind(first_at(before))
        .bind(rows(limit))
        .fetch_all(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        found.truncate(fitting(found.iter().map(|event| event.bytes)));
        let Some(last) = found.last().map(|event| event.id) else {
            return Ok(Some(Swept::nothing()));
        };
        let old = found.into_iter().filter(|event| event.accepted_at < before);
        let past: Vec<Past> = old
            .map(|event| {
                let old = Old {
                    id: event.id,
                    workspace: event.workspace,
                };
                Past::new(old, &event.source, &event.external_id, event.accepted_at)
            })
            .collect();
        let mut swept = past::remove(&mut tx, &past, before).await?;
        commit(tx).await?;
        if swept.rest == Rest::Nothing {
            swept.rest = Rest::Behind(EventId::from_uuid(last));
        }
        Ok(Some(swept))
    }
}

/// A workspace whose feed begins with what was accepted before then. The walk goes from one to the next in
/// a few seeks each. A place whose event is missing is as old as can be.
async fn begins_before(
    tx: &mut PgTransaction<'_>,
    before: DateTime<Utc>,
) -> Result<Option<String>> {
    sqlx::query_scalar(
        "-- postgres::retention::begins_before
        with recursive feed (workspace) as (
            (select workspace from event_feed order by workspace limit 1)
            union all
            select (
                select event_feed.workspace
                from event_feed
                where event_feed.workspace > feed.workspace
                order by event_feed.workspace
                limit 1
            )
            from feed
            where feed.workspace is not null
        )
        select feed.workspace
        from feed
        cross join lateral (
            select event_id
            from event_feed
            where event_feed.workspace = feed.workspace
            order by position
            limit 1
        ) as oldest
        left join lateral (
            select accepted_at
            from event
            where event.id = oldest.event_id and event.workspace = feed.workspace
            limit 1
        ) as event on true
        where coalesce(event.accepted_at < $1, true)
        limit 1",
    )
    .bind(before)
    .fetch_optional(&mut **tx)
    .await
    .map_err(from_sqlx)
}

async fn places(
    tx: &mut PgTransaction<'_>,
    workspace: &str,
    limit: usize,
) -> Result<Vec<PlaceRow>> {
    sqlx::query_as(
        "-- postgres::retention::places
        select
            place.position, event.id, event.source, event.external_id, event.accepted_at,
            coalesce(event.bytes, 0) as bytes
        from (
            select position, event_id
            from event_feed
            where workspace = $1
            order by position
            limit $2
        ) as place
        left join lateral (
            select id, source, external_id, accepted_at, octet_length(body)::bigint as bytes
            from event
            where id = place.event_id and workspace = $1
            limit 1
        ) as event on true
        order by place.position",
    )
    .bind(workspace)
    .bind(rows(limit))
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)
}

/// Removes the places, and says so to those who have not read them.
async fn raise_floor(tx: &mut PgTransaction<'_>, workspace: &str, up_to: i64) -> Result<u64> {
    let done = sqlx::query(
        "-- postgres::retention::raise_floor (places)
        delete from event_feed where workspace = $1 and position <= $2",
    )
    .bind(workspace)
    .bind(up_to)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    sqlx::query(
        "-- postgres::retention::raise_floor (floor)
        insert into event_feed_floor as floor (workspace, position)
        values ($1, $2)
        on conflict on constraint event_feed_floor_pk do update
        set position = excluded.position
        where excluded.position > floor.position",
    )
    .bind(workspace)
    .bind(up_to)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(done.rows_affected())
}
