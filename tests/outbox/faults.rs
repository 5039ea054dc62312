//! What breaks on the way, and that nothing is lost by it.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use forge_dispatch::store::Store;
use lapin::ExchangeKind;
use lapin::options::ExchangeDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use secrecy::{ExposeSecret, SecretString};

use super::rig::{Core, PATIENCE, Relay, check_order, ids, numbered, publish, until_empty};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::queues;
use crate::harness::services::Broker;

on_both_databases!(a_broker_that_restarts_in_mid_flow_costs_nothing,);

async fn write(store: Arc<dyn Store>, numbers: Range<usize>) {
    for number in numbers {
        let events = ["ed_1", "ed_2", "ed_3"].map(|edition| numbered(edition, number));
        publish(&store, &events).await;
    }
}

async fn a_broker_that_restarts_in_mid_flow_costs_nothing(db: &TestDatabase) {
    const EACH: usize = 150;
    let mut broker = Broker::start().await;
    let mut settings = queues::unique().await;
    settings.url = Some(SecretString::from(broker.url()));
    let core = Core::all(&settings).await;
    let relay = Relay::start(&db.store, &settings);
    relay.is_up().await;
    let writing = tokio::spawn(write(Arc::clone(&db.store), 0..EACH / 2));
    let mut messages = core.take(EACH / 2).await;
    broker.stop().await;
    relay.tells("").await;
    writing.await.unwrap();
    write(Arc::clone(&db.store), EACH / 2..EACH).await;
    let depth = db.store.outbox_depth().await.unwrap();
    assert!(depth.waiting > 0, "what is written meanwhile waits");
    broker.start_again().await;
    relay.is_up().await;
    let core = Core::at(&settings, "#").await;
    core.take_until("all events", &mut messages, |taken| {
        let distinct: HashSet<String> = ids(taken).into_iter().collect();
        distinct.len() == 3 * EACH
    })
    .await;
    check_order(&messages);
    until_empty(&db.store).await;
    relay.stop().await;
}

#[tokio::test]
async fn an_exchange_of_another_kind_is_told_with_its_name_and_nothing_is_lost() {
    let db = TestDatabase::new(Kind::Sqlite).await;
    let settings = queues::unique().await;
    let exchange = settings.dispatch_exchange.clone();
    let url = settings.url.as_ref().unwrap().expose_secret();
    let connection = Connection::connect(url, ConnectionProperties::default());
    let channel = connection.await.unwrap().create_channel().await.unwrap();
    channel
        .exchange_declare(
            exchange.as_str().into(),
            ExchangeKind::Fanout,
            ExchangeDeclareOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let relay = Relay::start(&db.store, &settings);
    publish(&db.store, &[numbered("ed_1", 0)]).await;
    relay.tells(&format!("exchange `{exchange}`")).await;
    relay.stop().await;
    assert_eq!(db.store.outbox_depth().await.unwrap().waiting, 1);
    db.remove().await;
}

#[tokio::test]
async fn a_broker_that_is_away_is_told_without_the_password_and_does_not_hold_up_a_stop() {
    let db = TestDatabase::new(Kind::Sqlite).await;
    let mut settings = queues::unique().await;
    settings.url = Some("amqp://forge:hunter2@127.0.0.1:1/%2f".into());
    let relay = Relay::start(&db.store, &settings);
    eventually(PATIENCE, "a fault is told", async || {
        let faults = relay.health.faults();
        faults.iter().any(|(_, reason)| !reason.starts_with("not "))
    })
    .await;
    assert!(!format!("{:?}", relay.health.faults()).contains("hunter2"));
    relay.stop().await;
    db.remove().await;
}

/// Rows of the outbox can be written and read, and not deleted. Who tries gives up like who waits for
/// any lock.
async fn outbox_locked(db: &TestDatabase) -> Gate {
    Gate::before(db, "delete on outbox", "3s").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_dies_between_the_confirm_and_the_delete_leaves_a_second_copy_of_the_same_id()
{
    let db = TestDatabase::new(Kind::Postgres).await;
    let settings = queues::unique().await;
    let core = Core::all(&settings).await;
    let mut locked = outbox_locked(&db).await;
    let relay = Relay::start(&db.store, &settings);
    publish(&db.store, &[numbered("ed_1", 0)]).await;
    locked.until_waiting(1).await;
    relay.crash().await;
    // The statement that was on its way gives up by itself, so that the delete never happens.
    locked.until_waiting(0).await;
    locked.open().await;
    assert_eq!(db.store.outbox_depth().await.unwrap().waiting, 1);
    let second = Relay::start(&db.replica, &settings);
    // Time passes.
    db.tamper("update lease set until = now()").await;
    assert_eq!(ids(&core.take(2).await), ["ed_1/0", "ed_1/0"]);
    until_empty(&db.store).await;
    second.stop().await;
    assert!(core.next().await.is_none());
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_between_the_confirm_and_the_delete_costs_no_second_copy() {
    let db = TestDatabase::new(Kind::Postgres).await;
    let settings = queues::unique().await;
    let core = Core::all(&settings).await;
    let mut locked = outbox_locked(&db).await;
    let relay = Relay::start(&db.store, &settings);
    publish(&db.store, &[numbered("ed_1", 0)]).await;
    locked.until_waiting(1).await;
    relay.tells("the database does not answer").await;
    locked.open().await;
    until_empty(&db.store).await;
    relay.is_up().await;
    relay.stop().await;
    assert_eq!(ids(&core.take(1).await), ["ed_1/0"]);
    assert!(core.next().await.is_none(), "a second copy");
    db.remove().await;
}
