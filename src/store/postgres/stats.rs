//! How it goes with a subscription.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::FromRow;
use uuid::Uuid;

use super::errors::{from_sqlx, reading};
use super::queue::seconds;
use super::rows::{lane_number, limit, projects};
use super::{PostgresStore, Result, StoreError};
use crate::domain::delivery::Lane;
use crate::domain::ids::{SubscriptionId, first_at};
use crate::domain::reach::Reach;
use crate::store::Tally;
use crate::store::stats::{MAX_COUNTED, Stats, SubscriptionStats, counted_since, window_start};

/// See [`PostgresStore::count`].
const COUNT: &str = "-- postgres::stats::count
    with own as (
        select id
        from subscription
        where workspace = $1
          and id = $2
          and status <> 'deleted'
          and ($3::text[] is null or project_ids <@ $3)
    ), waiting as (
        select
            coalesce(sum(look.pending), 0)::bigint as pending,
            coalesce(sum(look.in_flight), 0)::bigint as in_flight,
            coalesce(bool_or(look.rows = $5), false) as cut,
            extract(epoch from now() - min(look.oldest))::float8 as oldest_due_secs
        from own
        cross join unnest($4::smallint[]) as lanes (lane)
        cross join lateral (
            select
                count(*) as rows,
                count(*) filter (where due.owner is null) as pending,
                count(*) filter (where due.owner is not null) as in_flight,
                min(due.visible_at) filter (where due.owner is null) as oldest
            from (
                select q.owner, q.visible_at
                from delivery_queue q
                where q.subscription_id = own.id
                  and q.workspace = $1
                  and q.lane = lanes.lane
                  and q.visible_at <= now()
                order by q.visible_at
                limit $5
            ) as due
            union all
            select
                count(*),
                count(*) filter (where later.owner is null),
                count(*) filter (where later.owner is not null),
                null
            from (
                select q.owner
                from delivery_queue q
                where q.subscription_id = own.id
                  and q.workspace = $1
                  and q.lane = lanes.lane
                  and q.visible_at > now()
                order by q.visible_at
                limit $5
            ) as later
        ) as look
    ), settled as materialized (
        select d.id, d.state, d.attempts
        from own
        cross join lateral (
            select d.id, d.state, d.attempts
            from delivery d
            where d.subscription_id = own.id
              and d.workspace = $1
              and d.id >= $6
            order by d.id desc
            limit $5
        ) as d
    ), made as (
        select
            count(*) filter (where state = 'succeeded') as succeeded,
            count(*) filter (where state = 'failed') as failed,
            count(*) filter (where state = 'cancelled') as cancelled,
            coalesce(sum(attempts), 0)::bigint as attempts
        from settled
    )
    select
        waiting.pending, waiting.in_flight, waiting.cut, waiting.oldest_due_secs,
        made.succeeded, made.failed, made.cancelled, made.attempts,
        (select id from settled order by id desc limit 1 offset $5 - 1) as edge
    from own
    cross join waiting
    cross join made";

#[async_trait]
impl Stats for PostgresStore {
    async fn subscription_stats(
        &self,
        reach: &Reach,
        id: SubscriptionId,
        window: Duration,
    ) -> Result<Option<SubscriptionStats>> {
        // The ids of deliveries are made by the clocks of processes like this one.
        let begin = window_start(self.clock.now(), window);
        let row = reading(self.count(reach, id, first_at(begin))).await?;
        row.map(|row| {
            Ok(SubscriptionStats {
                pending: Tally::of(number(row.pending)?, row.cut),
                in_flight: Tally::of(number(row.in_flight)?, row.cut),
                oldest_due: row.oldest_due_secs.map(seconds),
                since: counted_since(begin, row.edge),
                succeeded: number(row.succeeded)?,
                failed: number(row.failed)?,
                cancelled: number(row.cancelled)?,
                attempts: number(row.attempts)?,
            })
        })
        .transpose()
    }
}

#[derive(FromRow)]
struct StatsRow {
    pending: i64,
    in_flight: i64,
    cut: bool,
    oldest_due_secs: Option<f64>,
    succeeded: i64,
    failed: i64,
    cancelled: i64,
    attempts: i64,
    edge: Option<Uuid>,
}

impl PostgresStore {
    /// Walks the queue's index of what is due, from the first that is due and from the first that is
    /// not, and the history's index of the subscription, each so far and no further.
    async fn count(
        &self,
        reach: &Reach,
        id: SubscriptionId,
        from: Uuid,
    ) -> Result<Option<StatsRow>> {
        sqlx::query_as(COUNT)
            .bind(reach.workspace.as_str())
            .bind(id.uuid())
            .bind(projects(reach))
            .bind(Lane::ALL.map(lane_number))
            .bind(limit(MAX_COUNTED))
            .bind(from)
            .fetch_optional(&self.pool)
            .await
            .map_err(from_sqlx)
    }
}

fn number(value: i64) -> Result<u64> {
    u64::try_from(value).map_err(StoreError::corrupt)
}
