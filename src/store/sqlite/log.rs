//! Reading what was and is delivered.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite};
use uuid::Uuid;

use super::SqliteStore;
use super::among::{of_workspace, push_among};
use super::error::store_error;
use super::rows::{
    count, get, id, list, optional_parsed, optional_time, parsed, projects, subscription_within,
    time, unsigned,
};
use crate::domain::attempt::Attempt;
use crate::domain::ids::{DeliveryId, SubscriptionId, created_at};
use crate::domain::reach::Reach;
use crate::store::search::{Search, Seen};
use crate::store::{
    AttemptRecord, DeliveryFilter, DeliveryLog, DeliveryRecord, Page, PageRequest, Result,
    StoreError,
};

#[async_trait]
impl DeliveryLog for SqliteStore {
    async fn deliveries(
        &self,
        reach: &Reach,
        filter: &DeliveryFilter,
        page: PageRequest<DeliveryId>,
    ) -> Result<Page<DeliveryRecord, DeliveryId>> {
        let mut search = Search::new(reach, filter, page);
        match (filter.event, filter.subscription) {
            (Some(event), Some(only)) => search.of_event(event, [only]),
            (Some(event), None) => search.of_event(event, self.subscribers(reach).await?),
            (None, _) => {}
        }
        if search.is_of_workspace() {
            search.among = self.few_waiting(reach).await?;
        }
        loop {
            if let Some(page) = search.take(self.look_at(&search).await?) {
                return Ok(page);
            }
        }
    }

    async fn delivery(&self, reach: &Reach, id: DeliveryId) -> Result<Option<DeliveryRecord>> {
        let everything = DeliveryFilter::default();
        let one = PageRequest {
            limit: 1,
            after: None,
        };
        let mut search = Search::new(reach, &everything, one);
        search.ids = Some(vec![id.uuid()]);
        Ok(self.look_at(&search).await?.found.pop())
    }

    async fn attempts(
        &self,
        reach: &Reach,
        id: DeliveryId,
        page: PageRequest<i32>,
    ) -> Result<Page<AttemptRecord, i32>> {
        let rows = sqlx::query(concat!(
            "-- sqlite::log::attempts
            select epoch, trigger, at, duration_ms, status, error, lease_lost, response_headers,
                response_excerpt
            from attempt
            where workspace = ?1 and delivery_id = ?2 and (?3 is null or epoch > ?3)
                and (?4 is null or exists (
                    select 1
                    from (
                        select event_id, subscription_id
                        from delivery_queue
                        where workspace = ?1 and delivery_id = ?2
                        union all
                        select event_id, subscription_id
                        from delivery
                        where workspace = ?1 and id = ?2
                    ) as made
                    join event on event.id = made.event_id and event.workspace = ?1
                        and event.project in (select value from json_each(?4))
                    join subscription on subscription.id = made.subscription_id
                        and subscription.workspace = ?1
                        and ",
            subscription_within!("?4"),
            "
                ))
            order by epoch
            limit ?5",
        ))
        .bind(reach.workspace.as_str())
        .bind(id.uuid())
        .bind(page.after)
        .bind(projects(reach)?)
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

impl SqliteStore {
    /// Looks at the newest rows within the bounds and answers those that match. Each half, the queue
    /// and the history, gives its newest; both are put in order.
    async fn look_at(&self, search: &Search<'_>) -> Result<Seen> {
        let rows = statement(search)?
            .build()
            .fetch_all(&self.readers)
            .await
            .map_err(store_error)?;
        let mut seen = Seen {
            found: Vec::with_capacity(rows.len()),
            edge: None,
        };
        for row in &rows {
            seen.edge = get::<Option<Uuid>>(row, "edge")?.map(DeliveryId::from_uuid);
            // Where nothing matched there is one row, of the edge alone.
            if get::<Option<Uuid>>(row, "delivery_id")?.is_some() {
                seen.found.push(record(row)?);
            }
        }
        Ok(seen)
    }

    /// All subscriptions that there are or were, those out of reach too: they match nothing.
    pub(super) async fn subscribers(&self, reach: &Reach) -> Result<Vec<SubscriptionId>> {
        let rows = sqlx::query(
            "-- sqlite::log::subscribers
            select id from subscription where workspace = ?1",
        )
        .bind(reach.workspace.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(store_error)?;
        rows.iter().map(|row| id(row, "id")).collect()
    }
}

/// What a search asks for. A condition that is not asked for is left out, so that those that are find
/// their index.
pub(super) fn statement(search: &Search<'_>) -> Result<QueryBuilder<Sqlite>> {
    let halves: &[Half] = match (search.in_queue(), search.in_history()) {
        (true, false) => &[Half::Queue],
        (false, true) => &[Half::History],
        _ => &[Half::Queue, Half::History],
    };
    let mut select = QueryBuilder::<Sqlite>::new(
        "-- sqlite::log::statement
        with reach (workspace, projects) as (select ",
    );
    select
        .push_bind(search.reach.workspace.as_str().to_owned())
        .push(", ")
        .push_bind(projects(search.reach)?)
        .push(")");
    for half in halves {
        select.push(", ");
        half.push(&mut select, search)?;
    }
    push_looked(&mut select, halves, search);
    push_found(&mut select, search);
    select
        .push(
            "
            select edge.id as edge, found.delivery_id, found.event_id, found.type, found.project,
                found.edition, found.subscription_id, found.state, found.attempts, found.due_at,
                found.settled_at
            from (
                select (
                    select delivery_id from looked order by delivery_id desc limit 1 offset ",
        )
        .push_bind(count(search.look.saturating_sub(1)))
        .push(
            "
                ) as id
            ) as edge
            left join found on true
            order by found.delivery_id desc",
        );
    Ok(select)
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

    fn push(self, select: &mut QueryBuilder<Sqlite>, search: &Search<'_>) -> Result<()> {
        match self {
            Self::Queue => {
                select.push(
                    "queued as (
                        select delivery_id, event_id, subscription_id,
                            iif(owner is null, 'pending', 'in_flight') as state, attempts,
                            iif(owner is null, nullif(visible_at, 9223372036854775807), null) as due_at, null as settled_at
                        from delivery_queue
                        where ",
                );
                push_bounds(select, search, "delivery_id")?;
                push_among(select, search.among.as_deref())?;
                // What is sent once more after it succeeded is in history all the while.
                select.push(" and replayed is not 'succeeded'");
            }
            Self::History => {
                select.push(
                    "settled as (
                        select id as delivery_id, event_id, subscription_id, state, attempts,
                            null as due_at, settled_at
                        from delivery
                        where ",
                );
                push_bounds(select, search, "id")?;
                if search.not_succeeded() {
                    // In the words of the index on what did not succeed, so that it is found.
                    select.push(" and state <> 'succeeded'");
                }
            }
        }
        select
            .push(" order by delivery_id desc limit ")
            .push_bind(count(search.look))
            .push(")");
        Ok(())
    }
}

/// What an index serves.
fn push_bounds(
    select: &mut QueryBuilder<Sqlite>,
    search: &Search<'_>,
    key: &'static str,
) -> Result<()> {
    select
        .push(of_workspace(
            search.filter.subscription.is_some() && search.ids.is_none(),
        ))
        .push_bind(search.reach.workspace.as_str().to_owned());
    if let Some(subscription) = search.filter.subscription {
        select
            .push(" and subscription_id = ")
            .push_bind(subscription.uuid());
    }
    if let Some(ids) = &search.ids {
        let ids: Vec<_> = ids.iter().map(Uuid::as_simple).collect();
        select
            .push(format_args!(
                " and {key} in (select unhex(value) from json_each("
            ))
            .push_bind(list(&ids)?)
            .push("))");
    }
    if let Some(from) = search.from {
        select.push(format_args!(" and {key} >= ")).push_bind(from);
    }
    if let Some(below) = search.below {
        select.push(format_args!(" and {key} < ")).push_bind(below);
    }
    Ok(())
}

fn push_looked(select: &mut QueryBuilder<Sqlite>, halves: &[Half], search: &Search<'_>) {
    select.push(", looked as materialized (");
    for (number, half) in halves.iter().enumerate() {
        if number > 0 {
            select.push(" union all ");
        }
        select
            .push(
                "select delivery_id, event_id, subscription_id, state, attempts, due_at, settled_at
                from ",
            )
            .push(half.name());
    }
    select
        .push(" order by delivery_id desc limit ")
        .push_bind(count(search.look))
        .push(")");
}

/// What is tried on one row after the other. `cross join` keeps the planner to that.
fn push_found(select: &mut QueryBuilder<Sqlite>, search: &Search<'_>) {
    let filter = search.filter;
    select
        .push(
            ", found as (
                select looked.delivery_id, looked.event_id, event.type, event.project,
                    event.edition, looked.subscription_id, looked.state, looked.attempts,
                    looked.due_at, looked.settled_at
                from looked
                cross join event
                where event.id = looked.event_id and event.workspace = ",
        )
        .push_bind(search.reach.workspace.as_str().to_owned());
    if let Some(state) = filter.state {
        select
            .push(" and looked.state = ")
            .push_bind(state.as_str());
    }
    if let Some(event_type) = &filter.event_type {
        select
            .push(" and event.type = ")
            .push_bind(event_type.as_str().to_owned());
    }
    if let Some(edition) = &filter.edition {
        select
            .push(" and event.edition = ")
            .push_bind(edition.to_shared());
    }
    if search.reach.is_restricted() {
        select.push(concat!(
            " and event.project in (select value from json_each((select projects from reach)))
            and exists (
                select 1
                from subscription
                where subscription.id = looked.subscription_id
                    and subscription.workspace = (select workspace from reach)
                    and ",
            subscription_within!("(select projects from reach)"),
            ")"
        ));
    }
    select
        .push(" order by looked.delivery_id desc limit ")
        .push_bind(count(search.wanted()))
        .push(")");
}

fn record(row: &SqliteRow) -> Result<DeliveryRecord> {
    let delivery: DeliveryId = id(row, "delivery_id")?;
    Ok(DeliveryRecord {
        id: delivery,
        event_id: id(row, "event_id")?,
        event_type: parsed(row, "type")?,
        project: optional_parsed(row, "project")?,
        edition: optional_parsed(row, "edition")?,
        subscription_id: id(row, "subscription_id")?,
        state: parsed(row, "state")?,
        attempts: unsigned(row, "attempts")?,
        created_at: created_at(delivery.uuid()),
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
