//! What cannot be used, and where it ends.

use std::collections::BTreeMap;

use lapin::ExchangeKind;
use lapin::message::BasicGetMessage;
use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};

use super::rig::{Rig, settings};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::event;
use crate::harness::services::Broker;

fn header(message: &BasicGetMessage, name: &str) -> Option<String> {
    let headers = message.delivery.properties.headers().as_ref()?;
    match headers.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        _ => None,
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_used_is_dead_lettered_with_its_reason_and_its_neighbours_are_stored()
 {
    let poison: [(Vec<u8>, &str); 8] = [
        (b"".to_vec(), "not JSON"),
        (b"{".to_vec(), "not JSON"),
        (b"\xff\xfe".to_vec(), "not UTF-8"),
        (b"{}".to_vec(), "not a CloudEvent"),
        (
            event().event_type("edition.submitted").text().into_bytes(),
            "`edition_id`",
        ),
        (
            event().event_type("edition.snapshot").text().into_bytes(),
            "snapshots exchange",
        ),
        (
            event().event_type("Not A Type").text().into_bytes(),
            "`type`",
        ),
        (
            event()
                .data(&format!("\"{}\"", "x".repeat(1024 * 1024)))
                .text()
                .into_bytes(),
            "more than 1048576",
        ),
    ];
    let mut rig = Rig::new().await;
    rig.start().await;
    for (body, _) in &poison {
        rig.publish([event().text().as_bytes(), body, event().text().as_bytes()])
            .await;
    }
    rig.until_stored(2 * poison.len()).await;
    let mut expected: BTreeMap<Vec<u8>, &str> = poison.into_iter().collect();
    let queue = rig.settings.dead_letter_queue.clone();
    while !expected.is_empty() {
        let letter = rig.broker.take(&queue).await;
        let reason = header(&letter, "x-forge-reason").unwrap();
        let expected = expected.remove(&letter.delivery.data).expect("the body");
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(
            header(&letter, "x-forge-queue").as_ref(),
            Some(&rig.settings.events_queue)
        );
        let at = header(&letter, "x-forge-dead-lettered-at").unwrap();
        chrono::DateTime::parse_from_rfc3339(&at).unwrap();
        assert_eq!(letter.delivery.routing_key.as_str(), "edition.archived");
        let properties = &letter.delivery.properties;
        assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "m1");
    }
    rig.stop_and_find_nothing_left().await;
}

#[tokio::test]
async fn an_event_that_the_database_refuses_is_dead_lettered_and_its_neighbours_are_stored() {
    let mut rig = Rig::new().await;
    rig.db
        .tamper(
            "create trigger refuse_poison before insert on event
             when new.external_id = 'poison'
             begin select raise(abort, 'poisonous'); end",
        )
        .await;
    rig.start().await;
    rig.stop().await;
    let bodies = (0..100).map(|n| match n {
        37 => event().id("poison").text(),
        _ => event().text(),
    });
    rig.publish(bodies).await;
    rig.start().await;
    rig.until_stored(99).await;
    let letter = rig.broker.take(&rig.settings.dead_letter_queue).await;
    let reason = header(&letter, "x-forge-reason").unwrap();
    assert!(reason.contains("poisonous"), "{reason}");
    rig.stop_and_find_nothing_left().await;
}

#[tokio::test]
async fn a_dead_letter_exchange_that_was_deleted_is_made_again() {
    let mut rig = Rig::new().await;
    rig.start().await;
    let channel = rig.broker.channel().await;
    channel
        .exchange_delete(
            rig.settings.dead_letter_exchange.as_str().into(),
            ExchangeDeleteOptions::default(),
        )
        .await
        .unwrap();
    rig.publish(["poison", &event().text()]).await;
    let letter = rig.broker.take(&rig.settings.dead_letter_queue).await;
    assert_eq!(letter.delivery.data, b"poison");
    rig.until_stored(1).await;
    rig.stop_and_find_nothing_left().await;
}

#[tokio::test]
async fn a_dead_letter_queue_that_was_deleted_is_made_again() {
    let mut rig = Rig::new().await;
    rig.start().await;
    let channel = rig.broker.channel().await;
    channel
        .queue_delete(
            rig.settings.dead_letter_queue.as_str().into(),
            QueueDeleteOptions::default(),
        )
        .await
        .unwrap();
    rig.publish(["poison", &event().text()]).await;
    rig.until_stored(1).await;
    rig.stop().await;
    let letter = rig.broker.take(&rig.settings.dead_letter_queue).await;
    assert_eq!(letter.delivery.data, b"poison");
    rig.start().await;
    rig.stop_and_find_nothing_left().await;
}

/// The last resort: no copy can be placed, so that the original is rejected and the broker keeps
/// it until its own dead-lettering finds a way.
#[tokio::test]
async fn a_message_that_cannot_be_dead_lettered_at_all_is_kept_by_the_broker_and_blocks_nothing() {
    let broker = Broker::start().await;
    let db = TestDatabase::new(Kind::Sqlite).await;
    let store = std::sync::Arc::clone(&db.store);
    let mut rig = Rig::with(settings(broker.url()), db, store).await;
    rig.start().await;
    // In the exchange's place comes one of another kind, which leads nowhere.
    let channel = rig.broker.channel().await;
    let exchange = rig.settings.dead_letter_exchange.clone();
    let exchange = exchange.as_str();
    channel
        .exchange_delete(exchange.into(), ExchangeDeleteOptions::default())
        .await
        .unwrap();
    channel
        .exchange_declare(
            exchange.into(),
            ExchangeKind::Fanout,
            ExchangeDeclareOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    rig.publish(["poison", &event().text()]).await;
    rig.until_stored(1).await;
    rig.stop().await;
    assert_eq!(rig.waiting().await, 0, "it would come again and again");

    channel
        .queue_declare(
            "found".into(),
            QueueDeclareOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    channel
        .queue_bind(
            "found".into(),
            exchange.into(),
            "".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let letter = rig.broker.take("found").await;
    assert_eq!(letter.delivery.data, b"poison");
}
