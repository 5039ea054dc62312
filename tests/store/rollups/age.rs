//! From when on rollups tell, and when they go.

use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::store::{Kept, Lease, Removed, Resolution, Series, Window};

use super::super::fixture::{HOUR, owner, settle, subscribe};
use super::super::retention::{lead, sweep};
use super::{count_for_ever, leased, outcome, total};
use crate::harness::databases::TestDatabase;
use crate::harness::events::act;

on_both_databases!(
    old_rollups_go_and_what_is_told_begins_later,
    the_rollups_of_a_deleted_subscription_go,
    a_database_with_history_tells_from_when_on_it_counts,
);

async fn past(db: &TestDatabase, id: SubscriptionId, window: Window) -> Series {
    let everything = Reach::all(&WorkspaceId::default());
    let found = db.store.subscription_stats(&everything, id, window).await;
    found.unwrap().expect("it is there").past
}

/// Delivers once so many hours ago, for each of these.
async fn delivered(db: &TestDatabase, hours_ago: &[u32]) {
    let (me, now) = (owner(), SystemClock.now());
    for hours in hours_ago {
        for delivery in leased(db, me, 1).await {
            let at = now - HOUR * *hours;
            let settled = outcome(&delivery, Verdict::Succeeded, at, Duration::ZERO);
            db.store.settle(me, &[settled]).await.unwrap();
        }
    }
}

fn each(steps: &[Removed]) -> Vec<u64> {
    steps.iter().map(|step| step.rows(Kept::Rollup)).collect()
}

async fn remove(
    db: &TestDatabase,
    held: &Lease,
    resolution: Resolution,
    age: Duration,
) -> Vec<u64> {
    let step = async || {
        let step = db.store.remove_rollups(held, resolution, age, 2);
        step.await.unwrap()
    };
    each(&sweep(step).await)
}

async fn old_rollups_go_and_what_is_told_begins_later(db: &TestDatabase) {
    count_for_ever(db).await;
    let id = subscribe(&db.store, &["*"]).await.id;
    let held = lead(db).await;
    delivered(db, &[1, 30, 60, 61, 62, 200]).await;
    db.store.fold_rollups(&held, 100).await.unwrap();
    let by = |resolution| Window::new(HOUR * 150, resolution);
    let (minutes, hours) = (by(Resolution::Minute), by(Resolution::Hour));
    let before = past(db, id, minutes).await;
    assert_eq!(before.total().succeeded, 5);

    let none = remove(db, &held, Resolution::Minute, HOUR * 300).await;
    assert!(none.is_empty());
    let since = past(db, id, minutes).await.since;
    assert!(since <= SystemClock.now() - HOUR * 150, "nothing went");
    assert_eq!(
        remove(db, &held, Resolution::Minute, HOUR * 48).await,
        [2, 2]
    );
    let now = SystemClock.now();
    let after = past(db, id, minutes).await;
    assert_eq!(after.total().succeeded, 2);
    let two_days_ago = |now| Resolution::Minute.start(now) - HOUR * 48;
    assert!((two_days_ago(now - HOUR)..=two_days_ago(now)).contains(&after.since));
    // A shorter window begins where it did.
    let day = past(db, id, Window::DAY).await;
    assert!(day.since > after.since);

    assert_eq!(past(db, id, hours).await.total().succeeded, 5);
    assert_eq!(remove(db, &held, Resolution::Hour, HOUR * 199).await, [1]);
    assert_eq!(past(db, id, hours).await.total().succeeded, 5);
    let longest = Window::new(Duration::MAX, Resolution::Hour);
    let told = past(db, id, longest).await;
    let first = Resolution::Hour.start(now) - HOUR * 200;
    assert_eq!((told.total().succeeded, told.since > first), (5, true));
}

async fn the_rollups_of_a_deleted_subscription_go(db: &TestDatabase) {
    let gone = subscribe(&db.store, &["*"]).await.id;
    let stays = subscribe(&db.store, &["*"]).await.id;
    let held = lead(db).await;
    delivered(db, &[1, 2, 3]).await;
    db.store.fold_rollups(&held, 100).await.unwrap();
    let step = async || {
        let step = db.store.remove_orphaned_rollups(&held, 4);
        step.await.unwrap()
    };
    assert!(sweep(step).await.is_empty());
    db.store
        .delete_subscription(&Reach::all(&WorkspaceId::default()), gone, None, &act())
        .await
        .unwrap();
    assert_eq!(each(&sweep(step).await), [4, 2]);
    assert_eq!(db.count("rollup").await, 6);
    assert_eq!(total(db, stays).await.succeeded, 3);
}

async fn a_database_with_history_tells_from_when_on_it_counts(db: &TestDatabase) {
    let id = subscribe(&db.store, &["*"]).await.id;
    let me = owner();
    let old = leased(db, me, 2).await;
    settle(&db.store, me, &old[0], Verdict::Succeeded).await;
    // As the migration before this one left it.
    for table in ["rollup", "rollup_delta", "rollup_floor"] {
        db.tamper(&format!("drop table {table}")).await;
    }
    db.tamper("delete from _sqlx_migrations where version = 17")
        .await;
    let store = db.open().await;
    store.migrate().await.unwrap();
    let told = past(db, id, Window::DAY).await;
    assert_eq!(told.points, []);
    let age = SystemClock.now() - told.since;
    assert!(age < chrono::Duration::hours(1), "it begins now: {age}");
    settle(&store, me, &old[1], Verdict::Succeeded).await;
    assert_eq!(past(db, id, Window::DAY).await.total().succeeded, 1);
    store.close().await;
}
