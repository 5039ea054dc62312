//! The keys of creating calls that may be repeated.

use sqlx::PgTransaction;

use super::Result;
use super::errors::from_sqlx;
use super::rows::{interval, limit};
use crate::domain::ids::WorkspaceId;
use crate::store::idempotency::{Creation, FORGOTTEN_AT_ONCE, Idempotency, REMEMBERED};

/// Writes the key of a call that creates `object`, before it takes any other lock: whoever comes with
/// the same key waits here. `None` if the call goes on, otherwise what it comes to.
pub(super) async fn remember<T>(
    tx: &mut PgTransaction<'_>,
    workspace: &WorkspaceId,
    once: Option<&Idempotency>,
    object: &str,
) -> Result<Option<Creation<T>>> {
    let Some(once) = once else {
        return Ok(None);
    };
    let written = sqlx::query(
        "-- postgres::idempotency::remember (write)
        insert into idempotency_key as known (workspace, caller, route, key, fingerprint, object)
        values ($1, $2, $3, $4, $5, $6)
        on conflict on constraint idempotency_key_pk do update
        set fingerprint = excluded.fingerprint, object = excluded.object, created_at = now()
        where known.workspace = excluded.workspace and known.created_at <= now() - $7::interval",
    )
    .bind(workspace.as_str())
    .bind(once.caller.uuid())
    .bind(once.route)
    .bind(&once.key)
    .bind(once.fingerprint.as_slice())
    .bind(object)
    .bind(interval(REMEMBERED))
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    if written.rows_affected() == 1 {
        forget(tx).await?;
        return Ok(None);
    }
    // The insert waited for whoever wrote it, and holds it: it is there, and stays.
    let (fingerprint, object): (Vec<u8>, String) = sqlx::query_as(
        "-- postgres::idempotency::remember (read)
        select fingerprint, object
        from idempotency_key
        where workspace = $1 and caller = $2 and route = $3 and key = $4",
    )
    .bind(workspace.as_str())
    .bind(once.caller.uuid())
    .bind(once.route)
    .bind(&once.key)
    .fetch_one(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(Some(once.judge(&fingerprint, object)))
}

/// Removes some of the keys of all workspaces that are too old; those that another call is at stay.
async fn forget(tx: &mut PgTransaction<'_>) -> Result<()> {
    sqlx::query(
        "-- postgres::idempotency::forget
        delete from idempotency_key
        using (
            select caller, route, key
            from idempotency_key
            where created_at <= now() - $1::interval
            order by created_at
            limit $2
            for update skip locked
        ) as old
        where idempotency_key.caller = old.caller
          and idempotency_key.route = old.route
          and idempotency_key.key = old.key",
    )
    .bind(interval(REMEMBERED))
    .bind(limit(FORGOTTEN_AT_ONCE))
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}
