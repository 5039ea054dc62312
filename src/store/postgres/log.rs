//! What was and is delivered: the queue and the history as one list.

use async_trait::async_trait;
use uuid::Uuid;

use super::errors::{from_sqlx, reading};
use super::rows::{AttemptRow, DeliveryRow, limit};
use super::{PostgresStore, Result};
use crate::domain::delivery::DeliveryState;
use crate::domain::ids::{DeliveryId, WorkspaceId};
use crate::store::{AttemptRecord, DeliveryFilter, DeliveryLog, DeliveryRecord, Page, PageRequest};

#[async_trait]
impl DeliveryLog for PostgresStore {
    async fn deliveries(
        &self,
        workspace: &WorkspaceId,
        filter: DeliveryFilter,
        page: PageRequest<DeliveryId>,
    ) -> Result<Page<DeliveryRecord, DeliveryId>> {
        let range = Range {
            subscription: filter.subscription.map(|id| id.uuid()),
            states: match filter.state {
                Some(state) => vec![state],
                None => DeliveryState::ALL.to_vec(),
            },
            below: page.after.map(|id| id.uuid()),
            exactly: None,
            limit: limit(page.limit.saturating_add(1)),
        };
        let items = reading(self.list(workspace, range)).await?;
        Ok(Page::of(items, page.limit, |record| record.id))
    }

    async fn delivery(
        &self,
        workspace: &WorkspaceId,
        id: DeliveryId,
    ) -> Result<Option<DeliveryRecord>> {
        let range = Range {
            subscription: None,
            states: DeliveryState::ALL.to_vec(),
            below: None,
            exactly: Some(id.uuid()),
            limit: 1,
        };
        Ok(reading(self.list(workspace, range)).await?.pop())
    }

    async fn attempts(
        &self,
        workspace: &WorkspaceId,
        id: DeliveryId,
        page: PageRequest<i32>,
    ) -> Result<Page<AttemptRecord, i32>> {
        let rows: Vec<AttemptRow> = reading(async {
            sqlx::query_as(
                "-- postgres::log::attempts
                select
                    epoch, at, duration_ms, trigger, status, error, response_headers,
                    response_excerpt, lease_lost
                from attempt
                where workspace = $1 and delivery_id = $2 and ($3::integer is null or epoch > $3)
                order by epoch
                limit $4",
            )
            .bind(workspace.as_str())
            .bind(id.uuid())
            .bind(page.after)
            .bind(limit(page.limit.saturating_add(1)))
            .fetch_all(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        let items = rows
            .into_iter()
            .map(AttemptRow::into_record)
            .collect::<Result<_>>()?;
        Ok(Page::of(items, page.limit, |record: &AttemptRecord| {
            record.epoch
        }))
    }
}

/// Which deliveries of a workspace.
struct Range {
    subscription: Option<Uuid>,
    states: Vec<DeliveryState>,
    below: Option<Uuid>,
    exactly: Option<Uuid>,
    limit: i64,
}

impl PostgresStore {
    /// Newest first. Each half is cut to the page before the two are merged; conditions on
    /// parameters alone are settled when the statement is planned, so a half that can hold nothing
    /// is not looked at. A lease that ran out is `in_flight` until it is taken over or settled, as the
    /// state machine has it: nothing but a step changes a state.
    async fn list(&self, workspace: &WorkspaceId, range: Range) -> Result<Vec<DeliveryRecord>> {
        let asked = |state| range.states.contains(&state);
        let final_states: Vec<&str> = range
            .states
            .iter()
            .filter(|state| state.is_final())
            .map(|state| state.as_str())
            .collect();
        let rows: Vec<DeliveryRow> = sqlx::query_as(
            "-- postgres::log::list
            select
                listed.id, listed.event_id, event.type as event_type, listed.subscription_id,
                listed.state, listed.attempts, listed.due_at, listed.settled_at
            from (
                (
                    select
                        q.delivery_id as id, q.event_id, q.workspace, q.subscription_id,
                        case when q.owner is null then 'pending' else 'in_flight' end as state,
                        q.attempts,
                        case when q.owner is null then q.visible_at end as due_at,
                        null::timestamptz as settled_at
                    from delivery_queue q
                    where q.workspace = $1
                      and ($2::uuid is null or q.subscription_id = $2)
                      and ($3::uuid is null or q.delivery_id < $3)
                      and ($4::uuid is null or q.delivery_id = $4)
                      and ($5::boolean or $6::boolean)
                      and ($5 or q.owner is not null)
                      and ($6 or q.owner is null)
                    order by q.delivery_id desc
                    limit $8
                )
                union all
                (
                    select
                        d.id, d.event_id, d.workspace, d.subscription_id, d.state, d.attempts,
                        null::timestamptz, d.settled_at
                    from delivery d
                    where d.workspace = $1
                      and ($2::uuid is null or d.subscription_id = $2)
                      and ($3::uuid is null or d.id < $3)
                      and ($4::uuid is null or d.id = $4)
                      and cardinality($7::text[]) > 0
                      and (cardinality($7::text[]) = 3 or d.state = any($7::text[]))
                    order by d.id desc
                    limit $8
                )
            ) as listed
            join event on event.id = listed.event_id and event.workspace = listed.workspace
            order by listed.id desc
            limit $8",
        )
        .bind(workspace.as_str())
        .bind(range.subscription)
        .bind(range.below)
        .bind(range.exactly)
        .bind(asked(DeliveryState::Pending))
        .bind(asked(DeliveryState::InFlight))
        .bind(final_states)
        .bind(range.limit)
        .fetch_all(&self.pool)
        .await
        .map_err(from_sqlx)?;
        rows.into_iter().map(DeliveryRow::into_record).collect()
    }
}
