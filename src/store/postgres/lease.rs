//! Leaders' leases, by the database's clock.

use async_trait::async_trait;

use super::errors::{from_sqlx, reading};
use super::rows::interval;
use super::{PostgresStore, Result};
use crate::store::Leasing;
use crate::store::lease::{Lease, LeaseName, Leases, Standing};

#[async_trait]
impl Leases for PostgresStore {
    async fn take_lease(&self, name: LeaseName, leasing: Leasing) -> Result<Option<Lease>> {
        let fence: Option<i64> = reading(async {
            sqlx::query_scalar(
                "-- postgres::lease::take_lease
                insert into lease as held (name, owner, fence, until)
                values ($1, $2, 1, clock_timestamp() + $3::interval)
                on conflict on constraint lease_pk do update
                set owner = excluded.owner, fence = held.fence + 1, until = excluded.until
                where held.until <= clock_timestamp() or held.owner = excluded.owner
                returning fence",
            )
            .bind(name.as_str())
            .bind(leasing.owner.uuid())
            .bind(interval(leasing.lease))
            .fetch_optional(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        Ok(fence.map(|fence| Lease {
            name,
            owner: leasing.owner,
            fence,
        }))
    }

    async fn renew_lease(&self, held: &Lease, leasing: Leasing) -> Result<Standing> {
        let renewed = reading(async {
            sqlx::query(
                "-- postgres::lease::renew_lease
                update lease
                set until = clock_timestamp() + $4::interval
                where name = $1 and owner = $2 and fence = $3",
            )
            .bind(held.name.as_str())
            .bind(held.owner.uuid())
            .bind(held.fence)
            .bind(interval(leasing.lease))
            .execute(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        Ok(match renewed.rows_affected() {
            0 => Standing::Deposed,
            _ => Standing::Leads,
        })
    }

    async fn release_lease(&self, held: &Lease) -> Result<()> {
        reading(async {
            sqlx::query(
                "-- postgres::lease::release_lease
                update lease
                set until = clock_timestamp()
                where name = $1 and owner = $2 and fence = $3",
            )
            .bind(held.name.as_str())
            .bind(held.owner.uuid())
            .bind(held.fence)
            .execute(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        Ok(())
    }
}
