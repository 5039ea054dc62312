//! Replays to receivers that are left alone, and what subscriptions missed that were disabled.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use forge_dispatch::clock::{Clock, ManualClock, SystemClock};
use forge_dispatch::domain::circuit::{CircuitRules, CircuitState};
use forge_dispatch::domain::delivery::{DeliveryState, Lane, Sending, Verdict};
use forge_dispatch::domain::ids::{DeliveryId, OwnerId, WorkspaceId, created_at};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::replay::Was;
use forge_dispatch::domain::retry::RetrySchedule;
use forge_dispatch::domain::selection::Selection;
use forge_dispatch::domain::subscription::{Subscription, SubscriptionStatus};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::replay::{Pace, Parts, Runner};
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::replays::{Missed, missed};
use forge_dispatch::store::{Claim, LeasedDelivery, NewReplay, Store};

use super::fixture::{
    HOUR, accept, accept_leased, claim_all, claim_of, disable, for_long, owner, record, set_status,
    settle, settlement, subscribe,
};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, events};

on_both_databases!(
    what_somebody_asks_for_goes_through_an_open_circuit,
    what_somebody_asked_for_and_is_taken_lets_the_others_go,
    replays_of_many_wait_for_a_receiver_that_is_left_alone,
    what_replays_meet_counts_for_the_circuit,
    what_waits_for_a_receiver_that_is_left_alone_is_nobodys_backlog,
    a_subscription_that_is_served_again_is_told_what_it_missed,
    one_that_was_gone_missed_what_it_refused,
    one_with_nothing_but_failures_missed_what_failed_since_they_began,
    what_failed_first_came_earlier_and_was_missed_too,
    a_refused_replay_of_what_is_old_sets_nothing_far_back,
);

const RETRY: Verdict = Verdict::Retry { delay: HOUR };

fn here() -> Reach {
    Reach::all(&WorkspaceId::default())
}

/// A subscription whose circuit is open for an hour, and so many deliveries that wait for it.
async fn open_with(db: &TestDatabase, waiting: usize) -> (Subscription, Vec<DeliveryId>) {
    let rules = CircuitRules {
        failures_in_row: 3,
        least_attempts: 1_000,
        first_pause: HOUR,
        longest_pause: 3 * HOUR,
        ramp: HOUR,
        ..CircuitRules::default()
    };
    db.store.judge_receivers(rules.clone());
    db.replica.judge_receivers(rules);
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(3), for_long(me)).await;
    for delivery in &born {
        settle(&db.store, me, delivery, RETRY).await;
    }
    accept(&db.store, &events(waiting)).await;
    let all = super::fixture::deliveries(&db.store, &WorkspaceId::default()).await;
    let fresh = all.iter().filter(|delivery| delivery.attempts == 0);
    (subscription, fresh.map(|delivery| delivery.id).collect())
}

async fn circuit(db: &TestDatabase, subscription: &Subscription) -> CircuitState {
    reread(db, subscription).await.circuit
}

async fn reread(db: &TestDatabase, subscription: &Subscription) -> Subscription {
    let found = db.replica.subscription(&here(), subscription.id).await;
    found.unwrap().expect("it is there")
}

async fn replay(db: &TestDatabase, id: DeliveryId) -> Was {
    let answer = db.replica.replay_delivery(&here(), id, &act()).await;
    answer.unwrap().unwrap().unwrap()
}

/// What is claimed of the replays.
async fn replayed(
    store: &Arc<dyn Store>,
    subscription: &Subscription,
    me: OwnerId,
) -> Vec<LeasedDelivery> {
    let claim = Claim {
        lane: Lane::Replay,
        ..claim_of(subscription.id, for_long(me))
    };
    store.claim(&claim).await.unwrap()
}

async fn what_somebody_asks_for_goes_through_an_open_circuit(db: &TestDatabase) {
    let (subscription, waiting) = open_with(db, 3).await;
    let before = circuit(db, &subscription).await;
    assert!(before.open_until().is_some());
    assert_eq!(replay(db, waiting[1]).await, Was::Pending);
    let due = db.store.due(Duration::ZERO).await.unwrap();
    let lanes: Vec<_> = due.work.iter().map(|(_, lane)| *lane).collect();
    assert_eq!(lanes, [Lane::Replay]);
    let me = owner();
    let claimed = claim_all(&db.store, subscription.id, for_long(me)).await;
    let asked: Vec<_> = claimed.iter().map(|it| (it.id, it.sending)).collect();
    assert_eq!(asked, [(waiting[1], Sending::Asked)]);
    let resumed = Verdict::Resumed {
        not_before: Duration::ZERO,
    };
    settle(&db.store, me, &claimed[0], resumed).await;
    assert_eq!(circuit(db, &subscription).await, before, "as it was");
    let due = db.store.due(Duration::ZERO).await.unwrap();
    assert!(due.work.is_empty(), "it waits again, with the others");
}

async fn what_somebody_asked_for_and_is_taken_lets_the_others_go(db: &TestDatabase) {
    let (subscription, waiting) = open_with(db, 3).await;
    replay(db, waiting[0]).await;
    let me = owner();
    let claimed = replayed(&db.replica, &subscription, me).await;
    settle(&db.replica, me, &claimed[0], Verdict::Succeeded).await;
    let found = circuit(db, &subscription).await;
    assert!(found.recovering_since().is_some());
    let rest = claim_all(&db.store, subscription.id, for_long(me)).await;
    assert_eq!(rest.len(), 2);
}

async fn replays_of_many_wait_for_a_receiver_that_is_left_alone(db: &TestDatabase) {
    let (subscription, waiting) = open_with(db, 3).await;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    // A replay is of what was made before it.
    let made = clock.now();
    while clock.now() == made {
        tokio::task::yield_now().await;
    }
    let new = NewReplay {
        id: Entropy::system().id(clock.now()),
        selection: Selection {
            subscription_id: Some(subscription.id),
            states: vec![DeliveryState::Pending],
            ..Selection::default()
        },
        rate: 10_000,
    };
    db.store
        .create_replay(&here(), &new, &act(), None)
        .await
        .unwrap();
    let mut runner = Runner::new(Parts {
        store: Arc::clone(&db.store),
        intake: Arc::new(NoDispatch),
        clock,
        entropy: Entropy::system(),
        owner: owner(),
        pace: Pace {
            lease: HOUR,
            ..Pace::default()
        },
    });
    for _ in 0..4 {
        runner.turn().await.unwrap();
    }
    let record = db.store.replay(&here(), new.id).await.unwrap().unwrap();
    assert_eq!(record.queued, 6, "{record:?}");
    for store in [&db.store, &db.replica] {
        assert!(store.due(Duration::ZERO).await.unwrap().work.is_empty());
        assert!(replayed(store, &subscription, owner()).await.is_empty());
    }
    // One of them asked for by itself is refused as ever, and one that came later is sent.
    let again = db.store.replay_delivery(&here(), waiting[0], &act()).await;
    assert!(again.unwrap().unwrap().is_err());
    accept(&db.store, &events(1)).await;
    let all = super::fixture::deliveries(&db.store, &WorkspaceId::default()).await;
    replay(db, all[0].id).await;
    let claimed = replayed(&db.store, &subscription, owner()).await;
    let ids: Vec<_> = claimed.iter().map(|it| it.id).collect();
    assert_eq!(ids, [all[0].id]);
}

async fn what_replays_meet_counts_for_the_circuit(db: &TestDatabase) {
    db.store.judge_receivers(CircuitRules {
        failures_in_row: 2,
        ..CircuitRules::default()
    });
    let subscription = subscribe(&db.store, &["*"]).await;
    let ops = subscribe(&db.store, &["delivery.failed"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(2), for_long(me)).await;
    for delivery in &born {
        settle(&db.store, me, delivery, Verdict::Succeeded).await;
        replay(db, delivery.id).await;
    }
    for delivery in replayed(&db.store, &subscription, me).await {
        settle(&db.store, me, &delivery, Verdict::Repeated).await;
    }
    assert!(circuit(db, &subscription).await.open_until().is_some());
    for delivery in &born {
        let kept = record(&db.store, delivery.id).await;
        assert_eq!(kept.state, DeliveryState::Succeeded);
    }
    let told = claim_all(&db.store, ops.id, for_long(me)).await;
    assert!(told.is_empty(), "nothing failed");
}

async fn what_waits_for_a_receiver_that_is_left_alone_is_nobodys_backlog(db: &TestDatabase) {
    open_with(db, 3).await;
    let depth = db.store.queue_depth().await.unwrap();
    assert_eq!((depth.pending, depth.oldest_due), (6, None));
    subscribe(&db.store, &["*"]).await;
    accept(&db.store, &events(1)).await;
    let depth = db.store.queue_depth().await.unwrap();
    assert!(depth.oldest_due.is_some());
}

/// What is told when it is enabled.
async fn enable(db: &TestDatabase, subscription: &Subscription) -> Missed {
    let disabled = reread(db, subscription).await;
    let enabled = set_status(&db.store, &disabled, SubscriptionStatus::Active).await;
    assert_eq!(enabled.missing_since, None);
    let later = ManualClock::at(SystemClock.now() + Duration::from_secs(1));
    let told = missed(&*db.store, &here(), &disabled, &enabled, &later).await;
    told.unwrap().expect("it is back")
}

fn counts(missed: &Missed) -> Vec<(&'static str, u64)> {
    let each = missed.count.by_state.iter();
    each.map(|(state, count)| (*state, *count)).collect()
}

async fn a_subscription_that_is_served_again_is_told_what_it_missed(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    accept(&db.store, &events(2)).await;
    let disabled = disable(&db.store, &subscription).await;
    let since = disabled.missing_since.expect("it is noted");
    accept(&db.store, &events(3)).await;
    // Another change meanwhile does not let it forget.
    let again = SubscriptionStatus::Disabled {
        reason: "another reason".to_owned(),
    };
    let disabled = set_status(&db.store, &disabled, again).await;
    assert_eq!(disabled.missing_since, Some(since));
    let told = enable(db, &disabled).await;
    assert_eq!((told.since, counts(&told)), (since, vec![("unmade", 3)]));
    // One that was served all the while missed nothing.
    let active = reread(db, &subscription).await;
    let told = missed(&*db.store, &here(), &active, &active, &SystemClock).await;
    assert_eq!(told.unwrap(), None);
}

async fn one_that_was_gone_missed_what_it_refused(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(3), for_long(me)).await;
    settle(&db.store, me, &born[0], Verdict::Succeeded).await;
    let gone = [
        settlement(&born[2], Verdict::Gone),
        settlement(&born[1], Verdict::Gone),
    ];
    db.store.settle(me, &gone).await.unwrap();
    let first = created_at(born[1].payload.event().id.uuid());
    assert_eq!(reread(db, &subscription).await.missing_since, Some(first));
    accept(&db.store, &events(2)).await;
    let told = enable(db, &subscription).await;
    assert_eq!(counts(&told), [("failed", 2), ("unmade", 2)]);
}

async fn what_failed_first_came_earlier_and_was_missed_too(db: &TestDatabase) {
    let subscription = given_up(db).await;
    let told = enable(db, &subscription).await;
    assert_eq!(counts(&told), [("failed", 1)]);
    // What came before anybody had subscribed is nobody's loss.
    assert_eq!(told.since, subscription.created_at);
}

/// Disabled by its first failure.
async fn given_up(db: &TestDatabase) -> Subscription {
    db.store.judge_receivers(CircuitRules {
        failures_in_row: 1,
        disable_after: Duration::ZERO,
        ..CircuitRules::default()
    });
    let before = accept(&db.store, &events(1)).await;
    assert_eq!(before.pending, 0);
    until_later_than(SystemClock.now()).await;
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(1), for_long(me)).await;
    let came = created_at(born[0].payload.event().id.uuid());
    until_later_than(came).await;
    settle(&db.store, me, &born[0], Verdict::Failed).await;
    let disabled = reread(db, &subscription).await;
    assert_ne!(disabled.status, SubscriptionStatus::Active);
    disabled
}

/// Ids and databases know whole milliseconds.
async fn until_later_than(time: DateTime<Utc>) {
    while SystemClock.now().timestamp_millis() <= time.timestamp_millis() {
        tokio::task::yield_now().await;
    }
}

async fn a_refused_replay_of_what_is_old_sets_nothing_far_back(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(1), for_long(me)).await;
    settle(&db.store, me, &born[0], Verdict::Succeeded).await;
    let came = created_at(born[0].payload.event().id.uuid());
    until_later_than(came).await;
    replay(db, born[0].id).await;
    let again = replayed(&db.store, &subscription, me).await;
    settle(&db.store, me, &again[0], Verdict::Gone).await;
    let disabled = reread(db, &subscription).await;
    let since = disabled.missing_since.expect("it is disabled");
    assert!(since > came, "{since} {came}");
}

async fn one_with_nothing_but_failures_missed_what_failed_since_they_began(db: &TestDatabase) {
    db.store.judge_receivers(CircuitRules {
        failures_in_row: 2,
        disable_after: Duration::from_hours(24),
        ..CircuitRules::default()
    });
    let subscription = subscribe(&db.store, &["*"]).await;
    let created = literal(db, SystemClock.now() - Duration::from_hours(24 * 30));
    db.tamper(&format!("update subscription set created_at = {created}"))
        .await;
    let me = owner();
    let born = accept_leased(&db.store, &events(2), for_long(me)).await;
    settle(&db.store, me, &born[0], Verdict::Failed).await;
    let two_days_ago = SystemClock.now() - Duration::from_hours(48);
    db.tamper(&format!(
        "update circuit set failing_since = {}",
        literal(db, two_days_ago)
    ))
    .await;
    settle(&db.store, me, &born[1], Verdict::Failed).await;
    let disabled = reread(db, &subscription).await;
    let tried_for = RetrySchedule::default().longest();
    assert_eq!(disabled.missing_since, Some(two_days_ago - tried_for));
    let told = enable(db, &subscription).await;
    assert_eq!(counts(&told), [("failed", 2)]);
}

fn literal(db: &TestDatabase, time: DateTime<Utc>) -> String {
    match db.kind {
        crate::harness::databases::Kind::Sqlite => time.timestamp_millis().to_string(),
        crate::harness::databases::Kind::Postgres => format!("'{}'", time.to_rfc3339()),
    }
}
