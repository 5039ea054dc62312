//! Lists of deliveries: by event, type, edition and time, and pages that end early.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::store::{DeliveryFilter, MAX_LOOKED_AT, PageRequest};

use super::fixture::{
    accept, accept_leased, deliveries, for_long, owner, settle, settlement, subscribe, subscribe_in,
};
use super::log::pages_in;
use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, event, events, reach, spec_for_projects};

on_both_databases!(
    deliveries_of_an_event_are_found_where_they_are,
    deliveries_are_found_by_type_and_edition,
    times_are_bounds_to_the_millisecond,
    a_search_that_finds_little_ends_early_and_goes_on,
    a_reach_that_sees_little_ends_early_and_goes_on,
    a_list_that_an_index_serves_has_full_pages,
);

/// A fixed instant, and so many milliseconds.
fn at(millis: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_777_000_000_000 + millis).unwrap()
}

fn all() -> Reach {
    Reach::all(&WorkspaceId::default())
}

/// Half of them settled.
async fn come(db: &TestDatabase, events: &[Arc<Payload>]) {
    let me = owner();
    let (settled, waiting) = events.split_at(events.len() / 2);
    for delivery in accept_leased(&db.store, settled, for_long(me)).await {
        settle(&db.store, me, &delivery, Verdict::Succeeded).await;
    }
    accept(&db.store, waiting).await;
}

async fn deliveries_of_an_event_are_found_where_they_are(db: &TestDatabase) {
    let mut subscriptions = Vec::new();
    for _ in 0..3 {
        subscriptions.push(subscribe(&db.store, &["*"]).await);
    }
    let events: Vec<_> = (0..6).map(|_| event().build_at(at(0))).collect();
    come(db, &events).await;
    db.store
        .delete_subscription(
            &Reach::all(&WorkspaceId::default()),
            subscriptions[2].id,
            None,
            &act(),
        )
        .await
        .unwrap();
    let listed = deliveries(&db.store, &WorkspaceId::default()).await;
    assert_eq!(listed.len(), 18);
    for event in &events {
        let of_event = DeliveryFilter {
            event: Some(event.event().id),
            ..DeliveryFilter::default()
        };
        let mut expected = listed.clone();
        expected.retain(|record| record.event_id == event.event().id);
        assert_eq!(expected.len(), 3, "one is of a deleted subscription");
        for limit in [1, 2, 3, 4] {
            assert_eq!(pages_in(db, &all(), &of_event, limit).await, expected);
        }
        let of_both = DeliveryFilter {
            subscription: Some(subscriptions[1].id),
            ..of_event
        };
        expected.retain(|record| record.subscription_id == subscriptions[1].id);
        assert_eq!(pages_in(db, &all(), &of_both, 2).await, expected);
    }
    for (since, until, expected) in [
        (Some(at(0)), Some(at(1)), 3),
        (Some(at(1)), None, 0),
        (None, Some(at(0)), 0),
        (Some(at(-9)), Some(at(9)), 3),
    ] {
        let filter = DeliveryFilter {
            event: Some(events[0].event().id),
            since,
            until,
            ..DeliveryFilter::default()
        };
        assert_eq!(pages_in(db, &all(), &filter, 2).await.len(), expected);
    }
    let unknown = DeliveryFilter {
        event: Some(event().build().event().id),
        ..DeliveryFilter::default()
    };
    assert!(pages_in(db, &all(), &unknown, 2).await.is_empty());
}

async fn deliveries_are_found_by_type_and_edition(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let events: Vec<_> = (0..24)
        .map(|n| {
            let event_type = ["edition.archived", "output.lost", "output"][n % 3];
            let data = [r#"{"edition_id":"ed_1"}"#, r#"{"edition_id":"ed_2"}"#, "{}"][n / 8];
            event().event_type(event_type).data(data).build()
        })
        .collect();
    come(db, &events).await;
    let listed = deliveries(&db.store, &WorkspaceId::default()).await;
    for event_type in [Some("output"), Some("output.lost"), Some("x"), None] {
        for edition in [Some("ed_1"), Some("ed_2"), Some("ed"), None] {
            let filter = DeliveryFilter {
                event_type: event_type.map(|text| text.to_owned().try_into().unwrap()),
                edition: edition.map(|text| text.parse().unwrap()),
                ..DeliveryFilter::default()
            };
            let mut expected = listed.clone();
            expected.retain(|record| {
                let edition = record.edition.as_ref();
                (filter.event_type.is_none()
                    || filter.event_type.as_ref() == Some(&record.event_type))
                    && (filter.edition.is_none() || filter.edition.as_ref() == edition)
            });
            assert_eq!(
                pages_in(db, &all(), &filter, 2).await,
                expected,
                "{filter:?}"
            );
            let to_one = DeliveryFilter {
                subscription: Some(subscription.id),
                ..filter
            };
            assert_eq!(
                pages_in(db, &all(), &to_one, 5).await,
                expected,
                "{to_one:?}"
            );
        }
    }
}

async fn times_are_bounds_to_the_millisecond(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    let events: Vec<_> = (0..4).map(|n| event().build_at(at(n))).collect();
    come(db, &events).await;
    let half = Duration::from_micros(500);
    for (since, until, expected) in [
        (Some(at(1)), None, 1..4),
        (Some(at(1) + half), None, 2..4),
        (None, Some(at(2)), 0..2),
        (None, Some(at(2) + half), 0..3),
        (Some(at(1)), Some(at(3)), 1..3),
        (Some(at(2)), Some(at(2)), 0..0),
        (
            Some(DateTime::<Utc>::MIN_UTC),
            Some(DateTime::<Utc>::MAX_UTC),
            0..4,
        ),
    ] {
        let filter = DeliveryFilter {
            since,
            until,
            ..DeliveryFilter::default()
        };
        for limit in [1, 9] {
            let mut found = pages_in(db, &all(), &filter, limit).await;
            found.reverse();
            let told: Vec<_> = found
                .iter()
                .map(|record| (record.event_id, record.created_at))
                .collect();
            let came: Vec<_> = (0..)
                .zip(&events)
                .map(|(n, payload)| (payload.event().id, at(n)))
                .collect();
            assert_eq!(told, came[expected.clone()], "{filter:?}");
        }
    }
}

/// More than one call looks at, half of them settled, and one of its own before and behind them.
async fn haystack(db: &TestDatabase, needle: impl Fn() -> Arc<Payload>) {
    let me = owner();
    accept(&db.store, &[needle()]).await;
    for number in 0..=MAX_LOOKED_AT / 1_000 {
        let events = events(1_000);
        if number % 2 == 0 {
            accept(&db.store, &events).await;
            continue;
        }
        let leased = accept_leased(&db.store, &events, for_long(me)).await;
        let settlements: Vec<_> = leased
            .iter()
            .map(|delivery| settlement(delivery, Verdict::Succeeded))
            .collect();
        db.store.settle(me, &settlements).await.unwrap();
    }
    accept(&db.store, &[needle()]).await;
}

/// The needles come in two pages, one each, and the first ends at no needle.
async fn check_needles(db: &TestDatabase, reach: &Reach, filter: &DeliveryFilter) {
    let everything = deliveries(&db.store, &reach.workspace).await;
    let page = PageRequest {
        limit: 50,
        after: None,
    };
    let first = db.store.deliveries(reach, filter, page).await.unwrap();
    assert_eq!(first.items, everything[..1]);
    assert_eq!(first.next, Some(everything[MAX_LOOKED_AT - 1].id));
    let page = PageRequest {
        after: first.next,
        ..page
    };
    let second = db.store.deliveries(reach, filter, page).await.unwrap();
    assert_eq!(second.items, everything[everything.len() - 1..]);
    assert_eq!(second.next, None);
    assert_eq!(
        pages_in(db, reach, filter, 1).await,
        [&first.items[..], &second.items[..]].concat()
    );
}

async fn a_search_that_finds_little_ends_early_and_goes_on(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    haystack(db, || event().event_type("output.lost").build()).await;
    let filter = DeliveryFilter {
        event_type: Some("output.lost".to_owned().try_into().unwrap()),
        ..DeliveryFilter::default()
    };
    check_needles(db, &all(), &filter).await;
}

async fn a_reach_that_sees_little_ends_early_and_goes_on(db: &TestDatabase) {
    // The needles go to the second one, and everything else to the first.
    let here = WorkspaceId::default();
    subscribe(&db.store, &["edition.*"]).await;
    subscribe_in(
        &db.store,
        &here,
        spec_for_projects(&["output.*"], &["pr_1"]),
    )
    .await;
    haystack(db, || {
        event().event_type("output.lost").project("pr_1").build()
    })
    .await;
    check_needles(db, &reach(&here, &["pr_1"]), &DeliveryFilter::default()).await;
}

async fn a_list_that_an_index_serves_has_full_pages(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["output.*"]).await;
    subscribe(&db.store, &["edition.*"]).await;
    haystack(db, || event().event_type("output.lost").build()).await;
    let filter = DeliveryFilter {
        subscription: Some(subscription.id),
        ..DeliveryFilter::default()
    };
    let page = PageRequest {
        limit: 50,
        after: None,
    };
    let found = db.store.deliveries(&all(), &filter, page).await.unwrap();
    assert_eq!((found.items.len(), found.next), (2, None));
}
