//! Replay and retention: what one has in hand the other leaves, and what is gone is told.

use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::attempt::{Attempt, Trigger};
use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::domain::ids::{DeliveryId, ReplayId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::replay::{Refusal, Was};
use forge_dispatch::domain::selection::{ReplayState, Selection};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{Cursor, Kept, NewReplay, ReplayRecord, Settlement, Standing};

use super::super::fixture::{accept, owner, settle, subscribe, taken};
use super::super::retention::{EVENTS, MONTH, grow_older, lead, sweep, sweep_events, sweep_loose};
use super::{
    begin, begin_in, claim, finish, here, new, now, put_into_queue, runner, running, settled,
};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, event, events, workspace};

on_both_databases!(
    what_a_replay_has_in_hand_stays_however_old_it_is,
    what_is_made_afterwards_holds_its_event_and_its_answer_goes_in_its_time,
    what_is_removed_under_a_replay_counts_as_skipped,
    what_is_removed_between_a_look_and_its_step_counts_as_skipped,
    replays_and_removals_meet_and_no_delivery_is_left_without_its_event,
    replays_that_ended_go_in_their_time,
);

const DAYS: u32 = 60;

/// Deliveries of events that came two months ago, settled so at that time.
async fn old(db: &TestDatabase, count: usize, verdict: &Verdict) -> Vec<DeliveryId> {
    let then = SystemClock.now() - Duration::from_hours(24) * DAYS;
    let batch: Vec<_> = (0..count).map(|_| event().build_at(then)).collect();
    let mut found: Vec<_> = settled(db, &batch, verdict)
        .await
        .into_iter()
        .map(|delivery| delivery.id)
        .collect();
    grow_older(db, &EVENTS, DAYS).await;
    found.sort_unstable();
    found
}

async fn replay(db: &TestDatabase, id: DeliveryId) -> Option<Result<Was, Refusal>> {
    let answer = db.replica.replay_delivery(&here(), id, &act()).await;
    answer.unwrap()
}

async fn what_a_replay_has_in_hand_stays_however_old_it_is(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    let failed = old(db, 2, &Verdict::Failed).await;
    let succeeded = old(db, 2, &Verdict::Succeeded).await;
    for id in [failed[0], succeeded[0]] {
        assert!(matches!(replay(db, id).await, Some(Ok(_))));
    }
    let held = lead(db).await;
    let look = async || {
        sweep_events(db, &held, 100).await;
        sweep_loose(db, &held, 100).await;
        [db.count("event").await, db.count("delivery_queue").await]
    };
    assert_eq!(look().await, [2, 2], "the others are gone");
    let me = owner();
    let leased = claim(db, subscription, me).await;
    assert_eq!(leased.len(), 2);
    assert_eq!(look().await, [2, 2], "in flight");
    for delivery in &leased {
        settle(&db.store, me, delivery, Verdict::Succeeded).await;
    }
    // What had failed was settled just now; what had succeeded stays as it was, and goes.
    assert_eq!(look().await, [1, 0]);
    grow_older(db, &EVENTS[1..], 31).await;
    assert_eq!(look().await, [0, 0]);
    assert_eq!(db.count("attempt").await, 0);
}

async fn what_is_made_afterwards_holds_its_event_and_its_answer_goes_in_its_time(
    db: &TestDatabase,
) {
    const WEEK: Duration = Duration::from_hours(7 * 24);
    let then = SystemClock.now() - 2 * MONTH;
    accept(&db.store, &[event().build_at(then)]).await;
    let subscription = subscribe(&db.store, &["*"]).await.id;
    old(db, 1, &Verdict::Succeeded).await;
    let held = lead(db).await;
    let answers = async || {
        db.tamper("update attempt set response_excerpt = 'thanks'")
            .await;
        grow_older(db, &[("attempt", "at")], 8).await;
        sweep(async || db.store.remove_answers(&held, WEEK, 9).await.unwrap()).await;
        db.count("attempt where response_excerpt <> ''").await
    };
    // The walk passes by.
    assert_eq!(answers().await, 0);
    let backfill = Selection {
        subscription_id: Some(subscription),
        backfill: true,
        ..Selection::default()
    };
    let made = begin(db, backfill).await;
    put_into_queue(db, &made).await;
    assert_eq!(now(db, &made).await.queued, 1);
    sweep_events(db, &held, 100).await;
    sweep_loose(db, &held, 100).await;
    assert_eq!(db.count("event").await, 1, "the one that is to be sent");
    let me = owner();
    let leased = claim(db, subscription, me).await;
    let sent = Attempt {
        trigger: Trigger::Replay,
        ..taken()
    };
    let outcome = Settlement::of(&leased[0], Verdict::Succeeded, Some(sent));
    db.store.settle(me, &[outcome]).await.unwrap();
    assert_eq!(db.count("attempt where trigger = 'replay'").await, 1);
    assert_eq!(answers().await, 0);
    assert_eq!(finish(db, &made).await.state, ReplayState::Done);
}

async fn what_is_removed_under_a_replay_counts_as_skipped(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    old(db, 3, &Verdict::Failed).await;
    settled(db, &events(2), &Verdict::Failed).await;
    let made = begin(db, Selection::default()).await;
    runner(&db.store).turn().await.unwrap();
    assert_eq!(now(db, &made).await.total, 5);
    let held = lead(db).await;
    sweep_events(db, &held, 100).await;
    assert_eq!(db.count("event").await, 2);
    put_into_queue(db, &made).await;
    let me = owner();
    for delivery in claim(db, subscription, me).await {
        settle(&db.store, me, &delivery, Verdict::Succeeded).await;
    }
    let done = finish(db, &made).await;
    assert_eq!(done.state, ReplayState::Done);
    assert_eq!((done.total, done.queued, done.done), (5, 2, 2));
    let skipped: Vec<_> = done.skipped.0.into_iter().collect();
    assert_eq!(skipped, [(Refusal::NoLongerSelected, 3)]);
}

async fn what_is_removed_between_a_look_and_its_step_counts_as_skipped(db: &TestDatabase) {
    let then = SystemClock.now() - 2 * MONTH;
    let missed = event().build_at(then);
    accept(&db.store, std::slice::from_ref(&missed)).await;
    let subscription = subscribe(&db.store, &["*"]).await.id;
    let seen = old(db, 2, &Verdict::Failed).await;
    let selection = Selection {
        subscription_id: Some(subscription),
        backfill: true,
        ..Selection::default()
    };
    let made = begin(db, selection).await;
    let counting = running(db, &made).await.unwrap();
    let counted = db.store.count_replay(&counting, 3, &Cursor::End);
    assert_eq!(counted.await.unwrap(), Standing::Leads);
    let sending = running(db, &made).await.unwrap();
    let held = lead(db).await;
    sweep_events(db, &held, 100).await;
    assert_eq!(db.count("event").await, 0);
    let events = [missed.event().id];
    let step = db
        .store
        .advance_replay(&sending, &seen, &events, &Cursor::End);
    assert_eq!(step.await.unwrap(), Standing::Leads);
    let done = finish(db, &made).await;
    assert_eq!((done.state, done.queued), (ReplayState::Done, 0));
    let skipped: Vec<_> = done.skipped.0.into_iter().collect();
    assert_eq!(
        skipped,
        [(Refusal::EventRemoved, 2), (Refusal::NoLongerSelected, 1)]
    );
}

/// One from the young end, the other from the old one; they meet somewhere.
async fn replays_and_removals_meet_and_no_delivery_is_left_without_its_event(db: &TestDatabase) {
    const MANY: usize = 150;
    subscribe(&db.store, &["*"]).await;
    let failed = old(db, MANY, &Verdict::Failed).await;
    let held = lead(db).await;
    let replaying = async {
        let mut replayed = 0;
        for id in failed.iter().rev() {
            match replay(db, *id).await {
                Some(Ok(was)) => {
                    assert_eq!(was, Was::Failed);
                    replayed += 1;
                }
                Some(Err(Refusal::EventRemoved)) | None => {}
                Some(Err(refusal)) => panic!("{refusal}"),
            }
        }
        replayed
    };
    let (replayed, _) = tokio::join!(replaying, sweep_events(db, &held, 5));
    assert_eq!(db.count("delivery_queue").await, replayed);
    assert_eq!(db.count("event").await, replayed);
    assert_eq!(
        [db.count("delivery").await, db.count("event_feed").await],
        [0, 0]
    );
    let whole = "delivery_queue where event_id in (select id from event)";
    assert_eq!(db.count(whole).await, replayed);
}

async fn replays_that_ended_go_in_their_time(db: &TestDatabase) {
    let there = Reach::all(&workspace("ws_2"));
    let begun = async |reach: &Reach| -> ReplayRecord {
        let id: ReplayId = Entropy::system().id(SystemClock.now() - 2 * MONTH);
        let new = NewReplay {
            id,
            ..new(Selection::default())
        };
        let made = db.store.create_replay(reach, &new, &act(), None).await;
        made.unwrap().unwrap().created().unwrap()
    };
    let end = async |replay: &ReplayRecord| {
        let act = act();
        let ended = db.store.cancel_replay(&replay.reach, replay.id, &act);
        ended.await.unwrap().unwrap();
        assert!(finish(db, replay).await.finished_at.is_some());
    };
    for reach in [&here(), &here(), &here(), &there] {
        end(&begun(reach).await).await;
    }
    grow_older(db, &[("replay", "finished_at")], 31).await;
    let lately = begun(&here()).await;
    end(&lately).await;
    let under_way = begun(&there).await;
    let young = begin_in(db, &there, Selection::default()).await;
    let held = lead(db).await;
    let step = async || db.store.remove_replays(&held, MONTH, 3).await.unwrap();
    let steps = sweep(step).await;
    let each: Vec<_> = steps.iter().map(|it| it.rows(Kept::Replay)).collect();
    assert_eq!(each, [3, 1]);
    for replay in [&lately, &under_way, &young] {
        now(db, replay).await;
    }
    assert_eq!(db.count("replay").await, 3);
}
