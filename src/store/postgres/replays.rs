//! Replaying: the calls, and what settles add to replays of many. Their rows are in `bulk_replay`.

use std::collections::HashMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::PgTransaction;
use uuid::Uuid;

use super::audit::tell;
use super::errors::{from_sqlx, reading, retrying};
use super::idempotency::{look_up, remember};
use super::requeue::Requeue;
use super::{PostgresStore, Result, StoreError, bulk_replay, commit};
use crate::domain::audit::{Act, Action};
use crate::domain::ids::{DeliveryId, EventId, ReplayId, SubscriptionId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::domain::replay::ReplayedDelivery;
use crate::domain::selection::Selection;
use crate::store::replays::{
    Cancelled, Candidate, Cursor, NewReplay, Progress, ReplayRecord, ReplayTally, Replays,
    Requeued, Running, is_under_way,
};
use crate::store::{Creation, DeliveryLog, Idempotency, Page, PageRequest, Standing};

#[async_trait]
impl Replays for PostgresStore {
    async fn replay_delivery(
        &self,
        reach: &Reach,
        id: DeliveryId,
        act: &Act,
    ) -> Result<Option<Requeued>> {
        let made = retrying(|| self.replay_one(reach, id, act, None)).await?;
        made.map(Creation::created).transpose()
    }

    async fn replay_delivery_once(
        &self,
        reach: &Reach,
        id: DeliveryId,
        act: &Act,
        once: &Idempotency,
    ) -> Result<Option<Creation<Requeued>>> {
        retrying(|| self.replay_one(reach, id, act, Some(once))).await
    }

    async fn create_replay(
        &self,
        reach: &Reach,
        new: &NewReplay,
        act: &Act,
        once: Option<&Idempotency>,
    ) -> Result<Option<Creation<ReplayRecord>>> {
        retrying(|| self.begin_replay(reach, new, act, once)).await
    }

    async fn is_repeat(&self, workspace: &WorkspaceId, once: &Idempotency) -> Result<bool> {
        reading(async {
            let mut connection = self.connection().await?;
            let known = look_up(&mut connection, workspace, once).await?;
            Ok(known.is_some())
        })
        .await
    }

    async fn replay(&self, reach: &Reach, id: ReplayId) -> Result<Option<ReplayRecord>> {
        reading(async {
            let mut connection = self.connection().await?;
            bulk_replay::find(&mut connection, reach, id).await
        })
        .await
    }

    async fn replays(
        &self,
        reach: &Reach,
        page: PageRequest<ReplayId>,
    ) -> Result<Page<ReplayRecord, ReplayId>> {
        reading(self.list_replays(reach, page)).await
    }

    async fn cancel_replay(
        &self,
        reach: &Reach,
        id: ReplayId,
        act: &Act,
    ) -> Result<Option<Cancelled>> {
        retrying(|| self.end_replay(reach, id, act)).await
    }

    async fn unfinished_replays(&self, page: PageRequest<ReplayId>) -> Result<Vec<Running>> {
        reading(self.unfinished(page)).await
    }

    async fn replay_in_queue(&self, id: ReplayId) -> Result<HashMap<SubscriptionId, usize>> {
        self.in_queue_of(id).await
    }

    async fn replay_candidates(
        &self,
        reach: &Reach,
        selection: &Selection,
        until: DateTime<Utc>,
        page: PageRequest<DeliveryId>,
    ) -> Result<Page<Candidate, DeliveryId>> {
        self.candidates(reach, selection, until, page).await
    }

    async fn undelivered(
        &self,
        workspace: &WorkspaceId,
        subscription: SubscriptionId,
        events: &[EventId],
    ) -> Result<Vec<EventId>> {
        self.without_delivery(workspace, subscription, events).await
    }

    async fn count_replay(
        &self,
        running: &Running,
        counted: u64,
        next: &Cursor,
    ) -> Result<Standing> {
        retrying(|| self.note_count(running, counted, next)).await
    }

    async fn advance_replay(
        &self,
        running: &Running,
        deliveries: &[DeliveryId],
        events: &[EventId],
        next: &Cursor,
    ) -> Result<Standing> {
        retrying(|| self.advance(running, deliveries, events, next)).await
    }

    async fn settle_replay(&self, running: &Running) -> Result<()> {
        retrying(|| self.finish_replay(running)).await
    }
}

impl PostgresStore {
    async fn replay_one(
        &self,
        reach: &Reach,
        id: DeliveryId,
        act: &Act,
        once: Option<&Idempotency>,
    ) -> Result<Option<Creation<Requeued>>> {
        // What is in reach stays in reach: a delivery's event and subscription are for good.
        if self.delivery(reach, id).await?.is_none() {
            return Ok(None);
        }
        let workspace = &reach.workspace;
        let requeue = Requeue {
            workspace,
            bulk: None,
        };
        let mut tx = self.begin().await?;
        if let Some(known) = remember(&mut tx, workspace, once, &id.to_string()).await? {
            return Ok(Some(known));
        }
        let answer = requeue.run(&mut tx, &[id]).await?.pop();
        let answer = answer.ok_or_else(|| StoreError::corrupt("no answer"))?;
        if let Ok(was) = answer {
            let thing = ReplayedDelivery { workspace, id, was };
            tell(&mut tx, act.made(Action::DeliveryReplayed, &thing)).await?;
        }
        if is_under_way(answer) {
            commit(tx).await?;
        }
        Ok(Some(Creation::Created(answer)))
    }
}

/// Adds what a settle came to, in the order of ids: two settles wait for each other in one direction.
pub(super) async fn add_to_replays(tx: &mut PgTransaction<'_>, tally: &ReplayTally) -> Result<()> {
    if tally.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = tally.iter().map(|(id, _)| *id).collect();
    let of = |count: fn(&Progress) -> i64| -> Vec<i64> {
        tally.iter().map(|(_, progress)| count(progress)).collect()
    };
    let workspaces: Vec<&str> = tally
        .iter()
        .map(|(_, progress)| progress.workspace.as_str())
        .collect();
    sqlx::query(
        "-- postgres::replays::add_to_replays
        with held as materialized (
            select r.workspace, r.id, made.done, made.failed
            from unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[])
                as made (id, workspace, done, failed)
            join replay r on r.id = made.id and r.workspace = made.workspace
            order by r.id
            for no key update of r
        )
        update replay r
        set done = r.done + held.done, failed = r.failed + held.failed
        from held
        where r.workspace = held.workspace and r.id = held.id",
    )
    .bind(ids)
    .bind(workspaces)
    .bind(of(|progress| progress.done))
    .bind(of(|progress| progress.failed))
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}
