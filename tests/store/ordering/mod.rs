//! Order per edition: who may go, who waits, and who is next.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::domain::delivery::{DeliveryState, Verdict};
use forge_dispatch::domain::ids::{DeliveryId, SubscriptionId, WorkspaceId};
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::subscription::{
    Ordering, Subscription, SubscriptionSpec, SubscriptionStatus,
};
use forge_dispatch::store::{LeasedDelivery, SettleOutcome, Window};
use tokio::sync::Barrier;

use super::fixture::{
    HOUR, Permits, accept, accept_leased, claim_all, count_in, for_long, for_no_time, owner,
    record, set_status, settle, settlement, subscribe_in,
};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{act, event, events, spec};

mod churn;
mod history;
mod replayed;

on_both_databases!(
    an_editions_events_go_one_by_one_while_others_flow_on,
    only_the_first_at_a_gate_is_born_leased,
    what_an_accept_that_comes_again_adopts_is_the_head,
    a_head_stays_the_head_until_it_is_settled_for_good,
    what_failed_for_good_makes_way,
    a_receiver_that_is_gone_keeps_its_order_until_it_is_back,
    a_head_whose_process_died_is_taken_over_and_nobody_passes_it,
    an_outcome_that_comes_twice_makes_way_once,
    accepts_at_once_of_one_edition_agree_on_one_order,
    an_accept_beside_a_settle_leaves_nobody_stuck,
    order_that_is_asked_for_later_is_for_what_comes_then,
    order_that_is_given_up_lets_what_waits_drain,
    what_waits_its_turn_is_pending_and_not_late,
    what_waits_for_a_deleted_subscription_is_cancelled_and_its_gates_go,
);

/// Asks for everything, in order.
async fn ordered(db: &TestDatabase) -> Subscription {
    let spec = SubscriptionSpec {
        ordering: Ordering::ByEdition,
        ..spec(&["*"])
    };
    subscribe_in(&db.store, &WorkspaceId::default(), spec).await
}

fn here() -> Reach {
    Reach::all(&WorkspaceId::default())
}

/// So many events of an edition.
fn of(edition: &str, count: usize) -> Vec<Arc<Payload>> {
    let data = serde_json::json!({"edition_id": edition}).to_string();
    (0..count).map(|_| event().data(&data).build()).collect()
}

fn event_ids(deliveries: &[LeasedDelivery]) -> Vec<String> {
    let ids = deliveries.iter();
    ids.map(|delivery| delivery.payload.event().id.to_string())
        .collect()
}

fn ids_of(events: &[Arc<Payload>]) -> Vec<String> {
    events
        .iter()
        .map(|payload| payload.event().id.to_string())
        .collect()
}

/// Where what waits its turn is visible.
fn never(db: &TestDatabase) -> &'static str {
    match db.kind {
        Kind::Sqlite => "9223372036854775807",
        Kind::Postgres => "'infinity'",
    }
}

/// What must hold between any two transactions: a gate knows how many are at it, and of those the first
/// may go and no other.
async fn check(db: &TestDatabase, when: &str) {
    let miscounted = "order_gate g where depth <> (
        select count(*) from delivery_queue q
        where q.subscription_id = g.subscription_id and q.gate = g.edition
            and q.workspace = g.workspace
    )";
    assert_eq!(db.count(miscounted).await, 0, "{when}: a gate miscounts");
    let homeless = "delivery_queue q where gate is not null and not exists (
        select 1 from order_gate g
        where g.subscription_id = q.subscription_id and g.edition = q.gate
    )";
    assert_eq!(db.count(homeless).await, 0, "{when}: a gate is missing");
    let misplaced = format!(
        "delivery_queue q where gate is not null and (visible_at = {}) = (not exists (
            select 1 from delivery_queue b
            where b.subscription_id = q.subscription_id and b.gate = q.gate and b.ord < q.ord
        ))",
        never(db)
    );
    assert_eq!(
        db.count(&misplaced).await,
        0,
        "{when}: one is stuck, or passes another"
    );
    let twice = "(
        select 1 as one from delivery_queue where gate is not null
        group by subscription_id, gate, ord having count(*) > 1
    ) as twice";
    assert_eq!(db.count(twice).await, 0, "{when}: two have one place");
}

/// Claims and settles all that is due, again and again, until nothing is; in the order of the claims.
async fn drain(db: &TestDatabase, subscription: SubscriptionId) -> Vec<LeasedDelivery> {
    let mut sent = Vec::new();
    loop {
        let me = owner();
        let due = claim_all(&db.store, subscription, for_long(me)).await;
        if due.is_empty() {
            check(db, "drained").await;
            return sent;
        }
        for delivery in &due {
            settle(&db.store, me, delivery, Verdict::Succeeded).await;
        }
        sent.extend(due);
    }
}

async fn an_editions_events_go_one_by_one_while_others_flow_on(db: &TestDatabase) {
    let subscription = ordered(db).await.id;
    let (one, two, none) = (of("ed_1", 3), of("ed_2", 2), events(2));
    let all = [one.as_slice(), &two, &none].concat();
    assert_eq!(
        accept(&db.store, &all).await.pending,
        4,
        "two heads, and two that wait for nobody"
    );
    check(db, "accepted").await;

    let me = owner();
    let first = claim_all(&db.replica, subscription, for_long(me)).await;
    assert_eq!(first.len(), 4);
    assert!(
        claim_all(&db.store, subscription, for_long(me))
            .await
            .is_empty()
    );
    let head = |edition: &str| {
        first
            .iter()
            .find(|one| {
                one.gate
                    .as_ref()
                    .is_some_and(|gate| gate.as_str() == edition)
            })
            .unwrap()
    };
    let free = first.iter().filter(|one| one.gate.is_none()).count();
    assert_eq!(free, 2);
    assert_eq!(
        settle(&db.store, me, head("ed_1"), Verdict::Succeeded).await,
        SettleOutcome::MadeWay
    );
    check(db, "one settled").await;
    let second = claim_all(&db.store, subscription, for_long(me)).await;
    assert_eq!(event_ids(&second), ids_of(&one[1..2]));
    settle(&db.store, me, &second[0], Verdict::Succeeded).await;
    let third = claim_all(&db.replica, subscription, for_long(me)).await;
    assert_eq!(event_ids(&third), ids_of(&one[2..]));
    assert_eq!(
        settle(&db.store, me, &third[0], Verdict::Succeeded).await,
        SettleOutcome::Settled,
        "nobody is behind it"
    );
    assert_eq!(db.count("order_gate").await, 1, "an empty gate is gone");

    // A batch in which gates are left, and what kept no order is settled too.
    let rest: Vec<_> = first
        .iter()
        .filter(|one| one.id != head("ed_1").id)
        .map(|one| settlement(one, Verdict::Succeeded))
        .collect();
    let outcomes = db.store.settle(me, &rest).await.unwrap();
    let made_way = outcomes.iter().filter(|it| **it == SettleOutcome::MadeWay);
    assert_eq!(made_way.count(), 1);
    assert_eq!(event_ids(&drain(db, subscription).await), ids_of(&two[1..]));
    assert_eq!(db.count("order_gate").await, 0);
}

async fn only_the_first_at_a_gate_is_born_leased(db: &TestDatabase) {
    ordered(db).await;
    let (one, two) = (of("ed_1", 3), of("ed_2", 1));
    let permits = Permits::of(usize::MAX);
    let me = owner();
    let batch = [one.as_slice(), &two].concat();
    let born = db.store.accept(&batch, for_long(me), &permits).await;
    let born = born.unwrap();
    assert_eq!((born.leased.len(), born.pending), (2, 0));
    assert_eq!(permits.asked.lock().unwrap().len(), 2);
    let leased: Vec<_> = born.leased.into_iter().map(|(leased, _)| leased).collect();
    assert_eq!(
        event_ids(&leased),
        ids_of(&[one[..1].to_vec(), two].concat())
    );
    check(db, "born").await;

    let later = accept_leased(&db.replica, &of("ed_1", 1), for_long(me)).await;
    assert!(later.is_empty(), "it waits behind those before it");
    check(db, "another came").await;
    settle(&db.store, me, &leased[0], Verdict::Succeeded).await;
    check(db, "the head was settled").await;
}

async fn what_an_accept_that_comes_again_adopts_is_the_head(db: &TestDatabase) {
    let subscription = ordered(db).await.id;
    let batch = of("ed_1", 3);
    let me = owner();
    let born = accept_leased(&db.store, &batch, for_long(me)).await;
    let again = accept_leased(&db.store, &batch, for_long(me)).await;
    assert_eq!(event_ids(&again), event_ids(&born));
    assert_eq!(again[0].gate, born[0].gate);
    check(db, "adopted").await;
    // Without a permit it waits for anyone.
    let accepted = db
        .store
        .accept(&batch, for_long(me), &Permits::of(0))
        .await
        .unwrap();
    assert_eq!((accepted.leased.len(), accepted.pending), (0, 1));
    check(db, "given back").await;
    assert_eq!(event_ids(&drain(db, subscription).await), ids_of(&batch));
}

async fn a_head_stays_the_head_until_it_is_settled_for_good(db: &TestDatabase) {
    let subscription = ordered(db).await.id;
    let batch = of("ed_1", 2);
    accept(&db.store, &batch).await;
    let again = Verdict::Retry {
        delay: Duration::ZERO,
    };
    for verdict in [again, Verdict::Released, Verdict::Retry { delay: HOUR }] {
        let me = owner();
        let due = claim_all(&db.store, subscription, for_long(me)).await;
        assert_eq!(event_ids(&due), ids_of(&batch[..1]), "{verdict:?}");
        assert_eq!(
            settle(&db.store, me, &due[0], verdict).await,
            SettleOutcome::Settled
        );
        check(db, "it goes back").await;
    }
    let me = owner();
    assert!(
        claim_all(&db.store, subscription, for_long(me))
            .await
            .is_empty()
    );
    let due = db.store.due(Duration::ZERO).await.unwrap();
    assert!(due.work.is_empty());
    let next = due.next_in.expect("the head's time");
    assert!(next > HOUR / 2 && next <= HOUR, "{next:?}");
    assert_eq!(accept(&db.store, &of("ed_1", 1)).await.pending, 0);
    check(db, "one more came").await;
}

async fn what_failed_for_good_makes_way(db: &TestDatabase) {
    let subscription = ordered(db).await.id;
    let batch = of("ed_1", 2);
    let me = owner();
    let born = accept_leased(&db.store, &batch, for_long(me)).await;
    assert_eq!(
        settle(&db.replica, me, &born[0], Verdict::Failed).await,
        SettleOutcome::MadeWay
    );
    check(db, "the first failed").await;
    assert_eq!(
        event_ids(&drain(db, subscription).await),
        ids_of(&batch[1..])
    );
}

async fn a_receiver_that_is_gone_keeps_its_order_until_it_is_back(db: &TestDatabase) {
    let subscription = ordered(db).await;
    let batch = of("ed_1", 3);
    let me = owner();
    let born = accept_leased(&db.store, &batch, for_long(me)).await;
    settle(&db.store, me, &born[0], Verdict::Gone).await;
    check(db, "gone").await;
    assert!(
        claim_all(&db.store, subscription.id, for_long(me))
            .await
            .is_empty()
    );
    let disabled = db.store.subscription(&here(), subscription.id).await;
    let disabled = disabled.unwrap().unwrap();
    set_status(&db.store, &disabled, SubscriptionStatus::Active).await;
    accept(&db.store, &of("ed_1", 1)).await;
    let sent = drain(db, subscription.id).await;
    assert_eq!(sent.len(), 3);
    assert_eq!(event_ids(&sent[..2]), ids_of(&batch[1..]));
}

async fn a_head_whose_process_died_is_taken_over_and_nobody_passes_it(db: &TestDatabase) {
    let subscription = ordered(db).await.id;
    let batch = of("ed_1", 2);
    let dead = owner();
    let born = accept_leased(&db.store, &batch, for_no_time(dead)).await;
    let me = owner();
    let taken = claim_all(&db.replica, subscription, for_long(me)).await;
    assert_eq!(event_ids(&taken), ids_of(&batch[..1]));
    assert_eq!(taken[0].lost_leases, 1);
    assert_eq!(
        settle(&db.store, dead, &born[0], Verdict::Succeeded).await,
        SettleOutcome::LeaseLost
    );
    check(db, "what the dead one says counts for nothing").await;
    assert!(
        claim_all(&db.store, subscription, for_long(me))
            .await
            .is_empty()
    );
    assert_eq!(
        settle(&db.store, me, &taken[0], Verdict::Succeeded).await,
        SettleOutcome::MadeWay
    );
    assert_eq!(
        event_ids(&drain(db, subscription).await),
        ids_of(&batch[1..])
    );
}

async fn an_outcome_that_comes_twice_makes_way_once(db: &TestDatabase) {
    let subscription = ordered(db).await.id;
    let batch = of("ed_1", 3);
    let me = owner();
    let born = accept_leased(&db.store, &batch, for_long(me)).await;
    let outcome = settlement(&born[0], Verdict::Succeeded);
    // Twice in one batch, and once more after that.
    let twice = [outcome.clone(), outcome.clone()];
    db.store.settle(me, &twice).await.unwrap();
    check(db, "twice in one batch").await;
    assert_eq!(
        db.replica.settle(me, &[outcome]).await.unwrap(),
        [SettleOutcome::Settled]
    );
    check(db, "once more").await;
    assert_eq!(
        event_ids(&drain(db, subscription).await),
        ids_of(&batch[1..])
    );
}

async fn accepts_at_once_of_one_edition_agree_on_one_order(db: &TestDatabase) {
    const ROUNDS: usize = 15;
    let subscription = ordered(db).await.id;
    let workspace = WorkspaceId::default();
    for round in 0..ROUNDS {
        let barrier = Arc::new(Barrier::new(4));
        let writers: Vec<_> = [&db.store, &db.replica, &db.store, &db.replica]
            .into_iter()
            .enumerate()
            .map(|(number, store)| {
                // Each meets all editions, some of them from the other end.
                let mut batch: Vec<_> = ["ed_1", "ed_2", "ed_3"]
                    .iter()
                    .flat_map(|edition| of(edition, 2))
                    .collect();
                if number % 2 == 1 {
                    batch.reverse();
                }
                let (store, barrier) = (Arc::clone(store), Arc::clone(&barrier));
                tokio::spawn(async move {
                    barrier.wait().await;
                    let me = owner();
                    let born = accept_leased(&store, &batch, for_long(me)).await;
                    (me, born)
                })
            })
            .collect();
        let mut sent = Vec::new();
        for writer in writers {
            let (me, born) = writer.await.unwrap();
            for delivery in born {
                settle(&db.store, me, &delivery, Verdict::Succeeded).await;
                sent.push(delivery);
            }
        }
        assert_eq!(sent.len(), 3, "round {round}: one head for each edition");
        sent.extend(drain(db, subscription).await);
        let feed = db.feed(&workspace).await;
        let accepted: Vec<String> = feed[feed.len() - 24..]
            .iter()
            .map(|(_, event)| event.to_string())
            .collect();
        for edition in ["ed_1", "ed_2", "ed_3"] {
            let sent: Vec<_> = sent
                .iter()
                .filter(|one| one.payload.event().edition.as_ref().unwrap().as_str() == edition)
                .cloned()
                .collect();
            let sent = event_ids(&sent);
            let in_order = accepted.iter().filter(|id| sent.contains(id));
            assert_eq!(sent, in_order.cloned().collect::<Vec<_>>(), "round {round}");
            assert_eq!(sent.len(), 8);
        }
    }
}

/// The one that waits for the gate while another lets it go must be seen by that, or become the head.
async fn an_accept_beside_a_settle_leaves_nobody_stuck(db: &TestDatabase) {
    const ROUNDS: usize = 40;
    let subscription = ordered(db).await.id;
    for round in 0..ROUNDS {
        let me = owner();
        let batch = of("ed_1", 1);
        let born = accept_leased(&db.store, &batch, for_long(me)).await;
        let barrier = Arc::new(Barrier::new(2));
        let settling = {
            let (store, barrier) = (Arc::clone(&db.store), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                settle(&store, me, &born[0], Verdict::Succeeded).await
            })
        };
        let next = of("ed_1", 2);
        barrier.wait().await;
        accept(&db.replica, &next).await;
        assert_ne!(settling.await.unwrap(), SettleOutcome::LeaseLost);
        check(db, &format!("round {round}")).await;
        assert_eq!(event_ids(&drain(db, subscription).await), ids_of(&next));
    }
}

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
        SettleOutcome::MadeWay
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
    let waiting: Vec<DeliveryId> = super::fixture::deliveries(&db.store, &WorkspaceId::default())
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
    assert_eq!(db.store.cancel_orphans(HOUR, 100).await.unwrap(), 0);
    assert_eq!(db.count("order_gate").await, 0);
}
