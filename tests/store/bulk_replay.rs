//! Replaying many deliveries: what is selected, taken forward step by step, counted, cancelled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::audit::Action;
use forge_dispatch::domain::delivery::{DeliveryState, Lane, Verdict};
use forge_dispatch::domain::ids::{
    DeliveryId, EditionId, EventId, ProjectId, SubscriptionId, WorkspaceId,
};
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::replay::{Refusal, Was};
use forge_dispatch::domain::selection::{ReplayState, Selection, Skipped};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::replay::{Pace, Parts, Runner, Turn};
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::replays::{MAX_IN_QUEUE, MAX_UNFINISHED, STEP, count, look};
use forge_dispatch::store::{
    AuditFilter, Cancelled, Claim, Creation, Cursor, DeliveryRecord, Idempotency, LeasedDelivery,
    NewReplay, PageRequest, ReplayRecord, Running, SettleOutcome, Standing, Store,
};

use super::fixture::{
    HOUR, accept, accept_leased, claim_of, deliveries, disable, for_long, owner, record, settle,
    settlement, subscribe, subscribe_in,
};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, event, events, reach, spec_for_projects, workspace};

on_both_databases!(
    what_failed_is_counted_and_sent_again_and_told_as_it_goes,
    each_condition_selects_what_it_says,
    a_count_goes_by_state_and_may_be_ended_early,
    those_of_an_event_are_replayed_whatever_their_state,
    what_cannot_be_replayed_is_skipped_and_counted_by_the_reason,
    of_two_runners_each_step_is_done_by_one,
    after_a_crash_another_goes_on_where_the_first_one_stood,
    only_one_process_leads,
    no_more_than_a_bounded_number_is_in_the_queue,
    cancelling_puts_back_what_was_not_sent_as_it_was,
    cancelling_ends_what_is_in_flight_when_that_has_ended,
    what_is_done_cannot_be_cancelled_and_what_is_cancelled_is_cancelled_once,
    what_was_never_delivered_is_made,
    a_deleted_subscription_ends_its_replays,
    a_repeated_call_begins_nothing_new,
    a_workspace_has_a_bounded_number_under_way,
    replays_are_seen_within_reach_only,
    a_restricted_reach_replays_its_own_only,
    the_audit_log_tells_of_beginning_and_cancelling,
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

async fn begin(db: &TestDatabase, selection: Selection) -> ReplayRecord {
    begin_in(db, &here(), selection).await
}

async fn begin_in(db: &TestDatabase, reach: &Reach, selection: Selection) -> ReplayRecord {
    let created = db
        .store
        .create_replay(reach, &new(selection), &act(), None)
        .await;
    created.unwrap().unwrap().created().unwrap()
}

async fn now(db: &TestDatabase, replay: &ReplayRecord) -> ReplayRecord {
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
async fn put_into_queue(db: &TestDatabase, replay: &ReplayRecord) {
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
    let all = db.store.unfinished_replays(100).await.unwrap();
    all.into_iter().find(|it| it.record.id == replay.id)
}

async fn finish(db: &TestDatabase, replay: &ReplayRecord) -> ReplayRecord {
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
        let seen = look(&*db.store, reach, selection, later(), cursor, 2)
            .await
            .unwrap();
        assert!(seen.deliveries.len() <= 2);
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

async fn each_condition_selects_what_it_says(db: &TestDatabase) {
    let first = subscribe(&db.store, &["edition.*"]).await.id;
    let old = SystemClock.now() - HOUR;
    let archived = event()
        .project("pr_1")
        .data(r#"{"edition_id":"ed_1"}"#)
        .build_at(old);
    let moved = event().event_type("edition.moved").build();
    let failed = settled(db, &[archived, Arc::clone(&moved)], &Verdict::Failed).await;
    let [early, late] = if failed[0].payload.event().id == moved.event().id {
        [failed[1].id, failed[0].id]
    } else {
        [failed[0].id, failed[1].id]
    };
    let succeeded = settled(db, &events(1), &Verdict::Succeeded).await[0].id;
    let waiting = settled(db, &events(1), &Verdict::Retry { delay: HOUR }).await[0].id;
    let flying = accept_leased(&db.store, &events(1), for_long(owner())).await[0].id;
    let second = subscribe(&db.store, &["output.*"]).await.id;
    let output = [event().event_type("output.lost").build()];
    let other = settled(db, &output, &Verdict::Failed).await[0].id;

    let takes = async |selection: Selection| {
        let found = selected(db, &here(), &selection).await;
        found.into_iter().collect::<BTreeSet<_>>()
    };
    let any = Selection::default;
    let set = |ids: &[DeliveryId]| ids.iter().copied().collect::<BTreeSet<_>>();
    assert_eq!(takes(any()).await, set(&[early, late, other]));
    let by = |states: &[DeliveryState]| Selection {
        states: states.to_vec(),
        ..any()
    };
    assert_eq!(
        takes(by(&[DeliveryState::Succeeded])).await,
        set(&[succeeded])
    );
    assert_eq!(takes(by(&[DeliveryState::Pending])).await, set(&[waiting]));
    assert_eq!(takes(by(&[DeliveryState::InFlight])).await, set(&[flying]));
    assert_eq!(takes(by(&[])).await, set(&[]));
    assert_eq!(
        takes(by(&DeliveryState::ALL)).await,
        set(&[early, late, other, succeeded, waiting, flying])
    );
    for (subscription, expected) in [(first, set(&[early, late])), (second, set(&[other]))] {
        let only = Selection {
            subscription_id: Some(subscription),
            ..any()
        };
        assert_eq!(takes(only).await, expected);
    }
    let types = Selection {
        types: vec![
            "edition.moved".parse().unwrap(),
            "output.*".parse().unwrap(),
        ],
        ..any()
    };
    assert_eq!(takes(types).await, set(&[late, other]));
    let edition = Selection {
        edition_id: Some(EditionId::new("ed_1").unwrap()),
        ..any()
    };
    assert_eq!(takes(edition).await, set(&[early]));
    let project = Selection {
        project_id: Some(ProjectId::new("pr_1").unwrap()),
        ..any()
    };
    assert_eq!(takes(project).await, set(&[early]));
    let middle = old + Duration::from_mins(10);
    let from = Selection {
        from: Some(middle),
        ..any()
    };
    assert_eq!(takes(from).await, set(&[late, other]));
    let to = Selection {
        to: Some(middle),
        ..any()
    };
    assert_eq!(takes(to).await, set(&[early]));
}

async fn a_count_goes_by_state_and_may_be_ended_early(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    settled(db, &events(3), &Verdict::Failed).await;
    settled(db, &events(2), &Verdict::Succeeded).await;
    let selection = Selection {
        states: DeliveryState::ALL.to_vec(),
        ..Selection::default()
    };
    let counted = async |looks| {
        count(&*db.store, &here(), &selection, later(), looks)
            .await
            .unwrap()
    };
    let all = counted(10).await;
    assert_eq!(
        all.by_state,
        BTreeMap::from([("failed", 3), ("succeeded", 2)])
    );
    assert!(all.is_exact);
    assert_eq!(all.total(), 5);
    assert!(!counted(0).await.is_exact);
}

async fn those_of_an_event_are_replayed_whatever_their_state(db: &TestDatabase) {
    let first = subscribe(&db.store, &["*"]).await.id;
    let second = subscribe(&db.store, &["*"]).await.id;
    let sent = events(1);
    let both = settled(db, &sent, &Verdict::Succeeded).await;
    settled(db, &events(1), &Verdict::Failed).await;
    let event = sent[0].event().id;
    let of_it = Selection::of_event(event, None);
    assert_eq!(selected(db, &here(), &of_it).await.len(), 2);
    let replay = begin(db, Selection::of_event(event, Some(second))).await;
    put_into_queue(db, &replay).await;
    assert_eq!(now(db, &replay).await.queued, 1);
    let me = owner();
    assert!(claim(db, first, me).await.is_empty());
    let leased = claim(db, second, me).await;
    assert_eq!(leased.len(), 1);
    assert!(ids(&both).contains(&leased[0].id));
    assert_eq!(leased[0].payload.event().id, event, "the same webhook-id");
    settle(&db.store, me, &leased[0], Verdict::Succeeded).await;
    let done = finish(db, &replay).await;
    assert_eq!((done.state, done.done), (ReplayState::Done, 1));
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
    let first = db.store.count_replay(&counting, 4, Cursor::End).await;
    assert_eq!(first.unwrap(), Standing::Leads);
    let second = db.replica.count_replay(&counting, 4, Cursor::End).await;
    assert_eq!(second.unwrap(), Standing::Deposed);
    assert_eq!(now(db, &replay).await.total, 4);

    let sending = running(db, &replay).await.unwrap();
    let mut all: Vec<DeliveryId> = ids(&failed).into_iter().collect();
    let rest = all.split_off(2);
    let next = Cursor::Deliveries {
        after: all.last().copied(),
    };
    let (first, second) = tokio::join!(
        db.store.advance_replay(&sending, &all, &[], next),
        db.replica.advance_replay(&sending, &all, &[], next),
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
        .advance_replay(&sending, &rest, &[], Cursor::End)
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
        stood.cursor,
        3,
    )
    .await
    .unwrap();
    let some: Vec<_> = seen.deliveries.iter().map(|found| found.id).collect();
    let stepped = db.store.advance_replay(&stood, &some, &[], seen.next).await;
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

async fn no_more_than_a_bounded_number_is_in_the_queue(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    let many = MAX_IN_QUEUE + 500;
    for _ in 0..5 {
        settled(db, &events(many / 5), &Verdict::Failed).await;
    }
    let replay = begin(db, Selection::default()).await;
    let mut runner = runner(&db.store);
    while now(db, &replay).await.queued < MAX_IN_QUEUE as u64 {
        runner.turn().await.unwrap();
        let waiting = usize::try_from(db.count("delivery_queue").await).unwrap();
        assert!(waiting <= MAX_IN_QUEUE, "{waiting}");
    }
    assert_eq!(now(db, &replay).await.total, many as u64);
    for _ in 0..3 {
        runner.turn().await.unwrap();
    }
    assert_eq!(now(db, &replay).await.queued, MAX_IN_QUEUE as u64);
    let me = owner();
    let leased = claim(db, subscription, me).await;
    assert_eq!(leased.len(), STEP);
    let outcomes: Vec<_> = leased
        .iter()
        .map(|delivery| settlement(delivery, Verdict::Succeeded))
        .collect();
    db.store.settle(me, &outcomes).await.unwrap();
    while running(db, &replay).await.unwrap().cursor != Cursor::End {
        runner.turn().await.unwrap();
    }
    assert_eq!(now(db, &replay).await.queued, many as u64);
}

async fn all_as_they_are(db: &TestDatabase) -> Vec<DeliveryRecord> {
    deliveries(&db.store, &WorkspaceId::default()).await
}

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

async fn what_was_never_delivered_is_made(db: &TestDatabase) {
    let earlier = [
        event().project("pr_1").build(),
        event().project("pr_1").event_type("output.lost").build(),
        event().project("pr_2").build(),
        event().build(),
    ];
    let leased = accept_leased(&db.store, &earlier, for_long(owner())).await;
    assert!(leased.is_empty(), "there was nobody to send it to");
    let spec = spec_for_projects(&["edition.*"], &["pr_1", "pr_2"]);
    let subscription = subscribe_in(&db.store, &WorkspaceId::default(), spec)
        .await
        .id;
    // One has come since.
    let since = [event().project("pr_1").build()];
    let born = settled(db, &since, &Verdict::Succeeded).await;
    let backfill = |project: Option<&str>| Selection {
        subscription_id: Some(subscription),
        states: Vec::new(),
        project_id: project.map(|id| ProjectId::new(id).unwrap()),
        backfill: true,
        ..Selection::default()
    };
    let wanted = backfill(None);
    let counted = count(&*db.store, &here(), &wanted, later(), 10)
        .await
        .unwrap();
    assert_eq!(counted.by_state, BTreeMap::from([("unmade", 2)]));
    let replay = begin(db, backfill(Some("pr_2"))).await;
    put_into_queue(db, &replay).await;
    let put = now(db, &replay).await;
    assert_eq!((put.total, put.queued), (1, 1));

    let all = begin(db, wanted).await;
    put_into_queue(db, &all).await;
    assert_eq!(now(db, &all).await.queued, 1, "the other is there by now");
    let me = owner();
    let made = claim(db, subscription, me).await;
    let events: BTreeSet<EventId> = made.iter().map(|it| it.payload.event().id).collect();
    let expected = [&earlier[0], &earlier[2]].map(|payload| payload.event().id);
    assert_eq!(events, expected.into_iter().collect());
    for delivery in &made {
        assert_eq!(delivery.replaying.unwrap().was, Was::Unmade);
        assert_eq!(
            (delivery.epoch, delivery.attempts, delivery.base),
            (1, 0, 0)
        );
        assert_eq!(
            record(&db.store, delivery.id).await.state,
            DeliveryState::InFlight
        );
    }
    settle(&db.store, me, &made[0], Verdict::Retry { delay: HOUR }).await;
    settle(&db.store, me, &made[1], Verdict::Succeeded).await;
    assert_eq!(
        record(&db.store, made[0].id).await.state,
        DeliveryState::Pending
    );
    assert_eq!(finish(db, &all).await.state, ReplayState::Done);
    assert!(!ids(&made).contains(&born[0].id));
    // What is made and not sent is not there when it is cancelled.
    let late = [event().project("pr_1").build()];
    let spec = spec_for_projects(&["output.*"], &["pr_1"]);
    let other = subscribe_in(&db.store, &WorkspaceId::default(), spec)
        .await
        .id;
    accept(&db.store, &late).await;
    let before = all_as_they_are(db).await;
    let replay = begin(
        db,
        Selection {
            subscription_id: Some(other),
            states: Vec::new(),
            backfill: true,
            ..Selection::default()
        },
    )
    .await;
    put_into_queue(db, &replay).await;
    assert_eq!(now(db, &replay).await.queued, 1);
    db.store
        .cancel_replay(&here(), replay.id, &act())
        .await
        .unwrap();
    assert_eq!(all_as_they_are(db).await, before);
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

async fn a_repeated_call_begins_nothing_new(db: &TestDatabase) {
    let once = |fingerprint| Idempotency {
        caller: Entropy::system().id(DateTime::UNIX_EPOCH),
        route: "POST /v1/replays",
        key: "k".to_owned(),
        fingerprint: [fingerprint; 32],
    };
    let first = once(1);
    let call = async |once: &Idempotency| {
        let new = new(Selection::default());
        db.store
            .create_replay(&here(), &new, &act(), Some(once))
            .await
            .unwrap()
            .unwrap()
    };
    let Creation::Created(made) = call(&first).await else {
        panic!("the first call");
    };
    let id = made.id.to_string();
    assert_eq!(call(&first).await, Creation::Repeated { id });
    let other = Idempotency {
        fingerprint: [2; 32],
        ..first.clone()
    };
    assert_eq!(call(&other).await, Creation::Conflicting);
    assert_eq!(db.count("replay").await, 1);
}

async fn a_workspace_has_a_bounded_number_under_way(db: &TestDatabase) {
    let mut last = None;
    for _ in 0..MAX_UNFINISHED {
        last = Some(begin(db, Selection::default()).await);
    }
    let one_more = async |reach: &Reach| {
        let new = new(Selection::default());
        let made = db.store.create_replay(reach, &new, &act(), None).await;
        made.unwrap().is_some()
    };
    assert!(!one_more(&here()).await);
    assert!(one_more(&Reach::all(&workspace("ws_2"))).await);
    let last = last.unwrap();
    db.store
        .cancel_replay(&here(), last.id, &act())
        .await
        .unwrap();
    finish(db, &last).await;
    assert!(one_more(&here()).await);
}

async fn replays_are_seen_within_reach_only(db: &TestDatabase) {
    let default = WorkspaceId::default();
    let own = reach(&default, &["pr_1"]);
    let whole = begin(db, Selection::default()).await;
    let restricted = begin_in(db, &own, Selection::default()).await;
    let listed = async |reach: &Reach| {
        let page = PageRequest {
            limit: 10,
            after: None,
        };
        let page = db.replica.replays(reach, page).await.unwrap();
        assert_eq!(page.next, None);
        page.items.into_iter().map(|it| it.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(&here()).await, [restricted.id, whole.id]);
    assert_eq!(listed(&own).await, [restricted.id]);
    let wider = reach(&default, &["pr_1", "pr_2"]);
    assert_eq!(listed(&wider).await, [restricted.id]);
    for elsewhere in [Reach::all(&workspace("ws_2")), reach(&default, &["pr_2"])] {
        assert!(listed(&elsewhere).await.is_empty());
        let found = db.store.replay(&elsewhere, restricted.id).await;
        assert_eq!(found.unwrap(), None);
        let ended = db
            .store
            .cancel_replay(&elsewhere, restricted.id, &act())
            .await;
        assert_eq!(ended.unwrap(), None);
    }
    let found = db.store.replay(&own, whole.id).await;
    assert_eq!(found.unwrap(), None);
    let page = PageRequest {
        limit: 1,
        after: None,
    };
    let first = db.store.replays(&here(), page).await.unwrap();
    assert_eq!(first.next, Some(restricted.id));
    let rest = PageRequest {
        limit: 1,
        after: first.next,
    };
    let second = db.store.replays(&here(), rest).await.unwrap();
    assert_eq!((second.items[0].id, second.next), (whole.id, None));
    assert_eq!(second.items[0], whole);
}

async fn a_restricted_reach_replays_its_own_only(db: &TestDatabase) {
    let default = WorkspaceId::default();
    subscribe_in(&db.store, &default, spec_for_projects(&["*"], &["pr_1"])).await;
    subscribe(&db.store, &["*"]).await;
    let batch = [
        event().project("pr_1").build(),
        event().project("pr_2").build(),
    ];
    let born = settled(db, &batch, &Verdict::Failed).await;
    assert_eq!(born.len(), 3);
    let own = reach(&default, &["pr_1"]);
    let replay = begin_in(db, &own, Selection::default()).await;
    put_into_queue(db, &replay).await;
    let put = now(db, &replay).await;
    assert_eq!((put.total, put.queued), (1, 1));
}

async fn the_audit_log_tells_of_beginning_and_cancelling(db: &TestDatabase) {
    let replay = begin(db, Selection::default()).await;
    for _ in 0..2 {
        db.store
            .cancel_replay(&here(), replay.id, &act())
            .await
            .unwrap();
    }
    let page = PageRequest {
        limit: 10,
        after: None,
    };
    let filter = AuditFilter::default();
    let workspace = WorkspaceId::default();
    let told = db.store.audit_log(&workspace, &filter, page).await.unwrap();
    let told: Vec<_> = told
        .items
        .iter()
        .map(|it| (it.action, it.object.clone()))
        .collect();
    let id = Some(replay.id.to_string());
    assert_eq!(
        told,
        [
            (Action::ReplayCancelled, id.clone()),
            (Action::ReplayCreated, id)
        ]
    );
}
