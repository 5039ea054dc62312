//! How much waits, told at a cost that does not grow with the queue.

use std::time::Duration;

use super::SqliteStore;
use super::error::store_error;
use super::rows::{count, get, millis, unsigned};
use crate::store::{QueueDepth, Result};

/// Up to so many deliveries are counted.
const COUNTED: usize = 100_000;

impl SqliteStore {
    /// A long queue is not counted to its end: it would hold a reader for seconds, every few seconds, and
    /// there is nothing here that could be sampled instead.
    pub(super) async fn depth(&self) -> Result<QueueDepth> {
        let mut transaction = self.read().await?;
        let now = millis(self.clock.now());
        let row = sqlx::query(
            "-- sqlite::depth::depth
            select
                count(*) filter (where owner is null) as pending,
                count(*) filter (where owner is not null) as in_flight,
                (
                    select min((
                        select due.visible_at
                        from delivery_queue as due
                        where due.subscription_id = subscription.id
                            and due.lane = lane.value
                            and due.visible_at <= ?1 and due.owner is null
                        order by due.visible_at
                        limit 1
                    ))
                    from subscription
                    cross join json_each('[0, 1, 2]') as lane
                    where subscription.status = 'active'
                        and not exists (
                            select 1 from circuit
                            where subscription_id = subscription.id and state = 'open'
                        )
                ) as oldest
            from (select owner from delivery_queue limit ?2)",
        )
        .bind(now)
        .bind(count(COUNTED))
        .fetch_one(&mut *transaction)
        .await
        .map_err(store_error)?;
        Ok(QueueDepth {
            pending: unsigned(&row, "pending")?,
            in_flight: unsigned(&row, "in_flight")?,
            oldest_due: get::<Option<i64>>(&row, "oldest")?
                .and_then(|oldest| u64::try_from(now - oldest).ok())
                .map(Duration::from_millis),
        })
    }
}
