//! What was sent to a subscription as it was before tells nothing of it as it is.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::domain::circuit::CircuitRules;
use forge_dispatch::domain::delivery::{DeliveryState, Sending, Verdict};
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::subscription::{Subscription, SubscriptionStatus, TargetUrl};
use forge_dispatch::store::Store;

use super::super::fixture::{
    accept_leased, claim_all, disable, for_long, owner, record, set_status, settle, settlement,
    subscribe,
};
use super::{RETRY, circuit, is_open, judge, open_with, reread, rules, settle_all};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, events};

on_both_databases!(
    gone_of_an_address_of_before_disables_nothing,
    gone_of_before_it_was_enabled_again_disables_nothing,
    failures_of_before_a_change_are_not_held_against_it,
    a_probe_of_before_a_change_is_followed_by_another_at_once,
    who_changes_one_knows_at_once,
);

/// Another address, or only another description.
async fn change(store: &Arc<dyn Store>, id: SubscriptionId, url: Option<&str>) -> Subscription {
    let found = reread(store, id).await;
    let mut spec = found.spec.clone();
    spec.description.push('!');
    if let Some(url) = url {
        spec.url = TargetUrl::new(url).unwrap();
    }
    let (reach, status) = (Reach::all(&found.workspace), SubscriptionStatus::Active);
    let changed = store
        .update_subscription(&reach, id, found.version, &spec, &status, &act())
        .await;
    changed.unwrap().unwrap()
}

async fn gone_of_an_address_of_before_disables_nothing(db: &TestDatabase) {
    judge(db, &rules());
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let before = accept_leased(&db.store, &events(1), for_long(me)).await;
    let changed = change(&db.replica, subscription.id, Some("https://new.example/")).await;
    settle(&db.store, me, &before[0], Verdict::Gone).await;
    let failed = record(&db.store, before[0].id).await;
    assert_eq!(failed.state, DeliveryState::Failed);
    assert_eq!(reread(&db.store, subscription.id).await, changed);

    let now = accept_leased(&db.store, &events(1), for_long(me)).await;
    settle(&db.store, me, &now[0], Verdict::Gone).await;
    let disabled = reread(&db.store, subscription.id).await;
    assert!(disabled.status.reason().is_some());
    assert!(db.store.held(subscription.id).is_none(), "known at once");
}

async fn gone_of_before_it_was_enabled_again_disables_nothing(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let before = accept_leased(&db.store, &events(1), for_long(me)).await;
    let disabled = disable(&db.replica, &subscription).await;
    let enabled = set_status(&db.replica, &disabled, SubscriptionStatus::Active).await;
    settle(&db.store, me, &before[0], Verdict::Gone).await;
    assert_eq!(reread(&db.store, subscription.id).await, enabled);
}

async fn failures_of_before_a_change_are_not_held_against_it(db: &TestDatabase) {
    judge(db, &rules());
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let before = accept_leased(&db.store, &events(3), for_long(me)).await;
    change(&db.replica, subscription.id, None).await;
    settle_all(&db.store, me, &before, &RETRY).await;
    assert_eq!(db.count("circuit").await, 0);

    let now = accept_leased(&db.store, &events(3), for_long(me)).await;
    settle_all(&db.store, me, &now, &RETRY).await;
    assert!(is_open(circuit(&db.store, subscription.id).await));
}

async fn a_probe_of_before_a_change_is_followed_by_another_at_once(db: &TestDatabase) {
    let rules = CircuitRules {
        first_pause: Duration::ZERO,
        ..rules()
    };
    let subscription = open_with(db, &rules, 2).await;
    let me = owner();
    let probes = claim_all(&db.store, subscription.id, for_long(me)).await;
    assert_eq!(probes[0].sending, Sending::Probe);
    change(&db.replica, subscription.id, None).await;
    let taken = settlement(&probes[0], Verdict::Succeeded);
    db.store.settle(me, &[taken]).await.unwrap();
    assert!(is_open(circuit(&db.store, subscription.id).await));
    let again = claim_all(&db.store, subscription.id, for_long(me)).await;
    let sendings: Vec<_> = again.iter().map(|delivery| delivery.sending).collect();
    assert_eq!(sendings, [Sending::Probe]);
}

/// So that what it has leased already goes nowhere that is no longer right.
async fn who_changes_one_knows_at_once(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    accept_leased(&db.store, &events(1), for_long(owner())).await;
    let version = || Some(db.store.held(subscription.id)?.subscription.version);
    assert_eq!(version(), Some(subscription.version));
    let changed = change(&db.store, subscription.id, None).await;
    assert_eq!(version(), Some(changed.version));
    let deleted = db
        .store
        .delete_subscription(
            &Reach::all(&WorkspaceId::default()),
            subscription.id,
            None,
            &act(),
        )
        .await;
    assert!(deleted.unwrap());
    assert_eq!(version(), None);
}
