//! What keys have asked for, counted over all replicas.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use super::api_keys::{ApiKeyRow, api_key_columns};
use super::errors::from_sqlx;
use super::{PostgresStore, Result, StoreError};
use crate::domain::ids::ApiKeyId;
use crate::domain::key_text::KeyDigest;
use crate::domain::rate::{RateLimits, RateUsage, Window};
use crate::store::Admitted;

impl PostgresStore {
    /// Reads the key and counts its request, in one statement.
    ///
    /// The statement counts where the digest is equal, so that nobody can use up another's requests
    /// with its public id; whether the key is taken is decided here, in constant time. The counting
    /// is [`RateUsage::count`] in SQL: it updates the row whether or not the request is let through,
    /// since only what is written comes back, and each waits for the one before on the row's lock,
    /// so that what it counts on is what was committed, by whichever replica.
    pub(super) async fn admit_once(
        &self,
        id: ApiKeyId,
        digest: &KeyDigest,
        defaults: RateLimits,
    ) -> Result<Option<Admitted>> {
        let row: Option<AdmitRow> = sqlx::query_as(concat!(
            "-- postgres::usage::admit_once
            with key as (
                select ",
            api_key_columns!(),
            ", digest
                from api_key
                where id = $1
            ),
            valid as (
                select
                    id, coalesce(per_minute, $3) as per_minute, coalesce(per_hour, $4) as per_hour
                from key
                where digest = $2 and revoked_at is null
                  and (expires_at is null or expires_at > now())
            ),
            counted as (
                insert into api_key_usage as u (
                    key_id, minute_opened_at, minute_count, hour_opened_at, hour_count, allowed
                )
                select
                    id, now(), first.allowed::integer, now(), first.allowed::integer, first.allowed
                from valid
                cross join lateral (select per_minute > 0 and per_hour > 0) as first (allowed)
                on conflict on constraint api_key_usage_pk do update
                set (minute_opened_at, minute_count, hour_opened_at, hour_count, allowed) = (
                    select
                        minute.opened_at, minute.count + judged.allowed::integer,
                        hour.opened_at, hour.count + judged.allowed::integer, judged.allowed
                    from valid
                    cross join lateral (
                        -- A window is over at its end, and when the clock was set back behind its
                        -- beginning by as much.
                        select
                            u.minute_opened_at > now() - interval '1 minute'
                                and u.minute_opened_at < now() + interval '1 minute',
                            u.hour_opened_at > now() - interval '1 hour'
                                and u.hour_opened_at < now() + interval '1 hour'
                    ) as goes_on (minute, hour)
                    cross join lateral (
                        select
                            case when goes_on.minute then u.minute_opened_at else now() end,
                            case when goes_on.minute then u.minute_count else 0 end
                    ) as minute (opened_at, count)
                    cross join lateral (
                        select
                            case when goes_on.hour then u.hour_opened_at else now() end,
                            case when goes_on.hour then u.hour_count else 0 end
                    ) as hour (opened_at, count)
                    cross join lateral (
                        select minute.count < valid.per_minute and hour.count < valid.per_hour
                    ) as judged (allowed)
                )
                returning minute_opened_at, minute_count, hour_opened_at, hour_count, allowed
            )
            select key.*, counted.*, now() as asked_at
            from key
            left join counted on true",
        ))
        .bind(id.uuid())
        .bind(digest.0.as_slice())
        .bind(i64::from(defaults.per_minute))
        .bind(i64::from(defaults.per_hour))
        .fetch_optional(&self.pool)
        .await
        .map_err(from_sqlx)?;
        let kept = row.as_ref().map(AdmitRow::digest).transpose()?;
        match row.filter(|_| digest.proves(kept.as_ref())) {
            Some(row) => row.into_admitted(),
            None => Ok(None),
        }
    }

    pub(super) async fn give_back_once(&self, id: ApiKeyId, usage: RateUsage) -> Result<()> {
        sqlx::query(
            "-- postgres::usage::give_back_once
            update api_key_usage
            set minute_count = minute_count
                    - (minute_opened_at = $2 and minute_count > 0)::integer,
                hour_count = hour_count - (hour_opened_at = $3 and hour_count > 0)::integer
            where key_id = $1",
        )
        .bind(id.uuid())
        .bind(usage.minute.opened_at)
        .bind(usage.hour.opened_at)
        .execute(&self.pool)
        .await
        .map_err(from_sqlx)?;
        Ok(())
    }
}

#[derive(FromRow)]
struct AdmitRow {
    #[sqlx(flatten)]
    key: ApiKeyRow,
    digest: Vec<u8>,
    // Of a key that is not valid, nothing is counted.
    minute_opened_at: Option<DateTime<Utc>>,
    minute_count: Option<i64>,
    hour_opened_at: Option<DateTime<Utc>>,
    hour_count: Option<i64>,
    allowed: Option<bool>,
    asked_at: DateTime<Utc>,
}

impl AdmitRow {
    fn digest(&self) -> Result<KeyDigest> {
        let bytes = self.digest.as_slice().try_into();
        bytes
            .map(KeyDigest)
            .map_err(|_| StoreError::corrupt("api_key.digest: not of 32 bytes"))
    }

    fn into_admitted(self) -> Result<Option<Admitted>> {
        let (Some(minute), Some(hour), Some(allowed)) = (
            window(self.minute_opened_at, self.minute_count)?,
            window(self.hour_opened_at, self.hour_count)?,
            self.allowed,
        ) else {
            return Ok(None);
        };
        Ok(Some(Admitted {
            key: self.key.into_key()?,
            usage: RateUsage { minute, hour },
            allowed,
            at: self.asked_at,
        }))
    }
}

fn window(opened_at: Option<DateTime<Utc>>, count: Option<i64>) -> Result<Option<Window>> {
    let (Some(opened_at), Some(count)) = (opened_at, count) else {
        return Ok(None);
    };
    Ok(Some(Window {
        opened_at,
        count: u32::try_from(count).map_err(StoreError::corrupt)?,
    }))
}
