//! The room in the queue that a replay has, and how its subscriptions share it.

use std::collections::BTreeSet;
use std::sync::Arc;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::delivery::{Lane, Verdict};
use forge_dispatch::domain::ids::{DeliveryId, SubscriptionId};
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::domain::selection::{ReplayState, Selection};
use forge_dispatch::replay::{LEAST_OF_ONE, MAX_OF_ONE};
use forge_dispatch::store::replays::STEP;
use forge_dispatch::store::{Claim, Cursor, LeasedDelivery, ReplayRecord};

use super::super::fixture::{HOUR, accept, claim_of, for_long, owner, settlement, subscribe};
use super::{begin, ids, now, runner, running, settled};
use crate::harness::databases::TestDatabase;
use crate::harness::events::event;

on_both_databases!(
    no_more_than_a_bounded_number_of_one_is_in_the_queue,
    one_that_is_named_and_takes_few_loses_nothing,
    one_that_takes_nothing_holds_up_no_other,
    many_that_take_nothing_leave_room_for_one_that_does,
);

/// So many events, asked for by one subscription only.
fn to(name: &str, count: usize) -> Vec<Arc<Payload>> {
    let event = || event().event_type(&format!("edition.{name}")).build();
    (0..count).map(|_| event()).collect()
}

async fn subscription(db: &TestDatabase, name: &str) -> SubscriptionId {
    let event_type = format!("edition.{name}");
    subscribe(&db.store, &[event_type.as_str()]).await.id
}

async fn failed(db: &TestDatabase, name: &str, count: usize) -> Vec<LeasedDelivery> {
    let mut all = Vec::new();
    for batch in to(name, count).chunks(500) {
        all.extend(settled(db, batch, &Verdict::Failed).await);
    }
    all
}

/// Takes a replay forward as long as that puts anything into the queue: each turn by another process.
async fn fill(db: &TestDatabase, replay: &ReplayRecord) {
    let mut still = 0;
    while still < 3 {
        let before = running(db, replay).await.map(|it| it.cursor);
        runner(&db.store).turn().await.unwrap();
        let after = running(db, replay).await.map(|it| it.cursor);
        still = if before == after { still + 1 } else { 0 };
    }
}

/// What this one has in the queue is sent, and taken.
async fn receive(db: &TestDatabase, subscription: SubscriptionId) -> Vec<DeliveryId> {
    receive_some(db, subscription, usize::MAX).await
}

async fn receive_some(
    db: &TestDatabase,
    subscription: SubscriptionId,
    most: usize,
) -> Vec<DeliveryId> {
    let me = owner();
    let mut received = Vec::new();
    loop {
        let claim = Claim {
            lane: Lane::Replay,
            wants: vec![(subscription, (most - received.len()).min(STEP))],
            ..claim_of(subscription, for_long(me))
        };
        let leased = db.store.claim(&claim).await.unwrap();
        if leased.is_empty() || received.len() == most {
            return received;
        }
        let taken: Vec<_> = leased
            .iter()
            .map(|delivery| settlement(delivery, Verdict::Succeeded))
            .collect();
        db.store.settle(me, &taken).await.unwrap();
        received.extend(leased.iter().map(|delivery| delivery.id));
    }
}

async fn in_queue(db: &TestDatabase, replay: &ReplayRecord, one: SubscriptionId) -> usize {
    let counts = db.replica.replay_in_queue(replay.id).await;
    counts.unwrap().get(&one).copied().unwrap_or_default()
}

async fn no_more_than_a_bounded_number_of_one_is_in_the_queue(db: &TestDatabase) {
    let one = subscription(db, "one").await;
    let many = MAX_OF_ONE + 500;
    failed(db, "one", many).await;
    for selection in [
        Selection::default(),
        Selection {
            subscription_id: Some(one),
            ..Selection::default()
        },
    ] {
        let replay = begin(db, selection).await;
        fill(db, &replay).await;
        let filled = now(db, &replay).await;
        assert_eq!(
            (filled.total, filled.queued),
            (many as u64, MAX_OF_ONE as u64)
        );
        assert_eq!(in_queue(db, &replay, one).await, MAX_OF_ONE);
        receive(db, one).await;
        fill(db, &replay).await;
        assert_eq!(now(db, &replay).await.queued, many as u64);
        assert_eq!(receive(db, one).await.len(), 500);
        fill(db, &replay).await;
        assert_eq!(now(db, &replay).await.state, ReplayState::Done);
        failed(db, "one", many).await;
    }
}

/// What failed, and behind that what was never made: each step finds a place or two.
async fn one_that_is_named_and_takes_few_loses_nothing(db: &TestDatabase) {
    const FAILED: usize = MAX_OF_ONE + 1_200;
    const UNMADE: usize = 30;
    accept(&db.store, &to("one", UNMADE)).await;
    let one = subscription(db, "one").await;
    failed(db, "one", FAILED).await;
    let replay = begin(db, Selection::missed(one, SystemClock.now() - HOUR)).await;
    fill(db, &replay).await;
    let mut received = 0;
    for few in 1..=30 {
        received += receive_some(db, one, few).await.len();
        runner(&db.store).turn().await.unwrap();
        assert!(in_queue(db, &replay, one).await <= MAX_OF_ONE);
    }
    assert_eq!(received, 30 * 31 / 2);
    while now(db, &replay).await.state != ReplayState::Done {
        received += receive(db, one).await.len();
        fill(db, &replay).await;
    }
    let done = now(db, &replay).await;
    assert_eq!(done.total, (FAILED + UNMADE) as u64);
    assert_eq!((done.done, done.skipped.total()), (done.total, 0));
    assert_eq!(received, FAILED + UNMADE);
}

/// A receiver that is down has thousands before, between and behind those of one that is not.
async fn one_that_takes_nothing_holds_up_no_other(db: &TestDatabase) {
    let down = subscription(db, "down").await;
    let up = subscription(db, "up").await;
    let mut to_down = failed(db, "down", MAX_OF_ONE + 600).await;
    let mut to_up = failed(db, "up", 300).await;
    to_down.extend(failed(db, "down", 1_200).await);
    to_up.extend(failed(db, "up", 100).await);
    to_down.extend(failed(db, "down", 1).await);
    let replay = begin(db, Selection::default()).await;
    fill(db, &replay).await;
    assert_eq!(in_queue(db, &replay, down).await, MAX_OF_ONE);
    let received: BTreeSet<_> = receive(db, up).await.into_iter().collect();
    assert_eq!(received, ids(&to_up));
    fill(db, &replay).await;
    let stands = running(db, &replay).await.unwrap();
    assert!(
        matches!(&stands.cursor, Cursor::Held(held) if held.len() == 1),
        "{:?}",
        stands.cursor
    );

    // It is back: the rest of its own comes, each once, in order from step to step.
    let mut received = Vec::new();
    while now(db, &replay).await.state != ReplayState::Done {
        let mut some = receive(db, down).await;
        some.sort_unstable();
        received.extend(some);
        fill(db, &replay).await;
    }
    assert!(received.is_sorted(), "the oldest first");
    assert_eq!(received.len(), to_down.len());
    let distinct: BTreeSet<_> = received.into_iter().collect();
    assert_eq!(distinct, ids(&to_down));
    let done = now(db, &replay).await;
    assert_eq!(done.done, done.total);
    assert_eq!(done.skipped.total(), 0);
}

/// Seven of them, each with more than one alone may have in the queue.
async fn many_that_take_nothing_leave_room_for_one_that_does(db: &TestDatabase) {
    let mut down = Vec::new();
    for number in 0..7 {
        let name = format!("down{number}");
        down.push(subscription(db, &name).await);
        failed(db, &name, MAX_OF_ONE + 10).await;
    }
    let up = subscription(db, "up").await;
    let to_up = failed(db, "up", 2_500).await;
    let replay = begin(db, Selection::default()).await;
    let mut received = BTreeSet::new();
    loop {
        fill(db, &replay).await;
        let some = receive(db, up).await;
        if some.is_empty() {
            break;
        }
        received.extend(some);
    }
    assert_eq!(received, ids(&to_up));
    for one in &down {
        let has = in_queue(db, &replay, *one).await;
        assert!((LEAST_OF_ONE..=MAX_OF_ONE).contains(&has), "{has}");
    }
    while now(db, &replay).await.state != ReplayState::Done {
        for one in &down {
            receive(db, *one).await;
        }
        fill(db, &replay).await;
    }
    let done = now(db, &replay).await;
    assert_eq!((done.done, done.skipped.total()), (done.total, 0));
}
