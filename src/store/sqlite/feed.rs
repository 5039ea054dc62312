//! The feed: pages of it, what came for those who wait, and the bell.

use async_trait::async_trait;
use tokio::sync::watch;
use uuid::Uuid;

use super::SqliteStore;
use super::error::store_error;
use super::rows::{self, count, get, id, list, optional_parsed, parsed, projects, time};
use crate::domain::filter::OPERATIONAL;
use crate::domain::ids::{EditionId, EventId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::store::feed::{FeedSearch, Sight, Step};
use crate::store::{
    EventRecord, Feed, FeedFilter, FeedHead, FeedItem, FeedPage, FeedPosition, FeedRequest,
    FeedStart, Result,
};

#[async_trait]
impl Feed for SqliteStore {
    async fn feed(
        &self,
        reach: &Reach,
        filter: &FeedFilter,
        request: FeedRequest,
    ) -> Result<Option<FeedPage>> {
        if request.start == FeedStart::Latest {
            return self.feed_end(&reach.workspace).await.map(Some);
        }
        let mut search = FeedSearch::new(reach, filter, request);
        loop {
            if let Step::Done(page) = search.take(self.look_at_feed(&search).await?) {
                return Ok(page);
            }
        }
    }

    async fn feed_behind(
        &self,
        workspace: &WorkspaceId,
        place: FeedPosition,
    ) -> Result<Option<(FeedPosition, EventId)>> {
        let row = sqlx::query(
            "-- sqlite::feed::feed_behind
            select position, event_id
            from event_feed
            where workspace = ?1 and position > ?2
            order by position
            limit 1",
        )
        .bind(workspace.as_str())
        .bind(place.0)
        .fetch_optional(&self.readers)
        .await
        .map_err(store_error)?;
        row.map(|row| Ok((FeedPosition(get(&row, "position")?), id(&row, "event_id")?)))
            .transpose()
    }

    async fn feed_news(
        &self,
        known: &[(WorkspaceId, FeedPosition)],
        most: usize,
    ) -> Result<Vec<FeedHead>> {
        let mut heads = Vec::new();
        let mut transaction = self.read().await?;
        for (workspace, place) in known {
            let rows = sqlx::query(
                "-- sqlite::feed::feed_news
                select fresh.position, event.type, event.project, event.edition
                from (
                    select position, event_id
                    from event_feed
                    where workspace = ?1 and position > ?2
                    order by position
                    limit ?3
                ) as fresh
                cross join event
                where event.id = fresh.event_id and event.workspace = ?1
                order by fresh.position",
            )
            .bind(workspace.as_str())
            .bind(place.0)
            .bind(count(most))
            .fetch_all(&mut *transaction)
            .await
            .map_err(store_error)?;
            for row in &rows {
                heads.push(FeedHead {
                    workspace: workspace.clone(),
                    position: FeedPosition(get(row, "position")?),
                    event_type: parsed(row, "type")?,
                    project: optional_parsed(row, "project")?,
                    edition: optional_parsed(row, "edition")?,
                });
            }
        }
        transaction.commit().await.map_err(store_error)?;
        heads.sort_by_key(|head| head.position);
        Ok(heads)
    }

    fn feed_moves(&self) -> watch::Receiver<u64> {
        self.feed_bell.listen()
    }
}

impl SqliteStore {
    /// To be called behind the commit of whatever wrote to `event_feed`: tells those who wait for a
    /// feed.
    pub(super) fn feed_moved(&self) {
        self.feed_bell.ring();
    }

    /// Looks at the oldest rows behind the place and answers those that match, as far as the page has
    /// room for their text; the first in any case. One statement, so that what was removed and what
    /// is there are of one moment. Texts are weighed by `octet_length`, which does not read them, and
    /// read when it is known which.
    async fn look_at_feed(&self, search: &FeedSearch<'_>) -> Result<Sight> {
        let types = &search.types;
        let rows = sqlx::query(
            "-- sqlite::feed::look_at_feed
            with looked as materialized (
                select position, event_id
                from event_feed
                where workspace = ?1 and position > ?2
                order by position
                limit ?3
            ), matching as (
                select looked.position, event.id, octet_length(event.body) as bytes
                from looked
                cross join event
                where event.id = looked.event_id and event.workspace = ?1
                    and (?4 is null or event.project in (select value from json_each(?4)))
                    and (?5 is null or event.edition = ?5)
                    and (
                        event.type in (select value from json_each(?6))
                        or exists (
                            select 1
                            from json_each(?7) as below
                            where substr(event.type, 1, length(below.value)) = below.value
                        )
                        or (
                            ?8
                            and substr(event.type, 1, instr(event.type || '.', '.') - 1)
                                not in (select value from json_each(?9))
                        )
                    )
                order by looked.position
                limit ?10
            ), weighed as (
                select position, id, bytes, sum(bytes) over (order by position) as weight,
                    count(*) over () as matching
                from matching
            )
            select sight.floor, sight.last, sight.looked, weighed.matching, weighed.weight,
                weighed.position, event.id, event.workspace, event.source, event.external_id,
                event.type, event.project, event.edition, event.body, event.occurred_at,
                event.accepted_at
            from (
                select
                    (select position from event_feed_floor where workspace = ?1) as floor,
                    (select max(position) from looked) as last,
                    (select count(*) from looked) as looked
            ) as sight
            left join weighed on weighed.weight <= ?11 or weighed.weight = weighed.bytes
            left join event on event.id = weighed.id
            order by weighed.position",
        )
        .bind(search.reach.workspace.as_str())
        .bind(search.after)
        .bind(count(search.look))
        .bind(projects(search.reach)?)
        .bind(search.filter.edition.as_ref().map(EditionId::as_str))
        .bind(list(&types.exact)?)
        .bind(list(&types.below)?)
        .bind(types.domain)
        .bind(list(&OPERATIONAL)?)
        .bind(count(search.wanted()))
        .bind(count(search.room()))
        .fetch_all(&self.readers)
        .await
        .map_err(store_error)?;
        let mut sight = Sight::default();
        for row in &rows {
            sight.floor = get(row, "floor")?;
            sight.last = get(row, "last")?;
            sight.looked = get(row, "looked")?;
            // Where nothing matched there is one row, of the sight alone.
            if get::<Option<Uuid>>(row, "id")?.is_some() {
                sight.matching = get(row, "matching")?;
                sight.bytes = get(row, "weight")?;
                sight.found.push(FeedItem {
                    position: FeedPosition(get(row, "position")?),
                    event: EventRecord::of(rows::event(row)?, time(row, "accepted_at")?),
                });
            }
        }
        Ok(sight)
    }

    /// A page of nothing, at the end.
    async fn feed_end(&self, workspace: &WorkspaceId) -> Result<FeedPage> {
        let end = sqlx::query_scalar(
            "-- sqlite::feed::feed_end
            select max(
                0,
                coalesce((select max(position) from event_feed where workspace = ?1), 0),
                coalesce((select position from event_feed_floor where workspace = ?1), 0)
            )",
        )
        .bind(workspace.as_str())
        .fetch_one(&self.readers)
        .await
        .map_err(store_error)?;
        Ok(FeedPage {
            items: Vec::new(),
            next: FeedPosition(end),
            caught_up: true,
        })
    }
}
