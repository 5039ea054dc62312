//! Removing what is old. What it is, is read on a reader; the writer is asked for only where there is
//! something to remove, in a gap between those whom others wait for.
//!
//! - `feed`: the oldest events of a feed, and events that are in none.
//! - `past`: what goes with an event.
//! - `answers`: what receivers answered.
//! - `replays`: replays of many that ended.
//! - `rollups`: folded, and removed when they are old.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Sqlite, Transaction};
use uuid::Uuid;

use super::SqliteStore;
use super::bulk::{self, Bulk};
use super::error::store_error;
use super::idempotency::forget;
use super::lease::stand;
use super::rows::{count, duration_millis, get, millis, to_time};
use crate::domain::ids::{EventId, created_at, first_at};
use crate::store::Result;
use crate::store::idempotency::REMEMBERED;
use crate::store::lease::{Lease, Standing};
use crate::store::retention::{Kept, Removed, Retention, Swept};
use crate::store::rollups::Resolution;

mod answers;
mod feed;
mod past;
mod replays;
mod rollups;

#[async_trait]
impl Retention for SqliteStore {
    async fn remove_events(
        &self,
        held: &Lease,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>> {
        let before = self.before(age);
        match self.oldest_in_a_feed(before, limit).await? {
            Some(oldest) => self.leave_feed(held, &oldest, before).await,
            None => self.nothing_to_do(held).await,
        }
    }

    async fn remove_loose_events(
        &self,
        held: &Lease,
        age: Duration,
        after: Option<EventId>,
        limit: usize,
    ) -> Result<Option<Swept>> {
        self.sweep_loose(held, self.before(age), after, limit).await
    }

    async fn remove_answers(
        &self,
        held: &Lease,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>> {
        self.sweep_answers(held, self.before(age), limit).await
    }

    async fn remove_audit_entries(
        &self,
        held: &Lease,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>> {
        let below = first_at(to_time(self.before(age))?);
        let Some(workspace) = self.oldest_audit_log(below).await? else {
            return self.nothing_to_do(held).await;
        };
        let Some(mut transaction) = self.write_as(held).await? else {
            return Ok(None);
        };
        let done = sqlx::query(
            "-- sqlite::retention::remove_audit_entries
            delete from audit_log
            where workspace = ?1 and id in (
                select id from audit_log where workspace = ?1 and id < ?2 order by id limit ?3
            )",
        )
        .bind(workspace)
        .bind(below)
        .bind(count(limit))
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        self.commit(transaction).await?;
        // Another workspace may have some too.
        let removed = Removed::of(Kept::AuditEntry, done.rows_affected());
        Ok(Some(Swept::some(removed)))
    }

    async fn remove_event_keys(
        &self,
        held: &Lease,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>> {
        static KEYS: Bulk = Bulk::new(
            "-- sqlite::retention::remove_event_keys (keys)
            delete from event_key where key in (",
            "?",
            ")",
        );
        static AGES: Bulk = Bulk::new(
            "-- sqlite::retention::remove_event_keys (ages)
            delete from event_key_age where (at, key) in (values ",
            "(?, ?)",
            ")",
        );
        let ages = self.oldest_keys(self.before(age), limit).await?;
        if ages.is_empty() {
            return self.nothing_to_do(held).await;
        }
        let Some(mut transaction) = self.write_as(held).await? else {
            return Ok(None);
        };
        let keys = KEYS.statements(&ages, |it, (_, key)| it.bind(key.clone()), |rest| rest);
        let removed = bulk::execute(&mut transaction, keys).await?;
        let listed = AGES.statements(
            &ages,
            |it, (at, key)| it.bind(*at).bind(key.clone()),
            |rest| rest,
        );
        bulk::execute(&mut transaction, listed).await?;
        self.commit(transaction).await?;
        let removed = Removed::of(Kept::EventKey, removed as u64);
        Ok(Some(Swept::some(removed)))
    }

    async fn remove_idempotency_keys(&self, held: &Lease, limit: usize) -> Result<Option<Swept>> {
        let Some(mut transaction) = self.write_as(held).await? else {
            return Ok(None);
        };
        let removed = forget(&mut transaction, self.before(REMEMBERED), limit).await?;
        self.commit(transaction).await?;
        Ok(Some(Swept::of(Kept::IdempotencyKey, removed, limit)))
    }

    async fn remove_replays(
        &self,
        held: &Lease,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>> {
        self.sweep_replays(held, self.before(age), limit).await
    }

    async fn remove_rollups(
        &self,
        held: &Lease,
        resolution: Resolution,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>> {
        self.sweep_rollups(held, resolution, self.before(age), limit)
            .await
    }

    async fn remove_orphaned_rollups(&self, held: &Lease, limit: usize) -> Result<Option<Swept>> {
        self.sweep_orphaned_rollups(held, limit).await
    }

    async fn oldest_event(&self) -> Result<Option<Duration>> {
        let oldest: Option<Uuid> = sqlx::query_scalar(
            "-- sqlite::retention::oldest_event
            select min(id) from event",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(store_error)?;
        let age = |id| (self.clock.now() - created_at(id)).to_std();
        Ok(oldest.map(|id| age(id).unwrap_or_default()))
    }
}

impl SqliteStore {
    /// What is older than this is old.
    fn before(&self, age: Duration) -> i64 {
        millis(self.clock.now()).saturating_sub(duration_millis(age))
    }

    /// A transaction of the leader's; `None` if it leads no more.
    async fn write_as(&self, held: &Lease) -> Result<Option<Transaction<'static, Sqlite>>> {
        let mut transaction = self.write_in_a_gap().await?;
        Ok(match stand(&mut transaction, held, None).await? {
            Standing::Leads => Some(transaction),
            Standing::Deposed => None,
        })
    }

    /// The answer where nothing is old enough.
    async fn nothing_to_do(&self, held: &Lease) -> Result<Option<Swept>> {
        let mut reader = self.reader().await?;
        Ok(match stand(&mut reader, held, None).await? {
            Standing::Leads => Some(Swept::nothing()),
            Standing::Deposed => None,
        })
    }

    /// A workspace whose audit log begins below. The walk goes from one to the next in a seek each.
    async fn oldest_audit_log(&self, below: Uuid) -> Result<Option<String>> {
        sqlx::query_scalar(
            "-- sqlite::retention::oldest_audit_log
            with recursive logs (workspace) as (
                select min(workspace) from audit_log
                union all
                select (
                    select min(audit_log.workspace)
                    from audit_log
                    where audit_log.workspace > logs.workspace
                )
                from logs
                where logs.workspace is not null
            )
            select workspace
            from logs
            where (select min(id) from audit_log where audit_log.workspace = logs.workspace) < ?1
            limit 1",
        )
        .bind(below)
        .fetch_optional(&self.readers)
        .await
        .map_err(store_error)
    }

    /// Keys to forget, with the times that they are listed under.
    async fn oldest_keys(&self, before: i64, limit: usize) -> Result<Vec<(i64, Vec<u8>)>> {
        let rows = sqlx::query(
            "-- sqlite::retention::oldest_keys
            select at, key from event_key_age where at < ?1 order by at, key limit ?2",
        )
        .bind(before)
        .bind(count(limit))
        .fetch_all(&self.readers)
        .await
        .map_err(store_error)?;
        rows.iter()
            .map(|row| Ok((get(row, "at")?, get(row, "key")?)))
            .collect()
    }
}
