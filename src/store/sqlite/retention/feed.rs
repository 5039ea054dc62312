//! The oldest events of a feed, and events that are in none.

use std::collections::HashMap;

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::super::SqliteStore;
use super::super::bulk::{self, Bulk};
use super::super::error::store_error;
use super::super::rows::{count, get, to_time};
use super::past::{self, Past};
use crate::domain::ids::{EventId, first_at};
use crate::store::Result;
use crate::store::lease::Lease;
use crate::store::retention::{Kept, Old, Rest, Swept, fitting};

/// The oldest of a workspace's feed, as far as it is old enough.
pub(super) struct Oldest {
    workspace: String,
    /// The place of the last of them.
    up_to: i64,
    events: Vec<Past>,
}

impl SqliteStore {
    /// Looks for a workspace whose feed begins with what was accepted before then. A place whose event
    /// is missing is as old as can be.
    pub(super) async fn oldest_in_a_feed(
        &self,
        before: i64,
        limit: usize,
    ) -> Result<Option<Oldest>> {
        let mut reader = self.reader().await?;
        let workspace: Option<String> = sqlx::query_scalar(
            "-- sqlite::retention::oldest_in_a_feed (workspace)
            with recursive feed (workspace) as (
                select min(workspace) from event_feed
                union all
                select (
                    select min(event_feed.workspace)
                    from event_feed
                    where event_feed.workspace > feed.workspace
                )
                from feed
                where feed.workspace is not null
            )
            select workspace
            from feed
            where workspace is not null and coalesce((
                select accepted_at
                from event
                where event.workspace = feed.workspace and event.id = (
                    select event_id
                    from event_feed
                    where event_feed.workspace = feed.workspace
                    order by position
                    limit 1
                )
            ), ?1 - 1) < ?1
            limit 1",
        )
        .bind(before)
        .fetch_optional(&mut *reader)
        .await
        .map_err(store_error)?;
        let Some(workspace) = workspace else {
            return Ok(None);
        };
        let places = sqlx::query(
            "-- sqlite::retention::oldest_in_a_feed (places)
            select event_feed.position, event_feed.event_id,
                coalesce(octet_length(event.body), 0) as bytes
            from event_feed
            left join event on event.id = event_feed.event_id
                and event.workspace = event_feed.workspace
            where event_feed.workspace = ?1
            order by event_feed.position
            limit ?2",
        )
        .bind(&workspace)
        .bind(count(limit))
        .fetch_all(&mut *reader)
        .await
        .map_err(store_error)?;
        let mut all = Vec::with_capacity(places.len());
        let mut bytes = Vec::with_capacity(places.len());
        for row in &places {
            all.push((get(row, "position")?, get(row, "event_id")?));
            bytes.push(get(row, "bytes")?);
        }
        all.truncate(fitting(bytes));
        let ids: Vec<(String, Uuid)> = all.iter().map(|(_, id)| (workspace.clone(), *id)).collect();
        let mut known = read(&mut reader, &ids).await?;
        let mut oldest = Oldest {
            workspace,
            up_to: 0,
            events: Vec::with_capacity(all.len()),
        };
        for (position, id) in all {
            match known.remove(&id) {
                Some(past) if past.accepted_at >= before => break,
                Some(past) => oldest.events.push(past),
                None => {}
            }
            oldest.up_to = position;
        }
        Ok(Some(oldest))
    }

    /// Takes them out of their feed; what nothing holds is gone then.
    pub(super) async fn leave_feed(
        &self,
        held: &Lease,
        oldest: &Oldest,
        before: i64,
    ) -> Result<Option<Swept>> {
        let Some(mut transaction) = self.write_as(held).await? else {
            return Ok(None);
        };
        let mut swept = past::remove(&mut transaction, &oldest.events, before).await?;
        if swept.rest == Rest::Nothing {
            let places = raise_floor(&mut transaction, oldest).await?;
            swept.removed.add(Kept::FeedPlace, places);
            swept.rest = Rest::Some;
        }
        self.commit(transaction).await?;
        Ok(Some(swept))
    }

    /// See [`crate::store::Retention::remove_loose_events`].
    pub(super) async fn sweep_loose(
        &self,
        held: &Lease,
        before: i64,
        after: Option<EventId>,
        limit: usize,
    ) -> Result<Option<Swept>> {
        let mut reader = self.reader().await?;
        let rows = sqlx::query(
            "-- sqlite::retention::sweep_loose
            select id, workspace, octet_length(body) as bytes
            from event
            where id > ?1 and id < ?2
            order by id
            limit ?3",
        )
        .bind(after.map_or(Uuid::nil(), |id| id.uuid()))
        .bind(first_at(to_time(before)?))
        .bind(count(limit))
        .fetch_all(&mut *reader)
        .await
        .map_err(store_error)?;
        let mut ids: Vec<(String, Uuid)> = Vec::with_capacity(rows.len());
        let mut bytes = Vec::with_capacity(rows.len());
        for row in &rows {
            ids.push((get(row, "workspace")?, get(row, "id")?));
            bytes.push(get(row, "bytes")?);
        }
        ids.truncate(fitting(bytes));
        let Some((_, last)) = ids.last() else {
            drop(reader);
            return self.nothing_to_do(held).await;
        };
        let behind = Rest::Behind(EventId::from_uuid(*last));
        let mut past: Vec<Past> = read(&mut reader, &ids).await?.into_values().collect();
        past.retain(|past| past.accepted_at < before);
        // What is held back stays for long: the writer need not hear of it each time.
        let free = past::settled(&mut reader, &past.iter().collect::<Vec<_>>()).await?;
        drop(reader);
        if free.is_empty() {
            let swept = self.nothing_to_do(held).await?;
            return Ok(swept.map(|swept| Swept {
                rest: behind,
                ..swept
            }));
        }
        let Some(mut transaction) = self.write_as(held).await? else {
            return Ok(None);
        };
        let mut swept = past::remove(&mut transaction, &past, before).await?;
        self.commit(transaction).await?;
        if swept.rest == Rest::Nothing {
            swept.rest = behind;
        }
        Ok(Some(swept))
    }
}

/// What is needed of events, by their ids; those that are missing are left out.
async fn read(
    reader: &mut SqliteConnection,
    ids: &[(String, Uuid)],
) -> Result<HashMap<Uuid, Past>> {
    static SELECT: Bulk = Bulk::new(
        "-- sqlite::retention::read
        select id, workspace, source, external_id, accepted_at
        from event
        where (id, workspace) in (values ",
        "(?, ?)",
        ")",
    );
    let statements = SELECT.statements(
        ids,
        |statement, (workspace, id)| statement.bind(*id).bind(workspace.clone()),
        |rest| rest,
    );
    let mut read = HashMap::with_capacity(ids.len());
    for row in &bulk::fetch(reader, statements).await? {
        let id: Uuid = get(row, "id")?;
        let old = Old {
            id,
            workspace: get(row, "workspace")?,
        };
        let (source, external_id) = (get(row, "source")?, get(row, "external_id")?);
        let past = Past::new(old, source, external_id, get(row, "accepted_at")?);
        read.insert(id, past);
    }
    Ok(read)
}

/// Removes the places, and says so to those who have not read them.
async fn raise_floor(transaction: &mut SqliteConnection, oldest: &Oldest) -> Result<u64> {
    let done = sqlx::query(
        "-- sqlite::retention::raise_floor (places)
        delete from event_feed where workspace = ?1 and position <= ?2",
    )
    .bind(&oldest.workspace)
    .bind(oldest.up_to)
    .execute(&mut *transaction)
    .await
    .map_err(store_error)?;
    sqlx::query(
        "-- sqlite::retention::raise_floor (floor)
        insert into event_feed_floor (workspace, position)
        values (?1, ?2)
        on conflict (workspace) do update
        set position = excluded.position
        where excluded.position > position",
    )
    .bind(&oldest.workspace)
    .bind(oldest.up_to)
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(done.rows_affected())
}
