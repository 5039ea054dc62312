//! Stopping: once to drain, twice to end at once.

use std::time::Duration;

use forge_dispatch::app::{App, Surroundings};
use forge_dispatch::domain::delivery::DeliveryState;
use forge_dispatch::shutdown::Shutdown;
use forge_dispatch::store::DeliveryRecord;
use tokio_util::sync::CancellationToken;

use crate::harness::databases::TestDatabase;
use crate::harness::program::{Binary, InProcess, settings};
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::simple::{PATIENCE, all_become, deliveries, events, leave_waiting, subscribe};

on_both_databases!(
    a_second_signal_ends_at_once_and_nothing_is_lost,
    a_signal_drains_and_exits_with_success,
    a_log_that_nobody_reads_stops_nothing,
    a_graceful_stop_writes_what_was_answered_and_keeps_the_rest,
    a_program_told_to_stop_before_it_dispatches_leases_nothing,
);

async fn a_graceful_stop_writes_what_was_answered_and_keeps_the_rest(database: &TestDatabase) {
    let config = settings(database.url());
    let program = InProcess::start(config.clone()).await;
    let gate = CancellationToken::new();
    let held = gate.clone();
    let receiver = Receiver::start(move |_| Reply::status(200).held_until(&held));
    let subscription = subscribe(&*program.store, &receiver.url("/hook")).await;
    program.entrance.publish(&events(0..300)).await.unwrap();
    receiver.wait_for_count(10, PATIENCE).await.unwrap();
    program.shutdown.begin();
    gate.cancel();
    program.stop().await.unwrap();
    let sent = receiver.count();
    assert!(
        sent < 300,
        "a stop does not deliver the whole backlog first"
    );

    let program = InProcess::start(config).await;
    let all = deliveries(&*program.store, subscription).await;
    let in_flight = all
        .iter()
        .filter(|one| one.state == DeliveryState::InFlight)
        .count();
    assert_eq!(all.len(), 300);
    all_become(&*program.store, subscription, 300, DeliveryState::Succeeded).await;
    assert_eq!(
        receiver.count(),
        300,
        "nothing is sent twice over a graceful stop; {in_flight} were in flight"
    );
    program.stop().await.unwrap();
}

async fn a_program_told_to_stop_before_it_dispatches_leases_nothing(database: &TestDatabase) {
    let config = settings(database.url());
    let receiver = Receiver::ok();
    let subscription = subscribe(&*database.store, &receiver.url("/hook")).await;
    let shutdown = Shutdown::default();
    let app = App::build(config.clone(), Surroundings::default(), shutdown.clone())
        .await
        .unwrap();
    let published = app.entrance().publish(&events(0..20)).await.unwrap();
    assert_eq!(published.len(), 20);
    let all = deliveries(&*database.store, subscription).await;
    let waiting = |one: &DeliveryRecord| one.state == DeliveryState::Pending;
    assert_eq!(all.len(), 20);
    assert!(all.iter().all(waiting), "{all:?}");
    shutdown.begin();
    app.run().await.unwrap();

    let program = InProcess::start(config).await;
    all_become(&*program.store, subscription, 20, DeliveryState::Succeeded).await;
    assert_eq!(receiver.count(), 20);
    program.stop().await.unwrap();
}

async fn a_second_signal_ends_at_once_and_nothing_is_lost(database: &TestDatabase) {
    let mut config = settings(database.url());
    config.egress.timeout = Duration::from_secs(2);
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(|_| Reply::hang());
    let subscription = subscribe(&*database.store, &receiver.url("/hook")).await;
    leave_waiting(&database.store, &events(0..20)).await;

    let mut program = Binary::serve(&config, dir.path());
    receiver.wait_for_count(1, PATIENCE).await.unwrap();
    program.terminate();
    program.logged("stopping").await;
    program.terminate();
    let status = program.ended().await;
    assert!(
        !status.success(),
        "an end at once is told in the exit code: {status}"
    );

    receiver.behave(|_| Reply::status(200));
    let program = InProcess::start(config).await;
    all_become(&*program.store, subscription, 20, DeliveryState::Succeeded).await;
    program.stop().await.unwrap();
}

async fn a_signal_drains_and_exits_with_success(database: &TestDatabase) {
    let config = settings(database.url());
    let dir = tempfile::tempdir().unwrap();
    let mut program = Binary::serve(&config, dir.path());
    program.logged("ready").await;
    program.terminate();
    assert!(program.ended().await.success());
}

/// `serve 2>&1 | head`, or a log collector that died.
async fn a_log_that_nobody_reads_stops_nothing(database: &TestDatabase) {
    let config = settings(database.url());
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::ok();
    let subscription = subscribe(&*database.store, &receiver.url("/hook")).await;
    leave_waiting(&database.store, &events(0..20)).await;

    let mut program = Binary::serve_unread(&config, dir.path());
    all_become(&*database.store, subscription, 20, DeliveryState::Succeeded).await;
    assert_eq!(receiver.count(), 20);
    program.terminate();
    assert!(program.ended().await.success());
}
