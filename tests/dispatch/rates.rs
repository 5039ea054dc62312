//! A subscription gets no more a second than it asks for, and what waited comes at a growing rate. Only
//! what is too fast can be told from outside: a busy machine is slower.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forge_dispatch::config::Circuit;
use forge_dispatch::domain::delivery::DeliveryState;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::subscription::{SubscriptionSpec, TargetUrl};
use tokio::time::Instant;

use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{register, registration, spec};
use crate::harness::eventually;
use crate::harness::program::{InProcess, settings};
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::simple::{PATIENCE, all_become, events, leave_waiting, subscribe};

on_both_databases!(
    a_rate_limit_holds_over_all_replicas,
    what_waited_for_a_receiver_comes_at_a_growing_rate,
);

async fn a_rate_limit_holds_over_all_replicas(database: &TestDatabase) {
    const RATE: u32 = 20;
    let receiver = Receiver::ok();
    let spec = SubscriptionSpec {
        url: TargetUrl::new(&receiver.url("/hook")).unwrap(),
        rate_limit: NonZeroU32::new(RATE),
        ..spec(&["*"])
    };
    let mut programs = vec![InProcess::start(settings(database.url())).await];
    if database.kind == Kind::Postgres {
        programs.push(InProcess::start(settings(database.url())).await);
        all_are_counted(database, 2).await;
    }
    let neighbour = Receiver::ok();
    let begun = Instant::now();
    let new = registration(&WorkspaceId::default(), spec);
    let subscription = register(&*database.store, &new).await.unwrap().id;
    leave_waiting(&database.store, &events(0..120)).await;
    // Who is not limited waits for nobody.
    subscribe(&*programs[0].store, &neighbour.url("/hook")).await;
    programs[0]
        .entrance
        .publish(&events(200..230))
        .await
        .unwrap();
    neighbour.wait_for_count(30, PATIENCE).await.unwrap();
    all_become(
        &*programs[0].store,
        subscription,
        150,
        DeliveryState::Succeeded,
    )
    .await;

    // What they may have saved up between them, and what came since.
    for (number, request) in (1_u32..).zip(receiver.received()) {
        let passed = (request.arrived - begun).as_secs_f64();
        let most = f64::from(RATE) * (passed + 1.0) + 1.0;
        assert!(
            f64::from(number) <= most,
            "{number} after {passed} s, where {most} may be"
        );
    }
    for program in programs {
        program.stop().await.unwrap();
    }
}

/// Waits until each of so many processes has said that it sends, and so has counted the others, since
/// all of them do.
async fn all_are_counted(database: &TestDatabase, processes: i64) {
    eventually(PATIENCE, "all have begun", async || {
        database.count("replica").await == processes
    })
    .await;
    database
        .tamper("update replica set until = until + interval '1 hour'")
        .await;
    let since_before = "replica where until > now() + interval '30 minutes'";
    eventually(PATIENCE, "each has said it again", async || {
        database.count(since_before).await == 0
    })
    .await;
}

async fn what_waited_for_a_receiver_comes_at_a_growing_rate(database: &TestDatabase) {
    const EVENTS: usize = 400;
    let mut config = settings(database.url());
    config.dispatch.circuit = Circuit {
        failures_in_row: 5,
        least_attempts: 1_000_000,
        first_pause: Duration::from_millis(200),
        longest_pause: Duration::from_millis(400),
        ramp: Duration::from_secs(3),
        ..Circuit::default()
    };
    config.dispatch.settle_batch = 10;
    // So many may still be under way when it opens.
    config.dispatch.subscription_concurrency = 4;
    let program = InProcess::start(config).await;
    let is_up = Arc::new(AtomicBool::new(false));
    let taken = Arc::new(Mutex::new(Vec::new()));
    let (up, times) = (Arc::clone(&is_up), Arc::clone(&taken));
    let receiver = Receiver::start(move |request| {
        if !up.load(Ordering::SeqCst) {
            return Reply::status(503);
        }
        times.lock().unwrap().push(request.arrived);
        Reply::status(200)
    });
    let subscription = subscribe(&*program.store, &receiver.url("/hook")).await;
    program.entrance.publish(&events(0..EVENTS)).await.unwrap();
    eventually(PATIENCE, "the circuit opens", async || {
        program.store.circuit(subscription).open_until().is_some()
    })
    .await;
    is_up.store(true, Ordering::SeqCst);
    all_become(
        &*program.store,
        subscription,
        EVENTS,
        DeliveryState::Succeeded,
    )
    .await;
    // A probe, ten at once, and not 13 more in the first 0.9 s; without a limit, most of them.
    let times = taken.lock().unwrap().clone();
    let first = times.iter().min().expect("they came");
    let soon = times
        .iter()
        .filter(|time| **time - *first < Duration::from_millis(900))
        .count();
    assert!(soon < 60, "{soon} of {EVENTS} came at once");
    program.stop().await.unwrap();
}
