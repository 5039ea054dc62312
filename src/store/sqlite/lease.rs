//! Leaders' leases. One process serves a file, but a second may be started by mistake.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::SqliteStore;
use super::error::store_error;
use super::rows::{duration_millis, millis};
use crate::store::lease::{Lease, LeaseName, Leases, Standing};
use crate::store::{Leasing, Result};

#[async_trait]
impl Leases for SqliteStore {
    async fn take_lease(&self, name: LeaseName, leasing: Leasing) -> Result<Option<Lease>> {
        let mut transaction = self.write().await?;
        let now = millis(self.clock.now());
        let fence: Option<i64> = sqlx::query_scalar(
            "-- sqlite::lease::take_lease
            insert into lease as held (name, owner, fence, until)
            values (?1, ?2, 1, ?3)
            on conflict (name) do update
            set owner = excluded.owner, fence = held.fence + 1, until = excluded.until
            where held.until <= ?4 or held.owner = excluded.owner
            returning fence",
        )
        .bind(name.as_str())
        .bind(leasing.owner.uuid())
        .bind(now.saturating_add(duration_millis(leasing.lease)))
        .bind(now)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(store_error)?;
        self.commit(transaction).await?;
        Ok(fence.map(|fence| Lease {
            name,
            owner: leasing.owner,
            fence,
        }))
    }

    async fn renew_lease(&self, held: &Lease, leasing: Leasing) -> Result<Standing> {
        let until = millis(self.clock.now()).saturating_add(duration_millis(leasing.lease));
        self.set_end(held, until).await
    }

    async fn release_lease(&self, held: &Lease) -> Result<()> {
        let now = millis(self.clock.now());
        // Whoever was deposed has nothing to give up.
        let (Standing::Leads | Standing::Deposed) = self.set_end(held, now).await?;
        Ok(())
    }
}

impl SqliteStore {
    async fn set_end(&self, held: &Lease, until: i64) -> Result<Standing> {
        let mut transaction = self.write().await?;
        let changed = sqlx::query(
            "-- sqlite::lease::set_end
            update lease set until = ?4 where name = ?1 and owner = ?2 and fence = ?3",
        )
        .bind(held.name.as_str())
        .bind(held.owner.uuid())
        .bind(held.fence)
        .bind(until)
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        self.commit(transaction).await?;
        Ok(match changed.rows_affected() {
            0 => Standing::Deposed,
            _ => Standing::Leads,
        })
    }
}

/// Whether the lease is still the leader's, and where an instant is given not over by then.
pub(super) async fn stand(
    transaction: &mut SqliteConnection,
    held: &Lease,
    now: Option<i64>,
) -> Result<Standing> {
    let found = sqlx::query(
        "-- sqlite::lease::stand
        select 1 as leads
        from lease
        where name = ?1 and owner = ?2 and fence = ?3 and (?4 is null or until > ?4)",
    )
    .bind(held.name.as_str())
    .bind(held.owner.uuid())
    .bind(held.fence)
    .bind(now)
    .fetch_optional(transaction)
    .await
    .map_err(store_error)?;
    Ok(match found {
        Some(_) => Standing::Leads,
        None => Standing::Deposed,
    })
}
