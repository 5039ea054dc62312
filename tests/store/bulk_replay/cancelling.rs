//! How replays end early.

use std::collections::BTreeMap;
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::delivery::{DeliveryState, Lane, Verdict};
use forge_dispatch::domain::replay::{Refusal, Was};
use forge_dispatch::domain::selection::{ReplayState, Selection, Skipped};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{Cancelled, Claim};

use super::super::fixture::{HOUR, accept, claim_of, for_long, owner, record, settle, subscribe};
use super::{all_as_they_are, begin, claim, finish, here, now, put_into_queue, running, settled};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, events};

on_both_databases!(
    cancelling_puts_back_what_was_not_sent_as_it_was,
    cancelling_ends_what_is_in_flight_when_that_has_ended,
    what_is_done_cannot_be_cancelled_and_what_is_cancelled_is_cancelled_once,
    a_deleted_subscription_ends_its_replays,
);

async fn cancelling_puts_back_what_was_not_sent_as_it_was(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    settled(db, &events(2), &Verdict::Failed).await;
    settled(db, &events(2), &Verdict::Succeeded).await;
    settled(db, &events(2), &Verdict::Retry { delay: HOUR }).await;
    accept(&db.store, &events(1)).await;
    let before = all_as_they_are(db).await;
    let everything = Selection {
        states: DeliveryState::ALL.to_vec(),
        ..Selection::default()
    };
    let replay = begin(db, everything).await;
    put_into_queue(db, &replay).await;
    assert_eq!(now(db, &replay).await.queued, 7);
    assert_ne!(all_as_they_are(db).await, before);
    // One was in hand, and given back unsent.
    let me = owner();
    for delivery in claim(db, subscription, me).await {
        settle(&db.store, me, &delivery, Verdict::Released).await;
    }
    let ended = db.store.cancel_replay(&here(), replay.id, &act()).await;
    let Some(Cancelled::Done(ended)) = ended.unwrap() else {
        panic!("it was under way");
    };
    assert_eq!((ended.state, ended.queued), (ReplayState::Cancelled, 0));
    assert_eq!(all_as_they_are(db).await, before);
    assert!(claim(db, subscription, me).await.is_empty());
    let over = finish(db, &replay).await;
    assert!(over.finished_at.is_some());
    assert!(running(db, &replay).await.is_none());
    // Its lanes are those of before, too.
    for (lane, expected) in [(Lane::Fresh, 1), (Lane::Retry, 0)] {
        let claim = Claim {
            lane,
            ..claim_of(subscription, for_long(me))
        };
        assert_eq!(db.store.claim(&claim).await.unwrap().len(), expected);
    }
    // No token of before is given again.
    let failed = before
        .iter()
        .find(|record| record.state == DeliveryState::Failed)
        .unwrap();
    let again = db.store.replay_delivery(&here(), failed.id, &act()).await;
    assert_eq!(again.unwrap(), Some(Ok(Was::Failed)));
    assert_eq!(claim(db, subscription, me).await[0].epoch, 3);
}

async fn cancelling_ends_what_is_in_flight_when_that_has_ended(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    settled(db, &events(2), &Verdict::Failed).await;
    let replay = begin(db, Selection::default()).await;
    put_into_queue(db, &replay).await;
    let me = owner();
    let leased = claim(db, subscription, me).await;
    db.store
        .cancel_replay(&here(), replay.id, &act())
        .await
        .unwrap();
    let waiting = finish(db, &replay).await;
    assert_eq!((waiting.state, waiting.queued), (ReplayState::Cancelled, 2));
    assert_eq!(waiting.finished_at, None, "two are in flight");
    settle(&db.store, me, &leased[0], Verdict::Succeeded).await;
    settle(&db.store, me, &leased[1], Verdict::Released).await;
    let over = finish(db, &replay).await;
    assert!(over.finished_at.is_some());
    assert_eq!((over.queued, over.done, over.failed), (1, 1, 0));
    let back = record(&db.store, leased[1].id).await;
    assert_eq!((back.state, back.attempts), (DeliveryState::Failed, 1));
}

async fn what_is_done_cannot_be_cancelled_and_what_is_cancelled_is_cancelled_once(
    db: &TestDatabase,
) {
    let done = begin(db, Selection::default()).await;
    put_into_queue(db, &done).await;
    assert_eq!(finish(db, &done).await.state, ReplayState::Done);
    let late = db.store.cancel_replay(&here(), done.id, &act()).await;
    assert_eq!(late.unwrap(), Some(Cancelled::TooLate));
    let replay = begin(db, Selection::default()).await;
    for _ in 0..2 {
        let ended = db.store.cancel_replay(&here(), replay.id, &act()).await;
        let Some(Cancelled::Done(record)) = ended.unwrap() else {
            panic!("it was not done");
        };
        assert_eq!(record.state, ReplayState::Cancelled);
    }
    let unknown = Entropy::system().id(SystemClock.now());
    let nothing = db.store.cancel_replay(&here(), unknown, &act()).await;
    assert_eq!(nothing.unwrap(), None);
}

async fn a_deleted_subscription_ends_its_replays(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    settled(db, &events(3), &Verdict::Failed).await;
    let replay = begin(db, Selection::default()).await;
    put_into_queue(db, &replay).await;
    let deleted = db
        .store
        .delete_subscription(&here(), subscription.id, None, &act())
        .await;
    assert!(deleted.unwrap());
    while db.store.cancel_orphans(Duration::ZERO, 100).await.unwrap() > 0 {}
    let over = finish(db, &replay).await;
    assert_eq!((over.state, over.queued), (ReplayState::Done, 0));
    let reasons = BTreeMap::from([(Refusal::SubscriptionDeleted, 3)]);
    assert_eq!(over.skipped, Skipped(reasons));
}
