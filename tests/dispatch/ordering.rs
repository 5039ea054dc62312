//! An edition goes as fast as its receiver takes it, one event after the other.

use std::time::Duration;

use forge_dispatch::domain::delivery::DeliveryState;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::subscription::{Ordering, SubscriptionSpec, TargetUrl};

use crate::harness::databases::TestDatabase;
use crate::harness::events::{register, registration, spec};
use crate::harness::program::{InProcess, settings};
use crate::harness::receiver::Receiver;
use crate::harness::simple::{PATIENCE, all_become};

on_both_databases!(who_is_next_is_sent_at_once_and_not_at_the_next_poll);

async fn who_is_next_is_sent_at_once_and_not_at_the_next_poll(database: &TestDatabase) {
    const EVENTS: usize = 30;
    let mut config = settings(database.url());
    // Who waits for it waits for longer than this test has.
    config.dispatch.poll_interval = Duration::from_hours(1);
    let program = InProcess::start(config).await;
    let receiver = Receiver::ok();
    let wanted = SubscriptionSpec {
        url: TargetUrl::new(&receiver.url("/hook")).unwrap(),
        ordering: Ordering::ByEdition,
        ..spec(&["*"])
    };
    let new = registration(&WorkspaceId::default(), wanted);
    let subscription = register(&*program.store, &new).await.unwrap().id;
    let events: Vec<Vec<u8>> = (0..EVENTS)
        .map(|number| {
            let envelope = serde_json::json!({
                "specversion": "1.0", "id": number.to_string(), "source": "/ordered",
                "type": "edition.archived", "data": {"edition_id": "ed_1", "n": number},
            });
            envelope.to_string().into_bytes()
        })
        .collect();
    program.entrance.publish(&events).await.unwrap();
    let requests = receiver.wait_for_count(EVENTS, PATIENCE).await.unwrap();
    let numbers: Vec<u64> = requests
        .iter()
        .map(|request| request.json()["data"]["n"].as_u64().unwrap())
        .collect();
    let in_order: Vec<u64> = (0..EVENTS as u64).collect();
    assert_eq!(numbers, in_order);
    all_become(
        &*program.store,
        subscription,
        EVENTS,
        DeliveryState::Succeeded,
    )
    .await;
    program.stop().await.unwrap();
}
