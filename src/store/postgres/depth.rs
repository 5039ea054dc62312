//! How much waits, told at a cost that does not grow with the queue.

use super::errors::from_sqlx;
use super::queue::seconds;
use super::rows::lane_number;
use super::{PostgresStore, Result, StoreError};
use crate::domain::delivery::Lane;
use crate::store::QueueDepth;

/// Up to so many deliveries are counted one by one.
const COUNTED: i64 = 10_000;

/// Of a longer queue about so many pages are read; chance chooses which.
const SAMPLED_PAGES: f64 = 1_000.0;

impl PostgresStore {
    /// A million rows take a fifth of a second to count, and are asked after every few seconds by
    /// every replica. So only a short queue is counted. The sample misses the true number by three
    /// percent or so, more where little is left of a queue that was much longer; what the planner
    /// remembers of the table would be cheaper still, and as old as the last vacuum.
    pub(super) async fn depth(&self) -> Result<QueueDepth> {
        let mut connection = self.connection().await?;
        let (mut pending, mut in_flight, oldest_secs): (i64, i64, Option<f64>) = sqlx::query_as(
            "-- postgres::depth::depth (count)
            select
                count(*) filter (where owner is null),
                count(*) filter (where owner is not null),
                (
                    select extract(epoch from now() - min(oldest.visible_at))::float8
                    from subscription s
                    cross join unnest($1::smallint[]) as lanes (lane)
                    cross join lateral (
                        select q.visible_at
                        from delivery_queue q
                        where q.subscription_id = s.id
                          and q.lane = lanes.lane
                          and q.visible_at <= now()
                          and q.owner is null
                        order by q.visible_at
                        limit 1
                    ) as oldest
                    where s.status = 'active'
                      and not exists (
                        select from circuit c where c.subscription_id = s.id and c.state = 'open'
                      )
                )
            from (
                select owner
                from delivery_queue
                order by delivery_id
                limit $2
            ) as first",
        )
        .bind(Lane::ALL.map(lane_number))
        .bind(COUNTED)
        .fetch_one(&mut *connection)
        .await
        .map_err(from_sqlx)?;
        if pending + in_flight == COUNTED {
            (pending, in_flight) = sqlx::query_as(
                "-- postgres::depth::depth (estimate)
                with size as materialized (
                    select pg_relation_size('delivery_queue')::float8
                        / current_setting('block_size')::float8 as pages
                ), sample as (
                    select
                        count(*) filter (where owner is null) as pending,
                        count(*) filter (where owner is not null) as in_flight
                    from delivery_queue
                    tablesample system (least(100, 100 * $1 / (select pages from size)))
                )
                select
                    (pending * greatest(1, pages / $1))::bigint,
                    (in_flight * greatest(1, pages / $1))::bigint
                from sample
                cross join size",
            )
            .bind(SAMPLED_PAGES)
            .fetch_one(&mut *connection)
            .await
            .map_err(from_sqlx)?;
        }
        Ok(QueueDepth {
            pending: u64::try_from(pending).map_err(StoreError::corrupt)?,
            in_flight: u64::try_from(in_flight).map_err(StoreError::corrupt)?,
            oldest_due: oldest_secs.map(seconds),
        })
    }
}
