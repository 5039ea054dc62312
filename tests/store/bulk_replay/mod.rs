//! Replaying many deliveries: what is selected, taken forward step by step, counted, cancelled.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::delivery::{DeliveryState, Lane, Verdict};
use forge_dispatch::domain::ids::{DeliveryId, ReplayId, SubscriptionId, WorkspaceId};
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::replay::{Refusal, Was};
use forge_dispatch::domain::selection::{ReplayState, Selection, Skipped};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::replay::{Pace, Parts, Runner, Turn};
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::replays::{MAX_UNFINISHED, STEP, look};
use forge_dispatch::store::{
    Cancelled, Claim, Cursor, DeliveryRecord, LeasedDelivery, NewReplay, PageRequest, ReplayRecord,
    Running, SettleOutcome, Standing, Store,
};

use super::fixture::{
    HOUR, accept_leased, claim_of, deliveries, disable, for_long, owner, settle, settlement,
    subscribe,
};

use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, event, events, workspace};

mod asking;
mod cancelling;
mod kept;
mod selecting;
mod shared;
mod stuck;

on_both_databases!(
    what_failed_is_counted_and_sent_again_and_told_as_it_goes,
    what_cannot_be_replayed_is_skipped_and_counted_by_the_reason,
    what_the_steps_of_one_turn_skip_adds_up,
    of_two_runners_each_step_is_done_by_one,
    after_a_crash_another_goes_on_where_the_first_one_stood,
    only_one_process_leads,
    many_that_wait_are_in_nobodys_way,
    few_among_many_are_found_in_one_turn,
);

fn here() -> Reach {
    Reach::all(&WorkspaceId::default())
}

fn new(selection: Selection) -> NewReplay {
    NewReplay {
        id: Entropy::system().id(SystemClock.now()),
        selection,
        rate: 10_000,
    }
}

pub(super) async fn begin(db: &TestDatabase, selection: Selection) -> ReplayRecord {
    begin_in(db, &here(), selection).await
}

async fn begin_in(db: &TestDatabase, reach: &Reach, selection: Selection) -> ReplayRecord {
    let created = db
        .store
        .create_replay(reach, &new(selection), &act(), None)
        .await;
    created.unwrap().unwrap().created().unwrap()
}

pub(super) async fn now(db: &TestDatabase, replay: &ReplayRecord) -> ReplayRecord {
    let found = db.replica.replay(&replay.reach, replay.id).await;
    found.unwrap().expect("it is there")
}

/// One whose lease is over as soon as it is taken: another may follow it.
fn runner(store: &Arc<dyn Store>) -> Runner {
    runner_for(store, Duration::ZERO)
}

fn runner_for(store: &Arc<dyn Store>, lease: Duration) -> Runner {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Runner::new(Parts {
        store: Arc::clone(store),
        intake: Arc::new(NoDispatch),
        clock,
        entropy: Entropy::system(),
        owner: owner(),
        pace: Pace {
            lease,
            ..Pace::default()
        },
    })
}

/// Takes replays forward until nothing but sending is left to be done.
pub(super) async fn put_into_queue(db: &TestDatabase, replay: &ReplayRecord) {
    let mut runner = runner(&db.store);
    for _ in 0..1_000 {
        runner.turn().await.unwrap();
        if running(db, replay)
            .await
            .is_none_or(|it| it.cursor == Cursor::End)
        {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{:?}", now(db, replay).await);
}

async fn running(db: &TestDatabase, replay: &ReplayRecord) -> Option<Running> {
    let all = db.store.unfinished_replays(all()).await.unwrap();
    all.into_iter().find(|it| it.record.id == replay.id)
}

fn all() -> PageRequest<ReplayId> {
    PageRequest {
        limit: 100,
        after: None,
    }
}

pub(super) async fn finish(db: &TestDatabase, replay: &ReplayRecord) -> ReplayRecord {
    if let Some(running) = running(db, replay).await {
        db.store.settle_replay(&running).await.unwrap();
    }
    now(db, replay).await
}

/// Leases all that is replayed to this subscription.
async fn claim(
    db: &TestDatabase,
    subscription: SubscriptionId,
    me: forge_dispatch::domain::ids::OwnerId,
) -> Vec<LeasedDelivery> {
    let claim = Claim {
        lane: Lane::Replay,
        ..claim_of(subscription, for_long(me))
    };
    db.store.claim(&claim).await.unwrap()
}

/// Deliveries of these events, settled so.
async fn settled(
    db: &TestDatabase,
    batch: &[Arc<Payload>],
    verdict: &Verdict,
) -> Vec<LeasedDelivery> {
    let me = owner();
    let born = accept_leased(&db.store, batch, for_long(me)).await;
    let outcomes: Vec<_> = born
        .iter()
        .map(|delivery| settlement(delivery, verdict.clone()))
        .collect();
    let settled = db.store.settle(me, &outcomes).await.unwrap();
    assert!(settled.iter().all(|it| *it == SettleOutcome::Settled));
    born
}

fn ids(deliveries: &[LeasedDelivery]) -> BTreeSet<DeliveryId> {
    deliveries.iter().map(|delivery| delivery.id).collect()
}

/// What a selection takes, all of it, and how many looks that took.
async fn selected(db: &TestDatabase, reach: &Reach, selection: &Selection) -> Vec<DeliveryId> {
    let (mut found, mut cursor) = (Vec::new(), Cursor::START);
    while cursor != Cursor::End {
        let seen = look(&*db.store, reach, selection, later(), &cursor, STEP)
            .await
            .unwrap();
        found.extend(seen.deliveries.into_iter().map(|found| found.id));
        cursor = seen.next;
    }
    let mut sorted = found.clone();
    sorted.sort_unstable();
    assert_eq!(found, sorted, "oldest first");
    found
}

fn later() -> DateTime<Utc> {
    SystemClock.now() + HOUR
}

async fn what_failed_is_counted_and_sent_again_and_told_as_it_goes(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    let failed = settled(db, &events(5), &Verdict::Failed).await;
    settled(db, &events(3), &Verdict::Succeeded).await;
    let replay = begin(db, Selection::default()).await;
    assert_eq!(
        (replay.state, replay.total, replay.queued),
        (ReplayState::Pending, 0, 0)
    );
    let mut runner = runner(&db.store);
    assert_eq!(runner.turn().await.unwrap(), Turn::Busy);
    let counted = now(db, &replay).await;
    assert_eq!((counted.state, counted.total), (ReplayState::Running, 5));
    runner.turn().await.unwrap();
    let queued = now(db, &replay).await;
    assert_eq!((queued.queued, queued.done), (5, 0));

    let me = owner();
    let leased = claim(db, subscription, me).await;
    assert_eq!(ids(&leased), ids(&failed));
    for delivery in &leased {
        let replaying = delivery.replaying.unwrap();
        assert_eq!(
            (replaying.was, replaying.bulk),
            (Was::Failed, Some(replay.id))
        );
    }
    runner.turn().await.unwrap();
    assert_eq!(now(db, &replay).await.state, ReplayState::Running);
    // Three are taken, one fails and has a schedule, one fails and has none; told twice, counted once.
    let verdicts = [
        Verdict::Succeeded,
        Verdict::Succeeded,
        Verdict::Succeeded,
        Verdict::Retry { delay: HOUR },
        Verdict::Failed,
    ];
    let outcomes: Vec<_> = leased
        .iter()
        .zip(verdicts)
        .map(|(delivery, verdict)| settlement(delivery, verdict))
        .collect();
    for _ in 0..2 {
        db.store.settle(me, &outcomes).await.unwrap();
    }
    let sent = now(db, &replay).await;
    assert_eq!((sent.queued, sent.done, sent.failed), (5, 3, 2));
    assert_eq!((sent.state, sent.finished_at), (ReplayState::Running, None));
    runner.turn().await.unwrap();
    let done = now(db, &replay).await;
    assert_eq!(done.state, ReplayState::Done);
    assert!(done.finished_at.is_some());
    assert_eq!(runner.turn().await.unwrap(), Turn::Idle);
}

/// Whoever asks for so many a second gets them, however many others have to be looked through.
async fn few_among_many_are_found_in_one_turn(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    for _ in 0..3 {
        let mut batch = events(STEP - 1);
        batch.push(event().event_type("edition.rare").build());
        settled(db, &batch, &Verdict::Failed).await;
    }
    let rare = Selection {
        types: vec!["edition.rare".parse().unwrap()],
        ..Selection::default()
    };
    let replay = begin(db, rare).await;
    let mut runner = runner(&db.store);
    runner.turn().await.unwrap();
    assert_eq!(now(db, &replay).await.total, 3);
    runner.turn().await.unwrap();
    assert_eq!(now(db, &replay).await.queued, 3);
}

/// What is not selected lies between them, so that a turn takes a step for each.
async fn what_the_steps_of_one_turn_skip_adds_up(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    for _ in 0..3 {
        let rare = event().event_type("edition.rare").build();
        let rare = settled(db, &[rare], &Verdict::Failed).await;
        settled(db, &events(STEP - 1), &Verdict::Failed).await;
        let one = db.store.replay_delivery(&here(), rare[0].id, &act()).await;
        assert_eq!(one.unwrap(), Some(Ok(Was::Failed)));
    }
    let rare = Selection {
        types: vec!["edition.rare".parse().unwrap()],
        states: vec![DeliveryState::Pending, DeliveryState::Failed],
        ..Selection::default()
    };
    let replay = begin(db, rare).await;
    let mut runner = runner(&db.store);
    runner.turn().await.unwrap();
    let counted = now(db, &replay).await;
    assert_eq!((counted.state, counted.total), (ReplayState::Running, 3));
    runner.turn().await.unwrap();
    let skipped = Skipped([(Refusal::AlreadyReplaying, 3)].into_iter().collect());
    assert_eq!(now(db, &replay).await.skipped, skipped);
}

async fn what_cannot_be_replayed_is_skipped_and_counted_by_the_reason(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let failed = settled(db, &events(2), &Verdict::Failed).await;
    accept_leased(&db.store, &events(1), for_long(owner())).await;
    // One that another replay has in hand.
    let answer = db
        .store
        .replay_delivery(&here(), failed[0].id, &act())
        .await;
    assert_eq!(answer.unwrap(), Some(Ok(Was::Failed)));
    let everything = Selection {
        states: DeliveryState::ALL.to_vec(),
        ..Selection::default()
    };
    let replay = begin(db, everything.clone()).await;
    put_into_queue(db, &replay).await;
    let put = now(db, &replay).await;
    assert_eq!((put.total, put.queued), (3, 1));
    let skipped = |reasons: &[(Refusal, u64)]| Skipped(reasons.iter().copied().collect());
    assert_eq!(
        put.skipped,
        skipped(&[(Refusal::InFlight, 1), (Refusal::AlreadyReplaying, 1)])
    );
    disable(&db.store, &subscription).await;
    settled(db, &events(1), &Verdict::Failed).await;
    let others = begin(db, everything).await;
    put_into_queue(db, &others).await;
    let others = finish(db, &others).await;
    assert_eq!(others.queued, 0);
    assert_eq!(
        others.state,
        ReplayState::Done,
        "nothing is left to be sent"
    );
    assert_eq!(others.skipped.total(), others.total);
}

async fn of_two_runners_each_step_is_done_by_one(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    let failed = settled(db, &events(4), &Verdict::Failed).await;
    let replay = begin(db, Selection::default()).await;
    let counting = running(db, &replay).await.unwrap();
    let first = db.store.count_replay(&counting, 4, &Cursor::End).await;
    assert_eq!(first.unwrap(), Standing::Leads);
    let second = db.replica.count_replay(&counting, 4, &Cursor::End).await;
    assert_eq!(second.unwrap(), Standing::Deposed);
    assert_eq!(now(db, &replay).await.total, 4);

    let sending = running(db, &replay).await.unwrap();
    let mut all: Vec<DeliveryId> = ids(&failed).into_iter().collect();
    let rest = all.split_off(2);
    let next = Cursor::behind(all.last().copied());
    let (first, second) = tokio::join!(
        db.store.advance_replay(&sending, &all, &[], &next),
        db.replica.advance_replay(&sending, &all, &[], &next),
    );
    let standings = [first.unwrap(), second.unwrap()];
    let led = standings
        .iter()
        .filter(|it| **it == Standing::Leads)
        .count();
    assert_eq!(led, 1, "{standings:?}");
    // One that stood still since before tries the rest.
    let late = db
        .store
        .advance_replay(&sending, &rest, &[], &Cursor::End)
        .await;
    assert_eq!(late.unwrap(), Standing::Deposed);
    let put = now(db, &replay).await;
    assert_eq!((put.queued, put.skipped.total()), (2, 0));
    assert_eq!(db.count("delivery_queue").await, 2);
}

async fn after_a_crash_another_goes_on_where_the_first_one_stood(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    let failed = settled(db, &events(7), &Verdict::Failed).await;
    let replay = begin(db, Selection::default()).await;
    runner(&db.store).turn().await.unwrap();
    // A step, and the process is gone.
    let stood = running(db, &replay).await.unwrap();
    let seen = look(
        &*db.store,
        &here(),
        &stood.record.selection,
        stood.record.created_at,
        &stood.cursor,
        usize::MAX,
    )
    .await
    .unwrap();
    let mut some: Vec<_> = seen.deliveries.iter().map(|found| found.id).collect();
    some.truncate(3);
    let next = Cursor::behind(some.last().copied());
    let stepped = db.store.advance_replay(&stood, &some, &[], &next).await;
    assert_eq!(stepped.unwrap(), Standing::Leads);
    let other = db.open().await;
    let mut second = runner(&other);
    let me = owner();
    let mut sent = Vec::new();
    while now(db, &replay).await.state != ReplayState::Done {
        second.turn().await.unwrap();
        for delivery in claim(db, subscription, me).await {
            settle(&db.store, me, &delivery, Verdict::Succeeded).await;
            sent.push(delivery.id);
        }
    }
    assert_eq!(sent.len(), 7, "each once");
    assert_eq!(sent.into_iter().collect::<BTreeSet<_>>(), ids(&failed));
    let done = now(db, &replay).await;
    assert_eq!((done.total, done.queued, done.done), (7, 7, 7));
    other.close().await;
}

async fn only_one_process_leads(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    settled(db, &events(1), &Verdict::Failed).await;
    let replay = begin(db, Selection::default()).await;
    let mut first = runner_for(&db.store, HOUR);
    let mut second = runner_for(&db.replica, HOUR);
    assert_eq!(first.turn().await.unwrap(), Turn::Busy);
    assert_eq!(second.turn().await.unwrap(), Turn::Idle);
    let ended = db.store.cancel_replay(&here(), replay.id, &act()).await;
    assert!(matches!(ended.unwrap(), Some(Cancelled::Done(_))));
    while first.turn().await.unwrap() == Turn::Busy {}
    // Where there is nothing to do nobody leads.
    begin(db, Selection::default()).await;
    assert_eq!(second.turn().await.unwrap(), Turn::Busy);
}

/// What waits for a disabled subscription waits on; others get their turns.
async fn many_that_wait_are_in_nobodys_way(db: &TestDatabase) {
    let waiting = subscribe(&db.store, &["*"]).await;
    for _ in 0..MAX_UNFINISHED {
        settled(db, &events(1), &Verdict::Failed).await;
        let replay = begin(db, Selection::default()).await;
        put_into_queue(db, &replay).await;
    }
    disable(&db.store, &waiting).await;
    let there = Reach::all(&workspace("ws_2"));
    let late = begin_in(db, &there, Selection::default()).await;
    let mut runner = runner(&db.store);
    for _ in 0..6 {
        assert_eq!(runner.turn().await.unwrap(), Turn::Busy);
    }
    assert_eq!(now(db, &late).await.state, ReplayState::Done);
    let unfinished = db.store.unfinished_replays(all()).await.unwrap();
    assert_eq!(unfinished.len(), MAX_UNFINISHED);
}

async fn all_as_they_are(db: &TestDatabase) -> Vec<DeliveryRecord> {
    deliveries(&db.store, &WorkspaceId::default()).await
}
