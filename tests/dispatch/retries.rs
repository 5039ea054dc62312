//! Failing, trying again, giving up.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forge_dispatch::domain::attempt::ErrorClass;
use forge_dispatch::domain::delivery::DeliveryState;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::subscription::SubscriptionStatus;

use crate::harness::databases::TestDatabase;
use crate::harness::eventually;
use crate::harness::program::{InProcess, settings};
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::simple::{
    PATIENCE, all_become, attempts, deliveries, event, events, subscribe,
};

on_both_databases!(
    a_delivery_is_tried_until_it_is_taken_under_one_id,
    a_spent_schedule_fails_the_delivery,
    retry_after_is_waited_for,
    a_receiver_that_comes_back_gets_all_it_missed,
    gone_fails_the_delivery_and_disables_the_subscription,
);

async fn a_delivery_is_tried_until_it_is_taken_under_one_id(database: &TestDatabase) {
    let program = InProcess::start(settings(database.url())).await;
    let tries = AtomicUsize::new(0);
    let receiver = Receiver::start(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(500)
            .body("not today")
            .header("x-why", "tired"),
        1 => Reply::close(),
        2 => Reply::status(302).header("location", "http://127.0.0.1:1/"),
        _ => Reply::status(200),
    });
    let subscription = subscribe(&*program.store, &receiver.url("/hook")).await;
    program.entrance.publish(&[event("1")]).await.unwrap();

    let done = all_become(&*program.store, subscription, 1, DeliveryState::Succeeded).await;
    assert_eq!(done[0].attempts, 4);
    let kept = attempts(&*program.store, &done[0]).await;
    let seen: Vec<_> = kept
        .iter()
        .map(|kept| {
            (
                kept.attempt.status,
                kept.attempt.error.is_some(),
                kept.lease_lost,
            )
        })
        .collect();
    assert_eq!(seen[0], (Some(500), true, false));
    assert_eq!(seen[1], (None, true, false));
    assert_eq!(seen[2], (Some(302), true, false));
    assert_eq!(seen[3], (Some(200), false, false));
    assert_eq!(kept[0].attempt.response_excerpt, "not today");
    let headers = &kept[0].attempt.response_headers;
    assert!(
        headers.contains(&("x-why".to_owned(), "tired".to_owned())),
        "{headers:?}"
    );
    assert_eq!(kept[0].attempt.error, Some(ErrorClass::HttpStatus));
    let ids: HashSet<_> = receiver
        .received()
        .iter()
        .map(|request| request.webhook_id().to_owned())
        .collect();
    assert_eq!(ids.len(), 1, "the id is stable over retries");
    program.stop().await.unwrap();
}

async fn a_spent_schedule_fails_the_delivery(database: &TestDatabase) {
    let mut config = settings(database.url());
    config.retry.schedule = vec![Duration::from_millis(20), Duration::from_millis(20)];
    let program = InProcess::start(config).await;
    let receiver = Receiver::start(|_| Reply::status(500));
    let subscription = subscribe(&*program.store, &receiver.url("/hook")).await;
    program.entrance.publish(&[event("1")]).await.unwrap();

    let done = all_become(&*program.store, subscription, 1, DeliveryState::Failed).await;
    assert_eq!((done[0].attempts, receiver.count()), (3, 3));
    program.stop().await.unwrap();
}

async fn retry_after_is_waited_for(database: &TestDatabase) {
    let program = InProcess::start(settings(database.url())).await;
    let tries = AtomicUsize::new(0);
    let receiver = Receiver::start(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(429).header("retry-after", "2"),
        _ => Reply::status(200),
    });
    subscribe(&*program.store, &receiver.url("/hook")).await;
    program.entrance.publish(&[event("1")]).await.unwrap();

    let requests = receiver.wait_for_count(2, PATIENCE).await.unwrap();
    let pause = requests[1].arrived - requests[0].arrived;
    assert!(
        pause >= Duration::from_millis(1_950),
        "came again after {pause:?}"
    );
    program.stop().await.unwrap();
}

async fn gone_fails_the_delivery_and_disables_the_subscription(database: &TestDatabase) {
    let program = InProcess::start(settings(database.url())).await;
    let receiver = Receiver::start(|_| Reply::status(410));
    let subscription = subscribe(&*program.store, &receiver.url("/hook")).await;
    program.entrance.publish(&[event("1")]).await.unwrap();

    all_become(&*program.store, subscription, 1, DeliveryState::Failed).await;
    let kept = program
        .store
        .subscription(&Reach::all(&WorkspaceId::default()), subscription)
        .await
        .unwrap()
        .unwrap();
    let SubscriptionStatus::Disabled { reason } = kept.status else {
        panic!("still active");
    };
    assert!(reason.contains("410"), "{reason}");

    program.entrance.publish(&[event("2")]).await.unwrap();
    assert_eq!(deliveries(&*program.store, subscription).await.len(), 1);
    assert_eq!(receiver.count(), 1);
    program.stop().await.unwrap();
}

async fn a_receiver_that_comes_back_gets_all_it_missed(database: &TestDatabase) {
    let program = InProcess::start(settings(database.url())).await;
    let receiver = Receiver::ok();
    let (address, url) = (receiver.address(), receiver.url("/hook"));
    let subscription = subscribe(&*program.store, &url).await;
    receiver.stop().await;
    program.entrance.publish(&events(0..50)).await.unwrap();
    eventually(PATIENCE, "each was tried once", async || {
        let all = deliveries(&*program.store, subscription).await;
        all.len() == 50 && all.iter().all(|delivery| delivery.attempts > 0)
    })
    .await;
    let back = Receiver::start_at(address, |_| Reply::status(200));
    all_become(&*program.store, subscription, 50, DeliveryState::Succeeded).await;
    assert_eq!(back.count(), 50);
    program.stop().await.unwrap();
}
