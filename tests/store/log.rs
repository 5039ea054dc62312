//! Reading what was and is delivered.

use forge_dispatch::domain::delivery::{DeliveryState, Verdict};
use forge_dispatch::domain::ids::{DeliveryId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::store::{DeliveryFilter, DeliveryRecord, PageRequest};

use super::fixture::{
    HOUR, accept, accept_leased, claim_all, deliveries, for_long, for_no_time, owner, settle,
    subscribe, subscribe_in,
};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, event, events, spec, workspace};

on_both_databases!(
    deliveries_are_listed_newest_first_in_pages,
    filters_leave_out_what_they_should,
    attempts_are_paged_oldest_first,
    another_workspace_sees_no_delivery_and_no_attempt,
);

/// One delivery in each state and one retry, for each of two subscriptions; a third's are cancelled.
async fn one_of_each(db: &TestDatabase) {
    let me = owner();
    let here = WorkspaceId::default();
    let doomed = subscribe(&db.store, &["*"]).await;
    accept(&db.store, &events(2)).await;
    db.store
        .delete_subscription(&Reach::all(&here), doomed.id, None, &act())
        .await
        .unwrap();
    db.store.cancel_orphans(HOUR, 10).await.unwrap();
    for filter in ["*", "edition.*"] {
        subscribe(&db.store, &[filter]).await;
    }
    accept(&db.store, &events(1)).await;
    accept_leased(&db.store, &events(1), for_long(me)).await;
    for verdict in [
        Verdict::Succeeded,
        Verdict::Failed,
        Verdict::Retry { delay: HOUR },
    ] {
        for delivery in accept_leased(&db.store, &events(1), for_long(me)).await {
            settle(&db.store, me, &delivery, verdict.clone()).await;
        }
    }
}

async fn pages(db: &TestDatabase, filter: &DeliveryFilter, limit: usize) -> Vec<DeliveryRecord> {
    pages_in(db, &Reach::all(&WorkspaceId::default()), filter, limit).await
}

/// All that a search finds, page by page.
pub(super) async fn pages_in(
    db: &TestDatabase,
    reach: &Reach,
    filter: &DeliveryFilter,
    limit: usize,
) -> Vec<DeliveryRecord> {
    let (mut found, mut after): (Vec<_>, Option<DeliveryId>) = (Vec::new(), None);
    loop {
        let request = PageRequest { limit, after };
        let page = db.replica.deliveries(reach, filter, request).await.unwrap();
        assert!(page.items.len() <= limit);
        assert!(page.next.is_none() || page.items.len() == limit);
        found.extend(page.items);
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

async fn deliveries_are_listed_newest_first_in_pages(db: &TestDatabase) {
    one_of_each(db).await;
    let all = deliveries(&db.store, &WorkspaceId::default()).await;
    assert_eq!(all.len(), 12);
    assert!(all.is_sorted_by(|a, b| a.id > b.id));
    for limit in [1, 2, 3, 5, 11, 12, 13] {
        assert_eq!(
            pages(db, &DeliveryFilter::default(), limit).await,
            all,
            "{limit} a page"
        );
    }
    for record in &all {
        let alone = db
            .store
            .delivery(&Reach::all(&WorkspaceId::default()), record.id)
            .await
            .unwrap();
        assert_eq!(alone.as_ref(), Some(record));
        assert_eq!(record.event_type.as_str(), "edition.archived");
    }
}

async fn filters_leave_out_what_they_should(db: &TestDatabase) {
    one_of_each(db).await;
    let all = deliveries(&db.store, &WorkspaceId::default()).await;
    let subscriptions: std::collections::HashSet<_> =
        all.iter().map(|record| record.subscription_id).collect();
    assert_eq!(subscriptions.len(), 3);
    let states = DeliveryState::ALL.into_iter().map(Some).chain([None]);
    for state in states {
        for subscription in subscriptions.iter().copied().map(Some).chain([None]) {
            let expected: Vec<_> = all
                .iter()
                .filter(|record| state.is_none_or(|state| record.state == state))
                .filter(|record| subscription.is_none_or(|id| record.subscription_id == id))
                .cloned()
                .collect();
            let filter = DeliveryFilter {
                subscription,
                state,
                ..DeliveryFilter::default()
            };
            assert_eq!(pages(db, &filter, 2).await, expected, "{filter:?}");
            if subscription.is_none() {
                assert!(!expected.is_empty(), "{state:?} is there to be found");
            }
        }
    }
}

async fn attempts_are_paged_oldest_first(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let mut delivery = accept_leased(&db.store, &events(1), for_no_time(me))
        .await
        .remove(0);
    for _ in 0..5 {
        // Each epoch twice: lost and taken over.
        let held = claim_all(&db.store, subscription.id, for_long(me))
            .await
            .remove(0);
        settle(&db.store, me, &delivery, Verdict::Failed).await;
        let delay = std::time::Duration::ZERO;
        settle(&db.store, me, &held, Verdict::Retry { delay }).await;
        delivery = claim_all(&db.store, subscription.id, for_no_time(me))
            .await
            .remove(0);
    }
    for limit in [1, 3, 10, 11] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = db
                .store
                .attempts(
                    &Reach::all(&WorkspaceId::default()),
                    delivery.id,
                    PageRequest { limit, after },
                )
                .await
                .unwrap();
            assert!(page.items.len() <= limit);
            found.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let told: Vec<_> = found
            .iter()
            .map(|kept| (kept.epoch, kept.lease_lost))
            .collect();
        let expected: Vec<_> = (1..=10).map(|epoch| (epoch, epoch % 2 == 1)).collect();
        assert_eq!(told, expected, "{limit} a page");
    }
}

async fn another_workspace_sees_no_delivery_and_no_attempt(db: &TestDatabase) {
    let (ours, theirs) = (WorkspaceId::default(), workspace("ws_2"));
    let subscription = subscribe(&db.store, &["*"]).await;
    subscribe_in(&db.store, &theirs, spec(&["*"])).await;
    let me = owner();
    let settled = accept_leased(&db.store, &events(1), for_long(me))
        .await
        .remove(0);
    settle(&db.store, me, &settled, Verdict::Succeeded).await;
    let waiting = accept_leased(&db.store, &events(1), for_long(me))
        .await
        .remove(0);
    accept(&db.store, &[event().workspace("ws_2").build()]).await;

    let page = PageRequest {
        limit: 10,
        after: None,
    };
    let (our_reach, their_reach) = (Reach::all(&ours), Reach::all(&theirs));
    for id in [settled.id, waiting.id] {
        assert!(db.store.delivery(&our_reach, id).await.unwrap().is_some());
        assert_eq!(db.store.delivery(&their_reach, id).await.unwrap(), None);
    }
    let attempts = db
        .store
        .attempts(&our_reach, settled.id, page)
        .await
        .unwrap();
    assert_eq!(attempts.items.len(), 1);
    let attempts = db.store.attempts(
        &their_reach,
        settled.id,
        PageRequest {
            limit: 10,
            after: None,
        },
    );
    assert!(attempts.await.unwrap().items.is_empty());
    assert_eq!(deliveries(&db.store, &ours).await.len(), 2);
    assert_eq!(deliveries(&db.store, &theirs).await.len(), 1);
    let filter = DeliveryFilter {
        subscription: Some(subscription.id),
        ..DeliveryFilter::default()
    };
    let page = PageRequest {
        limit: 10,
        after: None,
    };
    assert!(
        db.store
            .deliveries(&their_reach, &filter, page)
            .await
            .unwrap()
            .items
            .is_empty()
    );
}
