//! The feed: pages of it, what came for those who wait, and the bell.

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use tokio::sync::watch;
use uuid::Uuid;

use super::errors::{from_sqlx, reading};
use super::notices::Topic;
use super::rows::{KeptEventRow, limit, optional, parse, projects};
use super::{PostgresStore, Result};
use crate::domain::filter::OPERATIONAL;
use crate::domain::ids::{EditionId, EventId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::store::feed::{FeedSearch, Sight, Step};
use crate::store::{
    Feed, FeedFilter, FeedHead, FeedItem, FeedPage, FeedPosition, FeedRequest, FeedStart,
};

#[async_trait]
impl Feed for PostgresStore {
    async fn feed(
        &self,
        reach: &Reach,
        filter: &FeedFilter,
        request: FeedRequest,
    ) -> Result<Option<FeedPage>> {
        if request.start == FeedStart::Latest {
            return reading(self.feed_end(&reach.workspace)).await.map(Some);
        }
        let mut search = FeedSearch::new(reach, filter, request);
        reading(async {
            loop {
                if let Step::Done(page) = search.take(self.look_at_feed(&search).await?) {
                    return Ok(page);
                }
            }
        })
        .await
    }

    async fn feed_behind(
        &self,
        workspace: &WorkspaceId,
        place: FeedPosition,
    ) -> Result<Option<(FeedPosition, EventId)>> {
        let found: Option<(i64, Uuid)> = reading(async {
            sqlx::query_as(
                "-- postgres::feed::feed_behind
                select position, event_id
                from event_feed
                where workspace = $1 and position > $2
                order by position
                limit 1",
            )
            .bind(workspace.as_str())
            .bind(place.0)
            .fetch_optional(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        Ok(found.map(|(place, event)| (FeedPosition(place), EventId::from_uuid(event))))
    }

    async fn feed_news(
        &self,
        known: &[(WorkspaceId, FeedPosition)],
        most: usize,
    ) -> Result<Vec<FeedHead>> {
        let workspaces: Vec<&str> = known.iter().map(|(id, _)| id.as_str()).collect();
        let positions: Vec<i64> = known.iter().map(|(_, place)| place.0).collect();
        let rows: Vec<HeadRow> = reading(async {
            sqlx::query_as(
                "-- postgres::feed::feed_news
                select known.workspace, fresh.position, event.type, event.project, event.edition
                from unnest($1::text[], $2::bigint[]) as known (workspace, position)
                cross join lateral (
                    select position, event_id
                    from event_feed
                    where workspace = known.workspace and position > known.position
                    order by position
                    limit $3
                ) as fresh
                cross join lateral (
                    select type, project, edition
                    from event
                    where id = fresh.event_id and workspace = known.workspace
                    limit 1
                ) as event
                order by fresh.position",
            )
            .bind(workspaces)
            .bind(positions)
            .bind(limit(most))
            .fetch_all(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        rows.into_iter().map(HeadRow::into_head).collect()
    }

    fn feed_moves(&self) -> watch::Receiver<u64> {
        self.feed_bell.listen()
    }
}

#[derive(FromRow)]
struct HeadRow {
    workspace: String,
    position: i64,
    r#type: String,
    project: Option<String>,
    edition: Option<String>,
}

impl HeadRow {
    fn into_head(self) -> Result<FeedHead> {
        Ok(FeedHead {
            workspace: parse("event_feed.workspace", &self.workspace)?,
            position: FeedPosition(self.position),
            event_type: parse("event.type", &self.r#type)?,
            project: optional("event.project", self.project)?,
            edition: optional("event.edition", self.edition)?,
        })
    }
}

/// See [`PostgresStore::look_at_feed`].
const LOOK_AT: &str = "-- postgres::feed::look_at_feed
    with looked as materialized (
        select position, event_id
        from event_feed
        where workspace = $1 and position > $2
        order by position
        limit $3
    ), matching as (
        select
            looked.position, event.id, event.source, event.external_id, event.type, event.project,
            event.edition, event.body, event.occurred_at, event.accepted_at
        from looked
        cross join lateral (
            select
                id, source, external_id, type, project, edition, body, occurred_at, accepted_at
            from event
            where event.id = looked.event_id and event.workspace = $1
            limit 1
        ) as event
        where ($4::text[] is null or event.project = any($4))
          and ($5::text is null or event.edition = $5)
          and (
              event.type = any($6)
              or exists (
                  select
                  from unnest($7::text[]) as below (beginning)
                  where starts_with(event.type, below.beginning)
              )
              or ($8 and split_part(event.type, '.', 1) <> all($9))
          )
        order by looked.position
        limit $10
    ), weighed as (
        select
            position, id, source, external_id, type, project, edition, body, occurred_at,
            accepted_at,
            sum(octet_length(body)) over (order by position) as weight,
            count(*) over () as matching
        from matching
    )
    select
        sight.floor, sight.last, sight.looked, weighed.matching, weighed.weight,
        weighed.position, weighed.id, $1 as workspace, weighed.source, weighed.external_id,
        weighed.type, weighed.project, weighed.edition, weighed.body, weighed.occurred_at,
        weighed.accepted_at
    from (
        select
            (select position from event_feed_floor where workspace = $1) as floor,
            (select max(position) from looked) as last,
            (select count(*) from looked) as looked
    ) as sight
    left join weighed
        on weighed.weight <= $11 or weighed.weight = octet_length(weighed.body)
    order by weighed.position";

impl PostgresStore {
    /// To be called behind the commit of whatever wrote to `event_feed`: tells those who wait for a
    /// feed, here at once and in other processes soon.
    pub(super) fn feed_moved(&self) {
        self.feed_bell.ring();
        self.notices.announce(Topic::Feed);
    }

    /// Looks at the oldest rows behind the place and answers those that match, as far as the page has
    /// room for their text; the first in any case. One statement, so that what was removed and what
    /// is there are of one moment. `octet_length` does not read the text.
    async fn look_at_feed(&self, search: &FeedSearch<'_>) -> Result<Sight> {
        let rows = sqlx::query(LOOK_AT)
            .bind(search.reach.workspace.as_str())
            .bind(search.after)
            .bind(limit(search.look))
            .bind(projects(search.reach))
            .bind(search.filter.edition.as_ref().map(EditionId::as_str))
            .bind(&search.types.exact)
            .bind(&search.types.below)
            .bind(search.types.domain)
            .bind(OPERATIONAL.as_slice())
            .bind(limit(search.wanted()))
            .bind(limit(search.room()))
            .fetch_all(&self.pool)
            .await
            .map_err(from_sqlx)?;
        let mut sight = Sight::default();
        for row in &rows {
            sight.floor = column(row, "floor")?;
            sight.last = column(row, "last")?;
            sight.looked = column(row, "looked")?;
            // Where nothing matched there is one row, of the sight alone.
            if column::<Option<Uuid>>(row, "id")?.is_some() {
                sight.matching = column(row, "matching")?;
                sight.bytes = column(row, "weight")?;
                sight.found.push(FeedItem {
                    position: FeedPosition(column(row, "position")?),
                    event: KeptEventRow::from_row(row)
                        .map_err(from_sqlx)?
                        .into_record()?,
                });
            }
        }
        Ok(sight)
    }

    /// A page of nothing, at the end.
    async fn feed_end(&self, workspace: &WorkspaceId) -> Result<FeedPage> {
        let end = sqlx::query_scalar(
            "-- postgres::feed::feed_end
            select greatest(
                0,
                (select max(position) from event_feed where workspace = $1),
                (select position from event_feed_floor where workspace = $1)
            )",
        )
        .bind(workspace.as_str())
        .fetch_one(&self.pool)
        .await
        .map_err(from_sqlx)?;
        Ok(FeedPage {
            items: Vec::new(),
            next: FeedPosition(end),
            caught_up: true,
        })
    }
}

fn column<'r, T>(row: &'r PgRow, name: &str) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(name).map_err(from_sqlx)
}
