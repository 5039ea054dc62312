//! What is in memory already goes nowhere that is no longer right: it goes back, and no attempt is spent.

use forge_dispatch::config::Config;
use forge_dispatch::domain::delivery::DeliveryState;
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::subscription::{Subscription, SubscriptionStatus, TargetUrl};
use forge_dispatch::store::Store;
use tokio_util::sync::CancellationToken;

use crate::harness::databases::TestDatabase;
use crate::harness::events::act;
use crate::harness::eventually;
use crate::harness::program::{InProcess, settings};
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::simple::{
    PATIENCE, all_become, deliveries, events, leave_waiting, subscribe, subscribe_as,
};

on_both_databases!(
    when_a_receiver_is_gone_what_waits_is_not_sent_to_it,
    behind_another_address_nothing_goes_to_the_one_of_before,
    gone_of_an_address_of_before_does_not_stop_the_new_one,
);

/// An answer that is held back does not time out.
fn patient(database: &TestDatabase) -> Config {
    let mut config = settings(database.url());
    config.egress.timeout = 4 * PATIENCE;
    config.dispatch.lease = 6 * PATIENCE;
    config
}

async fn found(store: &dyn Store, id: SubscriptionId) -> Subscription {
    let reach = Reach::all(&WorkspaceId::default());
    store.subscription(&reach, id).await.unwrap().unwrap()
}

async fn move_to(store: &dyn Store, id: SubscriptionId, url: &str) {
    let before = found(store, id).await;
    let mut spec = before.spec.clone();
    spec.url = TargetUrl::new(url).unwrap();
    let reach = Reach::all(&before.workspace);
    let moved = store
        .update_subscription(&reach, id, before.version, &spec, &before.status, &act())
        .await;
    assert!(moved.unwrap().is_some());
}

async fn when_a_receiver_is_gone_what_waits_is_not_sent_to_it(database: &TestDatabase) {
    const DUE: usize = 1_000;
    let mut config = settings(database.url());
    config.dispatch.concurrency = 32;
    config.dispatch.subscription_concurrency = 16;
    // What is sent before the first outcomes are written is bounded by this, twice, and by the slots.
    config.dispatch.settle_batch = 10;
    let receiver = Receiver::start(|_| Reply::status(410));
    let subscription = subscribe(&*database.store, &receiver.url("/hook")).await;
    leave_waiting(&database.store, &events(0..DUE)).await;
    let program = InProcess::start(config).await;
    eventually(PATIENCE, "it is disabled", async || {
        let status = found(&*program.store, subscription).await.status;
        status.reason().is_some()
    })
    .await;
    let count = async |state| {
        let all = deliveries(&*program.store, subscription).await;
        all.iter().filter(|one| one.state == state).count()
    };
    eventually(PATIENCE, "nothing is in memory", async || {
        count(DeliveryState::InFlight).await == 0
    })
    .await;

    let sent = receiver.count();
    assert!(sent < 60, "{sent} were sent to one that is gone");
    assert_eq!(count(DeliveryState::Failed).await, sent);
    let all = deliveries(&*program.store, subscription).await;
    let waiting: Vec<_> = all
        .iter()
        .filter(|one| one.state == DeliveryState::Pending)
        .collect();
    assert_eq!(waiting.len(), DUE - sent);
    assert!(waiting.iter().all(|one| one.attempts == 0));
    program.stop().await.unwrap();
}

async fn behind_another_address_nothing_goes_to_the_one_of_before(database: &TestDatabase) {
    const DUE: usize = 300;
    const SLOTS: usize = 6;
    let gate = CancellationToken::new();
    let (held, open) = (gate.clone(), gate);
    let old = Receiver::start(move |_| Reply::status(200).held_until(&held));
    let new = Receiver::ok();
    let subscription = subscribe_as(&*database.store, &old.url("/hook"), Some(8)).await;
    let program = InProcess::start(patient(database)).await;
    program.entrance.publish(&events(0..DUE)).await.unwrap();
    old.wait_for_count(SLOTS, PATIENCE).await.unwrap();

    move_to(&*program.store, subscription, &new.url("/hook")).await;
    open.cancel();
    all_become(&*program.store, subscription, DUE, DeliveryState::Succeeded).await;
    assert_eq!((old.count(), new.count()), (SLOTS, DUE - SLOTS));
    let attempts = deliveries(&*program.store, subscription).await;
    assert!(attempts.iter().all(|delivery| delivery.attempts == 1));
    program.stop().await.unwrap();
}

async fn gone_of_an_address_of_before_does_not_stop_the_new_one(database: &TestDatabase) {
    let gate = CancellationToken::new();
    let (held, open) = (gate.clone(), gate);
    let old = Receiver::start(move |_| Reply::status(410).held_until(&held));
    let new = Receiver::ok();
    let subscription = subscribe(&*database.store, &old.url("/hook")).await;
    let program = InProcess::start(patient(database)).await;
    program.entrance.publish(&events(0..1)).await.unwrap();
    old.wait_for_count(1, PATIENCE).await.unwrap();

    move_to(&*program.store, subscription, &new.url("/hook")).await;
    open.cancel();
    eventually(PATIENCE, "the late answer is written", async || {
        let all = deliveries(&*program.store, subscription).await;
        all.iter().all(|one| one.state == DeliveryState::Failed)
    })
    .await;
    let status = found(&*program.store, subscription).await.status;
    assert_eq!(status, SubscriptionStatus::Active);
    program.entrance.publish(&events(1..2)).await.unwrap();
    new.wait_for_count(1, PATIENCE).await.unwrap();
    program.stop().await.unwrap();
}
