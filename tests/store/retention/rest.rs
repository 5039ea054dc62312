//! Answers, the audit log, keys; and leaders who lead no more.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::attempt::Attempt;
use forge_dispatch::domain::audit::{Action, Actor, AuditEntry};
use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::domain::ids::{DeliveryId, OwnerId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{
    AcceptOutcome, Idempotency, Kept, LeasedDelivery, PageRequest, Resolution, Settlement,
};
use forge_dispatch::wake::Wake;

use super::super::fixture::{
    accept, accept_leased, claim_all, for_long, for_no_time, owner, refused, subscribe, taken,
};
use super::{DAY, EVENTS, MONTH, counts, each, grow_older, lead, sweep, sweep_events, sweep_loose};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, event, events, registration, spec, workspace};

on_both_databases!(
    answers_go_and_attempts_stay,
    the_answer_to_a_late_attempt_goes_in_its_time,
    old_entries_of_the_audit_log_go,
    a_key_outlives_its_event_and_is_forgotten_in_its_time,
    the_key_of_an_event_of_our_own_is_forgotten_too,
    keys_of_calls_go_after_a_day,
    who_was_deposed_removes_nothing,
);

const WEEK: Duration = Duration::from_hours(7 * 24);

fn ago(age: Duration) -> DateTime<Utc> {
    SystemClock.now() - age
}

/// Delivers an event that came so long ago, with an attempt at that time.
async fn delivered(db: &TestDatabase, age: Duration) -> DeliveryId {
    let me = owner();
    let payload = event().build_at(ago(age));
    let leased = accept_leased(&db.store, &[payload], for_long(me)).await;
    record(db, me, &leased[0], Verdict::Succeeded, age).await;
    leased[0].id
}

/// Settles a delivery whose attempt was made so long ago.
async fn record(
    db: &TestDatabase,
    me: OwnerId,
    delivery: &LeasedDelivery,
    verdict: Verdict,
    age: Duration,
) {
    let attempt = Attempt {
        at: ago(age),
        response_excerpt: "thanks".to_owned(),
        ..if verdict == Verdict::Succeeded {
            taken()
        } else {
            refused(500)
        }
    };
    let settlement = Settlement::of(delivery, verdict, Some(attempt));
    db.store.settle(me, &[settlement]).await.unwrap();
}

/// Whether each attempt at it has its answer yet.
async fn answers(db: &TestDatabase, id: DeliveryId) -> Vec<bool> {
    let here = Reach::all(&WorkspaceId::default());
    let all = PageRequest {
        limit: 100,
        after: None,
    };
    let attempts = db.replica.attempts(&here, id, all).await.unwrap().items;
    attempts
        .iter()
        .map(|it| {
            let attempt = &it.attempt;
            assert_eq!(
                attempt.response_headers.is_empty(),
                attempt.response_excerpt.is_empty()
            );
            assert!(attempt.status.is_some(), "what it met stays");
            !attempt.response_excerpt.is_empty()
        })
        .collect()
}

async fn answers_go_and_attempts_stay(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    let mut old = Vec::new();
    for days in [12, 11, 10, 9, 9] {
        old.push(delivered(db, days * DAY).await);
    }
    let young = delivered(db, 6 * DAY).await;
    let held = lead(db).await;
    let step = async || db.store.remove_answers(&held, WEEK, 2).await.unwrap();
    let steps = sweep(step).await;
    assert_eq!(each(&steps, Kept::Answer), [2, 2, 1]);
    for id in old {
        assert_eq!(answers(db, id).await, [false]);
    }
    assert_eq!(answers(db, young).await, [true]);
    assert_eq!(db.count("attempt").await, 6);
    assert!(sweep(step).await.is_empty(), "each is looked at once");
}

async fn the_answer_to_a_late_attempt_goes_in_its_time(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let held = lead(db).await;
    let me = owner();
    let payload = event().build_at(ago(20 * DAY));
    let first = accept_leased(&db.store, &[payload], for_long(me))
        .await
        .remove(0);
    let again = Verdict::Retry {
        delay: Duration::ZERO,
    };
    record(db, me, &first, again.clone(), 20 * DAY).await;
    // The walk passes by; further attempts come behind it.
    let step = async || db.store.remove_answers(&held, WEEK, 9).await.unwrap();
    assert_eq!(each(&sweep(step).await, Kept::Answer), [1]);
    for (verdict, age) in [(again, 8 * DAY), (Verdict::Failed, 2 * DAY)] {
        let next = claim_all(&db.store, subscription.id, for_long(me)).await;
        record(db, me, &next[0], verdict, age).await;
    }
    assert_eq!(answers(db, first.id).await, [false, true, true]);
    assert_eq!(each(&sweep(step).await, Kept::Answer), [1]);
    assert_eq!(answers(db, first.id).await, [false, false, true]);
}

async fn old_entries_of_the_audit_log_go(db: &TestDatabase) {
    let entry = |workspace: &WorkspaceId, days: u32| AuditEntry {
        workspace: workspace.clone(),
        id: Entropy::system().id(ago(days * DAY)),
        actor: Actor::CommandLine,
        action: Action::SubscriptionDeleted,
        object: None,
        address: None,
        request_id: None,
        request: None,
        before: None,
        after: None,
    };
    let (here, there) = (workspace("ws_1"), workspace("ws_2"));
    let entries: Vec<_> = [(&here, 50), (&here, 45), (&here, 40), (&here, 20)]
        .into_iter()
        .chain([(&there, 35), (&there, 29)])
        .map(|(workspace, days)| entry(workspace, days))
        .collect();
    db.store.append_audit(&entries).await.unwrap();
    let held = lead(db).await;
    let steps = sweep(async || {
        let step = db.store.remove_audit_entries(&held, MONTH, 2);
        step.await.unwrap()
    });
    assert_eq!(each(&steps.await, Kept::AuditEntry), [2, 1, 1]);
    assert_eq!(db.count("audit_log").await, 2);
}

async fn a_key_outlives_its_event_and_is_forgotten_in_its_time(db: &TestDatabase) {
    let came = events(3);
    accept(&db.store, &came).await;
    grow_older(db, &EVENTS, 40).await;
    let held = lead(db).await;
    sweep_events(db, &held, 100).await;
    let keys = async || {
        let step = db.store.remove_event_keys(&held, 3 * MONTH, 2);
        step.await.unwrap()
    };
    assert!(sweep(keys).await.is_empty());
    let again = event().id(&came[0].event().external_id).build();
    let accepted = accept(&db.replica, &[again]).await;
    assert_eq!(accepted.outcomes, [AcceptOutcome::Duplicate]);

    accept(&db.store, &events(1)).await;
    grow_older(db, &[("event_key_age", "at")], 60).await;
    assert_eq!(each(&sweep(keys).await, Kept::EventKey), [2, 1]);
    assert_eq!(counts(db, ["event_key", "event_key_age"]).await, [1, 0]);
    let again = event().id(&came[0].event().external_id).build();
    let accepted = accept(&db.replica, &[again]).await;
    assert_eq!(accepted.outcomes, [AcceptOutcome::Stored]);
}

async fn the_key_of_an_event_of_our_own_is_forgotten_too(db: &TestDatabase) {
    db.store.open_outbox(Arc::new(Wake::default()));
    let own = event().build().event().clone();
    db.store.publish(&[own]).await.unwrap();
    assert_eq!(counts(db, ["event_key", "event"]).await, [1, 0]);
    let held = lead(db).await;
    let keys = async || {
        let step = db.store.remove_event_keys(&held, 3 * MONTH, 100);
        step.await.unwrap()
    };
    assert!(sweep(keys).await.is_empty());
    grow_older(db, &[("event_key_age", "at")], 91).await;
    sweep(keys).await;
    assert_eq!(counts(db, ["event_key", "event_key_age"]).await, [0, 0]);
}

async fn keys_of_calls_go_after_a_day(db: &TestDatabase) {
    let create = async |key: &str| {
        let once = Idempotency {
            caller: Entropy::system().id(SystemClock.now()),
            route: "POST /v1/subscriptions",
            key: key.to_owned(),
            fingerprint: [7; 32],
        };
        let new = registration(&WorkspaceId::default(), spec(&["*"]));
        let act = act();
        let created = db.store.create_subscription(&new, &act, Some(&once)).await;
        created.unwrap().created().unwrap();
    };
    for key in ["a", "b", "c"] {
        create(key).await;
    }
    let held = lead(db).await;
    let step = async || {
        let step = db.store.remove_idempotency_keys(&held, 2);
        step.await.unwrap()
    };
    assert!(sweep(step).await.is_empty());
    grow_older(db, &[("idempotency_key", "created_at")], 2).await;
    assert_eq!(each(&sweep(step).await, Kept::IdempotencyKey), [2, 1]);
    assert_eq!(db.count("idempotency_key").await, 0);
}

async fn who_was_deposed_removes_nothing(db: &TestDatabase) {
    const TABLES: [&str; 6] = [
        "event",
        "event_feed",
        "delivery",
        "attempt where response_excerpt <> ''",
        "audit_log",
        "event_key",
    ];
    let ping = subscribe(&db.store, &["*"]).await;
    delivered(db, 60 * DAY).await;
    let sent = event().build_at(ago(60 * DAY));
    db.store
        .record_test(sent.event(), ping.id, &taken())
        .await
        .unwrap();
    db.store.open_outbox(Arc::new(Wake::default()));
    let own = event().build().event().clone();
    db.store.publish(&[own]).await.unwrap();
    grow_older(db, &EVENTS, 60).await;
    grow_older(db, &[("event_key_age", "at")], 200).await;
    let before = counts(db, TABLES).await;

    let leasing = for_no_time(owner());
    let name = forge_dispatch::store::LeaseName::RETENTION;
    let held = db.store.take_lease(name, leasing).await.unwrap().unwrap();
    let leader = lead(db).await;
    let (store, none) = (&db.store, Duration::ZERO);
    for step in [
        store.remove_events(&held, MONTH, 9).await,
        store.remove_loose_events(&held, MONTH, None, 9).await,
        store.remove_answers(&held, none, 9).await,
        store.remove_audit_entries(&held, none, 9).await,
        store.remove_event_keys(&held, none, 9).await,
        store.remove_idempotency_keys(&held, 9).await,
        store.remove_replays(&held, none, 9).await,
        store
            .remove_rollups(&held, Resolution::Minute, none, 9)
            .await,
        store.remove_orphaned_rollups(&held, 9).await,
    ] {
        assert_eq!(step.unwrap(), None);
    }
    assert_eq!(counts(db, TABLES).await, before);
    sweep_events(db, &leader, 9).await;
    sweep_loose(db, &leader, 9).await;
    assert_eq!(db.count("event").await, 0);
}
