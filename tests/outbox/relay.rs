//! What is published, and how.

use lapin::types::{AMQPValue, FieldTable};

use super::rig::{Core, Relay, check_order, ids, numbered, publish, until_empty};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::event;
use crate::harness::queues;

on_both_databases!(events_are_published_as_they_were_appended_in_the_order_of_their_edition,);

async fn events_are_published_as_they_were_appended_in_the_order_of_their_edition(
    db: &TestDatabase,
) {
    const EACH: usize = 60;
    let settings = queues::unique().await;
    let core = Core::all(&settings).await;
    let relay = Relay::start(&db.store, &settings);
    let mut bodies = Vec::new();
    for number in 0..EACH {
        let events = ["ed_1", "ed_2", "ed_3"].map(|edition| numbered(edition, number));
        bodies.extend(events.iter().map(|event| event.text().into_bytes()));
        publish(&db.store, &events).await;
    }
    let messages = core.take(3 * EACH).await;
    check_order(&messages);
    let mut told: Vec<Vec<u8>> = messages.iter().map(|m| m.data.clone()).collect();
    told.sort_unstable();
    bodies.sort_unstable();
    assert_eq!(told, bodies, "byte for byte, and once");
    let first = &messages[0];
    assert_eq!(first.routing_key.as_str(), "edition.changed");
    let content_type = first.properties.content_type().as_ref().unwrap();
    assert_eq!(content_type.as_str(), "application/cloudevents+json");
    assert_eq!(first.properties.delivery_mode(), &Some(2), "persistent");
    until_empty(&db.store).await;
    relay.stop().await;
    assert!(core.next().await.is_none());
}

#[tokio::test]
async fn what_waited_for_a_relay_is_published_when_one_starts() {
    let db = TestDatabase::new(Kind::Sqlite).await;
    let settings = queues::unique().await;
    let core = Core::all(&settings).await;
    // A process that writes and does not publish.
    db.replica.open_outbox(std::sync::Arc::default());
    publish(&db.replica, &[numbered("ed_1", 0), numbered("ed_1", 1)]).await;
    let relay = Relay::start(&db.store, &settings);
    check_order(&core.take(2).await);
    // Nobody rings here for another process: the relay looks by itself.
    publish(&db.replica, &[numbered("ed_1", 2)]).await;
    assert_eq!(ids(&core.take(1).await), ["ed_1/2"]);
    relay.stop().await;
    db.remove().await;
}

#[tokio::test]
async fn an_event_that_no_queue_is_bound_for_does_not_hold_up_the_others() {
    let db = TestDatabase::new(Kind::Sqlite).await;
    let settings = queues::unique().await;
    let core = Core::bound(&settings, "edition.changed", FieldTable::default()).await;
    let relay = Relay::start(&db.store, &settings);
    let unwanted = numbered("ed_1", 0).event_type("edition.created");
    publish(&db.store, &[unwanted, numbered("ed_1", 1)]).await;
    assert_eq!(ids(&core.take(1).await), ["ed_1/1"]);
    until_empty(&db.store).await;
    relay.stop().await;
    db.remove().await;
}

#[tokio::test]
async fn what_the_broker_refuses_holds_up_its_edition_only_and_in_the_end_comes_in_order() {
    let db = TestDatabase::new(Kind::Sqlite).await;
    let settings = queues::unique().await;
    let mut narrow = FieldTable::default();
    narrow.insert("x-max-length".into(), AMQPValue::LongInt(1));
    let refuse = AMQPValue::LongString("reject-publish".into());
    narrow.insert("x-overflow".into(), refuse);
    let full = Core::bound(&settings, "edition.created", narrow).await;
    let core = Core::bound(&settings, "edition.changed", FieldTable::default()).await;
    let relay = Relay::start(&db.store, &settings);
    let narrow = |number| numbered("ed_1", number).event_type("edition.created");
    publish(
        &db.store,
        &[
            narrow(0),
            narrow(1),
            numbered("ed_1", 2),
            numbered("ed_2", 0),
            event().id("free/0").event_type("edition.changed"),
            numbered("ed_2", 1),
        ],
    )
    .await;
    relay.tells("could not keep").await;
    let mut others = ids(&core.take(3).await);
    others.sort_unstable();
    assert_eq!(others, ["ed_2/0", "ed_2/1", "free/0"]);

    // As soon as there is room, the rest comes.
    assert_eq!(ids(&full.take(1).await), ["ed_1/0"]);
    assert_eq!(ids(&core.take(1).await), ["ed_1/2"]);
    assert_eq!(ids(&full.take(1).await), ["ed_1/1"], "it was there before");
    until_empty(&db.store).await;
    relay.is_up().await;
    relay.stop().await;
    db.remove().await;
}
