//! Reading what was and is delivered.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite};

use super::SqliteStore;
use super::error::store_error;
use super::rows::{count, get, id, optional_parsed, optional_time, parsed, time, unsigned};
use crate::domain::attempt::Attempt;
use crate::domain::delivery::DeliveryState;
use crate::domain::ids::{DeliveryId, WorkspaceId};
use crate::store::{
    AttemptRecord, DeliveryFilter, DeliveryLog, DeliveryRecord, Page, PageRequest, Result,
    StoreError,
};

#[async_trait]
impl DeliveryLog for SqliteStore {
    async fn deliveries(
        &self,
        workspace: &WorkspaceId,
        filter: DeliveryFilter,
        page: PageRequest<DeliveryId>,
    ) -> Result<Page<DeliveryRecord, DeliveryId>> {
        let query = Query {
            workspace,
            only: None,
            filter,
            after: page.after,
            limit: count(page.limit.saturating_add(1)),
        };
        let items = self.records(&query).await?;
        Ok(Page::of(items, page.limit, |record: &DeliveryRecord| {
            record.id
        }))
    }

    async fn delivery(
        &self,
        workspace: &WorkspaceId,
        id: DeliveryId,
    ) -> Result<Option<DeliveryRecord>> {
        let query = Query {
            workspace,
            only: Some(id),
            filter: DeliveryFilter::default(),
            after: None,
            limit: 1,
        };
        Ok(self.records(&query).await?.pop())
    }

    async fn attempts(
        &self,
        workspace: &WorkspaceId,
        id: DeliveryId,
        page: PageRequest<i32>,
    ) -> Result<Page<AttemptRecord, i32>> {
        let rows = sqlx::query(
            "-- sqlite::log::attempts
            select epoch, trigger, at, duration_ms, status, error, lease_lost, response_headers,
                response_excerpt
            from attempt
            where workspace = ?1 and delivery_id = ?2 and (?3 is null or epoch > ?3)
            order by epoch
            limit ?4",
        )
        .bind(workspace.as_str())
        .bind(id.uuid())
        .bind(page.after)
        .bind(count(page.limit.saturating_add(1)))
        .fetch_all(&self.readers)
        .await
        .map_err(store_error)?;
        let items = rows.iter().map(attempt).collect::<Result<_>>()?;
        Ok(Page::of(items, page.limit, |record: &AttemptRecord| {
            record.epoch
        }))
    }
}

/// Which deliveries to read, newest first.
struct Query<'a> {
    workspace: &'a WorkspaceId,
    only: Option<DeliveryId>,
    filter: DeliveryFilter,
    after: Option<DeliveryId>,
    limit: i64,
}

impl SqliteStore {
    /// Each half, the queue and the history, gives its newest; both are put in order.
    async fn records(&self, query: &Query<'_>) -> Result<Vec<DeliveryRecord>> {
        let halves: &[Half] = match query.filter.state {
            None => &[Half::Queue, Half::History],
            Some(state) if state.is_final() => &[Half::History],
            Some(_) => &[Half::Queue],
        };
        let mut select = QueryBuilder::<Sqlite>::new("-- sqlite::log::records\n");
        for (number, half) in halves.iter().enumerate() {
            select.push(if number == 0 { "with " } else { ", " });
            half.push(&mut select, query);
        }
        for (number, half) in halves.iter().enumerate() {
            if number > 0 {
                select.push(" union all ");
            }
            select
                .push(
                    "select found.delivery_id, found.event_id, event.type, found.subscription_id,
                        found.state, found.attempts, found.due_at, found.settled_at
                    from ",
                )
                .push(half.name())
                .push(
                    " as found
                    join event on event.id = found.event_id and event.workspace = ",
                )
                .push_bind(query.workspace.as_str());
        }
        select
            .push(" order by delivery_id desc limit ")
            .push_bind(query.limit);
        let rows = select
            .build()
            .fetch_all(&self.readers)
            .await
            .map_err(store_error)?;
        rows.iter().map(record).collect()
    }
}

/// The two tables that deliveries are in, one after the other.
#[derive(Clone, Copy)]
enum Half {
    Queue,
    History,
}

impl Half {
    fn name(self) -> &'static str {
        match self {
            Self::Queue => "queued",
            Self::History => "settled",
        }
    }

    fn push(self, select: &mut QueryBuilder<Sqlite>, query: &Query<'_>) {
        match self {
            Self::Queue => push_queued(select, query),
            Self::History => push_settled(select, query),
        }
        select
            .push(" order by delivery_id desc limit ")
            .push_bind(query.limit)
            .push(")");
    }
}

fn push_queued(select: &mut QueryBuilder<Sqlite>, query: &Query<'_>) {
    select.push(
        "queued as (
            select delivery_id, event_id, subscription_id,
                iif(owner is null, 'pending', 'in_flight') as state, attempts,
                iif(owner is null, visible_at, null) as due_at, null as settled_at
            from delivery_queue
            where ",
    );
    push_conditions(select, query, "delivery_id");
    match query.filter.state {
        Some(DeliveryState::Pending) => select.push(" and owner is null"),
        Some(DeliveryState::InFlight) => select.push(" and owner is not null"),
        _ => select,
    };
}

fn push_settled(select: &mut QueryBuilder<Sqlite>, query: &Query<'_>) {
    select.push(
        "settled as (
            select id as delivery_id, event_id, subscription_id, state, attempts, null as due_at,
                settled_at
            from delivery
            where ",
    );
    push_conditions(select, query, "id");
    if let Some(state) = query.filter.state {
        select.push(" and state = ").push_bind(state.as_str());
        if state != DeliveryState::Succeeded {
            // In the words of the index on what did not succeed, so that it is found.
            select.push(" and state <> 'succeeded'");
        }
    }
}

fn push_conditions(select: &mut QueryBuilder<Sqlite>, query: &Query<'_>, key: &str) {
    select
        .push("workspace = ")
        .push_bind(query.workspace.as_str());
    if let Some(id) = query.only {
        select
            .push(format_args!(" and {key} = "))
            .push_bind(id.uuid());
    }
    if let Some(after) = query.after {
        select
            .push(format_args!(" and {key} < "))
            .push_bind(after.uuid());
    }
    if let Some(subscription) = query.filter.subscription {
        select
            .push(" and subscription_id = ")
            .push_bind(subscription.uuid());
    }
}

fn record(row: &SqliteRow) -> Result<DeliveryRecord> {
    Ok(DeliveryRecord {
        id: id(row, "delivery_id")?,
        event_id: id(row, "event_id")?,
        event_type: parsed(row, "type")?,
        subscription_id: id(row, "subscription_id")?,
        state: parsed(row, "state")?,
        attempts: unsigned(row, "attempts")?,
        due_at: optional_time(row, "due_at")?,
        settled_at: optional_time(row, "settled_at")?,
    })
}

fn attempt(row: &SqliteRow) -> Result<AttemptRecord> {
    let response_headers =
        serde_json::from_str(get(row, "response_headers")?).map_err(StoreError::corrupt)?;
    Ok(AttemptRecord {
        epoch: get(row, "epoch")?,
        attempt: Attempt {
            at: time(row, "at")?,
            duration: Duration::from_millis(unsigned(row, "duration_ms")?),
            trigger: parsed(row, "trigger")?,
            status: get(row, "status")?,
            error: optional_parsed(row, "error")?,
            response_headers,
            response_excerpt: get(row, "response_excerpt")?,
        },
        lease_lost: get(row, "lease_lost")?,
    })
}
