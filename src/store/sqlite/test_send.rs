//! What came of test sends.

use async_trait::async_trait;

use super::SqliteStore;
use super::error::store_error;
use super::rows::{duration_millis, millis};
use crate::domain::attempt::{Attempt, ErrorClass};
use crate::domain::event::Event;
use crate::domain::ids::{DeliveryId, EditionId, ProjectId, SubscriptionId};
use crate::store::test_send::{EPOCH, TestLog, ended};
use crate::store::{Result, StoreError};

#[async_trait]
impl TestLog for SqliteStore {
    async fn record_test(
        &self,
        event: &Event,
        subscription: SubscriptionId,
        attempt: &Attempt,
    ) -> Result<DeliveryId> {
        let (delivery, state) = ended(event, subscription, attempt);
        let headers =
            serde_json::to_string(&attempt.response_headers).map_err(StoreError::corrupt)?;
        let now = millis(self.clock.now());
        let mut transaction = self.write().await?;
        sqlx::query(
            "-- sqlite::test_send::record_test (event)
            insert into event (
                id, workspace, source, external_id, type, project, edition, body, occurred_at,
                accepted_at
            )
            values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )
        .bind(event.id.uuid())
        .bind(event.workspace.as_str())
        .bind(&event.source)
        .bind(&event.external_id)
        .bind(event.event_type.as_str())
        .bind(event.project.as_ref().map(ProjectId::as_str))
        .bind(event.edition.as_ref().map(EditionId::as_str))
        .bind(&*event.envelope)
        .bind(millis(event.occurred_at))
        .bind(now)
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        sqlx::query(
            "-- sqlite::test_send::record_test (delivery)
            insert into delivery (
                workspace, id, event_id, subscription_id, state, attempts, epoch, settled_at
            )
            values (?1, ?2, ?3, ?4, ?5, 1, ?6, ?7)",
        )
        .bind(event.workspace.as_str())
        .bind(delivery.uuid())
        .bind(event.id.uuid())
        .bind(subscription.uuid())
        .bind(state.as_str())
        .bind(EPOCH)
        .bind(now)
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        sqlx::query(
            "-- sqlite::test_send::record_test (attempt)
            insert into attempt (
                delivery_id, epoch, workspace, trigger, at, duration_ms, status, error, lease_lost,
                response_headers, response_excerpt
            )
            values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9, ?10)",
        )
        .bind(delivery.uuid())
        .bind(EPOCH)
        .bind(event.workspace.as_str())
        .bind(attempt.trigger.as_str())
        .bind(millis(attempt.at))
        .bind(duration_millis(attempt.duration))
        .bind(attempt.status)
        .bind(attempt.error.map(ErrorClass::as_str))
        .bind(headers)
        .bind(&attempt.response_excerpt)
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        self.commit(transaction).await?;
        Ok(delivery)
    }
}
