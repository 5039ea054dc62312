//! How it goes with a subscription.

use std::time::Duration;

use chrono::{DateTime, Utc};
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::attempt::Attempt;
use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::store::stats::MAX_COUNTED;
use forge_dispatch::store::{
    AttemptCounts, Counts, Resolution, Settlement, SubscriptionStats, Tally, Window,
};

use super::fixture::{
    HOUR, accept, accept_leased, disable, for_long, for_no_time, owner, settle, settlement,
    subscribe, subscribe_in, taken,
};
use super::rollups::count_for_ever;
use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, events, reach, spec_for_projects, workspace};

on_both_databases!(
    a_new_subscription_has_nothing,
    what_waits_and_what_was_is_counted,
    what_was_attempted_before_the_window_is_not_counted,
    a_subscription_out_of_reach_has_no_stats,
    what_waits_is_counted_up_to_a_bound_and_what_was_without,
);

const DAY: Duration = Duration::from_hours(24);

fn here() -> WorkspaceId {
    WorkspaceId::default()
}

async fn stats(db: &TestDatabase, id: SubscriptionId) -> SubscriptionStats {
    let found = db
        .replica
        .subscription_stats(&Reach::all(&here()), id, Window::DAY)
        .await;
    found.unwrap().expect("it is there")
}

/// Whether an instant is the beginning of the minute a day back from a moment between `before` and now.
fn is_a_day_ago(instant: DateTime<Utc>, before: DateTime<Utc>) -> bool {
    let day_ago = |moment| Resolution::Minute.start(moment) - DAY;
    (day_ago(before)..=day_ago(SystemClock.now())).contains(&instant)
}

async fn a_new_subscription_has_nothing(db: &TestDatabase) {
    count_for_ever(db).await;
    let other = subscribe(&db.store, &["*"]).await;
    accept(&db.store, &events(3)).await;
    let subscription = subscribe(&db.store, &["*"]).await;
    let before = SystemClock.now();
    let found = stats(db, subscription.id).await;
    assert!(is_a_day_ago(found.past.since, before));
    let told = (found.pending, found.in_flight, found.oldest_due);
    assert_eq!(told, (Tally::Exactly(0), Tally::Exactly(0), None));
    assert_eq!(found.past.points, []);
    assert_eq!(stats(db, other.id).await.pending, Tally::Exactly(3));
}

async fn what_waits_and_what_was_is_counted(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    subscribe(&db.store, &["output.*"]).await;
    let me = owner();
    let verdicts = [
        (Verdict::Succeeded, 3),
        (Verdict::Failed, 2),
        (Verdict::Retry { delay: HOUR }, 4),
    ];
    for (verdict, count) in verdicts {
        for delivery in accept_leased(&db.store, &events(count), for_long(me)).await {
            settle(&db.store, me, &delivery, verdict.clone()).await;
        }
    }
    let found = stats(db, subscription.id).await;
    assert_eq!(found.oldest_due, None, "retries are due in an hour");
    assert_eq!(found.pending, Tally::Exactly(4));

    // An hour and a lease that ran out are in flight, until somebody takes them over.
    accept_leased(&db.store, &events(5), for_long(me)).await;
    accept_leased(&db.store, &events(1), for_no_time(me)).await;
    accept(&db.store, &events(2)).await;
    let found = stats(db, subscription.id).await;
    let told = (found.pending, found.in_flight);
    assert_eq!(told, (Tally::Exactly(6), Tally::Exactly(6)));
    assert!(found.oldest_due.unwrap() < HOUR);
    let total = found.past.total();
    let attempts = AttemptCounts {
        succeeded: 3,
        retried: 4,
        failed: 2,
    };
    assert_eq!((total.succeeded, total.failed), (3, 2));
    assert_eq!((total.attempts, total.latency.count()), (attempts, 9));
    assert_eq!(total.latency.mean_ms(), Some(12));

    disable(&db.store, &subscription).await;
    let disabled = stats(db, subscription.id).await;
    assert_eq!(disabled.pending, found.pending);
}

async fn what_was_attempted_before_the_window_is_not_counted(db: &TestDatabase) {
    count_for_ever(db).await;
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let now = SystemClock.now();
    let ages = [HOUR, HOUR * 23, HOUR * 25, DAY * 30];
    let leased = accept_leased(&db.store, &events(4), for_long(me)).await;
    for (delivery, age) in leased.iter().zip(ages) {
        let attempt = Attempt {
            at: now - age,
            ..taken()
        };
        let settled = Settlement::of(delivery, Verdict::Succeeded, Some(attempt));
        db.store.settle(me, &[settled]).await.unwrap();
    }
    let by = Window::new;
    for (window, expected) in [
        (Window::NOW, 0),
        (Window::DAY, 2),
        (by(HOUR * 26, Resolution::Minute), 3),
        (by(HOUR * 26, Resolution::Hour), 3),
        (by(DAY * 31, Resolution::Minute), 3),
        (by(DAY * 31, Resolution::Hour), 4),
        (by(Duration::MAX, Resolution::Hour), 4),
    ] {
        let everything = Reach::all(&here());
        let found = db
            .store
            .subscription_stats(&everything, subscription.id, window)
            .await;
        let past = found.unwrap().unwrap().past;
        assert_eq!(past.total().succeeded, expected, "{window:?}");
        let points: Vec<u64> = past.points.iter().map(|it| it.counts.succeeded).collect();
        assert_eq!(
            points,
            vec![1; points.len()],
            "each of its time: {window:?}"
        );
        assert!(past.points.is_sorted_by_key(|point| point.start));
    }
}

async fn a_subscription_out_of_reach_has_no_stats(db: &TestDatabase) {
    let open = subscribe(&db.store, &["*"]).await;
    let some = spec_for_projects(&["*"], &["pr_1", "pr_2"]);
    let some = subscribe_in(&db.store, &here(), some).await;
    let deleted = subscribe(&db.store, &["*"]).await;
    db.store
        .delete_subscription(&Reach::all(&here()), deleted.id, None, &act())
        .await
        .unwrap();
    for (reach, expected) in [
        (Reach::all(&here()), [true, true, false]),
        (Reach::all(&workspace("ws_2")), [false, false, false]),
        (reach(&here(), &["pr_2", "pr_1"]), [false, true, false]),
        (reach(&here(), &["pr_1"]), [false, false, false]),
        (reach(&workspace("ws_2"), &["pr_1", "pr_2"]), [false; 3]),
    ] {
        for (subscription, expected) in [&open, &some, &deleted].into_iter().zip(expected) {
            let found = db
                .store
                .subscription_stats(&reach, subscription.id, Window::DAY)
                .await;
            assert_eq!(found.unwrap().is_some(), expected, "{reach:?}");
        }
    }
}

async fn what_waits_is_counted_up_to_a_bound_and_what_was_without(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let (me, most) = (owner(), MAX_COUNTED as u64);
    let mut settled = Counts::default();
    while settled.succeeded <= most {
        let leased = accept_leased(&db.store, &events(1_000), for_long(me)).await;
        let settlements: Vec<_> = leased
            .iter()
            .map(|delivery| settlement(delivery, Verdict::Succeeded))
            .collect();
        settled.succeeded += settlements.len() as u64;
        db.store.settle(me, &settlements).await.unwrap();
    }
    let found = stats(db, subscription.id).await;
    assert_eq!(found.past.total().succeeded, settled.succeeded);

    while stats(db, subscription.id).await.pending != Tally::AtLeast(most) {
        accept(&db.store, &events(1_000)).await;
        assert!(db.count("delivery_queue").await <= 12_000);
    }
    accept(&db.store, &events(1_000)).await;
    let found = stats(db, subscription.id).await;
    assert_eq!(found.pending, Tally::AtLeast(most));
    assert!(found.oldest_due.is_some());
}
