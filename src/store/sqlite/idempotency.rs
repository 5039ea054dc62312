//! The keys of creating calls that may be repeated.

use chrono::{DateTime, Utc};
use sqlx::SqliteConnection;

use super::error::store_error;
use super::rows::{count, duration_millis, get, millis};
use crate::domain::ids::WorkspaceId;
use crate::store::Result;
use crate::store::idempotency::{Creation, FORGOTTEN_AT_ONCE, Idempotency, REMEMBERED};

/// Writes the key of a call that creates `object`. `None` if the call goes on, otherwise what it comes
/// to.
pub(super) async fn remember<T>(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    once: Option<&Idempotency>,
    object: &str,
    now: DateTime<Utc>,
) -> Result<Option<Creation<T>>> {
    let Some(once) = once else {
        return Ok(None);
    };
    let old = millis(now).saturating_sub(duration_millis(REMEMBERED));
    let written = sqlx::query(
        "-- sqlite::idempotency::remember (write)
        insert into idempotency_key as known (workspace, caller, route, key, fingerprint, object,
            created_at)
        values (?1, ?2, ?3, ?4, ?5, ?6, ?7)
        on conflict (caller, route, key) do update
        set fingerprint = excluded.fingerprint, object = excluded.object,
            created_at = excluded.created_at
        where known.workspace = excluded.workspace and known.created_at <= ?8",
    )
    .bind(workspace.as_str())
    .bind(once.caller.uuid())
    .bind(once.route)
    .bind(&once.key)
    .bind(once.fingerprint.as_slice())
    .bind(object)
    .bind(millis(now))
    .bind(old)
    .execute(&mut *transaction)
    .await
    .map_err(store_error)?;
    if written.rows_affected() == 1 {
        forget(transaction, old).await?;
        return Ok(None);
    }
    let known = sqlx::query(
        "-- sqlite::idempotency::remember (read)
        select fingerprint, object
        from idempotency_key
        where workspace = ?1 and caller = ?2 and route = ?3 and key = ?4",
    )
    .bind(workspace.as_str())
    .bind(once.caller.uuid())
    .bind(once.route)
    .bind(&once.key)
    .fetch_one(transaction)
    .await
    .map_err(store_error)?;
    let fingerprint: &[u8] = get(&known, "fingerprint")?;
    Ok(Some(once.judge(fingerprint, get(&known, "object")?)))
}

/// Removes some of the keys of all workspaces that are too old.
async fn forget(transaction: &mut SqliteConnection, old: i64) -> Result<()> {
    sqlx::query(
        "-- sqlite::idempotency::forget
        delete from idempotency_key
        where (caller, route, key) in (
            select caller, route, key
            from idempotency_key
            where created_at <= ?1
            order by created_at
            limit ?2
        )",
    )
    .bind(old)
    .bind(count(FORGOTTEN_AT_ONCE))
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}
