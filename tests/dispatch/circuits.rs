//! A receiver that fails is left alone, and gets what waited when it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use forge_dispatch::config::{Circuit, Config};
use forge_dispatch::domain::delivery::DeliveryState;
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::domain::subscription::{SubscriptionSpec, TargetUrl};
use forge_dispatch::store::Store;

use crate::harness::databases::TestDatabase;
use crate::harness::events::{register, registration, spec};
use crate::harness::eventually;
use crate::harness::program::{InProcess, settings};
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::simple::{PATIENCE, all_become, deliveries, event, events, subscribe};

on_both_databases!(
    a_receiver_that_is_down_wastes_no_attempts_and_gets_everything_when_it_is_back,
    a_receiver_that_fails_most_of_the_time_is_left_alone_and_it_is_told,
    a_delivery_that_is_given_up_is_told_of,
);

const DOWN_FOR: usize = 4;

/// Circuits that open soon and are tried again soon, and retries that would be spent within a second.
fn hasty(database: &TestDatabase) -> Config {
    let mut config = settings(database.url());
    config.dispatch.circuit = Circuit {
        failures_in_row: 5,
        least_attempts: 1_000_000,
        first_pause: Duration::from_millis(200),
        longest_pause: Duration::from_millis(400),
        ramp: Duration::from_secs(2),
        ..Circuit::default()
    };
    // What is sent before the first outcomes are written is bounded by these.
    config.dispatch.settle_batch = 10;
    config.retry.schedule = vec![Duration::from_millis(50); 9];
    config
}

/// A subscription to these types.
async fn subscribe_to(store: &dyn Store, url: &str, types: &[&str]) -> SubscriptionId {
    let spec = SubscriptionSpec {
        url: TargetUrl::new(url).unwrap(),
        ..spec(types)
    };
    let new = registration(&WorkspaceId::default(), spec);
    register(store, &new).await.unwrap().id
}

async fn a_receiver_that_is_down_wastes_no_attempts_and_gets_everything_when_it_is_back(
    database: &TestDatabase,
) {
    const EVENTS: usize = 300;
    let program = InProcess::start(hasty(database)).await;
    let is_up = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let receiver = Receiver::start(move |_| {
        let status = if up.load(Ordering::SeqCst) { 200 } else { 503 };
        Reply::status(status)
    });
    let subscription = subscribe(&*program.store, &receiver.url("/hook")).await;
    program.entrance.publish(&events(0..EVENTS)).await.unwrap();
    eventually(PATIENCE, "the circuit opens", async || {
        program.store.circuit(subscription).open_until().is_some()
    })
    .await;
    // Probes, one at a time: without a circuit, all attempts of all deliveries would be spent by then.
    let so_far = receiver.count();
    receiver
        .wait_for_count(so_far + DOWN_FOR, PATIENCE)
        .await
        .unwrap();
    is_up.store(true, Ordering::SeqCst);
    all_become(
        &*program.store,
        subscription,
        EVENTS,
        DeliveryState::Succeeded,
    )
    .await;
    eventually(PATIENCE, "the circuit closes", async || {
        program.store.circuit(subscription).open_until().is_none()
    })
    .await;

    let requests = receiver.received();
    let refused = requests.len() - EVENTS;
    assert!(refused < 150, "{refused} attempts were wasted");
    let attempts: u32 = deliveries(&*program.store, subscription)
        .await
        .iter()
        .map(|delivery| delivery.attempts)
        .sum();
    assert_eq!(usize::try_from(attempts).unwrap(), requests.len());
    program.stop().await.unwrap();
}

async fn a_receiver_that_fails_most_of_the_time_is_left_alone_and_it_is_told(
    database: &TestDatabase,
) {
    let mut config = hasty(database);
    config.dispatch.circuit.failures_in_row = 1_000_000;
    config.dispatch.circuit.least_attempts = 10;
    config.retry.schedule = vec![Duration::from_millis(200); 9];
    let program = InProcess::start(config).await;
    let (is_well, count) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    let well = Arc::clone(&is_well);
    let failing = Receiver::start(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        let fails = number % 5 < 3 && !well.load(Ordering::SeqCst);
        Reply::status(if fails { 500 } else { 200 })
    });
    let ops = Receiver::ok();
    let subscription = subscribe(&*program.store, &failing.url("/hook")).await;
    subscribe_to(
        &*program.store,
        &ops.url("/ops"),
        &["subscription.circuit_opened"],
    )
    .await;
    program.entrance.publish(&events(0..100)).await.unwrap();

    let told = ops.wait_for_count(1, PATIENCE).await.unwrap();
    let body = told[0].json();
    assert_eq!(body["type"], "subscription.circuit_opened");
    assert_eq!(body["data"]["subscription_id"], subscription.to_string());
    assert_eq!(body["data"]["host"], "127.0.0.1");
    is_well.store(true, Ordering::SeqCst);
    all_become(&*program.store, subscription, 100, DeliveryState::Succeeded).await;
    program.stop().await.unwrap();
}

async fn a_delivery_that_is_given_up_is_told_of(database: &TestDatabase) {
    let mut config = settings(database.url());
    config.retry.schedule = vec![Duration::from_millis(20)];
    let program = InProcess::start(config).await;
    let failing = Receiver::start(|_| Reply::status(500));
    let ops = Receiver::ok();
    let subscription = subscribe(&*program.store, &failing.url("/hook")).await;
    subscribe_to(&*program.store, &ops.url("/ops"), &["delivery.failed"]).await;
    program.entrance.publish(&[event("1")]).await.unwrap();
    let told = ops.wait_for_count(1, PATIENCE).await.unwrap();
    let body = told[0].json();
    assert_eq!(body["type"], "delivery.failed");
    assert_eq!(body["data"]["subscription_id"], subscription.to_string());
    assert_eq!(body["data"]["attempts"], 2);
    program.stop().await.unwrap();
}
