//! Writing what came of deliveries.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::bulk::{self, Bulk};
use super::error::store_error;
use super::replays::add_to_replays;
use super::rows::{count, duration_millis, get, millis, unsigned};
use super::{Approach, SqliteStore, gates, rollups};
use crate::domain::attempt::{Attempt, ErrorClass};
use crate::domain::delivery::Verdict;
use crate::domain::ids::{DeliveryId, OwnerId};
use crate::store::gates::Crowd;
use crate::store::replays::ReplayTally;
use crate::store::rollups::Deltas;
use crate::store::{Result, SettleOutcome, Settlement, StoreError};

impl SqliteStore {
    pub(super) async fn write_outcomes(
        &self,
        owner: OwnerId,
        settlements: &[Settlement],
    ) -> Result<Vec<SettleOutcome>> {
        if let Some(outcomes) = self
            .try_outcomes(owner, settlements, Approach::Confident)
            .await?
        {
            return Ok(outcomes);
        }
        self.try_outcomes(owner, settlements, Approach::Careful)
            .await?
            .ok_or_else(|| StoreError::corrupt("a delivery is leased and cannot be settled"))
    }

    /// One transaction; `None` if a delivery was not where it was taken to be, and nothing was done.
    async fn try_outcomes(
        &self,
        owner: OwnerId,
        settlements: &[Settlement],
        approach: Approach,
    ) -> Result<Option<Vec<SettleOutcome>>> {
        let mut transaction = self.write().await?;
        let now = self.clock.now();
        let standings = match approach {
            Approach::Confident => vec![Standing::Held; settlements.len()],
            Approach::Careful => standings(&mut transaction, owner, settlements).await?,
        };
        let work = Work::sort(settlements, &standings)?;
        if !work.write(&mut transaction, owner, millis(now)).await? {
            transaction.rollback().await.map_err(store_error)?;
            return Ok(None);
        }
        let leaving = Crowd::leaving(work.held.iter().copied(), |_| true);
        let released = gates::leave(&mut transaction, &leaving, millis(now)).await?;
        let consequences = self
            .draw_consequences(&mut transaction, &work.held, now)
            .await?;
        self.commit(transaction).await?;
        self.tell_consequences(consequences).await;
        let outcomes = settlements.iter().zip(&standings).map(|(it, standing)| {
            let gate = it.leaves().filter(|_| matches!(standing, Standing::Held));
            let made_way = gate.and_then(|gate| released.at(&gate));
            made_way.map_or_else(|| standing.outcome(), SettleOutcome::MadeWay)
        });
        Ok(Some(outcomes.collect()))
    }
}

/// How a settlement finds its delivery.
#[derive(Clone, Copy)]
enum Standing {
    /// Under the lease that it was sent under.
    Held,
    /// As this settlement left it when it came before; its answer was lost.
    Settled,
    /// Under another lease, or settled under one. `recorded` says that this was noted before.
    Lost { recorded: bool },
}

impl Standing {
    fn of(row: &SqliteRow, settlement: &Settlement) -> Result<Self> {
        let recorded: Option<bool> = get(row, "lease_lost")?;
        Ok(match recorded {
            Some(false) => Self::Settled,
            Some(true) => Self::Lost { recorded: true },
            None if get(row, "ours")? => Self::Held,
            // Given back unsent leaves no attempt to know it by.
            None if get(row, "unleased")? && settlement.attempt.is_none() => Self::Settled,
            None => Self::Lost { recorded: false },
        })
    }

    fn outcome(self) -> SettleOutcome {
        match self {
            Self::Held | Self::Settled => SettleOutcome::Settled,
            Self::Lost { .. } => SettleOutcome::LeaseLost,
        }
    }
}

/// Where each settlement's delivery stands, in the order given.
async fn standings(
    transaction: &mut SqliteConnection,
    owner: OwnerId,
    settlements: &[Settlement],
) -> Result<Vec<Standing>> {
    static SELECT: Bulk = Bulk::new(
        "-- sqlite::settle::standings
        with asked (number, delivery_id, workspace, epoch) as (values ",
        "(?, ?, ?, ?)",
        ")
        select asked.number,
            queue.delivery_id is not null and queue.owner is null as unleased,
            queue.delivery_id is not null and queue.owner is ? as ours,
            attempt.lease_lost
        from asked
        left join delivery_queue as queue on queue.delivery_id = asked.delivery_id
            and queue.workspace = asked.workspace and queue.epoch = asked.epoch
        left join attempt on attempt.delivery_id = asked.delivery_id
            and attempt.epoch = asked.epoch and attempt.workspace = asked.workspace
        where asked.number is not null",
    );
    let mut number = 0;
    let statements = SELECT.statements(
        settlements,
        |statement, settlement| {
            let statement = statement
                .bind(count(number))
                .bind(settlement.delivery.uuid())
                .bind(settlement.workspace.to_shared())
                .bind(settlement.epoch);
            number += 1;
            statement
        },
        |statement| statement.bind(owner.uuid()),
    );
    let mut standings = vec![Standing::Lost { recorded: false }; settlements.len()];
    for row in &bulk::fetch(transaction, statements).await? {
        let number: usize = unsigned(row, "number")?;
        if let (Some(standing), Some(settlement)) =
            (standings.get_mut(number), settlements.get(number))
        {
            *standing = Standing::of(row, settlement)?;
        }
    }
    Ok(standings)
}

/// What is to be written, sorted by statement.
#[derive(Default)]
struct Work<'a> {
    /// All that are under their leases, in the order in which they ended.
    held: Vec<&'a Settlement>,
    settled: Vec<&'a Settlement>,
    /// Replays of what had succeeded: it is in history already.
    repeated: Vec<&'a Settlement>,
    given_back: Vec<&'a Settlement>,
    attempts: Vec<Record<'a>>,
    replays: ReplayTally,
}

/// An attempt that is to be kept.
struct Record<'a> {
    settlement: &'a Settlement,
    attempt: &'a Attempt,
    outcome: SettleOutcome,
    /// As they are kept: JSON, a list of pairs, since order and repetition mean something.
    headers: Arc<str>,
}

impl<'a> Work<'a> {
    fn sort(settlements: &'a [Settlement], standings: &[Standing]) -> Result<Self> {
        let mut work = Self::default();
        let mut seen: HashSet<(DeliveryId, i32)> = HashSet::with_capacity(settlements.len());
        for (settlement, standing) in settlements.iter().zip(standings) {
            let repeated = !seen.insert((settlement.delivery, settlement.epoch));
            if repeated
                || matches!(
                    standing,
                    Standing::Settled | Standing::Lost { recorded: true }
                )
            {
                continue;
            }
            if let Some(attempt) = &settlement.attempt {
                let headers = serde_json::to_string(&attempt.response_headers)
                    .map_err(StoreError::corrupt)?;
                work.attempts.push(Record {
                    settlement,
                    attempt,
                    outcome: standing.outcome(),
                    headers: headers.into(),
                });
            }
            if matches!(standing, Standing::Held) {
                work.apply(settlement);
            }
        }
        Ok(work)
    }

    fn apply(&mut self, settlement: &'a Settlement) {
        self.held.push(settlement);
        if settlement.repeats() {
            self.repeated.push(settlement);
        } else if settlement.verdict.state().is_final() {
            self.settled.push(settlement);
        } else {
            self.given_back.push(settlement);
        }
        self.replays.count(settlement);
    }

    /// Answers whether every delivery was under its lease, and no attempt recorded before.
    async fn write(
        &self,
        transaction: &mut SqliteConnection,
        owner: OwnerId,
        now: i64,
    ) -> Result<bool> {
        if take_out(transaction, owner, &self.settled).await? < self.settled.len()
            || take_out(transaction, owner, &self.repeated).await? < self.repeated.len()
            || give_back(transaction, owner, &self.given_back, now).await? < self.given_back.len()
            || write_attempts(transaction, &self.attempts).await? < self.attempts.len()
        {
            return Ok(false);
        }
        write_history(transaction, &self.settled, now).await?;
        count_on(transaction, &self.repeated).await?;
        add_to_replays(transaction, &self.replays).await?;
        rollups::append(transaction, &Deltas::of(self.held.iter().copied())).await?;
        Ok(true)
    }
}

/// Takes deliveries out of the queue, each under its lease token. Answers how many were.
async fn take_out(
    transaction: &mut SqliteConnection,
    owner: OwnerId,
    settled: &[&Settlement],
) -> Result<usize> {
    static DELETE: Bulk = Bulk::new(
        "-- sqlite::settle::take_out
        delete from delivery_queue where (delivery_id, workspace, epoch) in (values ",
        "(?, ?, ?)",
        ") and owner = ?",
    );
    let statements = DELETE.statements(
        settled,
        |statement, settlement| {
            statement
                .bind(settlement.delivery.uuid())
                .bind(settlement.workspace.to_shared())
                .bind(settlement.epoch)
        },
        |statement| statement.bind(owner.uuid()),
    );
    bulk::execute(transaction, statements).await
}

/// Writes what was taken out of the queue into history.
async fn write_history(
    transaction: &mut SqliteConnection,
    settled: &[&Settlement],
    now: i64,
) -> Result<()> {
    static INSERT: Bulk = Bulk::new(
        "-- sqlite::settle::write_history
        with settled (workspace, id, event_id, subscription_id, state, attempts, epoch) as (values ",
        "(?, ?, ?, ?, ?, ?, ?)",
        ")
        insert or fail into delivery (workspace, id, event_id, subscription_id, state, attempts,
            epoch, settled_at)
        select workspace, id, event_id, subscription_id, state, attempts, epoch, ?
        from settled
        where id is not null",
    );
    let statements = INSERT.statements(
        settled,
        |statement, settlement| {
            statement
                .bind(settlement.workspace.to_shared())
                .bind(settlement.delivery.uuid())
                .bind(settlement.event.uuid())
                .bind(settlement.subscription.uuid())
                .bind(settlement.verdict.state().as_str())
                .bind(settlement.attempts_before + 1)
                .bind(settlement.epoch)
        },
        |statement| statement.bind(now),
    );
    bulk::execute(transaction, statements).await?;
    Ok(())
}

/// Counts one more attempt of what was in history before; nothing else of it changes. What is no longer
/// there needs no counting.
async fn count_on(transaction: &mut SqliteConnection, repeated: &[&Settlement]) -> Result<()> {
    static UPDATE: Bulk = Bulk::new(
        "-- sqlite::settle::count_on
        with repeated (workspace, id, attempts, epoch) as (values ",
        "(?, ?, ?, ?)",
        ")
        update delivery
        set attempts = repeated.attempts, epoch = repeated.epoch
        from repeated
        where delivery.workspace = repeated.workspace and delivery.id = repeated.id",
    );
    let statements = UPDATE.statements(
        repeated,
        |statement, settlement| {
            statement
                .bind(settlement.workspace.to_shared())
                .bind(settlement.delivery.uuid())
                .bind(settlement.attempts_before + 1)
                .bind(settlement.epoch)
        },
        |statement| statement,
    );
    bulk::execute(transaction, statements).await?;
    Ok(())
}

/// Ends leases without ending deliveries: after a failed attempt, or unsent. Answers how many were
/// under their token. The attempt of a replay was its only one: what goes on is the schedule, at
/// whose step it stood (`attempts - base`), with a step spent or, ahead of its time, with none.
async fn give_back(
    transaction: &mut SqliteConnection,
    owner: OwnerId,
    given_back: &[&Settlement],
    now: i64,
) -> Result<usize> {
    static UPDATE: Bulk = Bulk::new(
        "-- sqlite::settle::give_back
        with outcome (delivery_id, workspace, epoch, due_at, was_tried, is_ahead) as (values ",
        "(?, ?, ?, ?, ?, ?)",
        ")
        update or fail delivery_queue
        set owner = null,
            visible_at = iif(outcome.is_ahead, max(former_at, outcome.due_at), outcome.due_at),
            attempts = delivery_queue.attempts + outcome.was_tried,
            base = base + outcome.is_ahead,
            lost_leases = iif(outcome.was_tried, 0, delivery_queue.lost_leases),
            lane = case
                when not outcome.was_tried then delivery_queue.lane
                when outcome.is_ahead and delivery_queue.attempts = base then 0
                else 1
            end,
            replayed = iif(outcome.was_tried, null, replayed),
            former_at = iif(outcome.was_tried, null, former_at),
            replay_id = iif(outcome.was_tried, null, replay_id)
        from outcome
        where delivery_queue.delivery_id = outcome.delivery_id
            and delivery_queue.workspace = outcome.workspace
            and delivery_queue.epoch = outcome.epoch
            and delivery_queue.owner = ?",
    );
    let statements = UPDATE.statements(
        given_back,
        |statement, settlement| {
            let (delay, was_tried, is_ahead) = match settlement.verdict {
                Verdict::Retry { delay } => (duration_millis(delay), 1, 0),
                Verdict::Resumed { not_before } => (duration_millis(not_before), 1, 1),
                _ => (0, 0, 0),
            };
            statement
                .bind(settlement.delivery.uuid())
                .bind(settlement.workspace.to_shared())
                .bind(settlement.epoch)
                .bind(now.saturating_add(delay))
                .bind(was_tried)
                .bind(is_ahead)
        },
        |statement| statement.bind(owner.uuid()),
    );
    bulk::execute(transaction, statements).await
}

/// Keeps attempts. Answers how many were new.
async fn write_attempts(
    transaction: &mut SqliteConnection,
    attempts: &[Record<'_>],
) -> Result<usize> {
    static INSERT: Bulk = Bulk::new(
        "-- sqlite::settle::write_attempts
        with made (delivery_id, epoch, workspace, trigger, at, duration_ms, status, error, lease_lost,
            response_headers, response_excerpt) as (values ",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ")
        insert or fail into attempt (delivery_id, epoch, workspace, trigger, at, duration_ms, status,
            error, lease_lost, response_headers, response_excerpt)
        select delivery_id, epoch, workspace, trigger, at, duration_ms, status, error, lease_lost,
            response_headers, response_excerpt
        from made
        where delivery_id is not null
        on conflict (delivery_id, epoch) do nothing",
    );
    let statements = INSERT.statements(
        attempts,
        |statement, record| {
            let Record {
                settlement,
                attempt,
                ..
            } = record;
            statement
                .bind(settlement.delivery.uuid())
                .bind(settlement.epoch)
                .bind(settlement.workspace.to_shared())
                .bind(attempt.trigger.as_str())
                .bind(millis(attempt.at))
                .bind(duration_millis(attempt.duration))
                .bind(attempt.status)
                .bind(attempt.error.map(ErrorClass::as_str))
                .bind(record.outcome == SettleOutcome::LeaseLost)
                .bind(Arc::clone(&record.headers))
                .bind(attempt.response_excerpt.as_str())
        },
        |statement| statement,
    );
    bulk::execute(transaction, statements).await
}
