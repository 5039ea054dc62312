//! More waits to be folded than is looked at: what is told says so, until it is folded.

use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::store::stats::MAX_UNFOLDED;
use forge_dispatch::store::{Resolution, Series, Window};

use super::super::fixture::{HOUR, owner, settle, subscribe};
use super::super::retention::lead;
use super::leased;
use crate::harness::databases::TestDatabase;
use crate::harness::events::workspace;
use crate::harness::rollups::wait_to_be_folded;

on_both_databases!(what_is_told_is_marked_while_too_much_waits_to_be_folded);

/// What is told of a subscription, and of its workspace; by each resolution.
async fn told(db: &TestDatabase, id: SubscriptionId) -> Vec<Series> {
    let here = Reach::all(&WorkspaceId::default());
    let mut told = Vec::new();
    for resolution in Resolution::ALL {
        let window = Window::new(HOUR, resolution);
        let stats = db.replica.subscription_stats(&here, id, window).await;
        told.push(stats.unwrap().expect("it is there").past);
        let series = db.replica.workspace_series(&here, window).await;
        told.push(series.unwrap().expect("that is not too much"));
    }
    told
}

async fn what_is_told_is_marked_while_too_much_waits_to_be_folded(db: &TestDatabase) {
    let id = subscribe(&db.store, &["*"]).await.id;
    let (me, held) = (owner(), lead(db).await);
    let deliver = async || {
        for delivery in leased(db, me, 1).await {
            settle(&db.store, me, &delivery, Verdict::Succeeded).await;
        }
    };
    let all = |told: &[Series], exact, succeeded| {
        for series in told {
            let total = series.total().succeeded;
            assert_eq!((series.is_exact, total), (exact, succeeded));
        }
    };
    deliver().await;
    wait_to_be_folded(db, MAX_UNFOLDED).await;
    let most = MAX_UNFOLDED as u64;
    all(&told(db, id).await, true, most);

    // One too many: it is not looked at, and that is told, also where there is nothing to tell.
    deliver().await;
    all(&told(db, id).await, false, most);
    let other = subscribe(&db.store, &["*"]).await.id;
    let nothing = told(db, other).await;
    assert_eq!((nothing[0].is_exact, nothing[0].points.len()), (false, 0));
    let elsewhere = Reach::all(&workspace("ws_2"));
    let series = db.store.workspace_series(&elsewhere, Window::DAY).await;
    let series = series.unwrap().unwrap();
    assert_eq!((series.is_exact, series.points.len()), (false, 0));

    assert_eq!(db.store.fold_rollups(&held, 1).await.unwrap(), Some(1));
    all(&told(db, id).await, true, most + 1);
    let rest = db.store.fold_rollups(&held, 2 * MAX_UNFOLDED).await;
    assert_eq!(rest.unwrap(), Some(MAX_UNFOLDED));
    all(&told(db, id).await, true, most + 1);
}
