//! What receivers answered to attempts.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgTransaction;
use uuid::Uuid;

use super::super::errors::from_sqlx;
use super::super::rows::limit as rows;
use super::super::{PostgresStore, Result, commit};
use super::Turn;
use crate::domain::ids::first_at;
use crate::store::lease::Lease;
use crate::store::retention::{FIRST_ATTEMPT_WITHIN, Kept, Removed, Swept};

/// What an attempt is known by: delivery and epoch.
type Attempt = (Uuid, i32);

impl PostgresStore {
    /// In the order of the primary key, up to deliveries whose first attempts are old enough for certain;
    /// then later attempts, which may have come behind that.
    pub(super) async fn sweep_answers(
        &self,
        held: &Lease,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>> {
        let Some(Turn { mut tx, before }) = self.turn(held, age).await? else {
            return Ok(None);
        };
        let next = in_order(&mut tx, before, limit).await?;
        let again = match next.last() {
            Some(last) => {
                move_mark(&mut tx, *last).await?;
                Vec::new()
            }
            None => made_again(&mut tx, before, limit).await?,
        };
        if next.is_empty() && again.is_empty() {
            return Ok(Some(Swept::nothing()));
        }
        let removed = strip(&mut tx, &[next, again].concat(), before).await?;
        commit(tx).await?;
        Ok(Some(Swept::some(Removed::of(Kept::Answer, removed))))
    }
}

/// The attempts behind the mark.
async fn in_order(
    tx: &mut PgTransaction<'_>,
    before: DateTime<Utc>,
    limit: usize,
) -> Result<Vec<Attempt>> {
    let (delivery, epoch): Attempt = sqlx::query_as(
        "-- postgres::retention::in_order (mark)
        select delivery_id, epoch from attempt_mark",
    )
    .fetch_one(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    sqlx::query_as(
        "-- postgres::retention::in_order
        select delivery_id, epoch
        from attempt
        where (delivery_id, epoch) > ($1, $2) and delivery_id < $3
        order by delivery_id, epoch
        limit $4",
    )
    .bind(delivery)
    .bind(epoch)
    .bind(first_at(before - FIRST_ATTEMPT_WITHIN))
    .bind(rows(limit))
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)
}

/// Later attempts and a replay's that are old enough, and have an answer yet. In the words of the index.
async fn made_again(
    tx: &mut PgTransaction<'_>,
    before: DateTime<Utc>,
    limit: usize,
) -> Result<Vec<Attempt>> {
    sqlx::query_as(
        "-- postgres::retention::made_again
        select delivery_id, epoch
        from attempt
        where (epoch > 1 or trigger = 'replay')
          and (response_headers <> '[]' or response_excerpt <> '')
          and at < $1
        order by at
        limit $2",
    )
    .bind(before)
    .bind(rows(limit))
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)
}

async fn strip(
    tx: &mut PgTransaction<'_>,
    attempts: &[Attempt],
    before: DateTime<Utc>,
) -> Result<u64> {
    let (deliveries, epochs): (Vec<Uuid>, Vec<i32>) = attempts.iter().copied().unzip();
    let done = sqlx::query(
        "-- postgres::retention::strip
        update attempt
        set response_headers = '[]', response_excerpt = ''
        where ctid = any(array(
            select answered.found_at
            from unnest($1::uuid[], $2::integer[]) as old (delivery_id, epoch)
            cross join lateral (
                select ctid as found_at
                from attempt
                where attempt.delivery_id = old.delivery_id
                  and attempt.epoch = old.epoch
                  and at < $3
                  and (response_headers <> '[]' or response_excerpt <> '')
                limit 1
            ) as answered
        ))",
    )
    .bind(deliveries)
    .bind(epochs)
    .bind(before)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(done.rows_affected())
}

async fn move_mark(tx: &mut PgTransaction<'_>, last: Attempt) -> Result<()> {
    sqlx::query(
        "-- postgres::retention::move_mark
        update attempt_mark set delivery_id = $1, epoch = $2",
    )
    .bind(last.0)
    .bind(last.1)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}
