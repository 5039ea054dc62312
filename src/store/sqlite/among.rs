//! What waits for a workspace, in a queue that holds everybody's.

use sqlx::{QueryBuilder, Sqlite};
use uuid::Uuid;

use super::SqliteStore;
use super::error::store_error;
use super::rows::{count, list};
use crate::domain::reach::Reach;
use crate::store::Result;

/// Up to so many rows are gathered and sorted; of more, a walk over the queue meets some soon.
const FEW: usize = 10_000;

impl SqliteStore {
    /// The subscriptions of a workspace, where few deliveries wait for them: those are found by them, however
    /// many of others' are in between. `None` where they are many. (Without statistics, the planner
    /// cannot tell.)
    pub(super) async fn few_waiting(&self, reach: &Reach) -> Result<Option<Vec<Uuid>>> {
        let waiting: i64 = sqlx::query_scalar(
            "-- sqlite::among::few_waiting
            select count(*)
            from (
                select 1
                from subscription
                cross join delivery_queue as queued
                where subscription.workspace = ?1 and queued.subscription_id = subscription.id
                limit ?2
            )",
        )
        .bind(reach.workspace.as_str())
        .bind(count(FEW + 1))
        .fetch_one(&self.readers)
        .await
        .map_err(store_error)?;
        if waiting > count(FEW) {
            return Ok(None);
        }
        let all = self.subscribers(reach).await?;
        Ok(Some(all.into_iter().map(|id| id.uuid()).collect()))
    }
}

/// The condition on the workspace. Where a subscription is named it leads (`+`): its own indexes are
/// walked, and not all of its workspace's, which the planner takes for as good.
pub(super) fn of_workspace(subscription_leads: bool) -> &'static str {
    if subscription_leads {
        "+workspace = "
    } else {
        "workspace = "
    }
}

/// Those of these subscriptions, where they are said.
pub(super) fn push_among(select: &mut QueryBuilder<Sqlite>, among: Option<&[Uuid]>) -> Result<()> {
    let Some(among) = among else {
        return Ok(());
    };
    let among: Vec<_> = among.iter().map(Uuid::as_simple).collect();
    select
        .push(" and subscription_id in (select unhex(value) from json_each(")
        .push_bind(list(&among)?)
        .push("))");
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

    use super::super::maintenance::MIGRATIONS;
    use super::super::{candidates, log};
    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::domain::delivery::DeliveryState;
    use crate::domain::ids::{SubscriptionId, WorkspaceId};
    use crate::domain::selection::Selection;
    use crate::store::replays::Bounds;
    use crate::store::search::Search;
    use crate::store::{DeliveryFilter, PageRequest};

    const PAGE: PageRequest<crate::domain::ids::DeliveryId> = PageRequest {
        limit: 50,
        after: None,
    };
    const WAITING: &str = "delivery_queue USING INDEX delivery_queue_due (subscription_id=?";
    const FAILED: &str = "INDEX delivery_not_succeeded_of_subscription (subscription_id=?";

    /// What `SQLite` does, step by step.
    async fn plan(select: QueryBuilder<Sqlite>) -> String {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let migrated = MIGRATIONS.run_direct(None, &mut connection, false);
        migrated.await.unwrap();
        let explain = format!("explain query plan {}", select.sql().as_str());
        let steps = sqlx::query(AssertSqlSafe(explain));
        let steps = steps.fetch_all(&mut connection).await.unwrap();
        let steps = steps.iter().map(|step| step.get("detail"));
        steps.collect::<Vec<String>>().join("\n")
    }

    fn nobody() -> SubscriptionId {
        SubscriptionId::from_uuid(Uuid::nil())
    }

    #[tokio::test]
    async fn a_list_finds_few_that_wait_by_their_subscriptions() {
        let reach = Reach::all(&WorkspaceId::default());
        let everything = DeliveryFilter::default();
        let mut search = Search::new(&reach, &everything, PAGE);
        search.among = Some(vec![Uuid::nil()]);
        let plan = plan(log::statement(&search).unwrap()).await;
        assert!(plan.contains(WAITING), "{plan}");
    }

    #[tokio::test]
    async fn a_list_walks_over_what_failed_of_its_subscription_alone() {
        let reach = Reach::all(&WorkspaceId::default());
        let failed = DeliveryFilter {
            subscription: Some(nobody()),
            state: Some(DeliveryState::Failed),
            ..DeliveryFilter::default()
        };
        let search = Search::new(&reach, &failed, PAGE);
        let failed = plan(log::statement(&search).unwrap()).await;
        assert!(failed.contains(FAILED), "{failed}");
        let all = DeliveryFilter {
            subscription: Some(nobody()),
            ..DeliveryFilter::default()
        };
        let search = Search::new(&reach, &all, PAGE);
        let all = plan(log::statement(&search).unwrap()).await;
        assert!(all.contains("INDEX delivery_of_subscription ("), "{all}");
    }

    #[tokio::test]
    async fn a_replay_looks_along_the_same_indexes() {
        let reach = Reach::all(&WorkspaceId::default());
        let now = SystemClock.now();
        let waiting = Selection {
            states: vec![DeliveryState::Pending],
            ..Selection::default()
        };
        let mut bounds = Bounds::of(&waiting, now, PAGE, None);
        bounds.among = Some(vec![Uuid::nil()]);
        let waiting = plan(candidates::statement(&reach, &bounds).unwrap()).await;
        assert!(waiting.contains(WAITING), "{waiting}");
        let missed = Selection::missed(nobody(), now);
        let bounds = Bounds::of(&missed, now, PAGE, None);
        let failed = plan(candidates::statement(&reach, &bounds).unwrap()).await;
        assert!(failed.contains(FAILED), "{failed}");
    }
}
