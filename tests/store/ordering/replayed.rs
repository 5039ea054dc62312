//! What is replayed keeps the order too: it joins the tail.

use std::time::Duration;

use forge_dispatch::domain::delivery::{DeliveryState, Lane, Verdict};
use forge_dispatch::domain::ids::DeliveryId;
use forge_dispatch::domain::replay::{Refusal, Was};
use forge_dispatch::domain::selection::{ReplayState, Selection};
use forge_dispatch::store::{LeasedDelivery, Requeued, SettleOutcome};

use super::super::bulk_replay::{begin, finish, now, put_into_queue};
use super::super::fixture::{
    HOUR, accept, accept_leased, claim_all, for_long, owner, record, settle,
};
use super::{check, drain, event_ids, here, ids_of, of, ordered};
use crate::harness::databases::TestDatabase;
use crate::harness::events::act;

on_both_databases!(
    what_had_failed_joins_the_tail,
    what_had_succeeded_joins_the_tail_and_makes_way,
    a_head_that_waits_is_sent_now_and_nobody_behind_it,
    a_replay_of_many_joins_in_the_order_of_the_events,
    a_replay_of_many_skips_what_waits_its_turn,
    a_replay_that_is_withdrawn_leaves_its_gates,
    a_head_that_is_withdrawn_makes_way,
    what_was_never_made_is_made_in_order,
);

async fn replay(db: &TestDatabase, id: DeliveryId) -> Requeued {
    let answer = db.replica.replay_delivery(&here(), id, &act()).await;
    answer.unwrap().expect("it is in reach")
}

/// An edition's deliveries, all of which ended so.
async fn ended(
    db: &TestDatabase,
    edition: &str,
    count: usize,
    verdict: &Verdict,
) -> Vec<LeasedDelivery> {
    let mut ended = Vec::new();
    for payload in of(edition, count) {
        let me = owner();
        let born = accept_leased(&db.store, &[payload], for_long(me)).await;
        settle(&db.store, me, &born[0], verdict.clone()).await;
        ended.extend(born);
    }
    ended
}

async fn what_had_failed_joins_the_tail(db: &TestDatabase) {
    let subscription = ordered(db).await.id;
    let failed = ended(db, "ed_1", 1, &Verdict::Failed).await;
    let waiting = of("ed_1", 2);
    accept(&db.store, &waiting).await;
    assert_eq!(replay(db, failed[0].id).await, Ok(Was::Failed));
    check(db, "replayed").await;
    let now = record(&db.store, failed[0].id).await;
    assert_eq!((now.state, now.due_at), (DeliveryState::Pending, None));
    assert_eq!(
        replay(db, failed[0].id).await,
        Err(Refusal::AlreadyReplaying)
    );
    let sent = drain(db, subscription).await;
    assert_eq!(event_ids(&sent[..2]), ids_of(&waiting));
    assert_eq!(sent[2].id, failed[0].id);
    assert_eq!(sent[2].replaying.unwrap().was, Was::Failed);
}

async fn what_had_succeeded_joins_the_tail_and_makes_way(db: &TestDatabase) {
    let subscription = ordered(db).await.id;
    let done = ended(db, "ed_1", 1, &Verdict::Succeeded).await;
    let me = owner();
    assert_eq!(replay(db, done[0].id).await, Ok(Was::Succeeded));
    let behind = of("ed_1", 1);
    assert!(
        accept_leased(&db.store, &behind, for_long(me))
            .await
            .is_empty()
    );
    check(db, "one behind it").await;
    let due = claim_all(&db.store, subscription, for_long(me)).await;
    assert_eq!(event_ids(&due), event_ids(&done));
    // Not taken this time: it stays as it was, and is done with.
    assert_eq!(
        settle(&db.store, me, &due[0], Verdict::Repeated).await,
        SettleOutcome::MadeWay(Lane::Fresh)
    );
    assert_eq!(event_ids(&drain(db, subscription).await), ids_of(&behind));
}

async fn a_head_that_waits_is_sent_now_and_nobody_behind_it(db: &TestDatabase) {
    let subscription = ordered(db).await.id;
    let batch = of("ed_1", 2);
    let me = owner();
    let born = accept_leased(&db.store, &batch, for_long(me)).await;
    settle(&db.store, me, &born[0], Verdict::Retry { delay: HOUR }).await;
    let behind = super::super::fixture::deliveries(&db.store, &here().workspace)
        .await
        .into_iter()
        .find(|one| one.id != born[0].id)
        .unwrap();
    assert_eq!(replay(db, behind.id).await, Err(Refusal::WaitsItsTurn));
    assert_eq!(replay(db, born[0].id).await, Ok(Was::Pending));
    check(db, "sent now").await;
    let due = claim_all(&db.store, subscription, for_long(me)).await;
    assert_eq!(event_ids(&due), ids_of(&batch[..1]));
    let resumed = Verdict::Resumed {
        not_before: Duration::ZERO,
    };
    assert_eq!(
        settle(&db.store, me, &due[0], resumed).await,
        SettleOutcome::Settled
    );
    check(db, "it waits for its time again").await;
    assert!(
        claim_all(&db.store, subscription, for_long(me))
            .await
            .is_empty()
    );
}

async fn a_replay_of_many_joins_in_the_order_of_the_events(db: &TestDatabase) {
    let subscription = ordered(db).await.id;
    let first = ended(db, "ed_1", 2, &Verdict::Failed).await;
    let second = ended(db, "ed_1", 1, &Verdict::Succeeded).await;
    let third = ended(db, "ed_1", 2, &Verdict::Failed).await;
    let other = ended(db, "ed_2", 1, &Verdict::Failed).await;
    let selection = Selection {
        states: vec![DeliveryState::Failed, DeliveryState::Succeeded],
        ..Selection::default()
    };
    let many = begin(db, selection).await;
    put_into_queue(db, &many).await;
    check(db, "put into the queue").await;
    assert_eq!(now(db, &many).await.queued, 6);
    let sent = drain(db, subscription).await;
    let in_edition: Vec<_> = sent
        .iter()
        .filter(|one| one.id != other[0].id)
        .map(|one| one.payload.event().occurred_at)
        .collect();
    assert_eq!(in_edition.len(), first.len() + second.len() + third.len());
    // (Events of one millisecond have no order between them that is kept.)
    let arrivals: Vec<_> = sent
        .iter()
        .filter(|one| one.id != other[0].id)
        .map(|one| forge_dispatch::domain::ids::created_at(one.payload.event().id.uuid()))
        .collect();
    assert!(arrivals.is_sorted(), "{arrivals:?}");
    assert_eq!(finish(db, &many).await.state, ReplayState::Done);
}

async fn a_replay_of_many_skips_what_waits_its_turn(db: &TestDatabase) {
    let subscription = ordered(db).await.id;
    accept(&db.store, &of("ed_1", 3)).await;
    let selection = Selection {
        states: vec![DeliveryState::Pending],
        ..Selection::default()
    };
    let many = begin(db, selection).await;
    put_into_queue(db, &many).await;
    let now = now(db, &many).await;
    assert_eq!(now.queued, 1);
    let skipped: Vec<_> = now.skipped.0.into_iter().collect();
    assert_eq!(skipped, [(Refusal::WaitsItsTurn, 2)]);
    check(db, "put into the queue").await;
    assert_eq!(drain(db, subscription).await.len(), 3);
}

async fn a_replay_that_is_withdrawn_leaves_its_gates(db: &TestDatabase) {
    let subscription = ordered(db).await.id;
    ended(db, "ed_1", 2, &Verdict::Failed).await;
    ended(db, "ed_2", 1, &Verdict::Succeeded).await;
    let waiting = of("ed_1", 1);
    accept(&db.store, &waiting).await;
    let selection = Selection {
        states: vec![DeliveryState::Failed, DeliveryState::Succeeded],
        ..Selection::default()
    };
    let many = begin(db, selection).await;
    put_into_queue(db, &many).await;
    let behind = of("ed_1", 1);
    accept(&db.store, &behind).await;
    db.store
        .cancel_replay(&here(), many.id, &act())
        .await
        .unwrap();
    check(db, "withdrawn").await;
    assert_eq!(finish(db, &many).await.queued, 0);
    assert_eq!(db.count("order_gate").await, 1, "nobody is at the other");
    let sent = drain(db, subscription).await;
    assert_eq!(event_ids(&sent), ids_of(&[waiting, behind].concat()));
}

async fn a_head_that_is_withdrawn_makes_way(db: &TestDatabase) {
    let subscription = ordered(db).await.id;
    ended(db, "ed_1", 2, &Verdict::Failed).await;
    let many = begin(db, Selection::default()).await;
    put_into_queue(db, &many).await;
    let behind = of("ed_1", 2);
    assert!(
        accept_leased(&db.store, &behind, for_long(owner()))
            .await
            .is_empty()
    );
    // One is being sent while the replay is cancelled, and keeps its place.
    let me = owner();
    let sending = claim_all(&db.store, subscription, for_long(me)).await;
    assert_eq!(sending.len(), 1);
    db.store
        .cancel_replay(&here(), many.id, &act())
        .await
        .unwrap();
    check(db, "withdrawn but for one").await;
    assert!(
        claim_all(&db.store, subscription, for_long(me))
            .await
            .is_empty()
    );
    settle(&db.store, me, &sending[0], Verdict::Released).await;
    check(db, "given back").await;
    finish(db, &many).await;
    check(db, "withdrawn").await;
    let sent = drain(db, subscription).await;
    assert_eq!(event_ids(&sent), ids_of(&behind));
}

async fn what_was_never_made_is_made_in_order(db: &TestDatabase) {
    let before = [of("ed_1", 3), of("ed_2", 1)].concat();
    accept(&db.store, &before).await;
    let subscription = ordered(db).await.id;
    let waiting = of("ed_1", 1);
    accept(&db.store, &waiting).await;
    let selection = Selection {
        subscription_id: Some(subscription),
        backfill: true,
        states: Vec::new(),
        ..Selection::default()
    };
    let many = begin(db, selection).await;
    put_into_queue(db, &many).await;
    check(db, "made").await;
    assert_eq!(now(db, &many).await.queued, 4);
    let sent = drain(db, subscription).await;
    assert_eq!(sent.len(), 5);
    let sent: Vec<_> = sent
        .into_iter()
        .filter(|one| one.payload.event().edition.as_ref().unwrap().as_str() == "ed_1")
        .collect();
    assert_eq!(
        event_ids(&sent),
        ids_of(&[&waiting, &before[..3]].concat()),
        "behind what waited, and in their own order"
    );
}
