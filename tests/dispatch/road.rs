//! The road: RabbitMQ to signed, retried, recorded webhooks.

use std::time::Duration;

use forge_dispatch::domain::delivery::DeliveryState;
use forge_dispatch::store::{DeliveryFilter, PageRequest, Store};

use crate::harness::databases::TestDatabase;
use crate::harness::flow::Flow;
use crate::harness::program::{InProcess, settings};
use crate::harness::publisher::publish;
use crate::harness::queues;

on_both_databases!(every_matching_pair_is_delivered_once_and_verified,);

const EVENTS: usize = 5_000;
const PATIENCE: Duration = Duration::from_mins(2);

async fn every_matching_pair_is_delivered_once_and_verified(database: &TestDatabase) {
    let mut config = settings(database.url());
    config.amqp = queues::unique().await;
    let amqp = config.amqp.clone();
    let program = InProcess::start(config).await;
    let flow = Flow::new(EVENTS);
    flow.subscribe(&*program.store).await;
    queues::declared(&amqp).await;

    publish(&amqp, &flow.events).await;
    // Every tenth comes a second time, as an at-least-once publisher does it.
    let again: Vec<_> = flow.events.iter().step_by(10).cloned().collect();
    publish(&amqp, &again).await;

    flow.wait_for_all(PATIENCE).await;
    queues::drained(&amqp, PATIENCE).await;
    settled(&*program.store).await;
    flow.check(0);
    let (deliveries, attempts) = log(&*program.store, &flow).await;
    assert_eq!(deliveries, flow.deliveries());
    assert_eq!(
        attempts,
        flow.receiver.count(),
        "every request is an attempt that was kept"
    );
    program.stop().await.unwrap();
    queues::check_empty(&amqp).await;
}

/// Waits until nothing is left to do.
async fn settled(store: &dyn Store) {
    let done = async || {
        let depth = store.queue_depth().await.unwrap();
        depth.pending + depth.in_flight == 0
    };
    crate::harness::eventually(PATIENCE, "the queue is empty", done).await;
}

/// Reads the whole delivery log: how many deliveries (all must have succeeded), and attempts.
async fn log(store: &dyn Store, flow: &Flow) -> (usize, usize) {
    let (mut deliveries, mut attempts, mut after) = (0, 0, None);
    loop {
        let request = PageRequest { limit: 500, after };
        let page = store
            .deliveries(&flow.workspace(), DeliveryFilter::default(), request)
            .await
            .unwrap();
        for delivery in &page.items {
            assert_eq!(delivery.state, DeliveryState::Succeeded);
            deliveries += 1;
            attempts += delivery.attempts as usize;
        }
        after = page.next;
        if after.is_none() {
            return (deliveries, attempts);
        }
    }
}
