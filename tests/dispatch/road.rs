//! The road: RabbitMQ to signed, retried, recorded webhooks.

use std::time::Duration;

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
    flow.check(0);
    flow.check_store(&*program.store, PATIENCE).await;
    program.stop().await.unwrap();
    queues::check_empty(&amqp).await;
}
