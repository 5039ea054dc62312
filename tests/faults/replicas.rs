//! Replicas on one Postgres and one queue.

use std::time::Duration;

use forge_dispatch::entropy::Entropy;

use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::flow::Flow;
use crate::harness::program::{Binary, InProcess, settings};
use crate::harness::publisher::publish;
use crate::harness::{queues, sums};

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
    sums::equal_attempts(&database).await;
    queues::check_empty(&amqp).await;
}

/// Of the replicas that are killed.
const SEED: u64 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_of_which_one_is_killed_again_and_again_lose_nothing() {
    const KILLS: u32 = 8;
    let database = TestDatabase::new(Kind::Postgres).await;
    let mut config = settings(database.url());
    config.amqp = queues::unique().await;
    // Little in flight and little unwritten at once, so that few repeats are allowed.
    config.dispatch.concurrency = 32;
    config.dispatch.subscription_concurrency = 16;
    config.dispatch.settle_batch = 25;
    let flow = Flow::new(5_000);
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let mut replicas = dirs
        .each_ref()
        .map(|dir| Binary::serve(&config, dir.path()));
    for replica in &replicas {
        replica.logged("\"ready\"").await;
    }
    flow.subscribe(&*database.store).await;
    queues::declared(&config.amqp).await;
    let (amqp, events) = (config.amqp.clone(), flow.events.clone());
    let publishing = tokio::spawn(async move { publish(&amqp, &events).await });

    let entropy = Entropy::seeded(SEED);
    for kill in 0..KILLS {
        let share = flow.deliveries() * usize::try_from(kill + 1).unwrap() / 10;
        flow.wait_until_taken(share, PATIENCE).await;
        let draw = entropy.bytes::<1>()[0];
        let unlucky = &mut replicas[usize::from(draw) % 3];
        unlucky.kill();
        unlucky.start_again();
    }
    publishing.await.unwrap();
    flow.wait_for_all(PATIENCE).await;
    queues::drained(&config.amqp, PATIENCE).await;
    // Each kill may repeat what was in flight, and what was answered and not yet written.
    let unwritten = config.dispatch.concurrency + 5 * config.dispatch.settle_batch;
    flow.check(usize::try_from(KILLS).unwrap() * unwritten);
    flow.check_store(&*database.store, PATIENCE).await;
    for replica in &mut replicas {
        replica.terminate();
        assert!(replica.ended().await.success());
    }
    sums::equal_attempts(&database).await;
    queues::check_empty(&config.amqp).await;
}
