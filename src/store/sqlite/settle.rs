//! Writing what came of deliveries.

use std::collections::HashSet;

use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::SqliteStore;
use super::error::store_error;
use super::queue::remove;
use super::rows::{count, duration_millis, get, id, millis, statements, unsigned};
use super::subscriptions::disable_gone;
use crate::domain::attempt::{Attempt, ErrorClass};
use crate::domain::delivery::{DeliveryState, Verdict};
use crate::domain::ids::{DeliveryId, OwnerId, SubscriptionId};
use crate::store::{Result, SettleOutcome, Settlement, StoreError};

impl SqliteStore {
    pub(super) async fn write_outcomes(
        &self,
        owner: OwnerId,
        settlements: &[Settlement],
    ) -> Result<Vec<SettleOutcome>> {
        let mut transaction = self.write().await?;
        let now = millis(self.clock.now());
        let standings = standings(&mut transaction, owner, settlements).await?;
        let work = Work::sort(settlements, &standings);

        move_final(&mut transaction, &work.settled, now).await?;
        give_back(&mut transaction, &work.given_back, now).await?;
        write_attempts(&mut transaction, &work.attempts).await?;
        for (settlement, subscription) in work.gone {
            disable_gone(&mut transaction, &settlement.workspace, subscription, now).await?;
        }
        self.commit(transaction).await?;
        Ok(standings
            .iter()
            .map(|standing| standing.outcome())
            .collect())
    }
}

/// How a settlement finds its delivery.
#[derive(Clone, Copy)]
enum Standing {
    /// Under the lease that it was sent under.
    Held(SubscriptionId),
    /// As this settlement left it when it came before; its answer was lost.
    Settled,
    /// Under another lease, or settled under one. `recorded` says that this was noted before.
    Lost { recorded: bool },
}

impl Standing {
    fn outcome(self) -> SettleOutcome {
        match self {
            Self::Held(_) | Self::Settled => SettleOutcome::Settled,
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
    let mut standings = vec![Standing::Lost { recorded: false }; settlements.len()];
    let mut before = 0;
    for part in statements(settlements) {
        let mut number = before;
        let mut select = QueryBuilder::<Sqlite>::new(
            "-- sqlite::settle::standings
            with asked (number, delivery_id, workspace, epoch) as (",
        );
        select.push_values(part, |mut row, settlement| {
            row.push_bind(count(number))
                .push_bind(settlement.delivery.uuid())
                .push_bind(settlement.workspace.as_str())
                .push_bind(settlement.epoch);
            number += 1;
        });
        select.push(
            ")
            select asked.number, queue.subscription_id, queue.owner is null as unleased,
                queue.owner is ",
        );
        select.push_bind(owner.uuid());
        select.push(
            " as ours, attempt.lease_lost
            from asked
            left join delivery_queue as queue on queue.delivery_id = asked.delivery_id
                and queue.workspace = asked.workspace and queue.epoch = asked.epoch
            left join attempt on attempt.delivery_id = asked.delivery_id
                and attempt.epoch = asked.epoch and attempt.workspace = asked.workspace",
        );
        let rows = select
            .build()
            .fetch_all(&mut *transaction)
            .await
            .map_err(store_error)?;
        for row in &rows {
            let number: usize = unsigned(row, "number")?;
            let standing = standings
                .get_mut(number)
                .ok_or_else(|| StoreError::corrupt("a row that was not asked for"))?;
            let in_queue = get::<Option<&[u8]>>(row, "subscription_id")?.is_some();
            *standing = match get::<Option<bool>>(row, "lease_lost")? {
                Some(false) => Standing::Settled,
                Some(true) => Standing::Lost { recorded: true },
                None if in_queue && get(row, "ours")? => {
                    Standing::Held(id(row, "subscription_id")?)
                }
                // Given back unsent leaves no attempt to know it by.
                None if in_queue
                    && get(row, "unleased")?
                    && settlements[number].attempt.is_none() =>
                {
                    Standing::Settled
                }
                None => Standing::Lost { recorded: false },
            };
        }
        before = number;
    }
    Ok(standings)
}

/// What is to be written, sorted by statement.
#[derive(Default)]
struct Work<'a> {
    settled: Vec<(&'a Settlement, DeliveryState)>,
    given_back: Vec<&'a Settlement>,
    attempts: Vec<(&'a Settlement, &'a Attempt, SettleOutcome)>,
    gone: Vec<(&'a Settlement, SubscriptionId)>,
}

impl<'a> Work<'a> {
    fn sort(settlements: &'a [Settlement], standings: &[Standing]) -> Self {
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
                work.attempts
                    .push((settlement, attempt, standing.outcome()));
            }
            if let Standing::Held(subscription) = *standing {
                work.apply(settlement, subscription);
            }
        }
        work
    }

    fn apply(&mut self, settlement: &'a Settlement, subscription: SubscriptionId) {
        match &settlement.verdict {
            Verdict::Retry { .. } | Verdict::Released => self.given_back.push(settlement),
            verdict => self.settled.push((settlement, verdict.state())),
        }
        if settlement.verdict == Verdict::Gone {
            self.gone.push((settlement, subscription));
        }
    }
}

/// Moves deliveries out of the queue into history.
async fn move_final(
    transaction: &mut SqliteConnection,
    settled: &[(&Settlement, DeliveryState)],
    now: i64,
) -> Result<()> {
    for part in statements(settled) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "-- sqlite::settle::move_final
            with outcome (delivery_id, workspace, state) as (",
        );
        insert.push_values(part, |mut row, (settlement, state)| {
            row.push_bind(settlement.delivery.uuid())
                .push_bind(settlement.workspace.as_str())
                .push_bind(state.as_str());
        });
        insert.push(
            ")
            insert into delivery (workspace, id, event_id, subscription_id, state,
                attempts, epoch, settled_at)
            select queue.workspace, queue.delivery_id, queue.event_id, queue.subscription_id,
                outcome.state, queue.attempts + 1, queue.epoch, ",
        );
        insert.push_bind(now);
        insert.push(
            " from outcome
            cross join delivery_queue as queue on queue.delivery_id = outcome.delivery_id
                and queue.workspace = outcome.workspace",
        );
        insert
            .build()
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
        let moved = part
            .iter()
            .map(|(settlement, _)| (settlement.delivery.uuid(), settlement.workspace.as_str()));
        remove(transaction, moved).await?;
    }
    Ok(())
}

/// Ends leases without ending deliveries: after a failed attempt, or unsent.
async fn give_back(
    transaction: &mut SqliteConnection,
    given_back: &[&Settlement],
    now: i64,
) -> Result<()> {
    for part in statements(given_back) {
        let mut update = QueryBuilder::<Sqlite>::new(
            "-- sqlite::settle::give_back
            with outcome (delivery_id, workspace, due_at, was_tried) as (",
        );
        update.push_values(part, |mut row, settlement| {
            let (delay, was_tried) = match settlement.verdict {
                Verdict::Retry { delay } => (duration_millis(delay), 1),
                _ => (0, 0),
            };
            row.push_bind(settlement.delivery.uuid())
                .push_bind(settlement.workspace.as_str())
                .push_bind(now.saturating_add(delay))
                .push_bind(was_tried);
        });
        update.push(
            ")
            update delivery_queue
            set owner = null, visible_at = outcome.due_at,
                attempts = delivery_queue.attempts + outcome.was_tried,
                lost_leases = iif(outcome.was_tried, 0, delivery_queue.lost_leases),
                lane = iif(outcome.was_tried, 1, delivery_queue.lane)
            from outcome
            where delivery_queue.delivery_id = outcome.delivery_id
                and delivery_queue.workspace = outcome.workspace",
        );
        update
            .build()
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
    }
    Ok(())
}

async fn write_attempts(
    transaction: &mut SqliteConnection,
    attempts: &[(&Settlement, &Attempt, SettleOutcome)],
) -> Result<()> {
    for part in statements(attempts) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "-- sqlite::settle::write_attempts
            insert into attempt (delivery_id, epoch, workspace, trigger, at, duration_ms, status,
                error, lease_lost, response_headers, response_excerpt) ",
        );
        insert.push_values(part, |mut row, (settlement, attempt, outcome)| {
            row.push_bind(settlement.delivery.uuid())
                .push_bind(settlement.epoch)
                .push_bind(settlement.workspace.as_str())
                .push_bind(attempt.trigger.as_str())
                .push_bind(millis(attempt.at))
                .push_bind(duration_millis(attempt.duration))
                .push_bind(attempt.status)
                .push_bind(attempt.error.map(ErrorClass::as_str))
                .push_bind(*outcome == SettleOutcome::LeaseLost)
                .push_bind(headers(attempt))
                .push_bind(attempt.response_excerpt.as_str());
        });
        insert
            .build()
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
    }
    Ok(())
}

/// Headers as they are kept: JSON, a list of pairs, since order and repetition mean something.
fn headers(attempt: &Attempt) -> String {
    serde_json::json!(attempt.response_headers).to_string()
}
