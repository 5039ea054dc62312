//! Two replicas on one Postgres and one queue.

use std::time::Duration;

use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::flow::Flow;
use crate::harness::program::{InProcess, settings};
use crate::harness::publisher::publish;
use crate::harness::queues;

const PATIENCE: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_share_the_work_and_do_none_of_it_twice() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let mut config = settings(database.url());
    config.amqp = queues::unique().await;
    // Few permits, so that both the born-leased and the claimed way are walked.
    config.dispatch.concurrency = 16;
    config.dispatch.subscription_concurrency = 8;
    let amqp = config.amqp.clone();
    let one = InProcess::start(config.clone()).await;
    let two = InProcess::start(config).await;
    let flow = Flow::new(2_000);
    flow.subscribe(&*one.store).await;
    queues::declared(&amqp).await;
    publish(&amqp, &flow.events).await;
    flow.wait_for_all(PATIENCE).await;
    queues::drained(&amqp, PATIENCE).await;
    flow.check(0);
    flow.check_store(&*one.store, PATIENCE).await;
    one.stop().await.unwrap();
    two.stop().await.unwrap();
    queues::check_empty(&amqp).await;
}
