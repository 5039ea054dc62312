//! What came of test sends.

use async_trait::async_trait;

use super::errors::from_sqlx;
use super::{PostgresStore, Result, commit};
use crate::domain::attempt::{Attempt, ErrorClass};
use crate::domain::event::Event;
use crate::domain::ids::{DeliveryId, EditionId, ProjectId, SubscriptionId};
use crate::store::StoreError;
use crate::store::test_send::{EPOCH, TestLog, ended};

#[async_trait]
impl TestLog for PostgresStore {
    async fn record_test(
        &self,
        event: &Event,
        subscription: SubscriptionId,
        attempt: &Attempt,
    ) -> Result<DeliveryId> {
        let (delivery, state) = ended(event, subscription, attempt);
        let headers =
            serde_json::to_string(&attempt.response_headers).map_err(StoreError::corrupt)?;
        let mut tx = self.begin().await?;
        sqlx::query(
            "-- postgres::test_send::record_test (event)
            insert into event (
                id, workspace, source, external_id, type, project, edition, body, occurred_at
            )
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(event.id.uuid())
        .bind(event.workspace.as_str())
        .bind(&event.source)
        .bind(&event.external_id)
        .bind(event.event_type.as_str())
        .bind(event.project.as_ref().map(ProjectId::as_str))
        .bind(event.edition.as_ref().map(EditionId::as_str))
        .bind(&*event.envelope)
        .bind(event.occurred_at)
        .execute(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        sqlx::query(
            "-- postgres::test_send::record_test (delivery)
            insert into delivery (
                workspace, id, event_id, subscription_id, state, attempts, epoch, settled_at
            )
            values ($1, $2, $3, $4, $5, 1, $6, now())",
        )
        .bind(event.workspace.as_str())
        .bind(delivery.uuid())
        .bind(event.id.uuid())
        .bind(subscription.uuid())
        .bind(state.as_str())
        .bind(EPOCH)
        .execute(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        sqlx::query(
            "-- postgres::test_send::record_test (attempt)
            insert into attempt (
                delivery_id, epoch, workspace, trigger, at, duration_ms, status, error, lease_lost,
                response_headers, response_excerpt
            )
            values ($1, $2, $3, $4, $5, $6, $7, $8, false, $9, $10)",
        )
        .bind(delivery.uuid())
        .bind(EPOCH)
        .bind(event.workspace.as_str())
        .bind(attempt.trigger.as_str())
        .bind(attempt.at)
        .bind(i64::try_from(attempt.duration.as_millis()).unwrap_or(i64::MAX))
        .bind(attempt.status.map(i32::from))
        .bind(attempt.error.map(ErrorClass::as_str))
        .bind(headers)
        .bind(&attempt.response_excerpt)
        .execute(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        commit(tx).await?;
        Ok(delivery)
    }
}
