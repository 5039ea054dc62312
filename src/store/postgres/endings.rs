//! Writing the outcomes that end deliveries: one statement for a batch, if every lease still holds.

use sqlx::PgTransaction;
use sqlx::postgres::PgBindIterExt;

use super::errors::{breaks, from_sqlx};
use super::{Result, StoreError};
use crate::domain::attempt::{Attempt, ErrorClass};
use crate::domain::ids::OwnerId;
use crate::store::Settlement;

/// An outcome that ends its delivery, and what it met.
pub(super) struct Ending<'a> {
    settlement: &'a Settlement,
    attempt: &'a Attempt,
}

impl<'a> Ending<'a> {
    /// `None` for what goes back to the queue, and for what is in history already.
    pub(super) fn of(settlement: &'a Settlement) -> Option<Self> {
        let attempt = settlement.attempt.as_ref()?;
        let ends = settlement.verdict.state().is_final() && !settlement.repeats();
        ends.then_some(Self {
            settlement,
            attempt,
        })
    }

    /// Attempts made, with this one.
    fn attempts(&self) -> i32 {
        i32::try_from(self.settlement.attempts_before.saturating_add(1)).unwrap_or(i32::MAX)
    }
}

/// Moves deliveries to history and records their attempts, if the lease token of every one of them
/// still matches; says whether it does. If not, the transaction must be rolled back.
///
/// History is written from what the lease told, and nothing of the rows comes back: while the token
/// matches, the queue's row says the same. Nothing is written but the deletion when a row is missing.
///
/// The rows are found one by one and deleted where they were found, not by a join: after a vacuum of
/// a nearly empty queue the planner takes any later backlog for a handful of rows, and holds each of
/// them against the whole batch. One that another lease takes while this waits for its row is looked
/// at again, and the lease token with it: the condition stands beside the place for that (`is true`
/// keeps it a condition), since a place alone is not looked at again by servers before 15.15, 16.11,
/// 17.7 and 18.1.
///
/// The endings are sorted, and no delivery is in them twice under one lease.
pub(super) async fn end(
    tx: &mut PgTransaction<'_>,
    owner: OwnerId,
    endings: &[Ending<'_>],
) -> Result<bool> {
    let headers = endings
        .iter()
        .map(|ending| headers_text(ending.attempt))
        .collect::<Result<Vec<_>>>()?;
    let settlements = || endings.iter().map(|ending| ending.settlement);
    let attempts = || endings.iter().map(|ending| ending.attempt);
    let ended = sqlx::query_scalar(
        "-- postgres::endings::end
        with ended as (
            delete from delivery_queue
            where ctid = any(array(
                select held.found_at
                from (
                    select
                        unnest($2::uuid[]) as delivery_id,
                        unnest($3::text[]) as workspace,
                        unnest($4::integer[]) as epoch
                ) as leased
                cross join lateral (
                    select q.ctid as found_at
                    from delivery_queue q
                    where q.delivery_id = leased.delivery_id
                      and q.workspace = leased.workspace
                      and q.owner = $1
                      and q.epoch = leased.epoch
                    limit 1
                ) as held
            ))
              and owner = $1
              and ((delivery_id, epoch) in (select unnest($2), unnest($4))) is true
            returning 1
        ), tally as materialized (
            select count(*) = cardinality($2) as complete from ended
        ), history as (
            insert into delivery (
                id, workspace, epoch, event_id, subscription_id, attempts, state, settled_at
            )
            select
                unnest($2), unnest($3), unnest($4), unnest($5::uuid[]), unnest($6::uuid[]),
                unnest($7::integer[]), unnest($8::text[]), clock_timestamp()
            from tally
            where complete
        ), made as (
            insert into attempt (
                delivery_id, workspace, epoch, trigger, at, duration_ms, status, error,
                response_headers, response_excerpt, lease_lost
            )
            select
                unnest($2), unnest($3), unnest($4), unnest($9::text[]), unnest($10::timestamptz[]),
                unnest($11::bigint[]), unnest($12::integer[]), unnest($13::text[]),
                unnest($14::text[]), unnest($15::text[]), false
            from tally
            where complete
        )
        select complete from tally",
    )
    .bind(owner.uuid())
    .bind(settlements().map(|s| s.delivery.uuid()).bind_iter())
    .bind(settlements().map(|s| s.workspace.as_str()).bind_iter())
    .bind(settlements().map(|s| s.epoch).bind_iter())
    .bind(settlements().map(|s| s.event.uuid()).bind_iter())
    .bind(settlements().map(|s| s.subscription.uuid()).bind_iter())
    .bind(endings.iter().map(Ending::attempts).bind_iter())
    .bind(
        settlements()
            .map(|s| s.verdict.state().as_str())
            .bind_iter(),
    )
    .bind(attempts().map(|a| a.trigger.as_str()).bind_iter())
    .bind(attempts().map(|a| a.at).bind_iter())
    .bind(attempts().map(duration_ms).bind_iter())
    .bind(attempts().map(|a| a.status.map(i32::from)).bind_iter())
    .bind(
        attempts()
            .map(|a| a.error.map(ErrorClass::as_str))
            .bind_iter(),
    )
    .bind(headers)
    .bind(attempts().map(|a| a.response_excerpt.as_str()).bind_iter())
    .fetch_one(&mut **tx)
    .await;
    match ended {
        // An outcome that came under another owner's name was recorded for this lease before.
        Err(error) if breaks(&error, "attempt_pk") => Ok(false),
        other => other.map_err(from_sqlx),
    }
}

/// What the receiver's headers are kept as.
pub(super) fn headers_text(attempt: &Attempt) -> Result<String> {
    serde_json::to_string(&attempt.response_headers).map_err(StoreError::corrupt)
}

/// How long it took, as it is kept.
pub(super) fn duration_ms(attempt: &Attempt) -> i64 {
    i64::try_from(attempt.duration.as_millis()).unwrap_or(i64::MAX)
}
