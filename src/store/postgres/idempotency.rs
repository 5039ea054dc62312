//! The keys of creating calls and writes that may be repeated.

use sqlx::{PgConnection, PgTransaction};

use super::Result;
use super::errors::{expect_rows, from_sqlx, waited_too_long};
use super::rows::{interval, limit};
use crate::domain::ids::WorkspaceId;
use crate::store::Written;
use crate::store::idempotency::{Creation, FORGOTTEN_AT_ONCE, Idempotency, Known, REMEMBERED};

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
    let known = claim(tx, workspace, once, object).await?;
    Ok(known.map(|known| once.creation(known)))
}

/// The same of a write of `object`, whose answer is kept by [`keep_answer`]. One that waited too long
/// for the answer of another is told that that one is running.
pub(super) async fn remember_write(
    tx: &mut PgTransaction<'_>,
    workspace: &WorkspaceId,
    once: Option<&Idempotency>,
    object: &str,
) -> Result<Option<Written>> {
    let Some(once) = once else {
        return Ok(None);
    };
    match claim(tx, workspace, once, object).await {
        Err(error) if waited_too_long(&error) => Ok(Some(Written::Running)),
        known => known?.map(|known| once.written(known)).transpose(),
    }
}

/// What an earlier write with this key came to, if it is done.
pub(super) async fn answered(
    connection: &mut PgConnection,
    workspace: &WorkspaceId,
    once: &Idempotency,
) -> Result<Option<Written>> {
    let known = look_up(connection, workspace, once).await?;
    known.map(|known| once.written(known)).transpose()
}

/// What is kept of an earlier call with this key.
pub(super) async fn look_up(
    connection: &mut PgConnection,
    workspace: &WorkspaceId,
    once: &Idempotency,
) -> Result<Option<Known>> {
    let known: Option<Kept> = sqlx::query_as(
        "-- postgres::idempotency::look_up
        select fingerprint, object, answer, version
        from idempotency_key
        where workspace = $1 and caller = $2 and route = $3 and key = $4
          and created_at > now() - $5::interval",
    )
    .bind(workspace.as_str())
    .bind(once.caller.uuid())
    .bind(once.route)
    .bind(&once.key)
    .bind(interval(REMEMBERED))
    .fetch_optional(connection)
    .await
    .map_err(from_sqlx)?;
    Ok(known.map(Known::from))
}

/// The columns of what is kept.
type Kept = (Vec<u8>, String, Option<String>, Option<i64>);

impl From<Kept> for Known {
    fn from((fingerprint, object, answer, version): Kept) -> Self {
        Self {
            fingerprint,
            object,
            answer,
            version,
        }
    }
}

/// Keeps what a write answers with its key, if it has one.
pub(super) async fn keep_answer(
    tx: &mut PgTransaction<'_>,
    workspace: &WorkspaceId,
    once: Option<&Idempotency>,
    answer: &str,
    version: i64,
) -> Result<()> {
    let Some(once) = once else {
        return Ok(());
    };
    let kept = sqlx::query(
        "-- postgres::idempotency::keep_answer
        update idempotency_key
        set answer = $5, version = $6
        where workspace = $1 and caller = $2 and route = $3 and key = $4",
    )
    .bind(workspace.as_str())
    .bind(once.caller.uuid())
    .bind(once.route)
    .bind(&once.key)
    .bind(answer)
    .bind(version)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    expect_rows("idempotency_key", 1, kept.rows_affected())
}

/// Writes the key of a call for `object`; `None` if it is this call's now, otherwise what is kept of
/// the call that used it.
async fn claim(
    tx: &mut PgTransaction<'_>,
    workspace: &WorkspaceId,
    once: &Idempotency,
    object: &str,
) -> Result<Option<Known>> {
    let written = sqlx::query(
        "-- postgres::idempotency::claim (write)
        insert into idempotency_key as known (workspace, caller, route, key, fingerprint, object)
        values ($1, $2, $3, $4, $5, $6)
        on conflict on constraint idempotency_key_pk do update
        set fingerprint = excluded.fingerprint, object = excluded.object, created_at = now(),
            answer = null, version = null
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
        forget(tx, FORGOTTEN_AT_ONCE).await?;
        return Ok(None);
    }
    // The insert waited for whoever wrote it, and holds it: it is there, and stays.
    let known: Kept = sqlx::query_as(
        "-- postgres::idempotency::claim (read)
        select fingerprint, object, answer, version
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
    Ok(Some(Known::from(known)))
}

/// Removes some of the keys of all workspaces that are too old, and answers how many; those that another
/// call is at stay.
pub(super) async fn forget(tx: &mut PgTransaction<'_>, most: usize) -> Result<u64> {
    let done = sqlx::query(
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
    .bind(limit(most))
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(done.rows_affected())
}
