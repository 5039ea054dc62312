//! What is told of our own work: to who names it, and to the broker.

use std::sync::Arc;

use forge_dispatch::domain::audit::{Action, Actor};
use forge_dispatch::domain::circuit::CircuitRules;
use forge_dispatch::domain::delivery::{DeliveryState, Verdict};
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::subscription::SubscriptionStatus;
use forge_dispatch::store::{
    AuditFilter, LeasedDelivery, PageRequest, SettleOutcome, Settlement, Store,
};
use forge_dispatch::wake::Wake;
use serde_json::Value;

use super::fixture::{
    HOUR, accept_leased, claim_all, count_in, deliveries, disable, for_long, owner, set_status,
    settle, settlement, subscribe, subscribe_in,
};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{events, spec, workspace};

on_both_databases!(
    a_delivery_that_was_given_up_is_told_of_to_who_names_it,
    a_settle_that_is_repeated_tells_once,
    an_operational_event_that_is_given_up_makes_no_other,
    where_nobody_wants_to_know_nothing_is_told,
    the_broker_is_told_of_everything,
    a_circuit_that_opens_is_told_of,
    a_subscription_that_is_disabled_is_told_of_to_the_others,
    an_admins_disabling_is_told_of,
    a_batch_of_failures_is_told_of_whole,
    other_workspaces_are_told_nothing,
    more_than_one_transaction_may_tell_is_told_in_several,
    what_is_disabled_by_itself_is_in_the_audit_log,
);

const NAMES: [&str; 2] = ["delivery.failed", "subscription.*"];

fn here() -> WorkspaceId {
    WorkspaceId::default()
}

/// What waits for a subscription: types and data.
async fn told(store: &Arc<dyn Store>, id: SubscriptionId) -> Vec<(String, Value)> {
    let waiting = claim_all(store, id, for_long(owner())).await;
    waiting.iter().map(type_and_data).collect()
}

fn type_and_data(delivery: &LeasedDelivery) -> (String, Value) {
    let payload = &delivery.payload;
    let event_type = payload.event().event_type.to_string();
    (event_type, serde_json::from_str(payload.data()).unwrap())
}

async fn a_delivery_that_was_given_up_is_told_of_to_who_names_it(db: &TestDatabase) {
    let failing = subscribe(&db.store, &["*"]).await;
    let ops = subscribe(&db.store, &NAMES).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(2), for_long(me)).await;
    settle(&db.store, me, &born[0], Verdict::Failed).await;
    settle(&db.store, me, &born[1], Verdict::Retry { delay: HOUR }).await;

    let told = told(&db.replica, ops.id).await;
    assert_eq!(told.len(), 1);
    let (event_type, data) = &told[0];
    assert_eq!(event_type, "delivery.failed");
    assert_eq!(data["delivery_id"], born[0].id.to_string());
    assert_eq!(data["event_id"], born[0].payload.event().id.to_string());
    assert_eq!(
        data["event_type"],
        born[0].payload.event().event_type.to_string()
    );
    assert_eq!(data["subscription_id"], failing.id.to_string());
    assert_eq!(
        (&data["host"], &data["attempts"]),
        (&"receiver.example".into(), &1.into())
    );
    assert_eq!(
        (&data["status"], &data["error"]),
        (&500.into(), &"http_status".into())
    );
    assert_eq!(
        deliveries(&db.store, &here()).await.len(),
        3,
        "`*` names it not"
    );
    assert_eq!(db.count("outbox").await, 0, "there is no broker");
}

async fn a_settle_that_is_repeated_tells_once(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    subscribe(&db.store, &NAMES).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(3), for_long(me)).await;
    let batch: Vec<Settlement> = born
        .iter()
        .map(|delivery| settlement(delivery, Verdict::Failed))
        .collect();
    db.store.settle(me, &batch[..2]).await.unwrap();
    for store in [&db.store, &db.replica] {
        store.settle(me, &batch[..2]).await.unwrap();
    }
    db.store.settle(me, &batch).await.unwrap();
    assert_eq!(
        count_in(&db.store, &here(), DeliveryState::Pending).await,
        3
    );
}

async fn an_operational_event_that_is_given_up_makes_no_other(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    let ops = subscribe(&db.store, &NAMES).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(1), for_long(me)).await;
    settle(&db.store, me, &born[0], Verdict::Failed).await;
    let telling = claim_all(&db.store, ops.id, for_long(me)).await;
    settle(&db.store, me, &telling[0], Verdict::Failed).await;
    assert!(told(&db.store, ops.id).await.is_empty());
    assert_eq!(db.count("event").await, 2);
}

async fn where_nobody_wants_to_know_nothing_is_told(db: &TestDatabase) {
    subscribe(&db.store, &["*", "edition.*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(1), for_long(me)).await;
    settle(&db.store, me, &born[0], Verdict::Gone).await;
    assert_eq!((db.count("event").await, db.count("outbox").await), (1, 0));
}

async fn the_broker_is_told_of_everything(db: &TestDatabase) {
    let bell = Arc::new(Wake::default());
    db.store.open_outbox(Arc::clone(&bell));
    let failing = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(2), for_long(me)).await;
    settle(&db.store, me, &born[0], Verdict::Failed).await;
    settle(&db.store, me, &born[1], Verdict::Gone).await;
    // Two deliveries, and the subscription.
    assert_eq!(db.count("outbox").await, 3);
    assert_eq!(db.count("event").await, 2, "nobody here names them");
    bell.rung().await;

    subscribe(&db.store, &NAMES).await;
    let reach = Reach::all(&here());
    let disabled = db
        .store
        .subscription(&reach, failing.id)
        .await
        .unwrap()
        .unwrap();
    let active = set_status(&db.store, &disabled, SubscriptionStatus::Active).await;
    disable(&db.store, &active).await;
    assert_eq!((db.count("outbox").await, db.count("event").await), (4, 3));
}

async fn a_circuit_that_opens_is_told_of(db: &TestDatabase) {
    db.store.judge_receivers(CircuitRules {
        failures_in_row: 2,
        ..CircuitRules::default()
    });
    let failing = subscribe(&db.store, &["*"]).await;
    let ops = subscribe(&db.store, &NAMES).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(3), for_long(me)).await;
    for delivery in &born {
        settle(&db.store, me, delivery, Verdict::Retry { delay: HOUR }).await;
    }
    let told = told(&db.replica, ops.id).await;
    assert_eq!(told.len(), 1, "once, however much fails while it is open");
    let (event_type, data) = &told[0];
    assert_eq!(event_type, "subscription.circuit_opened");
    assert_eq!(data["subscription_id"], failing.id.to_string());
    assert_eq!(
        (&data["host"], &data["failures_in_row"]),
        (&"receiver.example".into(), &2.into())
    );
    assert!(data["until"].is_string());
}

async fn a_subscription_that_is_disabled_is_told_of_to_the_others(db: &TestDatabase) {
    let gone = subscribe(&db.store, &["edition.*", "subscription.disabled"]).await;
    let ops = subscribe(&db.store, &["subscription.disabled"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(2), for_long(me)).await;
    settle(&db.store, me, &born[0], Verdict::Gone).await;
    settle(&db.store, me, &born[1], Verdict::Gone).await;
    let told = told(&db.replica, ops.id).await;
    assert_eq!(told.len(), 1, "it was disabled once");
    assert_eq!(told[0].1["reason"], "the receiver answered 410 Gone");
    assert_eq!(told[0].1["subscription_id"], gone.id.to_string());
    let of_gone = deliveries(&db.store, &here()).await;
    let of_gone = of_gone
        .iter()
        .filter(|record| record.subscription_id == gone.id);
    assert_eq!(
        of_gone.count(),
        2,
        "who is disabled gets no new events, this one neither"
    );
}

async fn an_admins_disabling_is_told_of(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let ops = subscribe(&db.store, &NAMES).await;
    let disabled = disable(&db.store, &subscription).await;
    // Another reason, and serving it again, are no disabling.
    let again = SubscriptionStatus::Disabled {
        reason: "another reason".to_owned(),
    };
    let disabled = set_status(&db.store, &disabled, again).await;
    set_status(&db.store, &disabled, SubscriptionStatus::Active).await;
    let told = told(&db.replica, ops.id).await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, "subscription.disabled");
    assert_eq!(told[0].1["reason"], "asked for");
}

async fn a_batch_of_failures_is_told_of_whole(db: &TestDatabase) {
    const FAILED: usize = 700;
    db.store.open_outbox(Arc::new(Wake::default()));
    subscribe(&db.store, &["*"]).await;
    // More rows than one accept would make.
    for _ in 0..8 {
        subscribe(&db.store, &NAMES).await;
    }
    let me = owner();
    let born = accept_leased(&db.store, &events(FAILED), for_long(me)).await;
    let batch: Vec<Settlement> = born
        .iter()
        .map(|delivery| settlement(delivery, Verdict::Failed))
        .collect();
    db.store.settle(me, &batch).await.unwrap();
    let failed = i64::try_from(FAILED).unwrap();
    assert_eq!(db.count("outbox").await, failed);
    assert_eq!(db.count("event").await, 2 * failed);
    assert_eq!(db.count("delivery_queue").await, 8 * failed);
}

async fn other_workspaces_are_told_nothing(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    let other = subscribe_in(&db.store, &workspace("ws_other"), spec(&NAMES)).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(1), for_long(me)).await;
    settle(&db.store, me, &born[0], Verdict::Gone).await;
    assert!(told(&db.store, other.id).await.is_empty());
    assert_eq!(db.count("event").await, 1);
}

/// More than one transaction may make: each is told of all the same, once.
async fn more_than_one_transaction_may_tell_is_told_in_several(db: &TestDatabase) {
    const FAILED: usize = 200;
    const OPS: usize = 60;
    subscribe(&db.store, &["edition.*"]).await;
    for _ in 0..OPS {
        subscribe(&db.store, &["delivery.failed"]).await;
    }
    let me = owner();
    let born = accept_leased(&db.store, &events(FAILED), for_long(me)).await;
    let batch: Vec<Settlement> = born
        .iter()
        .map(|delivery| settlement(delivery, Verdict::Failed))
        .collect();
    for store in [&db.store, &db.replica] {
        let outcomes = store.settle(me, &batch).await.unwrap();
        assert_eq!(outcomes, vec![SettleOutcome::Settled; FAILED]);
    }
    let told = i64::try_from(FAILED * OPS).unwrap();
    assert_eq!(db.count("delivery_queue").await, told);
    if db.kind == Kind::Postgres {
        let large = "(select from delivery_queue group by xmin having count(*) > 5000) as large";
        assert_eq!(db.count(large).await, 0);
    }
}

async fn what_is_disabled_by_itself_is_in_the_audit_log(db: &TestDatabase) {
    let gone = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(2), for_long(me)).await;
    let batch = [0, 1].map(|number| settlement(&born[number], Verdict::Gone));
    db.store.settle(me, &batch).await.unwrap();
    db.replica.settle(me, &batch).await.unwrap();

    let by_itself = AuditFilter {
        actor: Some(Actor::Program),
        ..AuditFilter::default()
    };
    let all = PageRequest {
        limit: 100,
        after: None,
    };
    let page = db.replica.audit_log(&here(), &by_itself, all).await;
    let entries = page.unwrap().items;
    assert_eq!(entries.len(), 1, "{entries:?}");
    let entry = &entries[0];
    assert_eq!(entry.action, Action::SubscriptionUpdated);
    assert_eq!(entry.object, Some(gone.id.to_string()));
    let (before, after) = (entry.before.as_ref(), entry.after.as_ref());
    assert_eq!(before.unwrap()["status"], "active");
    let after = after.unwrap();
    assert_eq!(after["status"], "disabled");
    assert_eq!(after["disabled_reason"], "the receiver answered 410 Gone");
    assert_eq!(after["version"], gone.version + 1);
}
