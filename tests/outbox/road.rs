//! The outbox as a part of the whole program.

use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::subscription::{SubscriptionSpec, TargetUrl};

use super::rig::{Core, PATIENCE, check_order, numbered, publish};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{event, register, registration, spec};
use crate::harness::program::{InProcess, settings};
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::{eventually, queues};

on_both_databases!(
    an_event_of_our_own_that_comes_back_makes_no_delivery,
    a_graceful_stop_publishes_what_is_there,
);

async fn an_event_of_our_own_that_comes_back_makes_no_delivery(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let mut config = settings(db.url());
    config.amqp = queues::unique().await;
    let amqp = config.amqp.clone();
    let core = Core::all(&amqp).await;
    let program = InProcess::start(config).await;
    let receiver = Receiver::start(|_| Reply::status(204));
    let everything = SubscriptionSpec {
        url: TargetUrl::new(&receiver.url("/hook")).unwrap(),
        ..spec(&["*"])
    };
    let everything = registration(&here, everything);
    register(&*program.store, &everything).await.unwrap();
    queues::declared(&amqp).await;
    publish(&program.store, &[numbered("ed_1", 0)]).await;
    let ours = core.take(1).await.remove(0);

    // The core tells everybody, us too; and one thing that we do not know.
    core.tell(&amqp, &ours.data).await;
    core.tell(&amqp, event().text().as_bytes()).await;
    let delivered = receiver.wait_for(|requests| !requests.is_empty(), PATIENCE);
    delivered.await.expect("what is new is delivered");
    queues::drained(&amqp, PATIENCE).await;
    program.stop().await.unwrap();
    queues::check_empty(&amqp).await;
    assert_eq!(db.count("event").await, 1, "only what is new is kept");
    for request in receiver.received() {
        assert_eq!(request.json()["type"], "edition.archived");
    }
}

async fn a_graceful_stop_publishes_what_is_there(db: &TestDatabase) {
    const EVENTS: usize = 200;
    const EDITIONS: usize = 50;
    let mut config = settings(db.url());
    config.amqp = queues::unique().await;
    let core = Core::all(&config.amqp).await;
    let program = InProcess::start(config).await;
    eventually(PATIENCE, "it leads", async || {
        db.count("lease where name = 'outbox'").await == 1
    })
    .await;
    let events: Vec<_> = (0..EVENTS)
        .map(|number| numbered(&format!("ed_{}", number % EDITIONS), number / EDITIONS))
        .collect();
    publish(&program.store, &events).await;
    program.stop().await.unwrap();
    assert_eq!(db.count("outbox").await, 0);
    let messages = core.take(EVENTS).await;
    check_order(&messages);
}
