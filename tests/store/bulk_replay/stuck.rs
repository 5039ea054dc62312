//! Replays that cannot be taken forward, and how many there can be.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::clock::{Clock, ManualClock, SystemClock};
use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::domain::selection::{ReplayState, Selection};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::replay::{Pace, Parts, Runner};
use forge_dispatch::store::NewReplay;
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::replays::MAX_UNFINISHED;
use tokio::task::JoinSet;

use super::super::fixture::{owner, subscribe};
use super::{act, begin, events, here, new, now, settled};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    one_that_cannot_be_taken_forward_is_tried_again_later_and_holds_up_no_other,
    no_more_are_under_way_than_may_be_whoever_asks_at_once,
    a_replay_goes_at_its_rate,
);

async fn one_that_cannot_be_taken_forward_is_tried_again_later_and_holds_up_no_other(
    db: &TestDatabase,
) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    settled(db, &events(1), &Verdict::Failed).await;
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let mut runner = Runner::new(Parts {
        store: Arc::clone(&db.store),
        intake: Arc::new(NoDispatch),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        entropy: Entropy::system(),
        owner: owner(),
        pace: Pace::default(),
    });
    let missed = Selection::missed(subscription, SystemClock.now() - Duration::from_hours(1));
    let stuck = begin(db, missed).await;
    let other = begin(db, Selection::default()).await;
    db.tamper("alter table event_feed rename to event_feed_away")
        .await;
    runner.turn().await.unwrap();
    assert_eq!(now(db, &other).await.state, ReplayState::Running);
    assert_eq!(now(db, &stuck).await.state, ReplayState::Pending);

    db.tamper("alter table event_feed_away rename to event_feed")
        .await;
    runner.turn().await.unwrap();
    assert_eq!(now(db, &other).await.queued, 1);
    let still = now(db, &stuck).await.state;
    assert_eq!(still, ReplayState::Pending, "it is not its time");
    clock.advance(Duration::from_secs(1));
    runner.turn().await.unwrap();
    assert_eq!(now(db, &stuck).await.state, ReplayState::Running);
}

async fn no_more_are_under_way_than_may_be_whoever_asks_at_once(db: &TestDatabase) {
    for _ in 2..MAX_UNFINISHED {
        begin(db, Selection::default()).await;
    }
    let mut asking = JoinSet::new();
    for number in 0..8 {
        let stores = [&db.store, &db.replica];
        let store = Arc::clone(stores[number % 2]);
        asking.spawn(async move {
            let asked = new(Selection::default());
            store.create_replay(&here(), &asked, &act(), None).await
        });
    }
    let made = asking.join_all().await;
    let made = made
        .into_iter()
        .filter(|made| made.as_ref().unwrap().is_some());
    assert_eq!(made.count(), 2);
}

/// The rate that was asked for, by the clock.
async fn a_replay_goes_at_its_rate(db: &TestDatabase) {
    const RATE: u32 = 10;
    let subscription = subscribe(&db.store, &["*"]).await.id;
    settled(db, &events(200), &Verdict::Failed).await;
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let pace = Pace::default();
    let mut runner = Runner::new(Parts {
        store: Arc::clone(&db.store),
        intake: Arc::new(NoDispatch),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        entropy: Entropy::system(),
        owner: owner(),
        pace,
    });
    let slow = NewReplay {
        rate: RATE,
        ..new(Selection {
            subscription_id: Some(subscription),
            ..Selection::default()
        })
    };
    let created = db.store.create_replay(&here(), &slow, &act(), None).await;
    let replay = created.unwrap().unwrap().created().unwrap();
    runner.turn().await.unwrap();
    assert_eq!(now(db, &replay).await.state, ReplayState::Running);
    let turns = Duration::from_secs(10).as_millis() / pace.turn.as_millis();
    for _ in 0..turns {
        clock.advance(pace.turn);
        runner.turn().await.unwrap();
    }
    let queued = now(db, &replay).await.queued;
    assert!((95..=105).contains(&queued), "{queued} in ten seconds");
}
