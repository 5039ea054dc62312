//! Writing outcomes: three round trips for a batch, whatever its size.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgTransaction;
use uuid::Uuid;

use super::errors::from_sqlx;
use super::rows::interval;
use super::subscriptions::disable_gone;
use super::{PostgresStore, Result, StoreError, commit};
use crate::domain::attempt::ErrorClass;
use crate::domain::delivery::Verdict;
use crate::domain::ids::OwnerId;
use crate::store::{SettleOutcome, Settlement};

/// A delivery and the lease it was sent under.
type Token = (Uuid, i32);

/// What became of a batch's states: the subscription of each delivery that changed.
type Changed = HashMap<Token, Uuid>;

impl PostgresStore {
    pub(super) async fn settle_once(
        &self,
        owner: OwnerId,
        settlements: &[Settlement],
    ) -> Result<Vec<SettleOutcome>> {
        let mut sorted: Vec<&Settlement> = settlements.iter().collect();
        sorted.sort_unstable_by_key(|settlement| token(settlement));

        let mut tx = self.begin().await?;
        let changed = change_states(&mut tx, owner, &sorted).await?;
        let unmatched: Vec<&Settlement> = sorted
            .iter()
            .copied()
            .filter(|settlement| !changed.contains_key(&token(settlement)))
            .collect();
        let before = settled_before(&mut tx, &unmatched).await?;
        let lost = |settlement: &Settlement| {
            let token = token(settlement);
            !changed.contains_key(&token) && !before.contains(&token)
        };
        insert_attempts(&mut tx, &sorted, lost).await?;
        let gone = gone_subscriptions(&sorted, &changed);
        if !gone.is_empty() {
            disable_gone(&mut tx, &gone).await?;
        }
        commit(tx).await?;

        let outcomes = settlements.iter().map(|settlement| {
            if lost(settlement) {
                SettleOutcome::LeaseLost
            } else {
                SettleOutcome::Settled
            }
        });
        Ok(outcomes.collect())
    }
}

fn token(settlement: &Settlement) -> Token {
    (settlement.delivery.uuid(), settlement.epoch)
}

/// What a verdict does to the queue row.
struct Change {
    /// The state it ends in; `None` goes back to the queue.
    end: Option<&'static str>,
    /// How long until it is due again.
    delay: Duration,
    /// Whether the attempt counts.
    spent: bool,
}

impl Change {
    fn of(verdict: &Verdict) -> Self {
        let state = verdict.state();
        let (delay, spent) = match verdict {
            Verdict::Retry { delay } => (*delay, true),
            Verdict::Released => (Duration::ZERO, false),
            Verdict::Succeeded | Verdict::Failed | Verdict::Gone => (Duration::ZERO, true),
        };
        Self {
            end: state.is_final().then(|| state.as_str()),
            delay: interval(delay),
            spent,
        }
    }
}

/// Moves what is final to history and gives the rest back, wherever the lease is still the one that
/// it was sent under.
async fn change_states(
    tx: &mut PgTransaction<'_>,
    owner: OwnerId,
    settlements: &[&Settlement],
) -> Result<Changed> {
    let (ids, epochs): (Vec<Uuid>, Vec<i32>) = settlements.iter().map(|s| token(s)).unzip();
    let workspaces: Vec<&str> = settlements.iter().map(|s| s.workspace.as_str()).collect();
    let mut ends = Vec::with_capacity(settlements.len());
    let mut delays = Vec::with_capacity(settlements.len());
    let mut spent = Vec::with_capacity(settlements.len());
    for settlement in settlements {
        let change = Change::of(&settlement.verdict);
        ends.push(change.end);
        delays.push(change.delay);
        spent.push(change.spent);
    }
    let rows: Vec<(Uuid, i32, Uuid)> = sqlx::query_as(
        "-- postgres::settle::change_states
        with outcome as materialized (
            select delivery_id, workspace, epoch, state, delay, spent
            from unnest(
                $2::uuid[], $3::text[], $4::integer[], $5::text[], $6::interval[], $7::boolean[]
            ) as outcome (delivery_id, workspace, epoch, state, delay, spent)
        ), ended as (
            delete from delivery_queue q
            using outcome o
            where q.delivery_id = o.delivery_id
              and q.workspace = o.workspace
              and q.owner = $1
              and q.epoch = o.epoch
              and o.state is not null
            returning
                q.delivery_id, q.event_id, q.workspace, q.subscription_id, q.epoch,
                q.attempts + 1 as attempts, o.state
        ), history as (
            insert into delivery (
                id, event_id, workspace, subscription_id, epoch, attempts, state, settled_at
            )
            select
                delivery_id, event_id, workspace, subscription_id, epoch, attempts, state,
                clock_timestamp()
            from ended
        ), returned as (
            update delivery_queue q
            set owner = null,
                visible_at = clock_timestamp() + o.delay,
                lane = case when o.spent then 1 else q.lane end,
                attempts = q.attempts + case when o.spent then 1 else 0 end,
                lost_leases = case when o.spent then 0 else q.lost_leases end
            from outcome o
            where q.delivery_id = o.delivery_id
              and q.workspace = o.workspace
              and q.owner = $1
              and q.epoch = o.epoch
              and o.state is null
            returning q.delivery_id, q.epoch, q.subscription_id
        )
        select delivery_id, epoch, subscription_id from ended
        union all
        select delivery_id, epoch, subscription_id from returned",
    )
    .bind(owner.uuid())
    .bind(ids)
    .bind(workspaces)
    .bind(epochs)
    .bind(ends)
    .bind(delays)
    .bind(spent)
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    if rows.len() > settlements.len() {
        return Err(StoreError::Corrupt(format!(
            "{} deliveries settled where {} were sent",
            rows.len(),
            settlements.len()
        )));
    }
    Ok(rows
        .into_iter()
        .map(|(id, epoch, subscription)| ((id, epoch), subscription))
        .collect())
}

/// Those of the unmatched that an earlier try of the same settle committed. An attempt that counted
/// can only be its own, since an epoch belongs to one lease. What was released leaves no attempt:
/// it counts as done while the row still stands as the release left it; once it was leased again,
/// nothing tells the two cases apart, nothing hangs on it, and the answer is `LeaseLost`.
async fn settled_before(
    tx: &mut PgTransaction<'_>,
    unmatched: &[&Settlement],
) -> Result<HashSet<Token>> {
    if unmatched.is_empty() {
        return Ok(HashSet::new());
    }
    let (ids, epochs): (Vec<Uuid>, Vec<i32>) = unmatched.iter().map(|s| token(s)).unzip();
    let workspaces: Vec<&str> = unmatched.iter().map(|s| s.workspace.as_str()).collect();
    let released: Vec<bool> = unmatched.iter().map(|s| s.attempt.is_none()).collect();
    let rows: Vec<Token> = sqlx::query_as(
        "-- postgres::settle::settled_before
        select unmatched.delivery_id, unmatched.epoch
        from unnest($1::uuid[], $2::text[], $3::integer[], $4::boolean[])
            as unmatched (delivery_id, workspace, epoch, released)
        where exists (
            select from attempt a
            where a.delivery_id = unmatched.delivery_id
              and a.workspace = unmatched.workspace
              and a.epoch = unmatched.epoch
              and not a.lease_lost
        ) or (
            unmatched.released
            and exists (
                select from delivery_queue q
                where q.delivery_id = unmatched.delivery_id
                  and q.workspace = unmatched.workspace
                  and q.epoch = unmatched.epoch
                  and q.owner is null
            )
        )",
    )
    .bind(ids)
    .bind(workspaces)
    .bind(epochs)
    .bind(released)
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(rows.into_iter().collect())
}

#[derive(Default)]
struct AttemptColumns<'a> {
    delivery_ids: Vec<Uuid>,
    epochs: Vec<i32>,
    workspaces: Vec<&'a str>,
    triggers: Vec<&'static str>,
    times: Vec<DateTime<Utc>>,
    durations_ms: Vec<i64>,
    statuses: Vec<Option<i32>>,
    errors: Vec<Option<&'static str>>,
    headers: Vec<String>,
    excerpts: Vec<&'a str>,
    lost: Vec<bool>,
}

impl<'a> AttemptColumns<'a> {
    fn of(settlements: &[&'a Settlement], lost: impl Fn(&Settlement) -> bool) -> Result<Self> {
        let mut columns = Self::default();
        for settlement in settlements {
            let Some(attempt) = &settlement.attempt else {
                continue;
            };
            columns.delivery_ids.push(settlement.delivery.uuid());
            columns.epochs.push(settlement.epoch);
            columns.workspaces.push(settlement.workspace.as_str());
            columns.triggers.push(attempt.trigger.as_str());
            columns.times.push(attempt.at);
            columns
                .durations_ms
                .push(i64::try_from(attempt.duration.as_millis()).unwrap_or(i64::MAX));
            columns.statuses.push(attempt.status.map(i32::from));
            columns.errors.push(attempt.error.map(ErrorClass::as_str));
            columns.headers.push(
                serde_json::to_string(&attempt.response_headers).map_err(StoreError::corrupt)?,
            );
            columns.excerpts.push(&attempt.response_excerpt);
            columns.lost.push(lost(settlement));
        }
        Ok(columns)
    }
}

/// Records what was met. One that is there already stays as it is.
async fn insert_attempts(
    tx: &mut PgTransaction<'_>,
    settlements: &[&Settlement],
    lost: impl Fn(&Settlement) -> bool,
) -> Result<()> {
    let columns = AttemptColumns::of(settlements, lost)?;
    if columns.delivery_ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "-- postgres::settle::insert_attempts
        insert into attempt (
            delivery_id, epoch, workspace, trigger, at, duration_ms, status, error,
            response_headers, response_excerpt, lease_lost
        )
        select
            delivery_id, epoch, workspace, trigger, at, duration_ms, status, error,
            response_headers, response_excerpt, lease_lost
        from unnest(
            $1::uuid[], $2::integer[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[],
            $7::integer[], $8::text[], $9::text[], $10::text[], $11::boolean[]
        ) as made (
            delivery_id, epoch, workspace, trigger, at, duration_ms, status, error,
            response_headers, response_excerpt, lease_lost
        )
        on conflict do nothing",
    )
    .bind(columns.delivery_ids)
    .bind(columns.epochs)
    .bind(columns.workspaces)
    .bind(columns.triggers)
    .bind(columns.times)
    .bind(columns.durations_ms)
    .bind(columns.statuses)
    .bind(columns.errors)
    .bind(columns.headers)
    .bind(columns.excerpts)
    .bind(columns.lost)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

/// The subscriptions that this settle found gone, each once.
fn gone_subscriptions(settlements: &[&Settlement], changed: &Changed) -> Vec<(Uuid, String)> {
    let mut gone: Vec<(Uuid, String)> = settlements
        .iter()
        .filter(|settlement| settlement.verdict == Verdict::Gone)
        .filter_map(|settlement| {
            let subscription = changed.get(&token(settlement))?;
            Some((*subscription, settlement.workspace.to_string()))
        })
        .collect();
    gone.sort_unstable();
    gone.dedup();
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sent_is_spent() {
        let delay = Duration::new(5, 999);
        let retry = Change::of(&Verdict::Retry { delay });
        assert_eq!((retry.end, retry.spent), (None, true));
        assert_eq!(retry.delay, Duration::from_secs(5));
        let released = Change::of(&Verdict::Released);
        assert_eq!((released.end, released.spent), (None, false));
        for verdict in [Verdict::Succeeded, Verdict::Failed, Verdict::Gone] {
            let change = Change::of(&verdict);
            assert_eq!(change.end, Some(verdict.state().as_str()));
            assert!(change.spent);
        }
    }
}
