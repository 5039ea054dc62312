//! Order per edition: who may go, who waits, and who is next.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::domain::delivery::{Lane, Verdict};
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::subscription::{
    Ordering, Subscription, SubscriptionSpec, SubscriptionStatus,
};
use forge_dispatch::store::{LeasedDelivery, SettleOutcome};

use super::fixture::{
    HOUR, Permits, accept, accept_leased, claim_all, for_long, for_no_time, owner, set_status,
    settle, settlement, subscribe_in,
};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{event, events, spec};

mod at_once;
mod changes;
mod churn;
mod damaged;
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

fn data_of(edition: &str) -> String {
    serde_json::json!({"edition_id": edition}).to_string()
}

/// So many events of an edition.
fn of(edition: &str, count: usize) -> Vec<Arc<Payload>> {
    let data = data_of(edition);
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
        SettleOutcome::MadeWay(Lane::Fresh)
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
    let made_way = outcomes
        .iter()
        .filter(|it| **it == SettleOutcome::MadeWay(Lane::Fresh));
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
        SettleOutcome::MadeWay(Lane::Fresh)
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
        SettleOutcome::MadeWay(Lane::Fresh)
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
