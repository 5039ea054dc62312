//! Looking for deliveries that may be replayed, oldest first.

use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite};
use uuid::Uuid;

use super::SqliteStore;
use super::among::{of_workspace, push_among};
use super::error::store_error;
use super::rows::{count, get, id, list, optional_parsed, parsed, projects, subscription_within};
use crate::domain::ids::DeliveryId;
use crate::domain::reach::Reach;
use crate::domain::selection::Selection;
use crate::store::replays::{Bounds, Candidate};
use crate::store::{Page, PageRequest, Result};

impl SqliteStore {
    pub(super) async fn candidates(
        &self,
        reach: &Reach,
        selection: &Selection,
        until: DateTime<Utc>,
        page: PageRequest<DeliveryId>,
    ) -> Result<Page<Candidate, DeliveryId>> {
        let of_event = match (selection.event_id, selection.subscription_id) {
            (Some(event), Some(only)) => Some((event, vec![only])),
            (Some(event), None) => Some((event, self.subscribers(reach).await?)),
            (None, _) => None,
        };
        let mut bounds = Bounds::of(selection, until, page, of_event);
        if bounds.is_of_workspace() {
            bounds.among = self.few_waiting(reach).await?;
        }
        let rows = statement(reach, &bounds)?
            .build()
            .fetch_all(&self.readers)
            .await
            .map_err(store_error)?;
        let mut found = Page {
            items: Vec::with_capacity(rows.len()),
            next: None,
        };
        for row in &rows {
            found.next = get::<Option<Uuid>>(row, "edge")?.map(DeliveryId::from_uuid);
            // Where nothing was found there is one row, of the edge alone.
            if get::<Option<Uuid>>(row, "id")?.is_some() {
                found.items.push(candidate(row)?);
            }
        }
        Ok(found)
    }
}

/// Both halves, each cut before they are put in order. A condition that is not asked for is left out,
/// so that those that are find their index. The queue, which has no order within a workspace, is walked
/// no further than history was, so that all steps together walk it once.
pub(super) fn statement(reach: &Reach, bounds: &Bounds) -> Result<QueryBuilder<Sqlite>> {
    let mut select = QueryBuilder::<Sqlite>::new(
        "-- sqlite::candidates::statement
        with reach (workspace, projects) as (select ",
    );
    select
        .push_bind(reach.workspace.as_str().to_owned())
        .push(", ")
        .push_bind(projects(reach)?)
        .push("),");
    if bounds.in_history {
        select.push(
            "
            settled as materialized (
                select id, event_id, subscription_id, state
                from delivery
                where ",
        );
        if bounds.not_succeeded {
            // In the words of the index on what did not succeed, so that it is found.
            select.push("state <> 'succeeded' and ");
        }
        push_bounds(&mut select, reach, bounds, "id")?;
        select.push("),");
    }
    select.push(
        "
            looked as materialized (
                select id, event_id, subscription_id, state from (",
    );
    if bounds.in_queue {
        select.push(
            "select * from (
                select delivery_id as id, event_id, subscription_id,
                    iif(owner is null, 'pending', 'in_flight') as state
                from delivery_queue
                where replayed is not 'succeeded'",
        );
        push_among(&mut select, bounds.among.as_deref())?;
        select.push(" and ");
        if bounds.in_history {
            select
                .push("delivery_id <= coalesce((select id from settled order by id limit 1 offset ")
                .push_bind(count(bounds.look - 1))
                .push("), ")
                .push_bind(Uuid::max())
                .push(") and ");
        }
        push_bounds(&mut select, reach, bounds, "delivery_id")?;
        select.push(")");
    }
    if bounds.in_queue && bounds.in_history {
        select.push(" union all ");
    }
    if bounds.in_history {
        select.push("select id, event_id, subscription_id, state from settled");
    }
    select
        .push(
            ")
                order by id
                limit ",
        )
        .push_bind(count(bounds.look))
        .push(
            "),
            found as (
                select looked.id, looked.subscription_id, looked.state, event.type, event.project, event.edition
                from looked
                cross join event
                where event.id = looked.event_id
                    and event.workspace = (select workspace from reach)",
        );
    if reach.is_restricted() {
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
        .push(
            ")
            select edge.id as edge, found.id, found.subscription_id, found.state, found.type, found.project,
                found.edition
            from (
                select (select id from looked order by id limit 1 offset ",
        )
        .push_bind(count(bounds.look - 1))
        .push(
            ") as id
            ) as edge
            left join found on true
            order by found.id",
        );
    Ok(select)
}

fn push_bounds(
    select: &mut QueryBuilder<Sqlite>,
    reach: &Reach,
    bounds: &Bounds,
    key: &'static str,
) -> Result<()> {
    select
        .push(of_workspace(
            bounds.subscription.is_some() && bounds.ids.is_none(),
        ))
        .push_bind(reach.workspace.as_str().to_owned());
    if let Some(subscription) = bounds.subscription {
        select
            .push(" and subscription_id = ")
            .push_bind(subscription);
    }
    if let Some(ids) = &bounds.ids {
        let ids: Vec<_> = ids.iter().map(Uuid::as_simple).collect();
        select
            .push(format_args!(
                " and {key} in (select unhex(value) from json_each("
            ))
            .push_bind(list(&ids)?)
            .push("))");
    }
    if let Some(after) = bounds.after {
        select.push(format_args!(" and {key} > ")).push_bind(after);
    }
    select
        .push(format_args!(" and {key} >= "))
        .push_bind(bounds.from)
        .push(format_args!(" and {key} < "))
        .push_bind(bounds.below)
        .push(format_args!(" order by {key} limit "))
        .push_bind(count(bounds.look));
    Ok(())
}

fn candidate(row: &SqliteRow) -> Result<Candidate> {
    Ok(Candidate {
        id: id(row, "id")?,
        subscription: id(row, "subscription_id")?,
        event_type: parsed(row, "type")?,
        project: optional_parsed(row, "project")?,
        edition: optional_parsed(row, "edition")?,
        state: parsed(row, "state")?,
    })
}
