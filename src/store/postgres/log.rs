//! What was and is delivered: the queue and the history as one list.

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use uuid::Uuid;

use super::errors::{from_sqlx, reading};
use super::rows::{AttemptRow, DeliveryRow, limit, projects};
use super::{PostgresStore, Result};
use crate::domain::delivery::DeliveryState;
use crate::domain::filter::EventType;
use crate::domain::ids::{DeliveryId, EditionId, SubscriptionId};
use crate::domain::reach::Reach;
use crate::store::search::{Search, Seen};
use crate::store::{AttemptRecord, DeliveryFilter, DeliveryLog, DeliveryRecord, Page, PageRequest};

#[async_trait]
impl DeliveryLog for PostgresStore {
    async fn deliveries(
        &self,
        reach: &Reach,
        filter: &DeliveryFilter,
        page: PageRequest<DeliveryId>,
    ) -> Result<Page<DeliveryRecord, DeliveryId>> {
        let mut search = Search::new(reach, filter, page);
        reading(async {
            match (filter.event, filter.subscription) {
                (Some(event), Some(only)) => search.of_event(event, [only]),
                (Some(event), None) => search.of_event(event, self.subscribers(reach).await?),
                (None, _) => {}
            }
            if search.is_of_workspace() {
                let all = self.subscribers(reach).await?;
                search.among = Some(all.into_iter().map(|id| id.uuid()).collect());
            }
            loop {
                if let Some(page) = search.take(self.look_at(&search).await?) {
                    return Ok(page);
                }
            }
        })
        .await
    }

    async fn delivery(&self, reach: &Reach, id: DeliveryId) -> Result<Option<DeliveryRecord>> {
        let everything = DeliveryFilter::default();
        let one = PageRequest {
            limit: 1,
            after: None,
        };
        let mut search = Search::new(reach, &everything, one);
        search.ids = Some(vec![id.uuid()]);
        Ok(reading(self.look_at(&search)).await?.found.pop())
    }

    async fn attempts(
        &self,
        reach: &Reach,
        id: DeliveryId,
        page: PageRequest<i32>,
    ) -> Result<Page<AttemptRecord, i32>> {
        let rows: Vec<AttemptRow> = reading(async {
            sqlx::query_as(
                "-- postgres::log::attempts
                select
                    epoch, at, duration_ms, trigger, status, error, response_headers,
                    response_excerpt, lease_lost
                from attempt
                where workspace = $1
                  and delivery_id = $2
                  and ($3::integer is null or epoch > $3)
                  and ($4::text[] is null or exists (
                      select
                      from (
                          select event_id, subscription_id
                          from delivery_queue
                          where workspace = $1 and delivery_id = $2
                          union all
                          select event_id, subscription_id
                          from delivery
                          where workspace = $1 and id = $2
                      ) as made
                      join event
                          on event.id = made.event_id
                          and event.workspace = $1
                          and event.project = any($4)
                      join subscription s
                          on s.id = made.subscription_id
                          and s.workspace = $1
                          and s.project_ids <@ $4
                  ))
                order by epoch
                limit $5",
            )
            .bind(reach.workspace.as_str())
            .bind(id.uuid())
            .bind(page.after)
            .bind(projects(reach))
            .bind(limit(page.limit.saturating_add(1)))
            .fetch_all(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        let items = rows
            .into_iter()
            .map(AttemptRow::into_record)
            .collect::<Result<_>>()?;
        Ok(Page::of(items, page.limit, |record: &AttemptRecord| {
            record.epoch
        }))
    }
}

/// See [`PostgresStore::look_at`].
const LOOK_AT: &str = "-- postgres::log::look_at
    with looked as materialized (
        select id, event_id, subscription_id, state, attempts, due_at, settled_at
        from (
            (
                select
                    q.delivery_id as id, q.event_id, q.subscription_id,
                    case when q.owner is null then 'pending' else 'in_flight' end as state,
                    q.attempts,
                    case when q.owner is null then nullif(q.visible_at, 'infinity') end as due_at,
                    null::timestamptz as settled_at
                from delivery_queue q
                where q.workspace = $1
                  and ($2::uuid is null or q.subscription_id = $2)
                  and ($15::uuid[] is null or q.subscription_id = any($15))
                  and ($3::uuid[] is null or q.delivery_id = any($3))
                  and ($4::uuid is null or q.delivery_id >= $4)
                  and ($5::uuid is null or q.delivery_id < $5)
                  -- What is sent once more after it succeeded is in history all the while.
                  and q.replayed is distinct from 'succeeded'
                  and $6
                order by q.delivery_id desc
                limit $9
            )
            union all
            (
                select
                    d.id, d.event_id, d.subscription_id, d.state, d.attempts, null::timestamptz,
                    d.settled_at
                from delivery d
                where d.workspace = $1
                  and ($2::uuid is null or d.subscription_id = $2)
                  and ($3::uuid[] is null or d.id = any($3))
                  and ($4::uuid is null or d.id >= $4)
                  and ($5::uuid is null or d.id < $5)
                  and $7
                  -- Each in the words of its index.
                  and (not $8 or $2 is not null or d.state <> 'succeeded')
                  and (not $8 or $2 is null or (d.state = 'succeeded') is not true)
                order by d.id desc
                limit $9
            )
        ) as halves
        order by id desc
        limit $9
    ), found as (
        select
            looked.id, looked.event_id, event.type as event_type, event.project, event.edition,
            looked.subscription_id, looked.state, looked.attempts, looked.due_at,
            looked.settled_at
        from looked
        cross join lateral (
            select event.type, event.project, event.edition
            from event
            where event.id = looked.event_id and event.workspace = $1
            limit 1
        ) as event
        where ($10::text is null or looked.state = $10)
          and ($11::text is null or event.type = $11)
          and ($12::text is null or event.edition = $12)
          and ($13::text[] is null or (
              event.project = any($13)
              and exists (
                  select
                  from subscription s
                  where s.id = looked.subscription_id
                    and s.workspace = $1
                    and s.project_ids <@ $13
              )
          ))
        order by looked.id desc
        limit $14
    )
    select
        edge.id as edge,
        found.id, found.event_id, found.event_type, found.project, found.edition,
        found.subscription_id, found.state, found.attempts, found.due_at, found.settled_at
    from (
        select (select id from looked order by id desc limit 1 offset $9 - 1) as id
    ) as edge
    left join found on true
    order by found.id desc";

impl PostgresStore {
    /// Looks at the newest rows within the bounds and answers those that match. Each half is cut
    /// before the two are merged; conditions on parameters alone are settled when the statement is
    /// planned, so a half that can hold nothing is not looked at. Events are looked up one by one
    /// (`limit 1` in a lateral keeps the planner to it). A lease that ran out is `in_flight` until it
    /// is taken over or settled, as the state machine has it: nothing but a step changes a state.
    ///
    /// The queue has no order within a workspace. Its few rows in another's long queue are found by their
    /// subscriptions and sorted, its many by walking the queue: the planner knows which is less. (An index
    /// by workspace would cost each delivery a fifth more of what the queue costs it.)
    async fn look_at(&self, search: &Search<'_>) -> Result<Seen> {
        let filter = search.filter;
        let rows = sqlx::query(LOOK_AT)
            .bind(search.reach.workspace.as_str())
            .bind(filter.subscription.map(|id| id.uuid()))
            .bind(search.ids.as_deref())
            .bind(search.from)
            .bind(search.below)
            .bind(search.in_queue())
            .bind(search.in_history())
            .bind(search.not_succeeded())
            .bind(limit(search.look))
            .bind(filter.state.map(DeliveryState::as_str))
            .bind(filter.event_type.as_ref().map(EventType::as_str))
            .bind(filter.edition.as_ref().map(EditionId::as_str))
            .bind(projects(search.reach))
            .bind(limit(search.wanted()))
            .bind(search.among.as_deref())
            .fetch_all(&self.pool)
            .await
            .map_err(from_sqlx)?;
        let mut seen = Seen {
            found: Vec::with_capacity(rows.len()),
            edge: None,
        };
        for row in &rows {
            seen.edge = column(row, "edge")?.map(DeliveryId::from_uuid);
            // Where nothing matched there is one row, of the edge alone.
            if column(row, "id")?.is_some() {
                let found = DeliveryRow::from_row(row).map_err(from_sqlx)?;
                seen.found.push(found.into_record()?);
            }
        }
        Ok(seen)
    }

    /// All subscriptions that there are or were, those out of reach too: they match nothing.
    pub(super) async fn subscribers(&self, reach: &Reach) -> Result<Vec<SubscriptionId>> {
        let ids: Vec<Uuid> = sqlx::query_scalar(
            "-- postgres::log::subscribers
            select id
            from subscription
            where workspace = $1",
        )
        .bind(reach.workspace.as_str())
        .fetch_all(&self.pool)
        .await
        .map_err(from_sqlx)?;
        Ok(ids.into_iter().map(SubscriptionId::from_uuid).collect())
    }
}

fn column(row: &PgRow, name: &str) -> Result<Option<Uuid>> {
    row.try_get(name).map_err(from_sqlx)
}
