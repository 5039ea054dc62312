//! What is declared, and what is said when that cannot be.

use forge_dispatch::health::Part;
use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

use super::rig::{Rig, eventually};
use crate::harness::events::event;

#[tokio::test]
async fn everything_missing_is_declared_and_declaring_it_again_changes_nothing() {
    let mut rig = Rig::new().await;
    rig.start().await;
    rig.stop().await;
    rig.publish([event().text()]).await;
    rig.start().await;
    rig.until_stored(1).await;
    rig.stop_and_find_nothing_left().await;
}

#[tokio::test]
async fn a_binding_that_is_added_later_takes_effect() {
    let mut rig = Rig::new().await;
    rig.settings.bindings = vec!["output.#".to_owned()];
    rig.start().await;
    rig.stop().await;
    rig.settings.bindings.push("edition.archived".to_owned());
    rig.start().await;
    rig.publish([event().text()]).await;
    rig.until_stored(1).await;
    rig.stop_and_find_nothing_left().await;
}

#[tokio::test]
async fn a_queue_of_another_kind_is_told_with_its_name_and_what_differs() {
    let mut rig = Rig::new().await;
    let queue = rig.settings.events_queue.clone();
    let classic = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let channel = rig.broker.channel().await;
    channel
        .queue_declare(queue.as_str().into(), classic, FieldTable::default())
        .await
        .unwrap();
    let told = rig.start_and_hear_of(Part::Broker).await;
    assert!(told.contains(&format!("queue `{queue}`")), "{told}");
    assert!(told.contains("inequivalent arg"), "{told}");

    // It goes on as soon as the operator has made way.
    channel
        .queue_delete(
            queue.as_str().into(),
            lapin::options::QueueDeleteOptions::default(),
        )
        .await
        .unwrap();
    eventually("the consumer consumes", async || {
        rig.health.faults().is_empty()
    })
    .await;
    rig.stop_and_find_nothing_left().await;
}

#[tokio::test]
async fn an_exchange_of_another_kind_is_told_with_its_name_and_what_differs() {
    let mut rig = Rig::new().await;
    let exchange = rig.settings.events_exchange.clone();
    let channel = rig.broker.channel().await;
    channel
        .exchange_declare(
            exchange.as_str().into(),
            ExchangeKind::Fanout,
            ExchangeDeclareOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let told = rig.start_and_hear_of(Part::Broker).await;
    assert!(told.contains(&format!("exchange `{exchange}`")), "{told}");
    assert!(told.contains("inequivalent arg"), "{told}");
    rig.crash().await;
}

#[tokio::test]
async fn a_broker_that_is_away_is_told_without_the_password_and_does_not_hold_up_a_stop() {
    let mut rig = Rig::new().await;
    rig.settings.url = Some("amqp://forge:hunter2@127.0.0.1:1/%2f".into());
    let told = rig.start_and_hear_of(Part::Broker).await;
    assert!(!told.contains("hunter2"), "{told}");
    rig.stop().await;
}

#[tokio::test]
async fn a_login_that_is_refused_is_told_without_the_password() {
    let mut rig = Rig::new().await;
    let url = rig.broker_url().replace("guest:guest", "forge:hunter2");
    rig.settings.url = Some(url.into());
    let told = rig.start_and_hear_of(Part::Broker).await;
    assert!(told.contains("ACCESS_REFUSED"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
    rig.crash().await;
}
