//! Asking a receiver that is left alone whether it is back.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::domain::circuit::{CircuitName, CircuitRules, CircuitState};
use forge_dispatch::domain::delivery::{Sending, Verdict};
use forge_dispatch::domain::ids::{OwnerId, SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::store::{LeasedDelivery, Store};

use super::super::fixture::{
    HOUR, accept, claim_all, claim_of, for_long, for_no_time, owner, settle,
};
use super::{RETRY, circuit, is_open, open_with, rules};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{act, events};

on_both_databases!(
    one_probe_is_sent_whoever_asks,
    a_probe_that_is_taken_lets_the_others_go,
    a_probe_that_fails_makes_the_pause_longer,
    a_probe_whose_process_died_is_followed_by_another,
    a_probe_that_was_not_sent_is_followed_by_another_at_once,
    a_probe_for_which_there_is_no_delivery_is_kept_for_one,
    deleting_leaves_no_circuit_behind,
);

/// The time of the next probe has come, on every replica.
async fn let_the_pause_pass(db: &TestDatabase) {
    let begin = match db.kind {
        Kind::Sqlite => "0",
        Kind::Postgres => "'1970-01-01'",
    };
    db.tamper(&format!("update circuit set until = {begin}"))
        .await;
    db.tamper("update subscription_generation set generation = generation + 1")
        .await;
    db.tamper(
        "update subscription set generation = (select generation from subscription_generation)",
    )
    .await;
}

async fn probe_of(store: &Arc<dyn Store>, id: SubscriptionId, owner: OwnerId) -> LeasedDelivery {
    let mut claimed = claim_all(store, id, for_long(owner)).await;
    assert_eq!(claimed.len(), 1);
    let probe = claimed.remove(0);
    assert_eq!(probe.sending, Sending::Probe);
    probe
}

async fn one_probe_is_sent_whoever_asks(db: &TestDatabase) {
    let rules = CircuitRules {
        first_pause: Duration::ZERO,
        ..rules()
    };
    let subscription = open_with(db, &rules, 20).await;
    let due = db.replica.due(Duration::ZERO).await.unwrap();
    assert_eq!(due.work.len(), 1, "the probe is due");
    let claimers: Vec<_> = (0..8)
        .map(|number| {
            let store = Arc::clone(if number % 2 == 0 {
                &db.store
            } else {
                &db.replica
            });
            let claim = claim_of(subscription.id, for_long(owner()));
            tokio::spawn(async move { store.claim(&claim).await.unwrap() })
        })
        .collect();
    let mut claimed = Vec::new();
    for claimer in claimers {
        claimed.extend(claimer.await.unwrap());
    }
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].sending, Sending::Probe);
    for store in [&db.store, &db.replica] {
        let due = store.due(Duration::ZERO).await.unwrap();
        assert!(due.work.is_empty(), "until its lease is over");
        assert!(
            claim_all(store, subscription.id, for_long(owner()))
                .await
                .is_empty()
        );
    }
}

async fn a_probe_that_is_taken_lets_the_others_go(db: &TestDatabase) {
    let subscription = open_with(db, &rules(), 5).await;
    let_the_pause_pass(db).await;
    let me = owner();
    let probe = probe_of(&db.replica, subscription.id, me).await;
    settle(&db.replica, me, &probe, Verdict::Succeeded).await;
    for store in [&db.store, &db.replica] {
        let found = circuit(store, subscription.id).await;
        let since = found.recovering_since().expect("it recovers");
        assert_eq!(found.name(since), CircuitName::Recovering);
    }
    let rest = claim_all(&db.store, subscription.id, for_long(me)).await;
    assert_eq!(rest.len(), 4);
    assert!(
        rest.iter()
            .all(|delivery| delivery.sending == Sending::Usual)
    );
    // The first that fails of two opens it again.
    settle(&db.store, me, &rest[0], RETRY).await;
    assert!(is_open(circuit(&db.store, subscription.id).await));
}

async fn a_probe_that_fails_makes_the_pause_longer(db: &TestDatabase) {
    let subscription = open_with(db, &rules(), 5).await;
    for expected in [2 * HOUR, 3 * HOUR, 3 * HOUR] {
        let_the_pause_pass(db).await;
        let me = owner();
        let probe = probe_of(&db.store, subscription.id, me).await;
        settle(&db.store, me, &probe, RETRY).await;
        let CircuitState::Open { pause, .. } = circuit(&db.replica, subscription.id).await else {
            panic!("it is open");
        };
        assert_eq!(pause, expected);
        let due = db.replica.due(Duration::ZERO).await.unwrap();
        assert!(due.work.is_empty());
    }
}

async fn a_probe_whose_process_died_is_followed_by_another(db: &TestDatabase) {
    let subscription = open_with(db, &rules(), 5).await;
    let_the_pause_pass(db).await;
    let dead = claim_all(&db.store, subscription.id, for_no_time(owner())).await;
    // In both lanes, since its time is over as soon as it begins.
    assert!(
        dead.iter()
            .all(|delivery| delivery.sending == Sending::Probe)
    );
    let due = db.replica.due(Duration::ZERO).await.unwrap();
    assert!(!due.work.is_empty());
    let me = owner();
    let probe = probe_of(&db.replica, subscription.id, me).await;
    settle(&db.replica, me, &probe, Verdict::Succeeded).await;
    assert!(!is_open(circuit(&db.store, subscription.id).await));
}

async fn a_probe_that_was_not_sent_is_followed_by_another_at_once(db: &TestDatabase) {
    let subscription = open_with(db, &rules(), 5).await;
    let_the_pause_pass(db).await;
    let me = owner();
    let probe = probe_of(&db.store, subscription.id, me).await;
    settle(&db.store, me, &probe, Verdict::Released).await;
    assert!(is_open(circuit(&db.store, subscription.id).await));
    probe_of(&db.replica, subscription.id, me).await;
}

async fn a_probe_for_which_there_is_no_delivery_is_kept_for_one(db: &TestDatabase) {
    let subscription = open_with(db, &rules(), 0).await;
    let_the_pause_pass(db).await;
    let me = owner();
    assert!(
        claim_all(&db.store, subscription.id, for_long(me))
            .await
            .is_empty()
    );
    accept(&db.store, &events(2)).await;
    probe_of(&db.replica, subscription.id, me).await;
}

async fn deleting_leaves_no_circuit_behind(db: &TestDatabase) {
    let subscription = open_with(db, &rules(), 2).await;
    let me = owner();
    let_the_pause_pass(db).await;
    let probe = probe_of(&db.store, subscription.id, me).await;
    let reach = Reach::all(&WorkspaceId::default());
    let deleted = db
        .store
        .delete_subscription(&reach, subscription.id, None, &act())
        .await;
    assert!(deleted.unwrap());
    assert_eq!(db.count("circuit").await, 0);
    settle(&db.store, me, &probe, RETRY).await;
    assert_eq!(db.count("circuit").await, 0);
}
