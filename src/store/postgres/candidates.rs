//! Looking for deliveries that may be replayed, oldest first.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use uuid::Uuid;

use super::errors::{from_sqlx, reading};
use super::rows::{limit, optional, parse, projects};
use super::{PostgresStore, Result};
use crate::domain::delivery::DeliveryState;
use crate::domain::ids::{DeliveryId, EditionId, ProjectId, SubscriptionId};
use crate::domain::reach::Reach;
use crate::domain::selection::Selection;
use crate::store::replays::{Bounds, Candidate};
use crate::store::{Page, PageRequest};

/// Both halves, each cut before they are put in order. Conditions on parameters alone are settled when
/// the statement is planned, and events are looked up one by one. The queue, which has no order within
/// a workspace, is walked no further than history was, so that all steps together walk it once.
const LOOK: &str = "-- postgres::candidates::look
    with settled as materialized (
        select d.id, d.event_id, d.subscription_id, d.state
        from delivery d
        where d.workspace = $1
          and ($2::uuid is null or d.subscription_id = $2)
          and ($3::uuid[] is null or d.id = any($3))
          and ($4::uuid is null or d.id > $4)
          and d.id >= $5
          and d.id < $6
          and $8
          -- Each in the words of its index.
          and (not $9 or $2 is not null or d.state <> 'succeeded')
          and (not $9 or $2 is null or (d.state = 'succeeded') is not true)
        order by d.id
        limit $10
    ), looked as materialized (
        select id, event_id, subscription_id, state
        from (
            (
                select
                    q.delivery_id as id, q.event_id, q.subscription_id,
                    case when q.owner is null then 'pending' else 'in_flight' end as state
                from delivery_queue q
                where q.workspace = $1
                  and ($2::uuid is null or q.subscription_id = $2)
                  and ($12::uuid[] is null or q.subscription_id = any($12))
                  and ($3::uuid[] is null or q.delivery_id = any($3))
                  and ($4::uuid is null or q.delivery_id > $4)
                  and q.delivery_id >= $5
                  and q.delivery_id < $6
                  and q.delivery_id <= coalesce(
                      (select id from settled order by id limit 1 offset $10 - 1),
                      'ffffffff-ffff-ffff-ffff-ffffffffffff'
                  )
                  and q.replayed is distinct from 'succeeded'
                  and $7
                order by q.delivery_id
                limit $10
            )
            union all
            select id, event_id, subscription_id, state from settled
        ) as halves
        order by id
        limit $10
    ), found as (
        select looked.id, looked.subscription_id, looked.state, event.type as event_type, event.project, event.edition
        from looked
        cross join lateral (
            select event.type, event.project, event.edition
            from event
            where event.id = looked.event_id and event.workspace = $1
            limit 1
        ) as event
        where $11::text[] is null or (
            event.project = any($11)
            and exists (
                select
                from subscription s
                where s.id = looked.subscription_id
                  and s.workspace = $1
                  and s.project_ids <@ $11
            )
        )
    )
    select
        edge.id as edge, found.id, found.subscription_id, found.state, found.event_type, found.project,
        found.edition
    from (
        select (select id from looked order by id limit 1 offset $10 - 1) as id
    ) as edge
    left join found on true
    order by found.id";

impl PostgresStore {
    pub(super) async fn candidates(
        &self,
        reach: &Reach,
        selection: &Selection,
        until: DateTime<Utc>,
        page: PageRequest<DeliveryId>,
    ) -> Result<Page<Candidate, DeliveryId>> {
        let of_event = match (selection.event_id, selection.subscription_id) {
            (Some(event), Some(only)) => Some((event, vec![only])),
            (Some(event), None) => Some((event, reading(self.subscribers(reach)).await?)),
            (None, _) => None,
        };
        let mut bounds = Bounds::of(selection, until, page, of_event);
        if bounds.is_of_workspace() {
            let all = reading(self.subscribers(reach)).await?;
            bounds.among = Some(all.into_iter().map(|id| id.uuid()).collect());
        }
        let rows = reading(async {
            sqlx::query(LOOK)
                .bind(reach.workspace.as_str())
                .bind(bounds.subscription)
                .bind(bounds.ids)
                .bind(bounds.after)
                .bind(bounds.from)
                .bind(bounds.below)
                .bind(bounds.in_queue)
                .bind(bounds.in_history)
                .bind(bounds.not_succeeded)
                .bind(limit(bounds.look))
                .bind(projects(reach))
                .bind(bounds.among)
                .fetch_all(&self.pool)
                .await
                .map_err(from_sqlx)
        })
        .await?;
        let mut found = Page {
            items: Vec::with_capacity(rows.len()),
            next: None,
        };
        for row in &rows {
            found.next = id(row, "edge")?.map(DeliveryId::from_uuid);
            // Where nothing was found there is one row, of the edge alone.
            if id(row, "id")?.is_some() {
                let row = CandidateRow::from_row(row).map_err(from_sqlx)?;
                found.items.push(row.into_candidate()?);
            }
        }
        Ok(found)
    }
}

fn id(row: &PgRow, column: &str) -> Result<Option<Uuid>> {
    row.try_get(column).map_err(from_sqlx)
}

#[derive(FromRow)]
struct CandidateRow {
    id: Uuid,
    subscription_id: Uuid,
    state: String,
    event_type: String,
    project: Option<String>,
    edition: Option<String>,
}

impl CandidateRow {
    fn into_candidate(self) -> Result<Candidate> {
        Ok(Candidate {
            id: DeliveryId::from_uuid(self.id),
            subscription: SubscriptionId::from_uuid(self.subscription_id),
            event_type: parse("event.type", &self.event_type)?,
            project: optional::<ProjectId>("event.project", self.project)?,
            edition: optional::<EditionId>("event.edition", self.edition)?,
            state: parse::<DeliveryState>("delivery.state", &self.state)?,
        })
    }
}
