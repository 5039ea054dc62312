//! Putting deliveries into the queue again: what a replay does to each.

use std::collections::HashMap;

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::error::store_error;
use super::gates;
use super::rows::{get, id, lane_number, list, optional_parsed, parsed, time};
use crate::domain::delivery::Lane;
use crate::domain::filter::EventType;
use crate::domain::ids::{DeliveryId, EditionId, ReplayId, WorkspaceId};
use crate::domain::replay::{Refusal, Was};
use crate::store::gates::{Comer, Gate, Place, arrival, columns};
use crate::store::replays::{Place as Found, Requeued, Taker, judge};
use crate::store::{Result, StoreError};

/// Deliveries of one workspace that are to be replayed at once.
pub(super) struct Requeue<'a> {
    pub(super) workspace: &'a WorkspaceId,
    pub(super) bulk: Option<ReplayId>,
    pub(super) now: i64,
}

impl Requeue<'_> {
    /// Replays each of these that can be; answers in their order.
    pub(super) async fn run(
        &self,
        transaction: &mut SqliteConnection,
        ids: &[DeliveryId],
    ) -> Result<Vec<Requeued>> {
        let found = self.find(transaction, ids).await?;
        let answers: Vec<Requeued> = ids
            .iter()
            .map(|asked| {
                let found = found.iter().find(|(id, _)| id == asked);
                // Nothing changes while this transaction writes: it was removed since it was seen.
                found.map_or(Err(Refusal::EventRemoved), |(_, answer)| *answer)
            })
            .collect();
        let all_of = |wanted: Was| -> Vec<DeliveryId> {
            let chosen = ids.iter().zip(&answers);
            let chosen = chosen.filter(|(_, answer)| **answer == Ok(wanted));
            chosen.map(|(id, _)| *id).collect()
        };
        let (failed, succeeded) = (all_of(Was::Failed), all_of(Was::Succeeded));
        self.send_now(transaction, &hex(all_of(Was::Pending).into_iter())?)
            .await?;
        let coming = hex(failed.iter().chain(&succeeded).copied())?;
        let places = self.line_up(transaction, &coming).await?;
        self.copy(transaction, Was::Failed, &rows_of(&failed, &places)?)
            .await?;
        self.take_out_of_history(transaction, &hex(failed.into_iter())?)
            .await?;
        self.copy(transaction, Was::Succeeded, &rows_of(&succeeded, &places)?)
            .await?;
        Ok(answers)
    }

    async fn find(
        &self,
        transaction: &mut SqliteConnection,
        ids: &[DeliveryId],
    ) -> Result<Vec<(DeliveryId, Requeued)>> {
        let rows = sqlx::query(
            "-- sqlite::requeue::find
            with asked (id) as (select unhex(value) from json_each(?1))
            select asked.id, queued.delivery_id is not null as is_queued,
                queued.owner is not null as leased, queued.replayed is not null as replaying,
                queued.visible_at is 9223372036854775807 as blocked,
                settled.state, subscription.status, event.id is not null as event_is_kept
            from asked
            left join delivery_queue as queued on queued.delivery_id = asked.id
                and queued.workspace = ?2
            left join delivery as settled on settled.workspace = ?2 and settled.id = asked.id
            left join subscription on subscription.workspace = ?2
                and subscription.id = coalesce(queued.subscription_id, settled.subscription_id)
            left join event on event.workspace = ?2
                and event.id = coalesce(queued.event_id, settled.event_id)
            where queued.delivery_id is not null or settled.id is not null",
        )
        .bind(hex(ids.iter().copied())?)
        .bind(self.workspace.as_str())
        .fetch_all(transaction)
        .await
        .map_err(store_error)?;
        rows.iter()
            .map(|row| {
                let taker = Taker::of(get(row, "status")?);
                Ok((id(row, "id")?, judge(found_at(row)?, taker)))
            })
            .collect()
    }

    /// Brings those that go by order to the tails of their gates, in the order of their events.
    async fn line_up(
        &self,
        transaction: &mut SqliteConnection,
        ids: &str,
    ) -> Result<HashMap<Uuid, (EditionId, Place)>> {
        let rows = sqlx::query(
            "-- sqlite::requeue::line_up
            select settled.id, settled.subscription_id, event.id as event_id, event.edition,
                event.type, event.occurred_at
            from json_each(?2) as asked
            cross join delivery as settled
            cross join subscription
            cross join event
            where settled.workspace = ?1 and settled.id = unhex(asked.value)
                and subscription.workspace = ?1 and subscription.id = settled.subscription_id
                and subscription.ordering = 'edition'
                and event.workspace = ?1 and event.id = settled.event_id
                and event.edition is not null",
        )
        .bind(self.workspace.as_str())
        .bind(ids)
        .fetch_all(&mut *transaction)
        .await
        .map_err(store_error)?;
        let mut comers = Vec::with_capacity(rows.len());
        for row in &rows {
            if parsed::<EventType>(row, "type")?.is_operational() {
                continue;
            }
            let comer = Comer {
                delivery: id(row, "id")?,
                gate: Gate {
                    subscription: id(row, "subscription_id")?,
                    edition: parsed(row, "edition")?,
                    workspace: self.workspace.clone(),
                },
            };
            let came = arrival(id(row, "event_id")?, time(row, "occurred_at")?);
            comers.push((came, comer));
        }
        comers.sort_by(|(one, _), (other, _)| one.cmp(other));
        let comers = comers.into_iter().map(|(_, comer)| comer);
        gates::line_up(transaction, comers.collect()).await
    }

    async fn send_now(&self, transaction: &mut SqliteConnection, ids: &str) -> Result<()> {
        sqlx::query(
            "-- sqlite::requeue::send_now
            update delivery_queue
            set lane = ?1, former_at = visible_at, visible_at = ?2, replayed = 'pending',
                replay_id = ?3
            where workspace = ?4
                and delivery_id in (select unhex(value) from json_each(?5))",
        )
        .bind(lane_number(Lane::Replay))
        .bind(self.now)
        .bind(self.bulk.map(|id| id.uuid()))
        .bind(self.workspace.as_str())
        .bind(ids)
        .execute(transaction)
        .await
        .map_err(store_error)?;
        Ok(())
    }

    /// From history into the queue, with a schedule that begins anew.
    async fn copy(&self, transaction: &mut SqliteConnection, was: Was, rows: &str) -> Result<()> {
        sqlx::query(
            "-- sqlite::requeue::copy
            with asked (id, gate, ord, waits) as (
                select unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3 from json_each(?6)
            )
            insert into delivery_queue (delivery_id, event_id, workspace, subscription_id, lane,
                visible_at, owner, epoch, attempts, lost_leases, bytes, base, replayed, former_at,
                replay_id, gate, ord)
            select settled.id, settled.event_id, settled.workspace, settled.subscription_id, ?1,
                iif(asked.waits, 9223372036854775807, ?2), null, settled.epoch, settled.attempts, 0,
                length(cast(event.body as blob)), settled.attempts, ?3,
                iif(?3 = 'failed', settled.settled_at, null), ?4, asked.gate, asked.ord
            from asked
            cross join delivery as settled
            cross join event
            where settled.workspace = ?5 and settled.id = asked.id
                and event.id = settled.event_id and event.workspace = settled.workspace",
        )
        .bind(lane_number(Lane::Replay))
        .bind(self.now)
        .bind(was.as_str())
        .bind(self.bulk.map(|id| id.uuid()))
        .bind(self.workspace.as_str())
        .bind(rows)
        .execute(transaction)
        .await
        .map_err(store_error)?;
        Ok(())
    }

    async fn take_out_of_history(
        &self,
        transaction: &mut SqliteConnection,
        ids: &str,
    ) -> Result<()> {
        sqlx::query(
            "-- sqlite::requeue::take_out_of_history
            delete from delivery
            where workspace = ?1 and id in (select unhex(value) from json_each(?2))",
        )
        .bind(self.workspace.as_str())
        .bind(ids)
        .execute(transaction)
        .await
        .map_err(store_error)?;
        Ok(())
    }
}

fn found_at(row: &SqliteRow) -> Result<Found> {
    if get(row, "blocked")? {
        return Ok(Found::Blocked {
            replaying: get(row, "replaying")?,
        });
    }
    if get(row, "is_queued")? {
        return Ok(Found::Queue {
            leased: get(row, "leased")?,
            replaying: get(row, "replaying")?,
        });
    }
    let state = optional_parsed(row, "state")?;
    Ok(Found::History {
        state: state.ok_or_else(|| StoreError::corrupt("a delivery without a state"))?,
        event_is_kept: get(row, "event_is_kept")?,
    })
}

/// Deliveries with their places, as `json_each` reads them.
fn rows_of(ids: &[DeliveryId], places: &HashMap<Uuid, (EditionId, Place)>) -> Result<String> {
    let rows = ids.iter().map(|id| {
        let (gate, ord, waits) = columns(places.get(&id.uuid()));
        (id.uuid().simple(), gate, ord, waits)
    });
    list(&rows.collect::<Vec<_>>())
}

/// Ids as `json_each` and `unhex` read them.
pub(super) fn hex(ids: impl Iterator<Item = DeliveryId>) -> Result<String> {
    let ids: Vec<Uuid> = ids.map(|id| id.uuid()).collect();
    list(&ids.iter().map(Uuid::as_simple).collect::<Vec<_>>())
}
