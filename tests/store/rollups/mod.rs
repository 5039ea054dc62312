//! What settles count, folded or not: each outcome once.

mod age;
mod behind;
mod random;
mod together;

use std::time::Duration;

use chrono::{DateTime, Utc};
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::attempt::{Attempt, ErrorClass};
use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::domain::ids::{OwnerId, SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::store::{
    AttemptCounts, Counts, LeasedDelivery, Point, Resolution, SettleOutcome, Settlement, Window,
};

use super::fixture::{
    HOUR, accept_leased, claim_all, for_long, owner, refused, settle, subscribe, taken,
};
use super::retention::lead;
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{event, events};

on_both_databases!(
    each_outcome_counts_once_as_what_it_was,
    what_is_folded_is_told_as_it_was_before,
    a_batch_of_one_minute_is_one_row,
    history_is_not_looked_at,
    a_deposed_leader_folds_nothing,
);

/// As if rollups had been counted from the beginning of time.
pub(super) async fn count_for_ever(db: &TestDatabase) {
    let beginning = match db.kind {
        Kind::Sqlite => "0",
        Kind::Postgres => "'epoch'",
    };
    db.tamper(&format!("update rollup_floor set since = {beginning}"))
        .await;
}

/// The last days of a subscription of workspace `default`.
async fn points(db: &TestDatabase, id: SubscriptionId, resolution: Resolution) -> Vec<Point> {
    let window = Window::new(HOUR * 72, resolution);
    let everything = Reach::all(&WorkspaceId::default());
    let found = db.replica.subscription_stats(&everything, id, window).await;
    found.unwrap().expect("it is there").past.points
}

async fn total(db: &TestDatabase, id: SubscriptionId) -> Counts {
    let mut total = Counts::default();
    for point in points(db, id, Resolution::Minute).await {
        total.take_in(&point.counts);
    }
    total
}

/// Deliveries of so many new events, leased for long.
async fn leased(db: &TestDatabase, me: OwnerId, count: usize) -> Vec<LeasedDelivery> {
    accept_leased(&db.store, &events(count), for_long(me)).await
}

/// What came of an attempt that began then and took so long.
fn outcome(
    delivery: &LeasedDelivery,
    verdict: Verdict,
    at: DateTime<Utc>,
    duration: Duration,
) -> Settlement {
    let met = match verdict {
        Verdict::Succeeded => Some(taken()),
        Verdict::Released => None,
        _ => Some(refused(503)),
    };
    let attempt = met.map(|met| Attempt {
        at,
        duration,
        ..met
    });
    Settlement::of(delivery, verdict, attempt)
}

async fn each_outcome_counts_once_as_what_it_was(db: &TestDatabase) {
    let id = subscribe(&db.store, &["*"]).await.id;
    let (me, stranger) = (owner(), owner());
    let all = leased(db, me, 6).await;
    let retry = Verdict::Retry {
        delay: Duration::ZERO,
    };
    let verdicts = [
        Verdict::Succeeded,
        Verdict::Failed,
        retry.clone(),
        Verdict::Released,
    ];
    let batch: Vec<Settlement> = all
        .iter()
        .zip(verdicts)
        .map(|(delivery, verdict)| super::fixture::settlement(delivery, verdict))
        .collect();
    // The answer to the first was lost; and one of a lease that is another's.
    for _ in 0..2 {
        db.store.settle(me, &batch).await.unwrap();
    }
    let told = settle(&db.store, stranger, &all[4], Verdict::Succeeded).await;
    assert_eq!(told, SettleOutcome::LeaseLost);
    // A lease that is in the batch twice.
    let twice = super::fixture::settlement(&all[5], Verdict::Failed);
    db.store.settle(me, &[twice.clone(), twice]).await.unwrap();
    let counts = total(db, id).await;
    let attempts = |succeeded, retried, failed| AttemptCounts {
        succeeded,
        retried,
        failed,
    };
    assert_eq!((counts.succeeded, counts.failed), (1, 2));
    assert_eq!(counts.attempts, attempts(1, 1, 2));

    // What nobody sent took no time.
    let lost = claim_all(&db.store, id, for_long(me)).await;
    let lost = lost.iter().find(|it| it.id == all[2].id).unwrap();
    let met = Attempt {
        error: Some(ErrorClass::Lost),
        status: None,
        ..taken()
    };
    let settled = Settlement::of(lost, retry.clone(), Some(met));
    db.store.settle(me, &[settled]).await.unwrap();
    let counts = total(db, id).await;
    assert_eq!(counts.attempts, attempts(1, 2, 2));
    assert_eq!(counts.latency.count(), 4);

    // A replay of what had succeeded is an attempt more, and no delivery; one of what had failed is one.
    for (delivery, verdict) in [
        (&all[0], Verdict::Succeeded),
        (&all[0], Verdict::Repeated),
        (&all[1], Verdict::Succeeded),
    ] {
        let everything = Reach::all(&WorkspaceId::default());
        let act = crate::harness::events::act();
        let asked = db.store.replay_delivery(&everything, delivery.id, &act);
        asked.await.unwrap().unwrap().unwrap();
        let again = claim_all(&db.store, id, for_long(me)).await;
        let again = again.iter().find(|it| it.id == delivery.id).unwrap();
        settle(&db.store, me, again, verdict).await;
    }
    let counts = total(db, id).await;
    assert_eq!((counts.succeeded, counts.failed), (2, 2));
    assert_eq!(counts.attempts, attempts(3, 2, 3));

    // A test is no delivery's attempt.
    let ping = event().build();
    let sent = db.store.record_test(ping.event(), id, &taken()).await;
    sent.unwrap();
    assert_eq!(total(db, id).await, counts);

    let refused = leased(db, me, 1).await;
    settle(&db.store, me, &refused[0], Verdict::Gone).await;
    let counts = total(db, id).await;
    assert_eq!((counts.failed, counts.attempts), (3, attempts(3, 2, 4)));
}

async fn what_is_folded_is_told_as_it_was_before(db: &TestDatabase) {
    let ids = [
        subscribe(&db.store, &["*"]).await.id,
        subscribe(&db.store, &["*"]).await.id,
    ];
    let (me, held) = (owner(), lead(db).await);
    let hour = Resolution::Hour.start(SystemClock.now()) - HOUR;
    for minutes in [-61, -1, 0, 1, 1, 59] {
        let at = hour + chrono::Duration::minutes(minutes);
        let batch: Vec<Settlement> = leased(db, me, 3)
            .await
            .iter()
            .map(|it| outcome(it, Verdict::Succeeded, at, Duration::from_millis(70)))
            .collect();
        db.store.settle(me, &batch).await.unwrap();
    }
    let told = async || {
        let mut told = Vec::new();
        for id in ids {
            for resolution in Resolution::ALL {
                told.push(points(db, id, resolution).await);
            }
        }
        told
    };
    let before = told().await;
    let counts = |points: &[Point]| -> Vec<u64> {
        points.iter().map(|point| point.counts.succeeded).collect()
    };
    assert_eq!(counts(&before[0]), [3, 3, 3, 6, 3]);
    assert_eq!(counts(&before[1]), [3, 3, 12]);
    assert_eq!(before[1][2].start, hour);
    assert_eq!(before[1][2].counts.latency.percentile_ms(50), Some(75));
    assert_eq!(before[..2], before[2..], "both got the same");
    // Some folded, some not; then all; and nothing twice.
    for (limit, expected) in [(5, 5), (100, 7), (100, 0)] {
        let folded = db.store.fold_rollups(&held, limit).await.unwrap();
        assert_eq!(folded, Some(expected));
        assert_eq!(told().await, before);
    }
    assert_eq!(db.count("rollup_delta").await, 0);
    assert_eq!(db.count("rollup where resolution = 'minute'").await, 10);
    assert_eq!(db.count("rollup where resolution = 'hour'").await, 6);
}

async fn a_batch_of_one_minute_is_one_row(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    let (me, now) = (owner(), SystemClock.now());
    let took = Duration::from_millis(3);
    let batch: Vec<Settlement> = leased(db, me, 500)
        .await
        .iter()
        .map(|it| outcome(it, Verdict::Succeeded, now, took))
        .collect();
    db.store.settle(me, &batch).await.unwrap();
    assert_eq!(db.count("rollup_delta").await, 1);
    assert_eq!(
        db.count("rollup_delta where attempts_succeeded = 500")
            .await,
        1
    );
}

async fn history_is_not_looked_at(db: &TestDatabase) {
    let id = subscribe(&db.store, &["*"]).await.id;
    let me = owner();
    for delivery in leased(db, me, 3).await {
        settle(&db.store, me, &delivery, Verdict::Succeeded).await;
    }
    for table in ["attempt", "delivery"] {
        db.tamper(&format!("alter table {table} rename to {table}_away"))
            .await;
    }
    assert_eq!(total(db, id).await.succeeded, 3);
    let everything = Reach::all(&WorkspaceId::default());
    let series = db.store.workspace_series(&everything, Window::DAY).await;
    assert_eq!(series.unwrap().unwrap().total().succeeded, 3);
    let held = lead(db).await;
    assert_eq!(db.store.fold_rollups(&held, 10).await.unwrap(), Some(3));
    assert_eq!(total(db, id).await.succeeded, 3);
}

async fn a_deposed_leader_folds_nothing(db: &TestDatabase) {
    let id = subscribe(&db.store, &["*"]).await.id;
    let me = owner();
    let delivery = leased(db, me, 1).await;
    settle(&db.store, me, &delivery[0], Verdict::Succeeded).await;
    let name = forge_dispatch::store::LeaseName::RETENTION;
    let leasing = super::fixture::for_no_time(owner());
    let held = db.store.take_lease(name, leasing).await.unwrap().unwrap();
    let leader = lead(db).await;
    assert_eq!(db.store.fold_rollups(&held, 10).await.unwrap(), None);
    assert_eq!(db.count("rollup_delta").await, 1);
    assert_eq!(db.store.fold_rollups(&leader, 10).await.unwrap(), Some(1));
    // With nothing to do, too.
    assert_eq!(db.store.fold_rollups(&held, 10).await.unwrap(), None);
    assert_eq!(total(db, id).await.succeeded, 1);
}
