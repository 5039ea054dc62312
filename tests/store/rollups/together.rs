//! Several at once; and several subscriptions together.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::store::stats::MAX_SUMMED;
use forge_dispatch::store::{Resolution, Series, Settlement, Store, Window};

use super::super::fixture::{
    HOUR, accept_leased, for_long, owner, settle, subscribe, subscribe_in,
};
use super::super::retention::lead;
use super::{outcome, total};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{
    act, event, events, reach, register, registration, spec, spec_for_projects, workspace,
};

on_both_databases!(
    while_two_settle_and_one_folds_nothing_is_lost,
    a_workspace_is_its_subscriptions_together,
    what_would_be_too_much_is_not_added_up,
);

const BATCHES: u64 = 40;
const BATCH: usize = 25;

/// Accepts and settles, batch by batch.
async fn work(store: Arc<dyn Store>) {
    let (me, now) = (owner(), SystemClock.now());
    for number in 0..BATCHES {
        let leased = accept_leased(&store, &events(BATCH), for_long(me)).await;
        let at = now - Duration::from_mins(number % 3);
        let batch: Vec<Settlement> = leased
            .iter()
            .map(|it| outcome(it, Verdict::Succeeded, at, Duration::from_millis(7)))
            .collect();
        store.settle(me, &batch).await.unwrap();
    }
}

async fn while_two_settle_and_one_folds_nothing_is_lost(db: &TestDatabase) {
    let ids = [
        subscribe(&db.store, &["*"]).await.id,
        subscribe(&db.store, &["*"]).await.id,
    ];
    let held = lead(db).await;
    let settling = [&db.store, &db.replica].map(|store| tokio::spawn(work(Arc::clone(store))));
    let (mut folded, mut told) = (0, 0);
    while !settling.iter().all(tokio::task::JoinHandle::is_finished) {
        folded += db.store.fold_rollups(&held, 5).await.unwrap().unwrap();
        // What is told never goes back, and is never more than was sent.
        let before = std::mem::replace(&mut told, total(db, ids[0]).await.succeeded);
        assert!((before..=2 * BATCHES * BATCH as u64).contains(&told));
    }
    for settled in settling {
        settled.await.unwrap();
    }
    while let Some(some @ 1..) = db.store.fold_rollups(&held, 1_000).await.unwrap() {
        folded += some;
    }
    assert_eq!(
        folded as u64,
        2 * 2 * BATCHES,
        "each subscription's of each batch"
    );
    for id in ids {
        let counts = total(db, id).await;
        let all = 2 * BATCHES * BATCH as u64;
        assert_eq!((counts.succeeded, counts.attempts.succeeded), (all, all));
        assert_eq!(
            (counts.latency.count(), counts.latency.sum_ms),
            (all, 7 * all)
        );
    }
}

async fn series(db: &TestDatabase, reach: &Reach) -> Series {
    let found = db.replica.workspace_series(reach, Window::DAY).await;
    found.unwrap().expect("that is not too much")
}

async fn a_workspace_is_its_subscriptions_together(db: &TestDatabase) {
    let here = WorkspaceId::default();
    subscribe(&db.store, &["*"]).await;
    let some = spec_for_projects(&["*"], &["pr_1"]);
    subscribe_in(&db.store, &here, some).await;
    let deleted = subscribe(&db.store, &["*"]).await.id;
    let elsewhere = workspace("ws_2");
    subscribe_in(&db.store, &elsewhere, spec(&["*"])).await;
    let (me, held) = (owner(), lead(db).await);
    for times in 1..=2 {
        for payload in [
            event().project("pr_1").build(),
            event().project("pr_2").build(),
            event().workspace("ws_2").build(),
        ] {
            for delivery in accept_leased(&db.store, &[payload], for_long(me)).await {
                settle(&db.store, me, &delivery, Verdict::Succeeded).await;
            }
        }
        // What is folded and what is not are told together.
        if times == 1 {
            db.store.fold_rollups(&held, 100).await.unwrap();
        }
    }
    let one = |reach: Reach| async move { series(db, &reach).await.total().succeeded };
    assert_eq!(one(Reach::all(&here)).await, 2 * (2 + 1 + 2));
    assert_eq!(one(reach(&here, &["pr_1"])).await, 2);
    assert_eq!(one(reach(&here, &["pr_2"])).await, 0);
    assert_eq!(one(Reach::all(&elsewhere)).await, 2);
    db.store
        .delete_subscription(&Reach::all(&here), deleted, None, &act())
        .await
        .unwrap();
    assert_eq!(one(Reach::all(&here)).await, 2 * (2 + 1));
    let told = series(db, &Reach::all(&here)).await;
    assert!(told.points.is_sorted_by_key(|point| point.start));
}

async fn what_would_be_too_much_is_not_added_up(db: &TestDatabase) {
    let here = Reach::all(&WorkspaceId::default());
    let longest = Window::new(Duration::MAX, Resolution::Hour);
    let few = MAX_SUMMED / 9_602;
    for _ in 0..few {
        let new = registration(&WorkspaceId::default(), spec(&["*"]));
        register(&*db.store, &new).await.unwrap();
    }
    let told = db.store.workspace_series(&here, longest).await.unwrap();
    assert_eq!(told.map(|series| series.points.len()), Some(0));
    subscribe(&db.store, &["*"]).await;
    assert_eq!(
        db.store.workspace_series(&here, longest).await.unwrap(),
        None
    );
    let shorter = Window::new(HOUR * 24 * 300, Resolution::Hour);
    let told = db.store.workspace_series(&here, shorter).await.unwrap();
    assert!(told.is_some());
}
