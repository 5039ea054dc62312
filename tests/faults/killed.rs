//! SIGKILL in mid flow: every published event is accounted for.

use std::time::Duration;

use crate::harness::databases::TestDatabase;
use crate::harness::flow::Flow;
use crate::harness::program::{Binary, InProcess, settings};
use crate::harness::publisher::publish;
use crate::harness::queues;

on_both_databases!(a_killed_program_loses_nothing,);

const EVENTS: usize = 5_000;
const PATIENCE: Duration = Duration::from_mins(2);

async fn a_killed_program_loses_nothing(database: &TestDatabase) {
    let mut config = settings(database.url());
    config.amqp = queues::unique().await;
    // Little in flight and little unwritten at once, so that few repeats are allowed.
    config.dispatch.concurrency = 32;
    config.dispatch.subscription_concurrency = 16;
    config.dispatch.settle_batch = 25;
    let flow = Flow::new(EVENTS);
    let dir = tempfile::tempdir().unwrap();
    let mut program = Binary::serve(&config, dir.path());
    program.logged("ready").await;
    // Registered by another process, as an admin does it.
    let mut admin = config.clone();
    admin.amqp.url = None;
    let admin = InProcess::start(admin).await;
    flow.subscribe(&*admin.store).await;
    admin.stop().await.unwrap();
    queues::declared(&config.amqp).await;

    let amqp = config.amqp.clone();
    let events = flow.events.clone();
    let publishing = tokio::spawn(async move { publish(&amqp, &events).await });
    let kills = [0.05, 0.3, 0.6];
    for share in kills {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a few thousand"
        )]
        let count = (flow.deliveries() as f64 * share) as usize;
        flow.wait_until_taken(count, PATIENCE).await;
        program.kill();
        program.start_again();
    }
    publishing.await.unwrap();
    flow.wait_for_all(PATIENCE).await;
    queues::drained(&config.amqp, PATIENCE).await;
    // Each kill may repeat what was in flight, and what was answered and not yet written.
    let unwritten = config.dispatch.concurrency + 5 * config.dispatch.settle_batch;
    flow.check(kills.len() * unwritten);
    flow.check_store(&*database.store, PATIENCE).await;
    program.terminate();
    assert!(program.ended().await.success());
    queues::check_empty(&config.amqp).await;
}
