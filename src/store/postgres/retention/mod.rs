//! Removing what is old. Rows are looked up one by one and removed where they were found, as everywhere
//! here; nobody waits for what is old, so these transactions are in nobody's way.
//!
//! - `feed`: the oldest events of a feed, and events that are in none.
//! - `past`: what goes with an event. It is locked first: who makes a delivery of one that was there
//!   before locks it too (`for key share`), so that neither misses the other.
//! - `answers`: what receivers answered.
//! - `replays`: replays of many that ended.
//! - `rollups`: folded, and removed when they are old.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::PgTransaction;
use uuid::Uuid;

use super::errors::{from_sqlx, reading, retrying};
use super::idempotency::forget;
use super::rows::{interval, limit as rows};
use super::{PostgresStore, Result, commit};
use crate::domain::ids::{EventId, created_at, first_at};
use crate::store::lease::Lease;
use crate::store::retention::{Kept, Removed, Retention, Swept};
use crate::store::rollups::Resolution;

mod answers;
mod feed;
mod past;
mod replays;
mod rollups;

/// A transaction of the leader's.
struct Turn {
    tx: PgTransaction<'static>,
    /// What is older than this is old.
    before: DateTime<Utc>,
}

#[async_trait]
impl Retention for PostgresStore {
    async fn remove_events(
        &self,
        held: &Lease,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>> {
        retrying(|| self.leave_feed(held, age, limit)).await
    }

    async fn remove_loose_events(
        &self,
        held: &Lease,
        age: Duration,
        after: Option<EventId>,
        limit: usize,
    ) -> Result<Option<Swept>> {
        retrying(|| self.sweep_loose(held, age, after, limit)).await
    }

    async fn remove_answers(
        &self,
        held: &Lease,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>> {
        retrying(|| self.sweep_answers(held, age, limit)).await
    }

    async fn remove_audit_entries(
        &self,
        held: &Lease,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>> {
        retrying(|| self.sweep_audit_log(held, age, limit)).await
    }

    async fn remove_event_keys(
        &self,
        held: &Lease,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>> {
        retrying(|| self.sweep_keys(held, age, limit)).await
    }

    async fn remove_idempotency_keys(&self, held: &Lease, limit: usize) -> Result<Option<Swept>> {
        retrying(|| async {
            let Some(Turn { mut tx, .. }) = self.turn(held, Duration::ZERO).await? else {
                return Ok(None);
            };
            let removed = forget(&mut tx, limit).await?;
            commit(tx).await?;
            Ok(Some(Swept::of(Kept::IdempotencyKey, removed, limit)))
        })
        .await
    }

    async fn remove_replays(
        &self,
        held: &Lease,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>> {
        retrying(|| self.sweep_replays(held, age, limit)).await
    }

    async fn remove_rollups(
        &self,
        held: &Lease,
        resolution: Resolution,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>> {
        retrying(|| self.sweep_rollups(held, resolution, age, limit)).await
    }

    async fn remove_orphaned_rollups(&self, held: &Lease, limit: usize) -> Result<Option<Swept>> {
        retrying(|| self.sweep_orphaned_rollups(held, limit)).await
    }

    async fn oldest_event(&self) -> Result<Option<Duration>> {
        let (oldest, now): (Option<Uuid>, DateTime<Utc>) = reading(async {
            sqlx::query_as(
                "-- postgres::retention::oldest_event
                select (select id from event order by id limit 1), now()",
            )
            .fetch_one(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        let age = |id| (now - created_at(id)).to_std();
        Ok(oldest.map(|id| age(id).unwrap_or_default()))
    }
}

impl PostgresStore {
    /// Begins one; `None` if the lease is another's.
    async fn turn(&self, held: &Lease, age: Duration) -> Result<Option<Turn>> {
        let mut tx = self.begin().await?;
        let before: Option<DateTime<Utc>> = sqlx::query_scalar(
            "-- postgres::retention::turn
            select now() - $4::interval
            from lease
            where name = $1 and owner = $2 and fence = $3",
        )
        .bind(held.name.as_str())
        .bind(held.owner.uuid())
        .bind(held.fence)
        .bind(interval(age))
        .fetch_optional(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        Ok(before.map(|before| Turn { tx, before }))
    }

    /// The walk goes from one workspace to the next in a seek each.
    async fn sweep_audit_log(
        &self,
        held: &Lease,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>> {
        let Some(Turn { mut tx, before }) = self.turn(held, age).await? else {
            return Ok(None);
        };
        let below = first_at(before);
        let workspace: Option<String> = sqlx::query_scalar(
            "-- postgres::retention::sweep_audit_log (workspace)
            with recursive logs (workspace) as (
                (select workspace from audit_log order by workspace limit 1)
                union all
                select (
                    select audit_log.workspace
                    from audit_log
                    where audit_log.workspace > logs.workspace
                    order by audit_log.workspace
                    limit 1
                )
                from logs
                where logs.workspace is not null
            )
            select logs.workspace
            from logs
            cross join lateral (
                select id
                from audit_log
                where audit_log.workspace = logs.workspace
                order by id
                limit 1
            ) as oldest
            where oldest.id < $1
            limit 1",
        )
        .bind(below)
        .fetch_optional(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        let Some(workspace) = workspace else {
            return Ok(Some(Swept::nothing()));
        };
        let done = sqlx::query(
            "-- postgres::retention::sweep_audit_log
            delete from audit_log
            where ctid = any(array(
                select ctid from audit_log where workspace = $1 and id < $2 order by id limit $3
            ))",
        )
        .bind(workspace)
        .bind(below)
        .bind(rows(limit))
        .execute(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        commit(tx).await?;
        // Another workspace may have some too.
        let removed = Removed::of(Kept::AuditEntry, done.rows_affected());
        Ok(Some(Swept::some(removed)))
    }

    async fn sweep_keys(&self, held: &Lease, age: Duration, limit: usize) -> Result<Option<Swept>> {
        let Some(Turn { mut tx, before }) = self.turn(held, age).await? else {
            return Ok(None);
        };
        let (listed, removed): (i64, i64) = sqlx::query_as(
            "-- postgres::retention::sweep_keys
            with old as materialized (
                select key, ctid as found_at
                from event_key_age
                where at < $1
                order by at, key
                limit $2
            ), gone as (
                delete from event_key where key = any(array(select key from old)) returning 1
            ), listed as (
                delete from event_key_age
                where ctid = any(array(select found_at from old))
                returning 1
            )
            select (select count(*) from listed), (select count(*) from gone)",
        )
        .bind(before)
        .bind(rows(limit))
        .fetch_one(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        commit(tx).await?;
        let removed = Removed::of(Kept::EventKey, counted(removed));
        Ok(Some(match listed {
            0 => Swept::nothing(),
            _ => Swept::some(removed),
        }))
    }
}

/// A number of rows, which is never negative.
fn counted(rows: i64) -> u64 {
    u64::try_from(rows).unwrap_or_default()
}
