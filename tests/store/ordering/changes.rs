//! What changes around gates: the setting, what is told of them, and the subscription's end.

use std::time::Duration;

use forge_dispatch::domain::delivery::{DeliveryState, Lane, Verdict};
use forge_dispatch::domain::ids::{DeliveryId, WorkspaceId};
use forge_dispatch::domain::subscription::{Ordering, Subscription, SubscriptionSpec};
use forge_dispatch::store::{SettleOutcome, Window};

use super::super::fixture::{
    HOUR, accept, accept_leased, claim_all, count_in, deliveries, for_long, owner, record, settle,
    subscribe_in,
};
use super::{check, drain, event_ids, here, ids_of, of, ordered};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{act, spec};

on_both_databases!(
    order_that_is_asked_for_later_is_for_what_comes_then,
    order_that_is_given_up_lets_what_waits_drain,
    what_waits_its_turn_is_pending_and_not_late,
    what_waits_for_a_deleted_subscription_is_cancelled_and_its_gates_go,
);

/// The same subscription, with another ordering.
async fn reorder(db: &TestDatabase, before: &Subscription, ordering: Ordering) -> Subscription {
    let spec = SubscriptionSpec {
        ordering,
        ..before.spec.clone()
    };
    let changed = db
        .replica
        .update_subscription(
            &here(),
            before.id,
            before.version,
            &spec,
            &before.status,
            &act(),
        )
        .await;
    changed.unwrap().unwrap()
}

async fn order_that_is_asked_for_later_is_for_what_comes_then(db: &TestDatabase) {
    let spec = spec(&["*"]);
    let subscription = subscribe_in(&db.store, &WorkspaceId::default(), spec).await;
    accept(&db.store, &of("ed_1", 2)).await;
    reorder(db, &subscription, Ordering::ByEdition).await;
    let batch = of("ed_1", 2);
    accept(&db.store, &batch).await;
    check(db, "asked for").await;
    let me = owner();
    let due = claim_all(&db.store, subscription.id, for_long(me)).await;
    assert_eq!(due.len(), 3, "two of before, and the first in order");
    let first = due.iter().find(|one| one.gate.is_some()).unwrap();
    assert_eq!(
        settle(&db.store, me, first, Verdict::Succeeded).await,
        SettleOutcome::MadeWay(Lane::Fresh)
    );
    assert_eq!(
        event_ids(&drain(db, subscription.id).await),
        ids_of(&batch[1..])
    );
}

async fn order_that_is_given_up_lets_what_waits_drain(db: &TestDatabase) {
    let subscription = ordered(db).await;
    let batch = of("ed_1", 3);
    let me = owner();
    let born = accept_leased(&db.store, &batch, for_long(me)).await;
    let free = reorder(db, &subscription, Ordering::Unordered).await;
    let passing = of("ed_1", 1);
    let past = accept_leased(&db.store, &passing, for_long(me)).await;
    assert_eq!(event_ids(&past), ids_of(&passing), "it goes past them");
    check(db, "given up").await;
    settle(&db.store, me, &born[0], Verdict::Succeeded).await;
    // Asked for again, what comes queues behind what still waits.
    reorder(db, &free, Ordering::ByEdition).await;
    let late = of("ed_1", 1);
    accept(&db.store, &late).await;
    check(db, "asked for again").await;
    let sent = drain(db, subscription.id).await;
    let expected = [&batch[1..], &late].concat();
    assert_eq!(event_ids(&sent), ids_of(&expected));
}

async fn what_waits_its_turn_is_pending_and_not_late(db: &TestDatabase) {
    let subscription = ordered(db).await.id;
    let me = owner();
    let born = accept_leased(&db.store, &of("ed_1", 3), for_long(me)).await;
    let depth = db.store.queue_depth().await.unwrap();
    assert_eq!((depth.pending, depth.in_flight), (2, 1));
    assert_eq!(depth.oldest_due, None);
    let stats = db
        .store
        .subscription_stats(&here(), subscription, Window::NOW)
        .await;
    let stats = stats.unwrap().unwrap();
    assert_eq!((stats.pending.counted(), stats.in_flight.counted()), (2, 1));
    assert_eq!(stats.oldest_due, None);
    let due = db.replica.due(Duration::ZERO).await.unwrap();
    assert!(due.work.is_empty());
    let next = due.next_in.expect("the end of the head's lease");
    assert!(next > HOUR / 2, "{next:?}");

    let pending = DeliveryState::Pending;
    assert_eq!(
        count_in(&db.store, &WorkspaceId::default(), pending).await,
        2
    );
    let waiting: Vec<DeliveryId> = deliveries(&db.store, &WorkspaceId::default())
        .await
        .iter()
        .filter(|one| one.state == pending)
        .map(|one| {
            assert_eq!(one.due_at, None, "nobody knows when");
            one.id
        })
        .collect();
    settle(&db.store, me, &born[0], Verdict::Succeeded).await;
    let due_at = |id| async move { record(&db.store, id).await.due_at };
    let (one, other) = (due_at(waiting[0]).await, due_at(waiting[1]).await);
    assert_ne!(one.is_some(), other.is_some(), "the next one is due");
    assert!(db.store.queue_depth().await.unwrap().oldest_due.is_some());
}

async fn what_waits_for_a_deleted_subscription_is_cancelled_and_its_gates_go(db: &TestDatabase) {
    let subscription = ordered(db).await.id;
    let me = owner();
    let born = accept_leased(&db.store, &of("ed_1", 3), for_long(me)).await;
    accept(&db.store, &of("ed_2", 2)).await;
    db.store
        .delete_subscription(&here(), subscription, None, &act())
        .await
        .unwrap();
    assert_eq!(db.store.cancel_orphans(HOUR, 100).await.unwrap(), 4);
    // It was in flight, and what came of it counts, though nobody is behind it any more.
    assert_eq!(
        settle(&db.store, me, &born[0], Verdict::Succeeded).await,
        SettleOutcome::Settled
    );
    assert_eq!(db.store.cancel_orphans(HOUR, 100).await.unwrap(), 0);
    assert_eq!(db.count("delivery_queue").await, 0);
    assert!(db.count("order_gate").await > 0);
    let past = match db.kind {
        Kind::Sqlite => "update subscription set deleted_at = 1",
        Kind::Postgres => "update subscription set deleted_at = to_timestamp(1)",
    };
    db.tamper(past).await;
    // More than go at once.
    db.tamper(
        "with recursive many (number) as (
            select 1 union all select number + 1 from many where number < 10000
        )
        insert into order_gate (subscription_id, edition, workspace, depth, tail)
        select one.subscription_id, 'of_old_' || many.number, one.workspace, 1, 1
        from many cross join (select subscription_id, workspace from order_gate limit 1) as one",
    )
    .await;
    let swept = "subscription where swept";
    for (left, times) in [(true, 0), (false, 1)] {
        assert_eq!(db.store.cancel_orphans(HOUR, 100).await.unwrap(), 0);
        assert_eq!(db.count("order_gate").await > 0, left);
        assert_eq!(db.count(swept).await, times);
    }
}
