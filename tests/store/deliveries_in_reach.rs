//! What a restricted reach sees of deliveries: those of its projects' events to subscriptions within
//! its projects.

use std::collections::HashSet;

use forge_dispatch::domain::delivery::{DeliveryState, Verdict};
use forge_dispatch::domain::ids::{DeliveryId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::subscription::Subscription;
use forge_dispatch::store::{DeliveryFilter, DeliveryRecord, PageRequest};

use super::fixture::{
    HOUR, accept, accept_leased, claim_all, deliveries, for_long, owner, settle, subscribe,
    subscribe_in,
};
use super::log::pages_in;
use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, event, reach, spec_for_projects, workspace};

on_both_databases!(
    only_what_is_within_its_projects_at_both_ends_is_seen,
    a_filter_does_not_widen_a_reach,
    attempts_go_with_their_delivery,
    a_deleted_subscription_counts_as_it_was,
);

fn here() -> WorkspaceId {
    WorkspaceId::default()
}

async fn subscribe_for(db: &TestDatabase, projects: &[&str]) -> Subscription {
    subscribe_in(&db.store, &here(), spec_for_projects(&["*"], projects)).await
}

/// Subscriptions for everything and for some projects, and an event of each kind, once waiting and
/// once settled.
async fn many(db: &TestDatabase) -> Vec<Subscription> {
    let me = owner();
    let subscriptions = vec![
        subscribe(&db.store, &["*"]).await,
        subscribe_for(db, &["pr_1"]).await,
        subscribe_for(db, &["pr_1", "pr_2"]).await,
        subscribe_for(db, &["pr_2"]).await,
    ];
    let elsewhere = spec_for_projects(&["*"], &["pr_1"]);
    subscribe_in(&db.store, &workspace("ws_2"), elsewhere).await;
    let events = || {
        [
            event().project("pr_1").build(),
            event().project("pr_2").build(),
            event().build(),
            event().project("pr_1").workspace("ws_2").build(),
        ]
    };
    for delivery in accept_leased(&db.store, &events(), for_long(me)).await {
        settle(&db.store, me, &delivery, Verdict::Failed).await;
    }
    accept(&db.store, &events()).await;
    subscriptions
}

/// The places of the subscriptions and the projects of what is seen, once for each two of them.
fn told(seen: &[DeliveryRecord], subscriptions: &[Subscription]) -> Vec<(usize, String)> {
    let place = |record: &DeliveryRecord| {
        let mut ids = subscriptions.iter().map(|subscription| subscription.id);
        ids.position(|id| id == record.subscription_id).unwrap()
    };
    let project = |record: &DeliveryRecord| record.project.clone().unwrap().to_string();
    let mut told: Vec<_> = seen
        .iter()
        .map(|record| (place(record), project(record)))
        .collect();
    told.sort();
    told
}

async fn only_what_is_within_its_projects_at_both_ends_is_seen(db: &TestDatabase) {
    let subscriptions = many(db).await;
    let all = deliveries(&db.store, &here()).await;
    assert_eq!(all.len(), 14);
    for (projects, expected) in [
        (&["pr_1"] as &[&str], vec![(1, "pr_1")]),
        (&["pr_2", "pr_3"], vec![(3, "pr_2")]),
        (
            &["pr_2", "pr_1"],
            vec![(1, "pr_1"), (2, "pr_1"), (2, "pr_2"), (3, "pr_2")],
        ),
        (&["pr_3"], vec![]),
        (&[], vec![]),
    ] {
        let reach = reach(&here(), projects);
        let seen = pages_in(db, &reach, &DeliveryFilter::default(), 3).await;
        // Each is there twice: waiting, and settled.
        let twice: Vec<_> = expected
            .iter()
            .flat_map(|(place, project)| [0, 1].map(|_| (*place, (*project).to_owned())))
            .collect();
        assert_eq!(told(&seen, &subscriptions), twice, "{projects:?}");
        let ids: HashSet<DeliveryId> = seen.iter().map(|record| record.id).collect();
        for record in &all {
            let alone = db.store.delivery(&reach, record.id).await.unwrap();
            let expected = ids.contains(&record.id).then_some(record);
            assert_eq!(alone.as_ref(), expected, "{projects:?}");
        }
    }
    // The same projects of another workspace are others.
    let elsewhere = reach(&workspace("ws_2"), &["pr_1"]);
    let seen = pages_in(db, &elsewhere, &DeliveryFilter::default(), 3).await;
    assert_eq!(seen.len(), 2);
    assert!(all.iter().all(|record| !seen.contains(record)));
}

async fn a_filter_does_not_widen_a_reach(db: &TestDatabase) {
    let subscriptions = many(db).await;
    let reach = reach(&here(), &["pr_1"]);
    let everything = DeliveryFilter::default();
    let seen = pages_in(db, &reach, &everything, 9).await;
    assert_eq!(seen.len(), 2);
    for (place, expected) in [(0, 0), (1, 2), (2, 0), (3, 0)] {
        let filter = DeliveryFilter {
            subscription: Some(subscriptions[place].id),
            ..everything.clone()
        };
        let found = pages_in(db, &reach, &filter, 9).await;
        assert_eq!(found.len(), expected, "{place}");
    }
    for record in &deliveries(&db.store, &here()).await {
        let of_event = DeliveryFilter {
            event: Some(record.event_id),
            ..everything.clone()
        };
        let expected: Vec<_> = seen
            .iter()
            .filter(|seen| seen.event_id == record.event_id)
            .cloned()
            .collect();
        assert_eq!(pages_in(db, &reach, &of_event, 9).await, expected);
    }
    for (state, expected) in [(DeliveryState::Failed, 1), (DeliveryState::Pending, 1)] {
        let filter = DeliveryFilter {
            state: Some(state),
            ..everything.clone()
        };
        let found = pages_in(db, &reach, &filter, 9).await;
        assert_eq!(found.len(), expected, "{state}");
    }
}

async fn attempts_go_with_their_delivery(db: &TestDatabase) {
    let subscriptions = many(db).await;
    // One attempt of what waits, too.
    let me = owner();
    for subscription in &subscriptions {
        for delivery in claim_all(&db.store, subscription.id, for_long(me)).await {
            settle(&db.store, me, &delivery, Verdict::Retry { delay: HOUR }).await;
        }
    }
    let page = PageRequest {
        limit: 9,
        after: None,
    };
    let (some, all) = (reach(&here(), &["pr_1", "pr_3"]), Reach::all(&here()));
    let mut seen = 0;
    for record in deliveries(&db.store, &here()).await {
        let attempts = db.store.attempts(&all, record.id, page).await.unwrap();
        assert_eq!(attempts.items.len(), 1);
        let within = db.store.delivery(&some, record.id).await.unwrap().is_some();
        let attempts = db.store.attempts(&some, record.id, page).await.unwrap();
        assert_eq!(attempts.items.len(), usize::from(within));
        seen += usize::from(within);
    }
    assert_eq!(seen, 2);
}

async fn a_deleted_subscription_counts_as_it_was(db: &TestDatabase) {
    let subscription = subscribe_for(db, &["pr_1"]).await;
    let me = owner();
    let came = [event().project("pr_1").build()];
    let delivery = accept_leased(&db.store, &came, for_long(me)).await;
    settle(&db.store, me, &delivery[0], Verdict::Retry { delay: HOUR }).await;
    db.store
        .delete_subscription(&Reach::all(&here()), subscription.id, None, &act())
        .await
        .unwrap();
    db.store.cancel_orphans(HOUR, 10).await.unwrap();

    let page = PageRequest {
        limit: 9,
        after: None,
    };
    for (projects, expected) in [(&["pr_1"] as &[&str], 1), (&["pr_2"], 0)] {
        let reach = reach(&here(), projects);
        let filter = DeliveryFilter {
            event: Some(came[0].event().id),
            state: Some(DeliveryState::Cancelled),
            ..DeliveryFilter::default()
        };
        let found = pages_in(db, &reach, &filter, 9).await;
        assert_eq!(found.len(), expected);
        let attempts = db.store.attempts(&reach, delivery[0].id, page).await;
        assert_eq!(attempts.unwrap().items.len(), expected);
    }
}
