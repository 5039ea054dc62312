//! The keys of creating calls and writes that may be repeated.

use chrono::{DateTime, Utc};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::error::store_error;
use super::rows::{count, duration_millis, get, millis};
use crate::domain::ids::WorkspaceId;
use crate::store::idempotency::{Creation, FORGOTTEN_AT_ONCE, Idempotency, Known, REMEMBERED};
use crate::store::{Result, Written};

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
    let known = claim(transaction, workspace, once, object, now).await?;
    Ok(known.map(|known| once.creation(known)))
}

/// The same of a write of `object`, whose answer is kept by [`keep_answer`].
pub(super) async fn remember_write(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    once: Option<&Idempotency>,
    object: &str,
    now: DateTime<Utc>,
) -> Result<Option<Written>> {
    let Some(once) = once else {
        return Ok(None);
    };
    let known = claim(transaction, workspace, once, object, now).await?;
    known.map(|known| once.written(known)).transpose()
}

/// What an earlier write with this key came to, if it is done.
pub(super) async fn answered(
    connection: &mut SqliteConnection,
    workspace: &WorkspaceId,
    once: &Idempotency,
    now: DateTime<Utc>,
) -> Result<Option<Written>> {
    let known = look_up(connection, workspace, once, now).await?;
    known.map(|known| once.written(known)).transpose()
}

/// What is kept of an earlier call with this key.
pub(super) async fn look_up(
    connection: &mut SqliteConnection,
    workspace: &WorkspaceId,
    once: &Idempotency,
    now: DateTime<Utc>,
) -> Result<Option<Known>> {
    let row = sqlx::query(
        "-- sqlite::idempotency::look_up
        select fingerprint, object, answer, version
        from idempotency_key
        where workspace = ?1 and caller = ?2 and route = ?3 and key = ?4 and created_at > ?5",
    )
    .bind(workspace.as_str())
    .bind(once.caller.uuid())
    .bind(once.route)
    .bind(&once.key)
    .bind(millis(now).saturating_sub(duration_millis(REMEMBERED)))
    .fetch_optional(connection)
    .await
    .map_err(store_error)?;
    row.as_ref().map(known).transpose()
}

/// Keeps what a write answers with its key, if it has one.
pub(super) async fn keep_answer(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    once: Option<&Idempotency>,
    answer: &str,
    version: i64,
) -> Result<()> {
    let Some(once) = once else {
        return Ok(());
    };
    sqlx::query(
        "-- sqlite::idempotency::keep_answer
        update idempotency_key
        set answer = ?5, version = ?6
        where workspace = ?1 and caller = ?2 and route = ?3 and key = ?4",
    )
    .bind(workspace.as_str())
    .bind(once.caller.uuid())
    .bind(once.route)
    .bind(&once.key)
    .bind(answer)
    .bind(version)
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

/// Writes the key of a call for `object`; `None` if it is this call's now, otherwise what is kept of
/// the call that used it.
async fn claim(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    once: &Idempotency,
    object: &str,
    now: DateTime<Utc>,
) -> Result<Option<Known>> {
    let old = millis(now).saturating_sub(duration_millis(REMEMBERED));
    let written = sqlx::query(
        "-- sqlite::idempotency::claim (write)
        insert into idempotency_key as known (workspace, caller, route, key, fingerprint, object,
            created_at)
        values (?1, ?2, ?3, ?4, ?5, ?6, ?7)
        on conflict (caller, route, key) do update
        set fingerprint = excluded.fingerprint, object = excluded.object,
            created_at = excluded.created_at, answer = null, version = null
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
        forget(transaction, old, FORGOTTEN_AT_ONCE).await?;
        return Ok(None);
    }
    let row = sqlx::query(
        "-- sqlite::idempotency::claim (read)
        select fingerprint, object, answer, version
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
    known(&row).map(Some)
}

fn known(row: &SqliteRow) -> Result<Known> {
    Ok(Known {
        fingerprint: get(row, "fingerprint")?,
        object: get(row, "object")?,
        answer: get(row, "answer")?,
        version: get(row, "version")?,
    })
}

/// Removes some of the keys of all workspaces that are too old, and answers how many.
pub(super) async fn forget(
    transaction: &mut SqliteConnection,
    old: i64,
    limit: usize,
) -> Result<u64> {
    let done = sqlx::query(
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
    .bind(count(limit))
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(done.rows_affected())
}
