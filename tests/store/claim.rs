//! What is due, and who gets it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::delivery::{DeliveryState, Lane, Verdict};
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::subscription::SubscriptionStatus;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{Claim, Due, SettleOutcome};

use super::fixture::{
    HOUR, accept, accept_leased, claim_all, claim_of, disable, for_long, for_no_time, owner,
    record, set_status, settle, subscribe, subscribe_in,
};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, event, events, spec, workspace};

on_both_databases!(
    two_claimers_never_get_the_same_delivery,
    a_claim_takes_what_was_asked_of_each_subscription,
    the_oldest_due_is_claimed_first,
    a_claim_stops_at_its_bytes_but_takes_one_at_least,
    the_bytes_of_a_claim_are_shared_in_turns,
    a_claimed_delivery_carries_its_event_and_its_keys,
    one_event_for_many_subscriptions_is_loaded_once,
    a_lease_that_ran_out_is_taken_over_and_counted,
    a_lease_that_ran_out_is_left_alone_within_the_grace,
    a_live_lease_is_not_taken_over,
    disabled_and_deleted_subscriptions_are_passed_over,
    a_subscription_disabled_by_another_process_is_passed_over,
    a_retry_is_claimed_from_its_own_lane_when_its_time_has_come,
    a_subscription_asked_for_twice_gives_each_delivery_once,
    due_names_active_subscriptions_with_due_work_per_lane,
    due_tells_when_the_next_retry_comes,
    queue_depth_counts_what_waits_and_what_flies,
    the_oldest_due_time_is_that_of_active_subscriptions,
);

async fn two_claimers_never_get_the_same_delivery(db: &TestDatabase) {
    const DELIVERIES: usize = 600;
    let (a, b) = (
        subscribe(&db.store, &["*"]).await,
        subscribe(&db.store, &["*"]).await,
    );
    accept(&db.store, &events(DELIVERIES / 2)).await;

    let claimers: Vec<_> = (0..8)
        .map(|number| {
            let store = Arc::clone(if number % 2 == 0 {
                &db.store
            } else {
                &db.replica
            });
            let wants = vec![(a.id, 7), (b.id, 5)];
            tokio::spawn(async move {
                let claim = Claim {
                    wants,
                    ..claim_of(a.id, for_long(owner()))
                };
                let mut mine = Vec::new();
                let mut empty_handed = 0;
                // Rows that another holds locked may hide for a moment; twice empty is empty.
                while empty_handed < 2 {
                    let claimed = store.claim(&claim).await.unwrap();
                    empty_handed = if claimed.is_empty() {
                        empty_handed + 1
                    } else {
                        0
                    };
                    mine.extend(claimed);
                }
                mine
            })
        })
        .collect();
    let mut seen = HashSet::new();
    for claimer in claimers {
        for delivery in claimer.await.unwrap() {
            assert_eq!(delivery.epoch, 1);
            assert!(
                seen.insert(delivery.id),
                "{} was claimed twice",
                delivery.id
            );
        }
    }
    for id in [a.id, b.id] {
        for late in claim_all(&db.store, id, for_long(owner())).await {
            assert!(seen.insert(late.id));
        }
    }
    assert_eq!(seen.len(), DELIVERIES);
}

async fn a_claim_takes_what_was_asked_of_each_subscription(db: &TestDatabase) {
    let subscriptions = [
        subscribe(&db.store, &["*"]).await.id,
        subscribe(&db.store, &["*"]).await.id,
        subscribe(&db.store, &["*"]).await.id,
    ];
    accept(&db.store, &events(10)).await;
    let unknown: SubscriptionId = Entropy::system().id(SystemClock.now());
    let claim = Claim {
        wants: vec![
            (subscriptions[0], 3),
            (unknown, 9),
            (subscriptions[1], 50),
            (subscriptions[2], 0),
        ],
        ..claim_of(unknown, for_long(owner()))
    };
    let mut taken: HashMap<SubscriptionId, usize> = HashMap::new();
    for delivery in db.store.claim(&claim).await.unwrap() {
        *taken.entry(delivery.target.id()).or_default() += 1;
    }
    assert_eq!(
        taken,
        HashMap::from([(subscriptions[0], 3), (subscriptions[1], 10)])
    );
}

async fn the_oldest_due_is_claimed_first(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let batch = events(4);
    for payload in &batch {
        accept(&db.store, std::slice::from_ref(payload)).await;
        let now = SystemClock.now();
        // Times are kept in milliseconds: the next one must have a later one.
        while SystemClock.now() == now {
            tokio::task::yield_now().await;
        }
    }
    for payload in &batch {
        let claim = Claim {
            wants: vec![(subscription.id, 1)],
            ..claim_of(subscription.id, for_long(owner()))
        };
        let claimed = db.store.claim(&claim).await.unwrap();
        assert_eq!(claimed.len(), 1);
        assert_eq!(claimed[0].payload.event().id, payload.event().id);
    }
}

async fn a_claim_stops_at_its_bytes_but_takes_one_at_least(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let large = format!(r#""{}""#, "x".repeat(10_000));
    let batch: Vec<_> = (0..6).map(|_| event().data(&large).build()).collect();
    let bytes = batch[0].event().envelope.len();
    accept(&db.store, &batch).await;

    let claim_up_to = async |max_bytes| {
        let claim = Claim {
            max_bytes,
            ..claim_of(subscription.id, for_long(owner()))
        };
        db.store.claim(&claim).await.unwrap().len()
    };
    assert_eq!(claim_up_to(1).await, 1);
    assert_eq!(claim_up_to(2 * bytes + 1).await, 2);
    assert_eq!(claim_up_to(2 * bytes).await, 2);
    assert_eq!(
        claim_up_to(usize::MAX).await,
        1,
        "what was left was not leased before"
    );
}

async fn the_bytes_of_a_claim_are_shared_in_turns(db: &TestDatabase) {
    let (a, b) = (
        subscribe(&db.store, &["*"]).await,
        subscribe(&db.store, &["*"]).await,
    );
    let batch = events(10);
    accept(&db.store, &batch).await;
    let claim = Claim {
        wants: vec![(a.id, 10), (b.id, 10)],
        max_bytes: 6 * batch[0].event().envelope.len(),
        ..claim_of(a.id, for_long(owner()))
    };
    let claimed = db.store.claim(&claim).await.unwrap();
    let of = |id| {
        claimed
            .iter()
            .filter(|delivery| delivery.target.id() == id)
            .count()
    };
    assert_eq!((of(a.id), of(b.id)), (3, 3));
}

async fn a_claimed_delivery_carries_its_event_and_its_keys(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let sent = event()
        .project("pr_1")
        .data(r#"{"edition_id":"ed_1"}"#)
        .build();
    accept(&db.store, std::slice::from_ref(&sent)).await;
    let before = SystemClock.monotonic();
    let claimed = claim_all(&db.replica, subscription.id, for_long(owner())).await;
    assert_eq!(claimed.len(), 1);
    let delivery = &claimed[0];
    assert_eq!(delivery.payload.event(), sent.event());
    assert_eq!(delivery.target.subscription, subscription);
    assert_eq!(delivery.target.keys.len(), 1);
    assert_eq!(
        (delivery.epoch, delivery.attempts, delivery.lost_leases),
        (1, 0, 0)
    );
    assert!(delivery.leased_until >= before + HOUR);
    assert!(delivery.leased_until <= SystemClock.monotonic() + HOUR);
    assert_eq!(
        record(&db.store, delivery.id).await.state,
        DeliveryState::InFlight
    );
}

async fn one_event_for_many_subscriptions_is_loaded_once(db: &TestDatabase) {
    let (a, b) = (
        subscribe(&db.store, &["*"]).await,
        subscribe(&db.store, &["*"]).await,
    );
    accept(&db.store, &events(1)).await;
    let claim = Claim {
        wants: vec![(a.id, 1), (b.id, 1)],
        ..claim_of(a.id, for_long(owner()))
    };
    let claimed = db.store.claim(&claim).await.unwrap();
    assert_eq!(claimed.len(), 2);
    assert!(Arc::ptr_eq(&claimed[0].payload, &claimed[1].payload));
}

async fn a_lease_that_ran_out_is_taken_over_and_counted(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let (first, second, third) = (owner(), owner(), owner());
    let born = accept_leased(&db.store, &events(1), for_no_time(first)).await;
    assert_eq!(db.replica.due(Duration::ZERO).await.unwrap().work.len(), 1);

    let taken = claim_all(&db.replica, subscription.id, for_no_time(second)).await;
    assert_eq!(taken.len(), 1);
    assert_eq!(
        (taken[0].id, taken[0].epoch, taken[0].lost_leases),
        (born[0].id, 2, 1)
    );
    let taken = claim_all(&db.store, subscription.id, for_long(third)).await;
    assert_eq!(
        (taken[0].epoch, taken[0].lost_leases, taken[0].attempts),
        (3, 2, 0)
    );

    // An outcome ends the row of lost leases; a release does not.
    assert_eq!(
        settle(&db.store, third, &taken[0], Verdict::Released).await,
        SettleOutcome::Settled
    );
    let again = claim_all(&db.store, subscription.id, for_long(third)).await;
    assert_eq!((again[0].epoch, again[0].lost_leases), (4, 2));
    let delay = Duration::ZERO;
    settle(&db.store, third, &again[0], Verdict::Retry { delay }).await;
    let again = claim_all(&db.store, subscription.id, for_long(third)).await;
    assert_eq!(
        (again[0].epoch, again[0].lost_leases, again[0].attempts),
        (5, 0, 1)
    );
}

async fn a_lease_that_ran_out_is_left_alone_within_the_grace(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    accept_leased(&db.store, &events(1), for_no_time(owner())).await;
    let claim = Claim {
        grace: HOUR,
        ..claim_of(subscription.id, for_long(owner()))
    };
    assert!(db.store.claim(&claim).await.unwrap().is_empty());
    assert!(db.store.due(HOUR).await.unwrap().work.is_empty());
    // What nobody leased is due, whatever the grace.
    accept(&db.store, &events(1)).await;
    assert_eq!(db.store.due(HOUR).await.unwrap().work.len(), 1);
    assert_eq!(db.store.claim(&claim).await.unwrap().len(), 1);
}

async fn a_live_lease_is_not_taken_over(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    accept_leased(&db.store, &events(2), for_long(me)).await;
    for claimer in [me, owner()] {
        assert!(
            claim_all(&db.store, subscription.id, for_long(claimer))
                .await
                .is_empty()
        );
    }
    assert!(db.store.due(Duration::ZERO).await.unwrap().work.is_empty());
}

async fn disabled_and_deleted_subscriptions_are_passed_over(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let (served, disabled, deleted) = (
        subscribe(&db.store, &["*"]).await,
        subscribe(&db.store, &["*"]).await,
        subscribe(&db.store, &["*"]).await,
    );
    accept(&db.store, &events(2)).await;
    let disabled = disable(&db.store, &disabled).await;
    db.store
        .delete_subscription(&Reach::all(&here), deleted.id, None, &act())
        .await
        .unwrap();

    let claim = Claim {
        wants: vec![(served.id, 9), (disabled.id, 9), (deleted.id, 9)],
        ..claim_of(served.id, for_long(owner()))
    };
    let claimed = db.store.claim(&claim).await.unwrap();
    assert_eq!(claimed.len(), 2);
    assert!(
        claimed
            .iter()
            .all(|delivery| delivery.target.id() == served.id)
    );
    assert!(db.store.due(Duration::ZERO).await.unwrap().work.is_empty());

    // What waited for the disabled one waits on, and is served when it is active again.
    set_status(&db.store, &disabled, SubscriptionStatus::Active).await;
    assert_eq!(
        claim_all(&db.store, disabled.id, for_long(owner()))
            .await
            .len(),
        2
    );
}

async fn a_subscription_disabled_by_another_process_is_passed_over(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    accept(&db.store, &events(1)).await;
    assert_eq!(db.store.due(Duration::ZERO).await.unwrap().work.len(), 1);
    disable(&db.replica, &subscription).await;
    assert!(
        claim_all(&db.store, subscription.id, for_long(owner()))
            .await
            .is_empty()
    );
    assert!(db.store.due(Duration::ZERO).await.unwrap().work.is_empty());
}

async fn a_retry_is_claimed_from_its_own_lane_when_its_time_has_come(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(3), for_long(me)).await;
    settle(
        &db.store,
        me,
        &born[0],
        Verdict::Retry {
            delay: Duration::ZERO,
        },
    )
    .await;
    settle(&db.store, me, &born[1], Verdict::Retry { delay: HOUR }).await;
    settle(&db.store, me, &born[2], Verdict::Released).await;

    let claim_from = async |lane| {
        let claim = Claim {
            lane,
            ..claim_of(subscription.id, for_long(me))
        };
        db.store.claim(&claim).await.unwrap()
    };
    let retried = claim_from(Lane::Retry).await;
    assert_eq!(retried.len(), 1, "the other is due in an hour");
    assert_eq!((retried[0].id, retried[0].lane), (born[0].id, Lane::Retry));
    assert_eq!((retried[0].epoch, retried[0].attempts), (2, 1));
    let fresh = claim_from(Lane::Fresh).await;
    assert_eq!(fresh.len(), 1);
    assert_eq!((fresh[0].id, fresh[0].lane), (born[2].id, Lane::Fresh));
    assert_eq!(
        (fresh[0].epoch, fresh[0].attempts),
        (2, 0),
        "nothing was spent by the release"
    );

    // Once tried, always a retry: a release leaves it there.
    settle(&db.store, me, &retried[0], Verdict::Released).await;
    assert_eq!(claim_from(Lane::Retry).await.len(), 1);
}

async fn a_subscription_asked_for_twice_gives_each_delivery_once(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    accept(&db.store, &events(5)).await;
    let claim = Claim {
        wants: vec![(subscription.id, 5), (subscription.id, 5)],
        ..claim_of(subscription.id, for_long(owner()))
    };
    let claimed = db.store.claim(&claim).await.unwrap();
    let distinct: HashSet<_> = claimed.iter().map(|delivery| delivery.id).collect();
    assert_eq!((claimed.len(), distinct.len()), (5, 5));
}

async fn due_names_active_subscriptions_with_due_work_per_lane(db: &TestDatabase) {
    let named = |due: &Due| -> HashSet<_> {
        due.work
            .iter()
            .map(|(target, lane)| (target.id(), *lane))
            .collect()
    };
    assert!(db.store.due(Duration::ZERO).await.unwrap().work.is_empty());
    let (a, b) = (
        subscribe(&db.store, &["*"]).await,
        subscribe(&db.store, &["*"]).await,
    );
    let elsewhere = subscribe_in(&db.store, &workspace("ws_2"), spec(&["*"])).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(2), for_long(me)).await;
    for delivery in &born {
        let verdict = if delivery.target.id() == a.id {
            Verdict::Retry {
                delay: Duration::ZERO,
            }
        } else {
            Verdict::Retry { delay: HOUR }
        };
        settle(&db.store, me, delivery, verdict).await;
    }
    accept(&db.store, &[event().workspace("ws_2").build()]).await;
    let due = db.replica.due(Duration::ZERO).await.unwrap();
    assert_eq!(
        named(&due),
        HashSet::from([(a.id, Lane::Retry), (elsewhere.id, Lane::Fresh)])
    );
    assert_eq!(due.work.len(), 2, "each once");
    assert!(due.work.iter().all(|(target, _)| target.keys.len() == 1));

    accept(&db.store, &events(1)).await;
    let due = db.replica.due(Duration::ZERO).await.unwrap();
    assert_eq!(
        named(&due),
        HashSet::from([
            (a.id, Lane::Fresh),
            (a.id, Lane::Retry),
            (b.id, Lane::Fresh),
            (elsewhere.id, Lane::Fresh)
        ])
    );
}

async fn due_tells_when_the_next_retry_comes(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    assert_eq!(db.store.due(Duration::ZERO).await.unwrap().next_in, None);
    let born = accept_leased(&db.store, &events(2), for_long(me)).await;
    settle(&db.store, me, &born[0], Verdict::Retry { delay: HOUR / 2 }).await;
    settle(&db.store, me, &born[1], Verdict::Retry { delay: 20 * HOUR }).await;
    let next = db.store.due(Duration::ZERO).await.unwrap().next_in.unwrap();
    assert!(next <= HOUR / 2 && next > HOUR / 3, "{next:?}");

    disable(&db.store, &subscription).await;
    let due = db.store.due(Duration::ZERO).await.unwrap();
    assert_eq!(due.next_in, None, "a disabled one has no next");
}

async fn queue_depth_counts_what_waits_and_what_flies(db: &TestDatabase) {
    let empty = db.store.queue_depth().await.unwrap();
    assert_eq!(empty, forge_dispatch::store::QueueDepth::default());
    subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(4), for_long(me)).await;
    let depth = db.store.queue_depth().await.unwrap();
    assert_eq!(
        (depth.pending, depth.in_flight, depth.oldest_due),
        (0, 4, None)
    );

    settle(&db.store, me, &born[0], Verdict::Succeeded).await;
    settle(&db.store, me, &born[1], Verdict::Retry { delay: HOUR }).await;
    let depth = db.replica.queue_depth().await.unwrap();
    assert_eq!((depth.pending, depth.in_flight), (1, 2));
    assert_eq!(depth.oldest_due, None, "an hour away is not due");

    settle(&db.store, me, &born[2], Verdict::Released).await;
    let depth = db.replica.queue_depth().await.unwrap();
    assert_eq!((depth.pending, depth.in_flight), (2, 1));
    assert!(depth.oldest_due.unwrap() < HOUR);
}

async fn the_oldest_due_time_is_that_of_active_subscriptions(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    accept(&db.store, &events(1)).await;
    assert!(db.store.queue_depth().await.unwrap().oldest_due.is_some());
    disable(&db.store, &subscription).await;
    let depth = db.store.queue_depth().await.unwrap();
    assert_eq!((depth.pending, depth.oldest_due), (1, None));
}
