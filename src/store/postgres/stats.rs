//! How it goes with a subscription, and what was attempted in all of a workspace.

use async_trait::async_trait;
use sqlx::{FromRow, PgConnection};

use super::errors::{from_sqlx, reading};
use super::queue::seconds;
use super::rows::{lane_number, limit, projects};
use super::{PostgresStore, Result, StoreError, rollups};
use crate::domain::delivery::Lane;
use crate::domain::ids::SubscriptionId;
use crate::domain::reach::Reach;
use crate::store::Tally;
use crate::store::stats::{MAX_COUNTED, Series, Stats, SubscriptionStats, Window, are_few};

/// See [`count`].
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
    )
    select waiting.pending, waiting.in_flight, waiting.cut, waiting.oldest_due_secs
    from own
    cross join waiting";

#[async_trait]
impl Stats for PostgresStore {
    async fn subscription_stats(
        &self,
        reach: &Reach,
        id: SubscriptionId,
        window: Window,
    ) -> Result<Option<SubscriptionStats>> {
        reading(async {
            let mut connection = self.connection().await?;
            let Some(row) = count(&mut connection, reach, id).await? else {
                return Ok(None);
            };
            // Attempts have their times from the clocks of processes like this one.
            let now = self.clock.now();
            let past = rollups::series(&mut connection, (reach, Some(id)), window, now).await?;
            Ok(Some(SubscriptionStats {
                pending: Tally::of(number(row.pending)?, row.cut),
                in_flight: Tally::of(number(row.in_flight)?, row.cut),
                oldest_due: row.oldest_due_secs.map(seconds),
                past,
            }))
        })
        .await
    }

    async fn workspace_series(&self, reach: &Reach, window: Window) -> Result<Option<Series>> {
        reading(async {
            let mut connection = self.connection().await?;
            if !are_few(window, number_in_reach(&mut connection, reach).await?) {
                return Ok(None);
            }
            let now = self.clock.now();
            let series = rollups::series(&mut connection, (reach, None), window, now).await?;
            Ok(Some(series))
        })
        .await
    }
}

#[derive(FromRow)]
struct StatsRow {
    pending: i64,
    in_flight: i64,
    cut: bool,
    oldest_due_secs: Option<f64>,
}

/// Walks the queue's index of what is due, from the first that is due and from the first that is not,
/// each so far and no further.
async fn count(
    connection: &mut PgConnection,
    reach: &Reach,
    id: SubscriptionId,
) -> Result<Option<StatsRow>> {
    sqlx::query_as(COUNT)
        .bind(reach.workspace.as_str())
        .bind(id.uuid())
        .bind(projects(reach))
        .bind(Lane::ALL.map(lane_number))
        .bind(limit(MAX_COUNTED))
        .fetch_optional(connection)
        .await
        .map_err(from_sqlx)
}

async fn number_in_reach(connection: &mut PgConnection, reach: &Reach) -> Result<u64> {
    let found = sqlx::query_scalar(
        "-- postgres::stats::number_in_reach
        select count(*)
        from subscription
        where workspace = $1
          and status <> 'deleted'
          and ($2::text[] is null or project_ids <@ $2)",
    )
    .bind(reach.workspace.as_str())
    .bind(projects(reach))
    .fetch_one(connection)
    .await
    .map_err(from_sqlx)?;
    number(found)
}

fn number(value: i64) -> Result<u64> {
    u64::try_from(value).map_err(StoreError::corrupt)
}
