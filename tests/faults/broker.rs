//! RabbitMQ goes away and comes back.

use std::time::Duration;

use secrecy::SecretString;

use crate::harness::databases::TestDatabase;
use crate::harness::flow::Flow;
use crate::harness::program::{InProcess, settings};
use crate::harness::publisher::publish;
use crate::harness::queues;
use crate::harness::services::Broker;

on_both_databases!(a_broker_that_restarts_in_mid_flow_costs_nothing,);

const PATIENCE: Duration = Duration::from_mins(2);

async fn a_broker_that_restarts_in_mid_flow_costs_nothing(database: &TestDatabase) {
    let mut broker = Broker::start().await;
    let mut config = settings(database.url());
    config.amqp = queues::unique().await;
    config.amqp.url = Some(SecretString::from(broker.url()));
    let amqp = config.amqp.clone();
    let program = InProcess::start(config).await;
    let flow = Flow::new(3_000);
    flow.subscribe(&*program.store).await;
    queues::declared(&amqp).await;

    let (to, events) = (amqp.clone(), flow.events.clone());
    let publishing = tokio::spawn(async move { publish(&to, &events).await });
    flow.wait_until_taken(flow.deliveries() / 10, PATIENCE)
        .await;
    broker.stop().await;
    broker.start_again().await;
    publishing.await.unwrap();
    flow.wait_for_all(PATIENCE).await;
    queues::drained(&amqp, PATIENCE).await;
    flow.check(0);
    flow.check_store(&*program.store, PATIENCE).await;
    program.stop().await.unwrap();
    queues::check_empty(&amqp).await;
}
