//! How it goes with a subscription.

use std::time::Duration;

use chrono::{DateTime, Utc};
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::store::stats::MAX_COUNTED;
use forge_dispatch::store::{SubscriptionStats, Tally};

use super::fixture::{
    HOUR, accept, accept_leased, disable, for_long, for_no_time, owner, settle, settlement,
    subscribe, subscribe_in,
};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, event, events, reach, spec_for_projects, workspace};

on_both_databases!(
    a_new_subscription_has_nothing,
    what_waits_and_what_was_is_counted,
    what_was_made_before_the_window_is_not_counted,
    a_subscription_out_of_reach_has_no_stats,
    counts_end_where_they_would_cost_too_much,
);

const DAY: Duration = Duration::from_hours(24);

fn here() -> WorkspaceId {
    WorkspaceId::default()
}

async fn stats(db: &TestDatabase, id: SubscriptionId) -> SubscriptionStats {
    let found = db
        .replica
        .subscription_stats(&Reach::all(&here()), id, DAY)
        .await;
    found.unwrap().expect("it is there")
}

/// Whether an instant lies a day back from a moment between `before` and now.
fn is_a_day_ago(instant: DateTime<Utc>, before: DateTime<Utc>) -> bool {
    (before..=SystemClock.now()).contains(&(instant + DAY))
}

async fn a_new_subscription_has_nothing(db: &TestDatabase) {
    let other = subscribe(&db.store, &["*"]).await;
    accept(&db.store, &events(3)).await;
    let subscription = subscribe(&db.store, &["*"]).await;
    let before = SystemClock.now();
    let found = stats(db, subscription.id).await;
    assert!(is_a_day_ago(found.since, before));
    let expected = SubscriptionStats {
        pending: Tally::Exactly(0),
        in_flight: Tally::Exactly(0),
        oldest_due: None,
        since: found.since,
        succeeded: 0,
        failed: 0,
        cancelled: 0,
        attempts: 0,
    };
    assert_eq!(found, expected);
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
    let told = (found.succeeded, found.failed, found.cancelled);
    assert_eq!((told, found.attempts), ((3, 2, 0), 5));

    disable(&db.store, &subscription).await;
    let disabled = stats(db, subscription.id).await;
    assert_eq!(disabled.pending, found.pending);
}

async fn what_was_made_before_the_window_is_not_counted(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let now = SystemClock.now();
    let ages = [HOUR, HOUR * 23, HOUR * 25, DAY * 30];
    let events: Vec<_> = ages
        .iter()
        .map(|age| event().build_at(now - *age))
        .collect();
    for delivery in accept_leased(&db.store, &events, for_long(me)).await {
        settle(&db.store, me, &delivery, Verdict::Succeeded).await;
    }
    let found = stats(db, subscription.id).await;
    assert_eq!((found.succeeded, found.attempts), (2, 2));
    for (window, expected) in [(Duration::ZERO, 0), (DAY + HOUR * 2, 3), (Duration::MAX, 4)] {
        let everything = Reach::all(&here());
        let found = db
            .store
            .subscription_stats(&everything, subscription.id, window)
            .await;
        assert_eq!(found.unwrap().unwrap().succeeded, expected, "{window:?}");
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
                .subscription_stats(&reach, subscription.id, DAY)
                .await;
            assert_eq!(found.unwrap().is_some(), expected, "{reach:?}");
        }
    }
}

async fn counts_end_where_they_would_cost_too_much(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let (me, most) = (owner(), MAX_COUNTED as u64);
    let (mut oldest, mut settled) = (None, 0);
    let before = SystemClock.now();
    while settled < MAX_COUNTED - 500 {
        let leased = accept_leased(&db.store, &events(1_000), for_long(me)).await;
        let settlements: Vec<_> = leased
            .iter()
            .map(|delivery| settlement(delivery, Verdict::Succeeded))
            .collect();
        settled += settlements.len();
        db.store.settle(me, &settlements).await.unwrap();
        if settled == 2_000 {
            let found = stats(db, subscription.id).await;
            assert!(is_a_day_ago(found.since, before));
            assert_eq!(found.succeeded, 2_000);
            oldest = leased.iter().map(|delivery| delivery.id).min();
        }
    }
    // A thousand more: of those that were first, a thousand are counted no longer.
    let leased = accept_leased(&db.store, &events(1_000), for_long(me)).await;
    let settlements: Vec<_> = leased
        .iter()
        .map(|delivery| settlement(delivery, Verdict::Failed))
        .collect();
    db.store.settle(me, &settlements).await.unwrap();
    let found = stats(db, subscription.id).await;
    let told = (found.succeeded, found.failed, found.attempts);
    assert_eq!(told, (most - 1_000, 1_000, most));
    let oldest = forge_dispatch::domain::ids::created_at(oldest.unwrap().uuid());
    assert_eq!(found.since, oldest);

    while stats(db, subscription.id).await.pending != Tally::AtLeast(most) {
        accept(&db.store, &events(1_000)).await;
        assert!(db.count("delivery_queue").await <= 12_000);
    }
    accept(&db.store, &events(1_000)).await;
    let found = stats(db, subscription.id).await;
    assert_eq!(found.pending, Tally::AtLeast(most));
    assert!(found.oldest_due.is_some());
}
