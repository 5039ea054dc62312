//! One receiver never delays another, and gets no more at once than it may.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forge_dispatch::domain::delivery::DeliveryState;
use tokio_util::sync::CancellationToken;

use crate::harness::databases::TestDatabase;
use crate::harness::program::{InProcess, settings};
use crate::harness::receiver::{Received, Receiver, Reply};
use crate::harness::simple::{
    PATIENCE, all_become, events, leave_waiting, sized_event, subscribe, subscribe_as,
};

on_both_databases!(
    receivers_that_hang_do_not_hold_up_another,
    one_that_hangs_with_much_due_takes_no_turn_of_anothers,
    a_backlog_larger_than_all_permits_drains,
    anothers_retry_is_made_while_a_backlog_drains,
    its_own_retry_is_made_while_a_backlog_drains,
    receivers_that_hang_on_large_events_do_not_hold_up_small_ones,
    a_subscription_never_has_more_in_flight_than_its_limit,
);

async fn receivers_that_hang_do_not_hold_up_another(database: &TestDatabase) {
    let mut config = settings(database.url());
    // As many hang as could take every permit, if they were let.
    config.dispatch.concurrency = 32;
    config.dispatch.subscription_concurrency = 16;
    config.egress.timeout = Duration::from_secs(20);
    config.dispatch.lease = Duration::from_mins(1);
    let program = InProcess::start(config).await;
    let hanging = Receiver::start(|_| Reply::hang());
    let lively = Receiver::ok();
    for number in 0..4 {
        subscribe(&*program.store, &hanging.url(&format!("/{number}"))).await;
    }
    program.entrance.publish(&events(0..100)).await.unwrap();
    hanging.wait_for_count(10, PATIENCE).await.unwrap();

    let subscription = subscribe(&*program.store, &lively.url("/hook")).await;
    program.entrance.publish(&events(100..400)).await.unwrap();
    // Well before any of the hanging requests times out.
    lively
        .wait_for_count(300, Duration::from_secs(15))
        .await
        .unwrap();
    all_become(&*program.store, subscription, 300, DeliveryState::Succeeded).await;
    program.shutdown.abort();
    program.stop().await.unwrap();
}

/// In turns, and not in time, so that a slow machine changes nothing: a turn of the one that hangs is
/// over when its request times out, which none does while this runs.
async fn one_that_hangs_with_much_due_takes_no_turn_of_anothers(database: &TestDatabase) {
    const DUE: usize = 20_000;
    const SLOTS: usize = 16;
    let mut config = settings(database.url());
    config.dispatch.concurrency = 2 * SLOTS;
    config.dispatch.subscription_concurrency = SLOTS;
    config.egress.timeout = 4 * PATIENCE;
    config.dispatch.lease = 6 * PATIENCE;
    let hanging = Receiver::start(|_| Reply::hang());
    subscribe(&*database.store, &hanging.url("/hook")).await;
    let batches: Vec<usize> = (0..DUE).collect();
    for batch in batches.chunks(1_000) {
        leave_waiting(&database.store, &events(batch.iter().copied())).await;
    }
    let program = InProcess::start(config).await;
    hanging.wait_for_count(SLOTS / 2, PATIENCE).await.unwrap();

    let lively = Receiver::ok();
    let subscription = subscribe(&*program.store, &lively.url("/hook")).await;
    // One after the other, so that each has to find its turn beside all that is due.
    for number in 1..=40 {
        let event = events(DUE + number..=DUE + number);
        program.entrance.publish(&event).await.unwrap();
        lively.wait_for_count(number, PATIENCE).await.unwrap();
    }
    let many = events(2 * DUE..2 * DUE + 300);
    program.entrance.publish(&many).await.unwrap();
    lively.wait_for_count(340, PATIENCE).await.unwrap();
    all_become(&*program.store, subscription, 340, DeliveryState::Succeeded).await;
    let turns = hanging.count();
    assert!(turns <= SLOTS, "{turns} requests, of which none ended");
    program.shutdown.abort();
    program.stop().await.unwrap();
}

async fn a_subscription_never_has_more_in_flight_than_its_limit(database: &TestDatabase) {
    let program = InProcess::start(settings(database.url())).await;
    let gate = CancellationToken::new();
    let at_once = Arc::new(AtomicUsize::new(0));
    let (held, count) = (gate.clone(), Arc::clone(&at_once));
    let receiver = Receiver::start(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Reply::status(200).held_until(&held)
    });
    let subscription = subscribe_as(&*program.store, &receiver.url("/hook"), Some(4)).await;
    program.entrance.publish(&events(0..40)).await.unwrap();
    receiver.wait_for_count(3, PATIENCE).await.unwrap();
    // What would come too much would come at once; a look at a lively neighbour gives it the time.
    let neighbour = Receiver::ok();
    subscribe(&*program.store, &neighbour.url("/hook")).await;
    program.entrance.publish(&events(40..60)).await.unwrap();
    neighbour.wait_for_count(20, PATIENCE).await.unwrap();
    let most = at_once.load(Ordering::SeqCst);
    assert!(most <= 4, "{most} at once, where 4 may be");

    gate.cancel();
    all_become(&*program.store, subscription, 60, DeliveryState::Succeeded).await;
    program.stop().await.unwrap();
}

async fn a_backlog_larger_than_all_permits_drains(database: &TestDatabase) {
    let mut config = settings(database.url());
    config.dispatch.concurrency = 8;
    config.dispatch.subscription_concurrency = 4;
    config.dispatch.max_bytes_in_flight = 2_000;
    let program = InProcess::start(config).await;
    let receiver = Receiver::ok();
    let subscription = subscribe(&*program.store, &receiver.url("/hook")).await;
    program.entrance.publish(&events(0..1_500)).await.unwrap();
    all_become(
        &*program.store,
        subscription,
        1_500,
        DeliveryState::Succeeded,
    )
    .await;
    assert_eq!(receiver.count(), 1_500);
    program.stop().await.unwrap();
}

/// Waits for a whole backlog, few at a time, on a machine that may be busy: looking at the database
/// all the while would slow it down.
async fn all_come(receiver: &Receiver, count: usize) {
    let patience = Duration::from_mins(3);
    receiver.wait_for_count(count, patience).await.unwrap();
}

async fn anothers_retry_is_made_while_a_backlog_drains(database: &TestDatabase) {
    const WAITING: usize = 3_000;
    let mut config = settings(database.url());
    config.dispatch.concurrency = 8;
    config.dispatch.subscription_concurrency = 4;
    let busy = Receiver::ok();
    let backlog = subscribe(&*database.store, &busy.url("/hook")).await;
    leave_waiting(&database.store, &events(0..WAITING)).await;
    let tries = AtomicUsize::new(0);
    let failing = Receiver::start(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(500),
        _ => Reply::status(200),
    });
    subscribe(&*database.store, &failing.url("/hook")).await;
    leave_waiting(&database.store, &events(WAITING..=WAITING)).await;

    let program = InProcess::start(config).await;
    failing.wait_for_count(2, PATIENCE).await.unwrap();
    let drained = busy.count();
    assert!(
        drained < WAITING,
        "the retry came only when the backlog was gone"
    );
    all_come(&busy, WAITING + 1).await;
    all_become(
        &*program.store,
        backlog,
        WAITING + 1,
        DeliveryState::Succeeded,
    )
    .await;
    program.stop().await.unwrap();
}

async fn its_own_retry_is_made_while_a_backlog_drains(database: &TestDatabase) {
    const WAITING: usize = 6_000;
    let config = settings(database.url());
    let tries = AtomicUsize::new(0);
    let receiver = Receiver::start(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(500),
        _ => Reply::status(200),
    });
    let subscription = subscribe_as(&*database.store, &receiver.url("/hook"), Some(1)).await;
    leave_waiting(&database.store, &events(0..WAITING)).await;

    let program = InProcess::start(config).await;
    let twice = |requests: &[Arc<Received>]| {
        let first = requests.first().map(|request| request.webhook_id());
        requests
            .iter()
            .skip(1)
            .any(|request| Some(request.webhook_id()) == first)
    };
    let requests = receiver.wait_for(twice, PATIENCE).await.unwrap();
    assert!(
        requests.len() < WAITING,
        "the retry came only when the backlog was gone"
    );
    all_come(&receiver, WAITING + 1).await;
    all_become(
        &*program.store,
        subscription,
        WAITING,
        DeliveryState::Succeeded,
    )
    .await;
    program.stop().await.unwrap();
}

async fn receivers_that_hang_on_large_events_do_not_hold_up_small_ones(database: &TestDatabase) {
    let mut config = settings(database.url());
    config.dispatch.max_bytes_in_flight = 2_000_000;
    config.egress.timeout = Duration::from_secs(20);
    config.dispatch.lease = Duration::from_mins(1);
    let hanging = Receiver::start(|_| Reply::hang());
    for number in 0..3 {
        subscribe(&*database.store, &hanging.url(&format!("/{number}"))).await;
    }
    let large: Vec<Vec<u8>> = (0..40).map(|id| sized_event(id, 200_000)).collect();
    leave_waiting(&database.store, &large).await;

    let program = InProcess::start(config).await;
    hanging.wait_for_count(3, PATIENCE).await.unwrap();
    let lively = Receiver::ok();
    subscribe(&*program.store, &lively.url("/hook")).await;
    program.entrance.publish(&events(100..150)).await.unwrap();
    lively
        .wait_for_count(50, Duration::from_secs(12))
        .await
        .unwrap();
    program.shutdown.abort();
    program.stop().await.unwrap();
}
