//! What is left of deleted subscriptions.

use std::time::Duration;

use forge_dispatch::domain::delivery::{DeliveryState, Verdict};
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::store::SettleOutcome;

use super::fixture::{
    HOUR, accept, accept_leased, claim_all, count_in, deliveries, disable, for_long, for_no_time,
    owner, record, settle, subscribe, subscribe_in,
};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, event, events, spec, workspace};

on_both_databases!(
    what_waits_for_a_deleted_subscription_is_cancelled,
    what_is_being_sent_is_left_until_its_lease_is_over,
    a_retry_that_came_back_after_the_deletion_is_cancelled,
    other_subscriptions_keep_what_waits,
    at_most_the_limit_is_cancelled_at_once,
    cancelling_keeps_attempts_and_their_number,
);

async fn what_waits_for_a_deleted_subscription_is_cancelled(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let subscription = subscribe(&db.store, &["*"]).await;
    accept(&db.store, &events(5)).await;
    assert_eq!(db.store.cancel_orphans(HOUR, 100).await.unwrap(), 0);
    db.replica
        .delete_subscription(&Reach::all(&here), subscription.id, None, &act())
        .await
        .unwrap();

    assert_eq!(db.store.cancel_orphans(HOUR, 100).await.unwrap(), 5);
    assert_eq!(db.store.cancel_orphans(HOUR, 100).await.unwrap(), 0);
    for record in deliveries(&db.replica, &here).await {
        assert_eq!(record.state, DeliveryState::Cancelled);
        assert_eq!((record.attempts, record.due_at), (0, None));
        assert!(record.settled_at.is_some());
    }
    assert_eq!(db.store.queue_depth().await.unwrap().pending, 0);
}

async fn what_is_being_sent_is_left_until_its_lease_is_over(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let flying = accept_leased(&db.store, &events(1), for_long(me))
        .await
        .remove(0);
    let lost = accept_leased(&db.store, &events(1), for_no_time(owner()))
        .await
        .remove(0);
    db.store
        .delete_subscription(&Reach::all(&here), subscription.id, None, &act())
        .await
        .unwrap();

    assert_eq!(
        db.store.cancel_orphans(HOUR, 100).await.unwrap(),
        0,
        "within the grace"
    );
    assert_eq!(
        db.store.cancel_orphans(Duration::ZERO, 100).await.unwrap(),
        1
    );
    assert_eq!(
        record(&db.store, lost.id).await.state,
        DeliveryState::Cancelled
    );
    assert_eq!(
        record(&db.store, flying.id).await.state,
        DeliveryState::InFlight
    );
    // It was sent when the subscription was there, and what came of it counts.
    assert_eq!(
        settle(&db.store, me, &flying, Verdict::Succeeded).await,
        SettleOutcome::Settled
    );
    assert_eq!(
        record(&db.store, flying.id).await.state,
        DeliveryState::Succeeded
    );
}

async fn a_retry_that_came_back_after_the_deletion_is_cancelled(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let flying = accept_leased(&db.store, &events(1), for_long(me))
        .await
        .remove(0);
    db.store
        .delete_subscription(&Reach::all(&here), subscription.id, None, &act())
        .await
        .unwrap();
    assert_eq!(
        db.store.cancel_orphans(Duration::ZERO, 100).await.unwrap(),
        0
    );
    settle(&db.store, me, &flying, Verdict::Retry { delay: HOUR }).await;
    assert!(
        claim_all(&db.store, subscription.id, for_long(me))
            .await
            .is_empty()
    );
    assert_eq!(
        db.store.cancel_orphans(Duration::ZERO, 100).await.unwrap(),
        1
    );
    assert_eq!(
        record(&db.store, flying.id).await.state,
        DeliveryState::Cancelled
    );
}

async fn other_subscriptions_keep_what_waits(db: &TestDatabase) {
    let (here, there) = (WorkspaceId::default(), workspace("ws_2"));
    let deleted = subscribe(&db.store, &["*"]).await;
    let disabled = subscribe(&db.store, &["*"]).await;
    subscribe_in(&db.store, &there, spec(&["*"])).await;
    accept(
        &db.store,
        &[event().build(), event().workspace("ws_2").build()],
    )
    .await;
    disable(&db.store, &disabled).await;
    db.store
        .delete_subscription(&Reach::all(&here), deleted.id, None, &act())
        .await
        .unwrap();
    assert_eq!(
        db.store.cancel_orphans(Duration::ZERO, 100).await.unwrap(),
        1
    );
    assert_eq!(count_in(&db.store, &here, DeliveryState::Pending).await, 1);
    assert_eq!(count_in(&db.store, &there, DeliveryState::Pending).await, 1);
}

async fn at_most_the_limit_is_cancelled_at_once(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    accept(&db.store, &events(700)).await;
    db.store
        .delete_subscription(
            &Reach::all(&WorkspaceId::default()),
            subscription.id,
            None,
            &act(),
        )
        .await
        .unwrap();
    let mut steps = Vec::new();
    loop {
        match db.store.cancel_orphans(Duration::ZERO, 300).await.unwrap() {
            0 => break,
            cancelled => steps.push(cancelled),
        }
    }
    assert_eq!(steps, [300, 300, 100]);
}

async fn cancelling_keeps_attempts_and_their_number(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let tried = accept_leased(&db.store, &events(1), for_long(me))
        .await
        .remove(0);
    settle(&db.store, me, &tried, Verdict::Retry { delay: HOUR }).await;
    db.store
        .delete_subscription(&Reach::all(&here), subscription.id, None, &act())
        .await
        .unwrap();
    assert_eq!(db.store.cancel_orphans(Duration::ZERO, 1).await.unwrap(), 1);
    let record = record(&db.store, tried.id).await;
    assert_eq!(
        (record.state, record.attempts),
        (DeliveryState::Cancelled, 1)
    );
    let page = forge_dispatch::store::PageRequest {
        limit: 9,
        after: None,
    };
    assert_eq!(
        db.store
            .attempts(&Reach::all(&here), tried.id, page)
            .await
            .unwrap()
            .items
            .len(),
        1
    );
}
