//! Replaying one delivery.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::attempt::Trigger;
use forge_dispatch::domain::audit::Action;
use forge_dispatch::domain::delivery::{DeliveryState, Lane, Verdict};
use forge_dispatch::domain::ids::{DeliveryId, SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::replay::{Refusal, Replaying, Was};
use forge_dispatch::domain::subscription::SubscriptionStatus;
use forge_dispatch::store::{
    AuditFilter, Claim, LeasedDelivery, PageRequest, Requeued, SettleOutcome, Store, Window,
};

use super::fixture::{
    HOUR, accept, accept_leased, claim_of, deliveries, disable, for_long, for_no_time, owner,
    record, refused, set_status, settle, settlement, subscribe, subscribe_in,
};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{act, event, events, reach, spec_for_projects, workspace};

on_both_databases!(
    what_failed_is_pending_again_with_a_schedule_that_begins_anew,
    what_succeeded_is_sent_once_more_and_stays_so,
    what_waits_is_sent_now_and_goes_back_to_its_time,
    what_was_never_tried_goes_back_to_the_fresh_lane,
    a_receiver_that_asks_for_time_gets_it_from_a_replay_too,
    what_cannot_be_replayed_is_refused_with_the_reason,
    what_is_replayed_already_is_not_replayed_twice,
    what_is_given_back_unsent_is_still_a_replay,
    a_replay_whose_lease_was_lost_is_taken_over,
    a_replay_that_is_settled_twice_counts_once,
    gone_disables_the_subscription_of_a_replay_too,
    deleting_the_subscription_ends_each_replay_as_it_should,
    a_delivery_out_of_reach_is_not_replayed,
    the_audit_log_tells_of_a_replay,
    what_is_replayed_is_counted_among_what_waits,
    what_waited_before_the_migration_waits_behind_it,
);

fn here() -> Reach {
    Reach::all(&WorkspaceId::default())
}

async fn replay(db: &TestDatabase, id: DeliveryId) -> Requeued {
    let answer = db.replica.replay_delivery(&here(), id, &act()).await;
    answer.unwrap().expect("it is in reach")
}

/// A delivery that was born leased and settled so.
async fn settled(db: &TestDatabase, verdict: Verdict) -> LeasedDelivery {
    let me = owner();
    let delivery = accept_leased(&db.store, &events(1), for_long(me))
        .await
        .remove(0);
    let outcome = settle(&db.store, me, &delivery, verdict).await;
    assert_eq!(outcome, SettleOutcome::Settled);
    delivery
}

async fn claim_from(
    db: &TestDatabase,
    lane: Lane,
    subscription: SubscriptionId,
) -> Vec<(LeasedDelivery, forge_dispatch::domain::ids::OwnerId)> {
    let me = owner();
    let claim = Claim {
        lane,
        ..claim_of(subscription, for_long(me))
    };
    let claimed = db.store.claim(&claim).await.unwrap();
    claimed.into_iter().map(|leased| (leased, me)).collect()
}

/// The one delivery of a lane.
async fn claim_one(
    db: &TestDatabase,
    lane: Lane,
    subscription: SubscriptionId,
) -> (LeasedDelivery, forge_dispatch::domain::ids::OwnerId) {
    let mut claimed = claim_from(db, lane, subscription).await;
    assert_eq!(claimed.len(), 1, "{lane:?}");
    claimed.remove(0)
}

fn alone(was: Was) -> Replaying {
    Replaying { was, bulk: None }
}

async fn epochs(store: &Arc<dyn Store>, id: DeliveryId) -> Vec<i32> {
    let page = PageRequest {
        limit: 100,
        after: None,
    };
    let kept = store.attempts(&here(), id, page).await.unwrap();
    kept.items.iter().map(|kept| kept.epoch).collect()
}

async fn what_failed_is_pending_again_with_a_schedule_that_begins_anew(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    let failed = settled(db, Verdict::Failed).await;
    assert_eq!(replay(db, failed.id).await, Ok(Was::Failed));
    let now = record(&db.store, failed.id).await;
    assert_eq!((now.state, now.attempts), (DeliveryState::Pending, 1));
    assert!(now.due_at.unwrap() <= SystemClock.now() && now.settled_at.is_none());
    assert_eq!(
        deliveries(&db.store, &WorkspaceId::default()).await.len(),
        1
    );
    assert!(claim_from(db, Lane::Retry, subscription).await.is_empty());

    let (leased, me) = claim_one(db, Lane::Replay, subscription).await;
    assert_eq!(leased.id, failed.id);
    assert_eq!(leased.payload.event().id, failed.payload.event().id);
    assert_eq!(
        (leased.epoch, leased.attempts, leased.base, leased.lane),
        (2, 1, 1, Lane::Replay)
    );
    assert_eq!(leased.replaying, Some(alone(Was::Failed)));
    let again = Verdict::Retry {
        delay: Duration::ZERO,
    };
    settle(&db.store, me, &leased, again).await;
    let (retried, me) = claim_one(db, Lane::Retry, subscription).await;
    assert_eq!(
        (retried.epoch, retried.attempts, retried.base),
        (3, 2, 1),
        "one step of the new schedule is spent"
    );
    assert_eq!(retried.replaying, None, "the schedule's own attempt");
    settle(&db.store, me, &retried, Verdict::Succeeded).await;
    let done = record(&db.store, failed.id).await;
    assert_eq!((done.state, done.attempts), (DeliveryState::Succeeded, 3));
    assert_eq!(epochs(&db.store, failed.id).await, [1, 2, 3]);
}

async fn what_succeeded_is_sent_once_more_and_stays_so(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    let first = settled(db, Verdict::Succeeded).await;
    let before = record(&db.store, first.id).await;
    for (number, verdict) in [Verdict::Repeated, Verdict::Succeeded]
        .into_iter()
        .enumerate()
    {
        let attempts = u32::try_from(number).unwrap() + 2;
        assert_eq!(replay(db, first.id).await, Ok(Was::Succeeded));
        assert_eq!(
            record(&db.store, first.id).await,
            before_with(&before, attempts - 1)
        );
        let listed = deliveries(&db.store, &WorkspaceId::default()).await;
        assert_eq!(listed.len(), 1, "it is listed once");
        let (leased, me) = claim_one(db, Lane::Replay, subscription).await;
        assert_eq!(leased.replaying, Some(alone(Was::Succeeded)));
        assert_eq!(leased.epoch, i32::try_from(attempts).unwrap());
        assert_eq!(
            record(&db.store, first.id).await.state,
            DeliveryState::Succeeded
        );
        let outcome = settle(&db.store, me, &leased, verdict).await;
        assert_eq!(outcome, SettleOutcome::Settled);
        assert_eq!(
            record(&db.replica, first.id).await,
            before_with(&before, attempts)
        );
    }
    let depth = db.store.queue_depth().await.unwrap();
    assert_eq!((depth.pending, depth.in_flight), (0, 0));
    assert_eq!(epochs(&db.store, first.id).await, [1, 2, 3]);
}

fn before_with(
    before: &forge_dispatch::store::DeliveryRecord,
    attempts: u32,
) -> forge_dispatch::store::DeliveryRecord {
    forge_dispatch::store::DeliveryRecord {
        attempts,
        ..before.clone()
    }
}

async fn what_waits_is_sent_now_and_goes_back_to_its_time(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    let waiting = settled(db, Verdict::Retry { delay: HOUR }).await;
    let before = record(&db.store, waiting.id).await;
    assert_eq!(replay(db, waiting.id).await, Ok(Was::Pending));
    assert!(record(&db.store, waiting.id).await.due_at.unwrap() <= SystemClock.now());
    let (leased, me) = claim_one(db, Lane::Replay, subscription).await;
    assert_eq!(leased.replaying, Some(alone(Was::Pending)));
    let resumed = Verdict::Resumed {
        not_before: Duration::ZERO,
    };
    settle(&db.store, me, &leased, resumed).await;
    let after = record(&db.store, waiting.id).await;
    assert_eq!(after.due_at, before.due_at, "back to its time");
    assert_eq!((after.state, after.attempts), (DeliveryState::Pending, 2));

    // And now one that is taken.
    assert_eq!(replay(db, waiting.id).await, Ok(Was::Pending));
    let (leased, me) = claim_one(db, Lane::Replay, subscription).await;
    assert_eq!(
        (leased.attempts, leased.base),
        (2, 1),
        "one step of the schedule was spent, and no more"
    );
    settle(&db.store, me, &leased, Verdict::Succeeded).await;
    let done = record(&db.store, waiting.id).await;
    assert_eq!((done.state, done.attempts), (DeliveryState::Succeeded, 3));
}

async fn what_was_never_tried_goes_back_to_the_fresh_lane(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    accept(&db.store, &events(1)).await;
    let id = deliveries(&db.store, &WorkspaceId::default()).await[0].id;
    assert_eq!(replay(db, id).await, Ok(Was::Pending));
    assert!(claim_from(db, Lane::Fresh, subscription).await.is_empty());
    let (leased, me) = claim_one(db, Lane::Replay, subscription).await;
    let resumed = Verdict::Resumed {
        not_before: Duration::ZERO,
    };
    settle(&db.store, me, &leased, resumed).await;
    let (leased, _) = claim_one(db, Lane::Fresh, subscription).await;
    assert_eq!((leased.attempts, leased.base), (1, 1));
    assert_eq!(leased.replaying, None);
}

async fn a_receiver_that_asks_for_time_gets_it_from_a_replay_too(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    let soon = Duration::from_mins(1);
    let waiting = settled(db, Verdict::Retry { delay: soon }).await;
    replay(db, waiting.id).await.unwrap();
    let (leased, me) = claim_one(db, Lane::Replay, subscription).await;
    let mut outcome = settlement(&leased, Verdict::Resumed { not_before: HOUR });
    outcome.attempt = Some(refused(429));
    db.store.settle(me, &[outcome]).await.unwrap();
    let due = record(&db.store, waiting.id).await.due_at.unwrap() - SystemClock.now();
    assert!(due.num_minutes() > 50, "{due}");
}

async fn what_cannot_be_replayed_is_refused_with_the_reason(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let in_flight = accept_leased(&db.store, &events(1), for_long(owner()))
        .await
        .remove(0);
    assert_eq!(replay(db, in_flight.id).await, Err(Refusal::InFlight));
    let failed = settled(db, Verdict::Failed).await;
    let forgotten = settled(db, Verdict::Failed).await;
    let waiting = settled(db, Verdict::Retry { delay: HOUR }).await;

    let id = forgotten.payload.event().id.uuid().simple().to_string();
    match db.kind {
        Kind::Sqlite => {
            db.tamper(&format!("delete from event where id = x'{id}'"))
                .await;
        }
        Kind::Postgres => {
            db.tamper(&format!("delete from event where id = '{id}'"))
                .await;
        }
    }
    let answer = db
        .store
        .replay_delivery(&here(), forgotten.id, &act())
        .await;
    assert_eq!(answer.unwrap(), None, "without its event it is in no list");

    let subscription = disable(&db.store, &subscription).await;
    for id in [failed.id, waiting.id] {
        assert_eq!(replay(db, id).await, Err(Refusal::SubscriptionDisabled));
    }
    let subscription = set_status(&db.store, &subscription, SubscriptionStatus::Active).await;
    let deleted = db
        .store
        .delete_subscription(&here(), subscription.id, None, &act())
        .await;
    assert!(deleted.unwrap());
    assert_eq!(
        replay(db, failed.id).await,
        Err(Refusal::SubscriptionDeleted)
    );
    while db.store.cancel_orphans(Duration::ZERO, 100).await.unwrap() > 0 {}
    assert_eq!(replay(db, waiting.id).await, Err(Refusal::Cancelled));
    let after = record(&db.store, failed.id).await;
    assert_eq!((after.state, after.attempts), (DeliveryState::Failed, 1));
}

async fn what_is_replayed_already_is_not_replayed_twice(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    for verdict in [
        Verdict::Failed,
        Verdict::Succeeded,
        Verdict::Retry { delay: HOUR },
    ] {
        let id = settled(db, verdict).await.id;
        replay(db, id).await.unwrap();
        assert_eq!(replay(db, id).await, Err(Refusal::AlreadyReplaying));
    }
    let claimed = claim_from(db, Lane::Replay, subscription).await;
    assert_eq!(claimed.len(), 3);
    for (leased, _) in &claimed {
        assert_eq!(replay(db, leased.id).await, Err(Refusal::InFlight));
    }
}

async fn what_is_given_back_unsent_is_still_a_replay(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    for (verdict, was) in [
        (Verdict::Failed, Was::Failed),
        (Verdict::Succeeded, Was::Succeeded),
        (Verdict::Retry { delay: HOUR }, Was::Pending),
    ] {
        let id = settled(db, verdict).await.id;
        replay(db, id).await.unwrap();
        let (leased, me) = claim_one(db, Lane::Replay, subscription).await;
        settle(&db.store, me, &leased, Verdict::Released).await;
        let (again, me) = claim_one(db, Lane::Replay, subscription).await;
        assert_eq!((again.id, again.epoch), (id, 3));
        assert_eq!(again.replaying, Some(alone(was)));
        settle(&db.store, me, &again, Verdict::Succeeded).await;
        assert_eq!(record(&db.store, id).await.attempts, 2);
    }
}

async fn a_replay_whose_lease_was_lost_is_taken_over(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    let id = settled(db, Verdict::Succeeded).await.id;
    replay(db, id).await.unwrap();
    let gone = owner();
    let claim = Claim {
        lane: Lane::Replay,
        ..claim_of(subscription, for_no_time(gone))
    };
    let lost = db.store.claim(&claim).await.unwrap().remove(0);
    let (taken, me) = claim_one(db, Lane::Replay, subscription).await;
    assert_eq!((taken.epoch, taken.lost_leases), (3, 1));
    assert_eq!(taken.replaying, Some(alone(Was::Succeeded)));
    let late = settle(&db.store, gone, &lost, Verdict::Succeeded).await;
    assert_eq!(late, SettleOutcome::LeaseLost);
    settle(&db.store, me, &taken, Verdict::Succeeded).await;
    let done = record(&db.store, id).await;
    assert_eq!((done.state, done.attempts), (DeliveryState::Succeeded, 2));
}

async fn a_replay_that_is_settled_twice_counts_once(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    let id = settled(db, Verdict::Succeeded).await.id;
    replay(db, id).await.unwrap();
    let (leased, me) = claim_one(db, Lane::Replay, subscription).await;
    let mut outcome = settlement(&leased, Verdict::Repeated);
    outcome.attempt = Some(forge_dispatch::domain::attempt::Attempt {
        trigger: Trigger::Replay,
        ..refused(500)
    });
    for _ in 0..2 {
        let outcomes = db.store.settle(me, &[outcome.clone()]).await.unwrap();
        assert_eq!(outcomes, [SettleOutcome::Settled]);
    }
    assert_eq!(record(&db.store, id).await.attempts, 2);
    assert_eq!(epochs(&db.store, id).await, [1, 2]);
}

async fn gone_disables_the_subscription_of_a_replay_too(db: &TestDatabase) {
    for (verdict, state) in [
        (Verdict::Failed, DeliveryState::Failed),
        (Verdict::Succeeded, DeliveryState::Succeeded),
        (Verdict::Retry { delay: HOUR }, DeliveryState::Failed),
    ] {
        let subscription = subscribe(&db.store, &["edition.*"]).await;
        let id = settled(db, verdict).await.id;
        replay(db, id).await.unwrap();
        let (leased, me) = claim_one(db, Lane::Replay, subscription.id).await;
        settle(&db.store, me, &leased, Verdict::Gone).await;
        let now = record(&db.store, id).await;
        assert_eq!((now.state, now.attempts), (state, 2));
        let kept = db.store.subscription(&here(), subscription.id).await;
        let status = kept.unwrap().unwrap().status;
        assert!(matches!(status, SubscriptionStatus::Disabled { .. }));
    }
}

async fn deleting_the_subscription_ends_each_replay_as_it_should(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    let failed = settled(db, Verdict::Failed).await.id;
    let succeeded = settled(db, Verdict::Succeeded).await.id;
    let waiting = settled(db, Verdict::Retry { delay: HOUR }).await.id;
    for id in [failed, succeeded, waiting] {
        replay(db, id).await.unwrap();
    }
    let deleted = db
        .store
        .delete_subscription(&here(), subscription, None, &act())
        .await;
    assert!(deleted.unwrap());
    while db.store.cancel_orphans(Duration::ZERO, 100).await.unwrap() > 0 {}
    let state = async |id| record(&db.store, id).await.state;
    assert_eq!(state(failed).await, DeliveryState::Cancelled);
    assert_eq!(state(succeeded).await, DeliveryState::Succeeded);
    assert_eq!(state(waiting).await, DeliveryState::Cancelled);
    let depth = db.store.queue_depth().await.unwrap();
    assert_eq!(depth.pending + depth.in_flight, 0);
}

async fn a_delivery_out_of_reach_is_not_replayed(db: &TestDatabase) {
    let default = WorkspaceId::default();
    subscribe_in(&db.store, &default, spec_for_projects(&["*"], &["pr_1"])).await;
    let me = owner();
    let sent = event().project("pr_1").build();
    let failed = accept_leased(&db.store, &[sent], for_long(me))
        .await
        .remove(0);
    settle(&db.store, me, &failed, Verdict::Failed).await;
    for elsewhere in [Reach::all(&workspace("ws_2")), reach(&default, &["pr_2"])] {
        let answer = db
            .store
            .replay_delivery(&elsewhere, failed.id, &act())
            .await;
        assert_eq!(answer.unwrap(), None);
    }
    assert_eq!(
        record(&db.store, failed.id).await.state,
        DeliveryState::Failed
    );
    let own = reach(&default, &["pr_1", "pr_3"]);
    let answer = db.store.replay_delivery(&own, failed.id, &act()).await;
    assert_eq!(answer.unwrap(), Some(Ok(Was::Failed)));
}

async fn the_audit_log_tells_of_a_replay(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    let id = settled(db, Verdict::Failed).await.id;
    replay(db, id).await.unwrap();
    replay(db, id).await.unwrap_err();
    let filter = AuditFilter {
        action: Some(Action::DeliveryReplayed),
        ..AuditFilter::default()
    };
    let page = PageRequest {
        limit: 10,
        after: None,
    };
    let workspace = WorkspaceId::default();
    let told = db.store.audit_log(&workspace, &filter, page).await.unwrap();
    assert_eq!(told.items.len(), 1, "what changed nothing is not told");
    assert_eq!(told.items[0].object, Some(id.to_string()));
    assert_eq!(
        told.items[0].after,
        Some(serde_json::json!({"was": "failed"}))
    );
}

async fn what_is_replayed_is_counted_among_what_waits(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    let id = settled(db, Verdict::Failed).await.id;
    replay(db, id).await.unwrap();
    let stats = async || {
        let found = db
            .store
            .subscription_stats(&here(), subscription, Window::NOW)
            .await;
        let found = found.unwrap().unwrap();
        (found.pending.counted(), found.in_flight.counted())
    };
    assert_eq!(stats().await, (1, 0));
    let depth = db.store.queue_depth().await.unwrap();
    assert!(depth.oldest_due.is_some(), "it is due");
    let due = db.store.due(Duration::ZERO).await.unwrap();
    let lanes: Vec<Lane> = due.work.iter().map(|(_, lane)| *lane).collect();
    assert_eq!(lanes, [Lane::Replay]);
    claim_one(db, Lane::Replay, subscription).await;
    assert_eq!(stats().await, (0, 1));
}

async fn what_waited_before_the_migration_waits_behind_it(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    let again = Verdict::Retry {
        delay: Duration::ZERO,
    };
    let retried = settled(db, again).await.id;
    accept(&db.store, &events(2)).await;
    let before = deliveries(&db.store, &WorkspaceId::default()).await;
    // As the migration before this one left it; those behind it are made once more with it.
    for undo in [
        "drop table order_gate",
        "drop index delivery_queue_of_gate",
        "alter table subscription drop column ordering",
        "delete from _sqlx_migrations where version = 16",
        "drop table replay",
    ] {
        db.tamper(undo).await;
    }
    db.tamper("drop index delivery_queue_of_replay").await;
    if db.kind == Kind::Postgres {
        let columns = "alter table delivery_queue drop column base, drop column replayed,
            drop column former_at, drop column replay_id, drop column gate,
            drop column ord";
        db.tamper(columns).await;
    }
    db.tamper("delete from _sqlx_migrations where version = 13")
        .await;
    let store = db.open().await;
    store.migrate().await.unwrap();
    assert_eq!(deliveries(&store, &WorkspaceId::default()).await, before);
    let (leased, _) = claim_one(db, Lane::Retry, subscription).await;
    assert_eq!((leased.id, leased.epoch, leased.attempts), (retried, 2, 1));
    assert_eq!((leased.base, leased.replaying), (0, None));
    assert_eq!(claim_from(db, Lane::Fresh, subscription).await.len(), 2);
    store.close().await;
}
