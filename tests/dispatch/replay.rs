//! Replay, from the request to the receiver.

use std::collections::BTreeSet;
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::attempt::Trigger;
use forge_dispatch::domain::delivery::DeliveryState;
use forge_dispatch::domain::ids::{DeliveryId, SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::replay::Was;
use forge_dispatch::domain::selection::{ReplayState, Selection};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::replay::MAX_OF_ONE;
use forge_dispatch::store::replays::count;
use forge_dispatch::store::{NewReplay, ReplayRecord, Store};

use crate::harness::databases::TestDatabase;
use crate::harness::events::act;
use crate::harness::eventually;
use crate::harness::program::{InProcess, settings};
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::simple::{PATIENCE, all_become, attempts, deliveries, events, subscribe};

on_both_databases!(
    what_a_receiver_missed_for_good_is_replayed_count_first,
    what_was_taken_is_sent_once_more_under_the_same_id,
    what_waits_for_hours_is_sent_now,
    what_fails_again_goes_on_by_a_schedule_of_its_own,
    a_subscription_gets_what_came_before_it,
    a_receiver_that_hangs_does_not_hold_up_what_is_replayed_to_another,
);

fn here() -> Reach {
    Reach::all(&WorkspaceId::default())
}

async fn replay(program: &InProcess, id: DeliveryId) -> Was {
    let answer = program.store.replay_delivery(&here(), id, &act()).await;
    answer.unwrap().unwrap().unwrap()
}

async fn replay_all(program: &InProcess, selection: Selection) -> ReplayRecord {
    let new = NewReplay {
        id: Entropy::system().id(SystemClock.now()),
        selection,
        rate: 10_000,
    };
    let store = &program.store;
    let created = store.create_replay(&here(), &new, &act(), None).await;
    created.unwrap().unwrap().created().unwrap()
}

async fn done(program: &InProcess, replay: &ReplayRecord) -> ReplayRecord {
    let now = async || {
        let found = program.store.replay(&here(), replay.id).await;
        found.unwrap().unwrap()
    };
    eventually(PATIENCE, "the replay is done", async || {
        now().await.finished_at.is_some()
    })
    .await;
    now().await
}

/// A receiver that refuses everything, and so many events that it refused for good.
async fn refused(
    database: &TestDatabase,
    count: usize,
    schedule: Vec<Duration>,
) -> (InProcess, Receiver, SubscriptionId) {
    let mut config = settings(database.url());
    config.retry.schedule = schedule;
    let program = InProcess::start(config).await;
    let receiver = Receiver::start(|_| Reply::status(500));
    let subscription = subscribe(&*program.store, &receiver.url("/hook")).await;
    program.entrance.publish(&events(0..count)).await.unwrap();
    (program, receiver, subscription)
}

async fn what_a_receiver_missed_for_good_is_replayed_count_first(database: &TestDatabase) {
    const MISSED: usize = 300;
    let twice = vec![Duration::from_millis(10)];
    let (program, receiver, subscription) = refused(database, MISSED, twice).await;
    let failed = all_become(&*program.store, subscription, MISSED, DeliveryState::Failed).await;
    let missed: BTreeSet<String> = failed.iter().map(|it| it.event_id.to_string()).collect();
    receiver.behave(|_| Reply::status(204));
    let before = receiver.count();

    let selection = Selection {
        subscription_id: Some(subscription),
        ..Selection::default()
    };
    let store: &dyn Store = &*program.store;
    let counted = count(store, &here(), &selection, SystemClock.now(), 100).await;
    assert_eq!(counted.unwrap().total(), MISSED as u64);
    let replay = replay_all(&program, selection).await;
    all_become(store, subscription, MISSED, DeliveryState::Succeeded).await;
    let requests = receiver.received().split_off(before);
    let got: BTreeSet<String> = requests
        .iter()
        .map(|request| request.webhook_id().to_owned())
        .collect();
    assert_eq!((requests.len(), got), (MISSED, missed), "each once");
    let done = done(&program, &replay).await;
    assert_eq!(done.state, ReplayState::Done);
    assert_eq!((done.total, done.done, done.failed), (300, 300, 0));

    let one = &deliveries(store, subscription).await[0];
    assert_eq!(one.attempts, 3);
    let triggers: Vec<Trigger> = attempts(store, one)
        .await
        .iter()
        .map(|kept| kept.attempt.trigger)
        .collect();
    assert_eq!(
        triggers,
        [Trigger::Schedule, Trigger::Schedule, Trigger::Replay]
    );
    program.stop().await.unwrap();
}

async fn what_was_taken_is_sent_once_more_under_the_same_id(database: &TestDatabase) {
    let program = InProcess::start(settings(database.url())).await;
    let receiver = Receiver::ok();
    let subscription = subscribe(&*program.store, &receiver.url("/hook")).await;
    program.entrance.publish(&events(0..1)).await.unwrap();
    let taken = all_become(&*program.store, subscription, 1, DeliveryState::Succeeded).await;
    receiver.behave(|_| Reply::status(500));
    assert_eq!(replay(&program, taken[0].id).await, Was::Succeeded);
    let requests = receiver.wait_for_count(2, PATIENCE).await.unwrap();
    assert_eq!(requests[0].webhook_id(), requests[1].webhook_id());
    assert_eq!(requests[0].body, requests[1].body);
    eventually(PATIENCE, "the second attempt is kept", async || {
        deliveries(&*program.store, subscription).await[0].attempts == 2
    })
    .await;
    let after = deliveries(&*program.store, subscription).await;
    assert_eq!(after.len(), 1);
    assert_eq!(after[0].state, DeliveryState::Succeeded, "it stays so");
    assert_eq!(after[0].settled_at, taken[0].settled_at);
    program.stop().await.unwrap();
}

async fn what_waits_for_hours_is_sent_now(database: &TestDatabase) {
    let hours = vec![Duration::from_hours(1)];
    let (program, receiver, subscription) = refused(database, 1, hours).await;
    receiver.wait_for_count(1, PATIENCE).await.unwrap();
    let waits = async || {
        let all = deliveries(&*program.store, subscription).await;
        (all[0].state == DeliveryState::Pending).then(|| all[0].clone())
    };
    eventually(PATIENCE, "it waits", async || {
        waits().await.is_some_and(|it| it.attempts == 1)
    })
    .await;
    let before = waits().await.unwrap();
    assert_eq!(replay(&program, before.id).await, Was::Pending);
    eventually(PATIENCE, "it was tried, and waits again", async || {
        waits().await.is_some_and(|it| it.attempts == 2)
    })
    .await;
    assert_eq!(waits().await.unwrap().due_at, before.due_at);
    receiver.behave(|_| Reply::status(200));
    replay(&program, before.id).await;
    all_become(&*program.store, subscription, 1, DeliveryState::Succeeded).await;
    assert_eq!(receiver.count(), 3);
    program.stop().await.unwrap();
}

async fn what_fails_again_goes_on_by_a_schedule_of_its_own(database: &TestDatabase) {
    let short = vec![Duration::from_millis(10); 2];
    let (program, receiver, subscription) = refused(database, 1, short).await;
    let failed = all_become(&*program.store, subscription, 1, DeliveryState::Failed).await;
    assert_eq!(failed[0].attempts, 3);
    assert_eq!(replay(&program, failed[0].id).await, Was::Failed);
    receiver.wait_for_count(6, PATIENCE).await.unwrap();
    let again = all_become(&*program.store, subscription, 1, DeliveryState::Failed).await;
    assert_eq!(again[0].attempts, 6, "a whole schedule more, and no more");
    let kept = attempts(&*program.store, &again[0]).await;
    let replays = kept
        .iter()
        .filter(|kept| kept.attempt.trigger == Trigger::Replay);
    assert_eq!(replays.count(), 1, "the others are the schedule's");
    program.stop().await.unwrap();
}

async fn a_subscription_gets_what_came_before_it(database: &TestDatabase) {
    let program = InProcess::start(settings(database.url())).await;
    program.entrance.publish(&events(0..40)).await.unwrap();
    let receiver = Receiver::ok();
    let subscription = subscribe(&*program.store, &receiver.url("/hook")).await;
    let backfill = Selection {
        subscription_id: Some(subscription),
        states: Vec::new(),
        backfill: true,
        ..Selection::default()
    };
    let replay = replay_all(&program, backfill).await;
    let done = done(&program, &replay).await;
    assert_eq!((done.total, done.queued, done.done), (40, 40, 40));
    all_become(&*program.store, subscription, 40, DeliveryState::Succeeded).await;
    assert_eq!(receiver.count(), 40);
    program.stop().await.unwrap();
}

/// Both missed the same, in one replay, and more of it than one alone may have in the queue.
async fn a_receiver_that_hangs_does_not_hold_up_what_is_replayed_to_another(
    database: &TestDatabase,
) {
    const MISSED: usize = MAX_OF_ONE + 500;
    let mut config = settings(database.url());
    config.retry.schedule = Vec::new();
    config.egress.timeout = 4 * PATIENCE;
    config.dispatch.lease = 6 * PATIENCE;
    let program = InProcess::start(config).await;
    let [hanging, lively] = [(); 2].map(|()| Receiver::start(|_| Reply::status(500)));
    let [first, second] = [&hanging, &lively].map(|receiver| receiver.url("/hook"));
    let first = subscribe(&*program.store, &first).await;
    let second = subscribe(&*program.store, &second).await;
    let numbers: Vec<usize> = (0..MISSED).collect();
    for batch in numbers.chunks(500) {
        let batch = events(batch.iter().copied());
        program.entrance.publish(&batch).await.unwrap();
    }
    for subscription in [first, second] {
        all_become(&*program.store, subscription, MISSED, DeliveryState::Failed).await;
    }
    hanging.behave(|_| Reply::hang());
    lively.behave(|_| Reply::status(204));
    let replay = replay_all(&program, Selection::default()).await;
    lively.wait_for_count(2 * MISSED, PATIENCE).await.unwrap();
    all_become(&*program.store, second, MISSED, DeliveryState::Succeeded).await;
    let stands = program.store.replay(&here(), replay.id).await;
    assert_eq!(stands.unwrap().unwrap().state, ReplayState::Running);

    // What is live goes its way beside it: to the other, and to the one that hangs by slots of its own.
    let live = events(MISSED..MISSED + 100);
    let received_by = |receiver: &Receiver| -> BTreeSet<String> {
        let requests = receiver.received();
        let ids = requests.iter().map(|it| it.webhook_id().to_owned());
        ids.collect()
    };
    assert_eq!(received_by(&hanging).len(), MISSED);
    program.entrance.publish(&live).await.unwrap();
    lively
        .wait_for_count(2 * MISSED + 100, PATIENCE)
        .await
        .unwrap();
    eventually(
        PATIENCE,
        "a live one comes to the one that hangs",
        async || received_by(&hanging).len() > MISSED,
    )
    .await;
    program.shutdown.abort();
    program.stop().await.unwrap();
}
