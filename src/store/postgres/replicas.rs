//! The processes that send. A row is made by the first beat and removed by the last, or by another
//! process's beat once its time is over.

use std::num::NonZeroU32;

use async_trait::async_trait;

use super::errors::{from_sqlx, retrying};
use super::rows::interval;
use super::{PostgresStore, Result, StoreError, commit};
use crate::domain::ids::OwnerId;
use crate::store::Leasing;
use crate::store::replicas::Replicas;

#[async_trait]
impl Replicas for PostgresStore {
    async fn beat(&self, leasing: Leasing) -> Result<NonZeroU32> {
        retrying(|| self.beat_once(leasing)).await
    }

    async fn leave(&self, owner: OwnerId) -> Result<()> {
        retrying(|| async {
            sqlx::query(
                "-- postgres::replicas::leave
                delete from replica where owner = $1",
            )
            .bind(owner.uuid())
            .execute(&self.pool)
            .await
            .map_err(from_sqlx)?;
            Ok(())
        })
        .await
    }
}

impl PostgresStore {
    async fn beat_once(&self, leasing: Leasing) -> Result<NonZeroU32> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "-- postgres::replicas::beat_once (stay)
            insert into replica (owner, until)
            values ($1, clock_timestamp() + $2::interval)
            on conflict on constraint replica_pk do update set until = excluded.until",
        )
        .bind(leasing.owner.uuid())
        .bind(interval(leasing.lease))
        .execute(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        // Those that another beat removes at this moment are left to it.
        sqlx::query(
            "-- postgres::replicas::beat_once (over)
            delete from replica
            where owner = any(array(
                select owner
                from replica
                where until <= clock_timestamp() and owner <> $1
                for update skip locked
            ))",
        )
        .bind(leasing.owner.uuid())
        .execute(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        let live: i64 = sqlx::query_scalar(
            "-- postgres::replicas::beat_once (count)
            select count(*) from replica where until > clock_timestamp() or owner = $1",
        )
        .bind(leasing.owner.uuid())
        .fetch_one(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        commit(tx).await?;
        u32::try_from(live)
            .ok()
            .and_then(NonZeroU32::new)
            .ok_or_else(|| StoreError::Corrupt(format!("{live} processes send")))
    }
}
