//! Writing outcomes: four round trips for a batch of deliveries that ended, whatever its size, two more
//! where some of them kept an order, and three more at most for those that go back to the queue and those
//! whose leases were lost.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::PgTransaction;
use sqlx::postgres::PgBindIterExt;
use uuid::Uuid;

use super::endings::{Ending, duration_ms, end, headers_text};
use super::errors::from_sqlx;
use super::replays::add_to_replays;
use super::rows::interval;
use super::{PostgresStore, Result, StoreError, commit, gates, rollups};
use crate::domain::attempt::{Attempt, ErrorClass};
use crate::domain::delivery::Verdict;
use crate::domain::ids::OwnerId;
use crate::store::gates::Crowd;
use crate::store::replays::ReplayTally;
use crate::store::rollups::Deltas;
use crate::store::{SettleOutcome, Settlement};

/// A delivery and the lease it was sent under.
type Token = (Uuid, i32);

impl PostgresStore {
    /// Nearly every outcome ends its delivery under a lease that still holds. Those of a batch are
    /// taken to be so, all of them, and written in one go; where that proves wrong it is undone, and
    /// each is looked at for itself, like those that go back to the queue.
    pub(super) async fn settle_once(
        &self,
        owner: OwnerId,
        settlements: &[Settlement],
    ) -> Result<Vec<SettleOutcome>> {
        let mut sorted: Vec<&Settlement> = settlements.iter().collect();
        sorted.sort_unstable_by_key(|settlement| token(settlement));
        let (endings, others) = split(&sorted);

        let mut tx = self.begin().await?;
        let found = if endings.is_empty() || end(&mut tx, owner, &endings).await? {
            settle_each(&mut tx, owner, &others).await?
        } else {
            tx.rollback().await.map_err(from_sqlx)?;
            tx = self.begin().await?;
            settle_each(&mut tx, owner, &sorted).await?
        };
        add_to_replays(&mut tx, &found.replays(&sorted)).await?;
        rollups::append(&mut tx, &found.deltas(&sorted)).await?;
        // Behind the rows of replays: whoever takes one forward waits for gates when it has its row.
        let leaving = Crowd::leaving(sorted.iter().copied(), |it| found.changed(it));
        let released = gates::leave(&mut tx, &leaving).await?;
        let mut seen = HashSet::new();
        let consequences = self
            .draw_consequences(&mut tx, settlements, |settlement| {
                found.changed(settlement) && seen.insert(token(settlement))
            })
            .await?;
        commit(tx).await?;
        self.tell_consequences(consequences).await;

        let outcomes = settlements.iter().map(|settlement| {
            if found.lost.contains(&token(settlement)) {
                return SettleOutcome::LeaseLost;
            }
            let made_way = settlement.leaves().and_then(|gate| released.at(&gate));
            made_way.map_or(SettleOutcome::Settled, SettleOutcome::MadeWay)
        });
        Ok(outcomes.collect())
    }
}

fn token(settlement: &Settlement) -> Token {
    (settlement.delivery.uuid(), settlement.epoch)
}

/// Those that end their deliveries, and the others; none are ends if any lease is in the batch twice.
fn split<'a>(sorted: &[&'a Settlement]) -> (Vec<Ending<'a>>, Vec<&'a Settlement>) {
    let mut endings = Vec::with_capacity(sorted.len());
    let mut others = Vec::new();
    let twice = sorted
        .windows(2)
        .any(|pair| token(pair[0]) == token(pair[1]));
    for settlement in sorted {
        match Ending::of(settlement) {
            Some(ending) if !twice => endings.push(ending),
            _ => others.push(*settlement),
        }
    }
    (endings, others)
}

/// What did not simply change as its verdict says.
#[derive(Default)]
struct Found {
    /// An earlier try of the same settle committed them.
    before: HashSet<Token>,
    /// The lease was another's.
    lost: HashSet<Token>,
}

impl Found {
    /// Whether a settlement changed what it names.
    fn changed(&self, settlement: &Settlement) -> bool {
        let token = token(settlement);
        !self.before.contains(&token) && !self.lost.contains(&token)
    }

    /// What this settle comes to for replays of many.
    fn replays(&self, settlements: &[&Settlement]) -> ReplayTally {
        let mut tally = ReplayTally::default();
        let mut seen = HashSet::new();
        for settlement in settlements {
            let token = token(settlement);
            if settlement.replaying.is_some() && self.changed(settlement) && seen.insert(token) {
                tally.count(settlement);
            }
        }
        tally
    }

    /// What it counts for statistics.
    fn deltas(&self, sorted: &[&Settlement]) -> Deltas {
        let mut last = None;
        Deltas::of(sorted.iter().copied().filter(|settlement| {
            let token = token(settlement);
            let is_first = last.replace(token) != Some(token);
            is_first && !self.before.contains(&token) && !self.lost.contains(&token)
        }))
    }
}

/// Writes outcomes whatever became of their leases.
async fn settle_each(
    tx: &mut PgTransaction<'_>,
    owner: OwnerId,
    settlements: &[&Settlement],
) -> Result<Found> {
    if settlements.is_empty() {
        return Ok(Found::default());
    }
    let changed = change_states(tx, owner, settlements).await?;
    let unmatched: Vec<&Settlement> = settlements
        .iter()
        .copied()
        .filter(|settlement| !changed.contains(&token(settlement)))
        .collect();
    let before = settled_before(tx, &unmatched).await?;
    let lost = unmatched
        .into_iter()
        .map(token)
        .filter(|token| !before.contains(token))
        .collect();
    insert_attempts(tx, settlements, &lost).await?;
    Ok(Found { before, lost })
}

/// What a verdict does to the queue row.
struct Change {
    /// The state it ends in; `None` goes back to the queue.
    end: Option<&'static str>,
    /// How long until it is due again.
    delay: Duration,
    /// Whether the attempt counts.
    spent: bool,
    /// Whether it was made ahead of its time, which it then waits for again.
    ahead: bool,
}

impl Change {
    fn of(verdict: &Verdict) -> Self {
        let state = verdict.state();
        let (delay, spent) = match verdict {
            Verdict::Retry { delay } | Verdict::Resumed { not_before: delay } => (*delay, true),
            Verdict::Released => (Duration::ZERO, false),
            Verdict::Succeeded | Verdict::Repeated | Verdict::Failed | Verdict::Gone => {
                (Duration::ZERO, true)
            }
        };
        Self {
            end: state.is_final().then(|| state.as_str()),
            delay: interval(delay),
            spent,
            ahead: matches!(verdict, Verdict::Resumed { .. }),
        }
    }
}

/// Moves what is final to history and gives the rest back, wherever the lease is still the one that
/// it was sent under; answers where it is. What was in history before is counted on there.
///
/// The attempt of a replay was its only one: what goes on is the schedule, at whose step it stood
/// (`attempts - base`), with a step spent or, ahead of its time, with none.
#[expect(clippy::too_many_lines, reason = "one statement")]
async fn change_states(
    tx: &mut PgTransaction<'_>,
    owner: OwnerId,
    settlements: &[&Settlement],
) -> Result<HashSet<Token>> {
    let (ids, epochs): (Vec<Uuid>, Vec<i32>) = settlements.iter().map(|s| token(s)).unzip();
    let workspaces: Vec<&str> = settlements.iter().map(|s| s.workspace.as_str()).collect();
    let mut ends = Vec::with_capacity(settlements.len());
    let mut delays = Vec::with_capacity(settlements.len());
    let mut spent = Vec::with_capacity(settlements.len());
    let mut ahead = Vec::with_capacity(settlements.len());
    let repeats: Vec<bool> = settlements.iter().map(|s| s.repeats()).collect();
    for settlement in settlements {
        let change = Change::of(&settlement.verdict);
        ends.push(change.end);
        delays.push(change.delay);
        spent.push(change.spent);
        ahead.push(change.ahead);
    }
    let rows: Vec<Token> = sqlx::query_as(
        "-- postgres::settle::change_states
        with outcome as materialized (
            select distinct on (o.delivery_id, o.epoch)
                o.delivery_id, o.epoch, o.state, o.delay, o.spent, o.ahead, o.repeats,
                held.found_at
            from unnest(
                $2::uuid[], $3::text[], $4::integer[], $5::text[], $6::interval[], $7::boolean[],
                $8::boolean[], $9::boolean[]
            ) as o (delivery_id, workspace, epoch, state, delay, spent, ahead, repeats)
            cross join lateral (
                select q.ctid as found_at
                from delivery_queue q
                where q.delivery_id = o.delivery_id
                  and q.workspace = o.workspace
                  and q.owner = $1
                  and q.epoch = o.epoch
                limit 1
            ) as held
        ), ended as (
            delete from delivery_queue
            where ctid = any(array(select found_at from outcome where state is not null))
              and owner = $1
              and ((delivery_id, epoch) in (select unnest($2), unnest($4))) is true
            returning
                delivery_id, event_id, workspace, subscription_id, epoch, attempts + 1 as attempts
        ), history as (
            insert into delivery (
                id, event_id, workspace, subscription_id, epoch, attempts, state, settled_at
            )
            select
                ended.delivery_id, event_id, workspace, subscription_id, ended.epoch, attempts,
                outcome.state, clock_timestamp()
            from ended
            join outcome using (delivery_id, epoch)
            where not outcome.repeats
        ), counted_on as (
            update delivery d
            set attempts = ended.attempts, epoch = ended.epoch
            from ended
            join outcome using (delivery_id, epoch)
            where outcome.repeats and d.workspace = ended.workspace and d.id = ended.delivery_id
        ), returned as (
            update delivery_queue q
            set (
                owner, visible_at, lane, attempts, lost_leases, base, replayed, former_at, replay_id
            ) = (
                select
                    null::uuid,
                    case
                        when o.ahead then greatest(q.former_at, clock_timestamp() + o.delay)
                        else clock_timestamp() + o.delay
                    end,
                    case
                        when not o.spent then q.lane
                        when o.ahead and q.attempts = q.base then 0
                        else 1
                    end,
                    q.attempts + case when o.spent then 1 else 0 end,
                    case when o.spent then 0 else q.lost_leases end,
                    q.base + case when o.ahead then 1 else 0 end,
                    case when not o.spent then q.replayed end,
                    case when not o.spent then q.former_at end,
                    case when not o.spent then q.replay_id end
                from outcome o
                where o.delivery_id = q.delivery_id and o.epoch = q.epoch
                limit 1
            )
            where q.ctid = any(array(select found_at from outcome where state is null))
              and q.owner = $1
              and ((q.delivery_id, q.epoch) in (select unnest($2), unnest($4))) is true
            returning q.delivery_id, q.epoch
        )
        select delivery_id, epoch from ended
        union all
        select delivery_id, epoch from returned",
    )
    .bind(owner.uuid())
    .bind(ids)
    .bind(workspaces)
    .bind(epochs)
    .bind(ends)
    .bind(delays)
    .bind(spent)
    .bind(ahead)
    .bind(repeats)
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
    Ok(rows.into_iter().collect())
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

/// Records what was met. One that is there already stays as it is.
async fn insert_attempts(
    tx: &mut PgTransaction<'_>,
    settlements: &[&Settlement],
    lost: &HashSet<Token>,
) -> Result<()> {
    let made: Vec<(&Settlement, &Attempt)> = settlements
        .iter()
        .filter_map(|settlement| Some((*settlement, settlement.attempt.as_ref()?)))
        .collect();
    if made.is_empty() {
        return Ok(());
    }
    let headers = made
        .iter()
        .map(|(_, attempt)| headers_text(attempt))
        .collect::<Result<Vec<_>>>()?;
    let settlements = || made.iter().map(|(settlement, _)| *settlement);
    let attempts = || made.iter().map(|(_, attempt)| *attempt);
    sqlx::query(
        "-- postgres::settle::insert_attempts
        insert into attempt (
            delivery_id, epoch, workspace, trigger, at, duration_ms, status, error,
            response_headers, response_excerpt, lease_lost
        )
        select
            unnest($1::uuid[]), unnest($2::integer[]), unnest($3::text[]), unnest($4::text[]),
            unnest($5::timestamptz[]), unnest($6::bigint[]), unnest($7::integer[]),
            unnest($8::text[]), unnest($9::text[]), unnest($10::text[]), unnest($11::boolean[])
        on conflict do nothing",
    )
    .bind(settlements().map(|s| s.delivery.uuid()).bind_iter())
    .bind(settlements().map(|s| s.epoch).bind_iter())
    .bind(settlements().map(|s| s.workspace.as_str()).bind_iter())
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
    .bind(settlements().map(|s| lost.contains(&token(s))).bind_iter())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
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
        let resumed = Change::of(&Verdict::Resumed { not_before: delay });
        assert_eq!(
            (resumed.end, resumed.spent, resumed.ahead),
            (None, true, true)
        );
        for verdict in [
            Verdict::Succeeded,
            Verdict::Repeated,
            Verdict::Failed,
            Verdict::Gone,
        ] {
            let change = Change::of(&verdict);
            assert_eq!(change.end, Some(verdict.state().as_str()));
            assert!(change.spent);
        }
    }
}
