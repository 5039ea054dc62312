//! SIGKILL in mid flow: every published event is accounted for.

use std::time::Duration;

use crate::harness::databases::TestDatabase;
use crate::harness::flow::Flow;
use crate::harness::program::{Binary, InProcess, settings};
use crate::harness::publisher::{publish, publish_to};
use crate::harness::{eventually, queues, sums};

on_both_databases!(
    a_killed_program_loses_nothing,
    a_program_killed_while_state_comes_in_loses_none,
);

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
    sums::equal_attempts(database).await;
    queues::check_empty(&config.amqp).await;
}

async fn a_program_killed_while_state_comes_in_loses_none(database: &TestDatabase) {
    const EDITIONS: i64 = 2_000;
    let mut config = settings(database.url());
    config.amqp = queues::unique().await;
    let amqp = config.amqp.clone();
    let dir = tempfile::tempdir().unwrap();
    let mut program = Binary::serve(&config, dir.path());
    queues::declared(&amqp).await;

    let to = amqp.clone();
    let publishing = tokio::spawn(async move {
        let bodies: Vec<_> = (0..EDITIONS).map(state).collect();
        let messages: Vec<_> = bodies
            .iter()
            .map(|body| ("edition.snapshot", body.as_bytes()))
            .collect();
        publish_to(&to, &to.snapshots_exchange, &messages).await;
    });
    for share in [100, 400, 900] {
        let what = format!("{share} editions are known");
        eventually(PATIENCE, &what, async || {
            database.count("edition").await >= share
        })
        .await;
        program.kill();
        program.start_again();
    }
    publishing.await.unwrap();
    eventually(PATIENCE, "all editions are known", async || {
        database.count("edition").await == EDITIONS
    })
    .await;
    queues::drained(&amqp, PATIENCE).await;
    program.terminate();
    assert!(program.ended().await.success());
    queues::check_empty(&amqp).await;
}

/// An edition of this number, as the core tells of it.
fn state(number: i64) -> String {
    serde_json::json!({
        "specversion": "1.0", "id": number.to_string(), "source": "/report-forge",
        "type": "edition.snapshot", "time": "2026-05-01T09:00:00Z",
        "data": {
            "id": format!("ed_{number}"), "version": 1, "project_id": "pr_1",
            "blueprint_id": "bp_1", "name": "April", "status": "draft",
            "status_changed_at": "2026-04-01T00:00:00Z", "created_at": "2026-04-01T00:00:00Z",
        },
    })
    .to_string()
}
