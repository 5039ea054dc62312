//! A subscription disabled or deleted while deliveries wait (product.md §4).

use std::time::Duration;

use forge_dispatch::domain::delivery::DeliveryState;
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::subscription::SubscriptionStatus;
use forge_dispatch::store::Store;

use crate::harness::databases::TestDatabase;
use crate::harness::events::act;
use crate::harness::eventually;
use crate::harness::program::{InProcess, settings};
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::simple::{PATIENCE, all_become, deliveries, events, subscribe};

on_both_databases!(
    deleting_cancels_what_waits,
    while_disabled_deliveries_wait_and_events_make_none,
);

async fn set_status(store: &dyn Store, id: SubscriptionId, status: SubscriptionStatus) {
    let workspace = WorkspaceId::default();
    let kept = store
        .subscription(&Reach::all(&workspace), id)
        .await
        .unwrap()
        .unwrap();
    store
        .update_subscription(
            &Reach::all(&workspace),
            id,
            kept.version,
            &kept.spec,
            &status,
            &act(),
        )
        .await
        .unwrap()
        .unwrap();
}

/// Deliveries that failed once and are due again soon.
async fn failing(program: &InProcess, receiver: &Receiver) -> SubscriptionId {
    let subscription = subscribe(&*program.store, &receiver.url("/hook")).await;
    program.entrance.publish(&events(0..20)).await.unwrap();
    eventually(PATIENCE, "each was tried once and waits", async || {
        let all = deliveries(&*program.store, subscription).await;
        all.len() == 20 && all.iter().all(|delivery| delivery.attempts > 0)
    })
    .await;
    subscription
}

async fn while_disabled_deliveries_wait_and_events_make_none(database: &TestDatabase) {
    let mut config = settings(database.url());
    config.retry.schedule = vec![Duration::from_millis(100); 50];
    let program = InProcess::start(config).await;
    let receiver = Receiver::start(|_| Reply::status(500));
    let subscription = failing(&program, &receiver).await;

    let reason = "asked for".to_owned();
    set_status(
        &*program.store,
        subscription,
        SubscriptionStatus::Disabled { reason },
    )
    .await;
    eventually(PATIENCE, "nothing is in flight", async || {
        program.store.queue_depth().await.unwrap().in_flight == 0
    })
    .await;
    let before = receiver.count();
    program.entrance.publish(&events(20..30)).await.unwrap();
    // Time enough for the schedule to have come round, by another subscription's retries.
    let other = Receiver::start(|_| Reply::status(500));
    subscribe(&*program.store, &other.url("/hook")).await;
    program.entrance.publish(&events(30..31)).await.unwrap();
    other.wait_for_count(5, PATIENCE).await.unwrap();
    assert_eq!(
        receiver.count(),
        before,
        "a disabled subscription is left alone"
    );
    let waiting = deliveries(&*program.store, subscription).await;
    assert_eq!(waiting.len(), 20);
    assert!(
        waiting
            .iter()
            .all(|delivery| delivery.state == DeliveryState::Pending)
    );

    receiver.behave(|_| Reply::status(200));
    set_status(&*program.store, subscription, SubscriptionStatus::Active).await;
    all_become(&*program.store, subscription, 20, DeliveryState::Succeeded).await;
    program.stop().await.unwrap();
}

async fn deleting_cancels_what_waits(database: &TestDatabase) {
    let mut config = settings(database.url());
    config.retry.schedule = vec![Duration::from_hours(1)];
    let program = InProcess::start(config).await;
    let receiver = Receiver::start(|_| Reply::status(500));
    let subscription = failing(&program, &receiver).await;
    let deleted = program
        .store
        .delete_subscription(
            &Reach::all(&WorkspaceId::default()),
            subscription,
            None,
            &act(),
        )
        .await
        .unwrap();
    assert!(deleted);
    all_become(&*program.store, subscription, 20, DeliveryState::Cancelled).await;
    assert_eq!(receiver.count(), 20, "nothing was sent after the deletion");
    program.stop().await.unwrap();
}
