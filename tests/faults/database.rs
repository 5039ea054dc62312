//! Postgres goes away and comes back.

use std::time::Duration;

use crate::harness::flow::Flow;
use crate::harness::program::{InProcess, settings};
use crate::harness::publisher::publish;
use crate::harness::queues;
use crate::harness::services::PostgresServer;

const PATIENCE: Duration = Duration::from_mins(2);

/// `immediate` is how it dies: cut off in the middle, or asked to stop.
async fn restarted(kill: Kill) {
    let mut server = PostgresServer::start().await;
    let mut config = settings(server.url().into());
    config.amqp = queues::unique().await;
    config.dispatch.concurrency = 32;
    config.dispatch.subscription_concurrency = 16;
    config.dispatch.settle_batch = 25;
    let amqp = config.amqp.clone();
    let in_flight = config.dispatch.concurrency + 5 * config.dispatch.settle_batch;
    let program = InProcess::start(config).await;
    let flow = Flow::new(3_000);
    flow.subscribe(&*program.store).await;
    queues::declared(&amqp).await;

    let (to, events) = (amqp.clone(), flow.events.clone());
    let publishing = tokio::spawn(async move { publish(&to, &events).await });
    flow.wait_until_taken(flow.deliveries() / 10, PATIENCE)
        .await;
    match kill {
        Kill::Gently => server.stop().await,
        Kill::Hard => server.kill().await,
    }
    server.start_again().await;
    publishing.await.unwrap();
    flow.wait_for_all(PATIENCE).await;
    queues::drained(&amqp, PATIENCE).await;
    // An outcome that could not be written before its lease ended is sent again.
    flow.check(in_flight);
    flow.check_store(&*program.store, PATIENCE).await;
    program.stop().await.unwrap();
    queues::check_empty(&amqp).await;
}

enum Kill {
    Gently,
    Hard,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_restarts_in_mid_flow_costs_nothing() {
    restarted(Kill::Gently).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_crashes_in_mid_flow_costs_nothing() {
    restarted(Kill::Hard).await;
}
