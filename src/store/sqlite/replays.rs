//! Replaying: the calls, and what settles add to replays of many. Their rows are in `bulk_replay`.

use std::collections::HashMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::SqliteConnection;

use super::audit::tell;
use super::error::store_error;
use super::idempotency::{look_up, remember};
use super::requeue::Requeue;
use super::rows::millis;
use super::{SqliteStore, bulk_replay};
use crate::domain::audit::{Act, Action};
use crate::domain::ids::{DeliveryId, EventId, ReplayId, SubscriptionId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::domain::replay::ReplayedDelivery;
use crate::domain::selection::Selection;
use crate::store::replays::{
    Cancelled, Candidate, Cursor, NewReplay, ReplayRecord, ReplayTally, Replays, Requeued, Running,
    is_under_way,
};
use crate::store::{
    Creation, DeliveryLog, Idempotency, Page, PageRequest, Result, Standing, StoreError,
};

#[async_trait]
impl Replays for SqliteStore {
    async fn replay_delivery(
        &self,
        reach: &Reach,
        id: DeliveryId,
        act: &Act,
    ) -> Result<Option<Requeued>> {
        let made = self.replay_one(reach, id, act, None).await?;
        made.map(Creation::created).transpose()
    }

    async fn replay_delivery_once(
        &self,
        reach: &Reach,
        id: DeliveryId,
        act: &Act,
        once: &Idempotency,
    ) -> Result<Option<Creation<Requeued>>> {
        self.replay_one(reach, id, act, Some(once)).await
    }

    async fn create_replay(
        &self,
        reach: &Reach,
        new: &NewReplay,
        act: &Act,
        once: Option<&Idempotency>,
    ) -> Result<Option<Creation<ReplayRecord>>> {
        self.begin_replay(reach, new, act, once).await
    }

    async fn is_repeat(&self, workspace: &WorkspaceId, once: &Idempotency) -> Result<bool> {
        let mut reader = self.read().await?;
        let known = look_up(&mut reader, workspace, once, self.clock.now()).await?;
        Ok(known.is_some())
    }

    async fn replay(&self, reach: &Reach, id: ReplayId) -> Result<Option<ReplayRecord>> {
        let mut reader = self.reader().await?;
        bulk_replay::find(&mut reader, reach, id).await
    }

    async fn replays(
        &self,
        reach: &Reach,
        page: PageRequest<ReplayId>,
    ) -> Result<Page<ReplayRecord, ReplayId>> {
        self.list_replays(reach, page).await
    }

    async fn cancel_replay(
        &self,
        reach: &Reach,
        id: ReplayId,
        act: &Act,
    ) -> Result<Option<Cancelled>> {
        self.end_replay(reach, id, act).await
    }

    async fn unfinished_replays(&self, page: PageRequest<ReplayId>) -> Result<Vec<Running>> {
        self.unfinished(page).await
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
        self.note_count(running, counted, next).await
    }

    async fn advance_replay(
        &self,
        running: &Running,
        deliveries: &[DeliveryId],
        events: &[EventId],
        next: &Cursor,
    ) -> Result<Standing> {
        self.advance(running, deliveries, events, next).await
    }

    async fn settle_replay(&self, running: &Running) -> Result<()> {
        self.finish_replay(running).await
    }
}

impl SqliteStore {
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
        let now = self.clock.now();
        let mut transaction = self.write().await?;
        let object = id.to_string();
        if let Some(known) = remember(&mut transaction, workspace, once, &object, now).await? {
            return Ok(Some(known));
        }
        let requeue = Requeue {
            workspace,
            bulk: None,
            now: millis(now),
        };
        let answer = requeue.run(&mut transaction, &[id]).await?.pop();
        let answer = answer.ok_or_else(|| StoreError::corrupt("no answer"))?;
        if let Ok(was) = answer {
            let thing = ReplayedDelivery { workspace, id, was };
            let entry = act.made(Action::DeliveryReplayed, &thing);
            tell(&mut transaction, entry).await?;
        }
        if is_under_way(answer) {
            self.commit(transaction).await?;
        }
        Ok(Some(Creation::Created(answer)))
    }
}

/// Adds what a settle came to. There are few replays at a time.
pub(super) async fn add_to_replays(
    transaction: &mut SqliteConnection,
    tally: &ReplayTally,
) -> Result<()> {
    for (id, progress) in tally.iter() {
        sqlx::query(
            "-- sqlite::replays::add_to_replays
            update replay
            set done = done + ?1, failed = failed + ?2
            where workspace = ?3 and id = ?4",
        )
        .bind(progress.done)
        .bind(progress.failed)
        .bind(progress.workspace.as_str())
        .bind(*id)
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
    }
    Ok(())
}
