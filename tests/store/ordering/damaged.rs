//! Deliveries whose events are gone, or cannot be read: they end, and nobody waits for them for ever.

use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::attempt::{ErrorClass, Trigger};
use forge_dispatch::domain::delivery::{DeliveryState, Lane, MAX_LOST_LEASES, Verdict};
use forge_dispatch::domain::ids::{EventId, SubscriptionId};
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::domain::selection::{ReplayState, Selection};
use forge_dispatch::store::{Claim, Window};

use super::super::bulk_replay::{begin, finish, now, put_into_queue};
use super::super::fixture::{
    accept, accept_leased, claim_all, claim_of, for_long, for_no_time, owner, record, settle,
    subscribe,
};
use super::super::settle::attempts_of;
use super::{check, data_of, drain, event_ids, here, ids_of, of, ordered};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{event, events};

on_both_databases!(
    a_head_whose_event_cannot_be_read_fails_and_makes_way,
    a_head_whose_event_is_gone_fails_and_makes_way,
    one_without_order_fails_and_is_in_nobodys_way,
    what_is_replayed_and_cannot_be_read_counts_as_failed,
    an_event_that_can_be_read_again_in_time_is_sent,
);

/// How an event is damaged.
#[derive(Clone, Copy)]
enum Damage {
    Gone,
    Unreadable,
}

fn id_of(payload: &Payload) -> EventId {
    payload.event().id
}

fn quoted(db: &TestDatabase, id: EventId) -> String {
    match db.kind {
        Kind::Sqlite => format!("x'{}'", id.uuid().simple()),
        Kind::Postgres => format!("'{}'", id.uuid()),
    }
}

async fn damage(db: &TestDatabase, id: EventId, damage: Damage) {
    let id = quoted(db, id);
    db.tamper(&match damage {
        Damage::Gone => format!("delete from event where id = {id}"),
        Damage::Unreadable => format!("update event set project = '' where id = {id}"),
    })
    .await;
}

/// Makes every event readable that is there.
async fn mend(db: &TestDatabase) {
    db.tamper("update event set project = null").await;
}

/// Leases all that is due in a lane, as processes do that die of it.
async fn lose_a_lease(db: &TestDatabase, lane: Lane, subscription: SubscriptionId) -> Vec<String> {
    let claim = Claim {
        lane,
        ..claim_of(subscription, for_no_time(owner()))
    };
    event_ids(&db.replica.claim(&claim).await.unwrap())
}

/// So many leases of it are lost before the next claim ends it.
const LOST: u32 = MAX_LOST_LEASES + 1;

async fn makes_way(db: &TestDatabase, how: Damage) {
    let subscription = ordered(db).await.id;
    let batch = of("ed_1", 3);
    accept(&db.store, &batch).await;
    damage(db, id_of(&batch[0]), how).await;
    for lost in 0..LOST {
        let sent = lose_a_lease(db, Lane::Fresh, subscription).await;
        assert!(sent.is_empty(), "{lost}: {sent:?}");
        assert_eq!(db.count("delivery_queue").await, 3, "{lost}");
        check(db, "passed over").await;
    }
    let sent = lose_a_lease(db, Lane::Fresh, subscription).await;
    assert!(sent.is_empty(), "{sent:?}");
    check(db, "given up").await;
    assert_eq!(db.count("delivery_queue").await, 2);
    let failed = format!(
        "delivery where state = 'failed' and attempts = 1 and event_id = {}",
        quoted(db, id_of(&batch[0]))
    );
    assert_eq!(db.count(&failed).await, 1);
    assert_eq!(
        event_ids(&drain(db, subscription).await),
        ids_of(&batch[1..])
    );
    assert_eq!(db.count("order_gate").await, 0);
}

async fn a_head_whose_event_cannot_be_read_fails_and_makes_way(db: &TestDatabase) {
    makes_way(db, Damage::Unreadable).await;
}

async fn a_head_whose_event_is_gone_fails_and_makes_way(db: &TestDatabase) {
    makes_way(db, Damage::Gone).await;
}

async fn one_without_order_fails_and_is_in_nobodys_way(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["edition.*"]).await.id;
    // Nobody knows what it was, and so nobody is told.
    subscribe(&db.store, &["delivery.failed"]).await;
    let batch = events(2);
    let damaged = id_of(&batch[0]);
    let born = accept_leased(&db.store, &batch, for_no_time(owner())).await;
    let id = born[0].id;
    damage(db, damaged, Damage::Unreadable).await;
    // (That it was born leased is one lease more that it lost.)
    for lost in 1..LOST {
        let sent = lose_a_lease(db, Lane::Fresh, subscription).await;
        assert_eq!(sent, ids_of(&batch[1..]), "{lost}");
        assert_eq!(db.count("delivery_queue").await, 2, "{lost}");
    }
    let me = owner();
    let sent = claim_all(&db.store, subscription, for_long(me)).await;
    assert_eq!(event_ids(&sent), ids_of(&batch[1..]));
    mend(db).await;
    let ended = record(&db.store, id).await;
    assert_eq!((ended.state, ended.attempts), (DeliveryState::Failed, 1));
    let attempts = attempts_of(&db.store, id).await;
    assert_eq!(attempts.len(), 1);
    assert!(!attempts[0].lease_lost);
    let attempt = &attempts[0].attempt;
    assert_eq!(
        (attempt.error, attempt.status, attempt.trigger),
        (Some(ErrorClass::Internal), None, Trigger::Schedule)
    );
    settle(&db.store, me, &sent[0], Verdict::Succeeded).await;
    assert_eq!(db.count("delivery_queue").await, 0);
    assert_eq!(db.count("event").await, 2, "nothing is told");
    let stats = db
        .store
        .subscription_stats(&here(), subscription, Window::NOW)
        .await;
    assert_eq!(stats.unwrap().unwrap().pending.counted(), 0);
}

async fn what_is_replayed_and_cannot_be_read_counts_as_failed(db: &TestDatabase) {
    let subscription = ordered(db).await.id;
    let mut kept = Vec::new();
    for (seconds_ago, edition, verdict) in [
        (3, "ed_1", Verdict::Failed),
        (2, "ed_2", Verdict::Succeeded),
        (1, "ed_2", Verdict::Failed),
    ] {
        let me = owner();
        // (Those of one millisecond have no order that a replay keeps.)
        let came = SystemClock.now() - Duration::from_secs(seconds_ago);
        let payload = event().data(&data_of(edition)).build_at(came);
        let born = accept_leased(&db.store, &[payload], for_long(me)).await;
        settle(&db.store, me, &born[0], verdict).await;
        kept.extend(born);
    }
    let selection = Selection {
        states: vec![DeliveryState::Failed, DeliveryState::Succeeded],
        ..Selection::default()
    };
    let many = begin(db, selection).await;
    put_into_queue(db, &many).await;
    for damaged in &kept[..2] {
        damage(db, id_of(&damaged.payload), Damage::Unreadable).await;
    }
    for _ in 0..=LOST {
        lose_a_lease(db, Lane::Replay, subscription).await;
        check(db, "passed over").await;
    }
    let counted = now(db, &many).await;
    assert_eq!((counted.queued, counted.done, counted.failed), (3, 0, 2));
    mend(db).await;
    for (delivery, state) in kept.iter().zip([
        DeliveryState::Failed,
        // What had been taken was taken.
        DeliveryState::Succeeded,
    ]) {
        let now = record(&db.store, delivery.id).await;
        assert_eq!((now.state, now.attempts), (state, 2));
        let attempts = attempts_of(&db.store, delivery.id).await;
        assert!(
            attempts
                .iter()
                .any(|one| one.attempt.trigger == Trigger::Replay)
        );
    }
    let sent = drain(db, subscription).await;
    assert_eq!(event_ids(&sent), event_ids(&kept[2..]));
    let ended = finish(db, &many).await;
    assert_eq!(ended.state, ReplayState::Done);
    assert_eq!((ended.done, ended.failed), (1, 2));
}

async fn an_event_that_can_be_read_again_in_time_is_sent(db: &TestDatabase) {
    let subscription = ordered(db).await.id;
    let batch = of("ed_1", 2);
    accept(&db.store, &batch).await;
    damage(db, id_of(&batch[0]), Damage::Unreadable).await;
    for _ in 0..LOST {
        assert!(lose_a_lease(db, Lane::Fresh, subscription).await.is_empty());
    }
    mend(db).await;
    assert_eq!(event_ids(&drain(db, subscription).await), ids_of(&batch));
}
