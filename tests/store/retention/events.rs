//! Events, and what goes with them.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::delivery::{DeliveryState, Verdict};
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::store::{
    FeedFilter, FeedPage, FeedPosition, FeedRequest, FeedStart, Kept, LeasedDelivery,
};

use super::super::fixture::{
    HOUR, accept, accept_leased, claim_all, for_long, owner, record, settle, subscribe, taken,
};
use super::{DAY, EVENTS, MONTH, counts, each, grow_older, lead, sweep_events, sweep_loose};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{event, events, workspace};

on_both_databases!(
    old_events_go_with_all_that_hangs_on_them,
    a_reader_below_the_floor_is_told_and_one_at_it_misses_nothing,
    an_event_that_is_under_way_stays_with_its_deliveries,
    a_delivery_that_was_settled_lately_holds_its_event,
    what_was_in_no_feed_goes_by_itself,
    a_step_is_bounded_by_events,
    a_step_is_bounded_by_deliveries,
    a_step_is_bounded_by_bytes,
    each_workspace_goes_by_itself,
    a_place_without_an_event_goes_too,
    the_oldest_event_is_told,
);

const HISTORY: [&str; 4] = ["event", "event_feed", "delivery", "attempt"];

/// Accepts events and delivers them.
async fn deliver(db: &TestDatabase, events: &[Arc<Payload>]) -> Vec<LeasedDelivery> {
    let me = owner();
    let leased = accept_leased(&db.store, events, for_long(me)).await;
    for delivery in &leased {
        settle(&db.store, me, delivery, Verdict::Succeeded).await;
    }
    leased
}

async fn page(db: &TestDatabase, start: FeedStart) -> Option<FeedPage> {
    let request = FeedRequest {
        start,
        limit: 100,
        max_bytes: usize::MAX,
    };
    let here = Reach::all(&WorkspaceId::default());
    let filter = FeedFilter::default();
    db.replica.feed(&here, &filter, request).await.unwrap()
}

async fn old_events_go_with_all_that_hangs_on_them(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    subscribe(&db.store, &["*"]).await;
    let old = events(3);
    deliver(db, &old).await;
    grow_older(db, &EVENTS, 31).await;
    let young = deliver(db, &events(2)).await;
    let held = lead(db).await;
    let steps = sweep_events(db, &held, 100).await;
    assert_eq!(each(&steps, Kept::Event), [3]);
    assert_eq!(each(&steps, Kept::FeedPlace), [3]);
    assert_eq!(each(&steps, Kept::Delivery), [6]);
    assert_eq!(each(&steps, Kept::Attempt), [6]);
    assert_eq!(counts(db, HISTORY).await, [2, 2, 4, 4]);
    // What they are recognised by outlives them.
    assert_eq!(counts(db, ["event_key", "event_key_age"]).await, [5, 3]);
    for delivery in young {
        let kept = record(&db.store, delivery.id).await;
        assert_eq!(kept.state, DeliveryState::Succeeded);
    }
    assert!(sweep_events(db, &held, 100).await.is_empty());
}

async fn a_reader_below_the_floor_is_told_and_one_at_it_misses_nothing(db: &TestDatabase) {
    accept(&db.store, &events(5)).await;
    grow_older(db, &EVENTS, 31).await;
    accept(&db.store, &events(3)).await;
    let places = db.feed(&WorkspaceId::default()).await;
    let held = lead(db).await;
    sweep_events(db, &held, 2).await;
    let behind = async |place: i64| {
        let place: FeedPosition = place.to_string().parse().unwrap();
        page(db, FeedStart::Behind(place)).await
    };
    assert_eq!(behind(0).await, None);
    assert_eq!(behind(places[3].0).await, None);
    let young: Vec<_> = places[5..].iter().map(|(_, event)| *event).collect();
    for page in [behind(places[4].0).await, page(db, FeedStart::Oldest).await] {
        let items = page.expect("nothing was missed").items;
        let seen: Vec<_> = items.iter().map(|item| item.event.id).collect();
        assert_eq!(seen, young);
    }
}

async fn an_event_that_is_under_way_stays_with_its_deliveries(db: &TestDatabase) {
    let waiting = subscribe(&db.store, &["*"]).await;
    let quick = subscribe(&db.store, &["*"]).await;
    let payload = event().build_at(SystemClock.now() - 2 * MONTH);
    accept(&db.store, &[payload]).await;
    let me = owner();
    let sent = claim_all(&db.store, quick.id, for_long(me)).await.remove(0);
    settle(&db.store, me, &sent, Verdict::Succeeded).await;
    grow_older(db, &EVENTS, 60).await;

    let held = lead(db).await;
    sweep_events(db, &held, 100).await;
    sweep_loose(db, &held, 100).await;
    assert_eq!(counts(db, HISTORY).await, [1, 0, 1, 1], "out of the feed");

    // It is delivered as if nothing had been; then it goes in its time.
    let last = claim_all(&db.store, waiting.id, for_long(me)).await;
    assert_eq!(
        sweep_loose(db, &held, 100).await.rows(Kept::Event),
        0,
        "in flight"
    );
    let retry = Verdict::Retry { delay: HOUR };
    settle(&db.store, me, &last[0], retry).await;
    assert_eq!(
        sweep_loose(db, &held, 100).await.rows(Kept::Event),
        0,
        "to be retried"
    );
    db.tamper("update delivery_queue set visible_at = (select min(accepted_at) from event)")
        .await;
    let last = claim_all(&db.store, waiting.id, for_long(me)).await;
    settle(&db.store, me, &last[0], Verdict::Failed).await;
    sweep_loose(db, &held, 100).await;
    let kept = record(&db.store, last[0].id).await;
    assert_eq!(kept.state, DeliveryState::Failed, "settled just now");
    grow_older(db, &EVENTS[1..], 31).await;
    sweep_loose(db, &held, 100).await;
    assert_eq!(counts(db, HISTORY).await, [0, 0, 0, 0]);
}

async fn a_delivery_that_was_settled_lately_holds_its_event(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    let leased = deliver(db, &events(2)).await;
    grow_older(db, &EVENTS[..1], 31).await;
    let held = lead(db).await;
    sweep_events(db, &held, 100).await;
    assert_eq!(counts(db, HISTORY).await, [2, 0, 2, 2]);
    let kept = record(&db.store, leased[0].id).await;
    assert_eq!(kept.state, DeliveryState::Succeeded);
}

async fn what_was_in_no_feed_goes_by_itself(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    for days in [45, 1] {
        let (ping, met) = (event().build_at(SystemClock.now() - days * DAY), taken());
        let sent = db.store.record_test(ping.event(), subscription.id, &met);
        sent.await.unwrap();
        if days > 30 {
            grow_older(db, &EVENTS, days).await;
        }
    }
    let held = lead(db).await;
    assert!(sweep_events(db, &held, 100).await.is_empty());
    for limit in [1, 100] {
        let gone = sweep_loose(db, &held, limit).await;
        assert_eq!(gone.rows(Kept::Event), u64::from(limit == 1));
    }
    assert_eq!(counts(db, HISTORY).await, [1, 0, 1, 1]);
    // One that has a place in a feed yet is not loose, however old its id.
    let late = event().build_at(SystemClock.now() - 2 * MONTH);
    accept(&db.store, &[late]).await;
    sweep_loose(db, &held, 100).await;
    assert_eq!(counts(db, ["event", "event_feed"]).await, [2, 1]);
}

async fn a_step_is_bounded_by_events(db: &TestDatabase) {
    accept(&db.store, &events(5)).await;
    grow_older(db, &EVENTS, 31).await;
    accept(&db.store, &events(5)).await;
    let held = lead(db).await;
    let steps = sweep_events(db, &held, 2).await;
    assert_eq!(each(&steps, Kept::Event), [2, 2, 1]);
    assert_eq!(each(&steps, Kept::FeedPlace), [2, 2, 1]);
}

async fn a_step_is_bounded_by_deliveries(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    subscribe(&db.store, &["*"]).await;
    let me = owner();
    let leased = accept_leased(&db.store, &events(300), for_long(me)).await;
    let settlements: Vec<_> = leased
        .iter()
        .map(|delivery| super::super::fixture::settlement(delivery, Verdict::Succeeded))
        .collect();
    db.store.settle(me, &settlements).await.unwrap();
    grow_older(db, &EVENTS, 31).await;
    let held = lead(db).await;
    let first = db.store.remove_events(&held, MONTH, 1_000).await.unwrap();
    let first = first.expect("leads").removed;
    assert_eq!(
        [Kept::Delivery, Kept::Attempt, Kept::Event, Kept::FeedPlace].map(|it| first.rows(it)),
        [500, 500, 0, 0]
    );
    assert_eq!(page(db, FeedStart::Oldest).await.unwrap().items.len(), 100);
    sweep_events(db, &held, 1_000).await;
    assert_eq!(counts(db, HISTORY).await, [0, 0, 0, 0]);
}

async fn a_step_is_bounded_by_bytes(db: &TestDatabase) {
    let large = format!("\"{}\"", "x".repeat(900_000));
    for _ in 0..7 {
        accept(&db.store, &[event().data(&large).build()]).await;
    }
    grow_older(db, &EVENTS, 31).await;
    let held = lead(db).await;
    let steps = sweep_events(db, &held, 100).await;
    assert_eq!(each(&steps, Kept::Event), [4, 3]);
}

async fn each_workspace_goes_by_itself(db: &TestDatabase) {
    let in_workspace = |name: &str| event().workspace(name).build();
    for name in ["ws_1", "ws_3", "ws_4"] {
        accept(&db.store, &[in_workspace(name), in_workspace(name)]).await;
    }
    grow_older(db, &EVENTS, 31).await;
    for name in ["ws_1", "ws_2", "ws_4"] {
        accept(&db.store, &[in_workspace(name)]).await;
    }
    let held = lead(db).await;
    sweep_events(db, &held, 100).await;
    for (name, left) in [("ws_1", 1), ("ws_2", 1), ("ws_3", 0), ("ws_4", 1)] {
        assert_eq!(db.feed(&workspace(name)).await.len(), left, "{name}");
    }
    assert_eq!(counts(db, ["event", "event_feed_floor"]).await, [3, 3]);
}

async fn a_place_without_an_event_goes_too(db: &TestDatabase) {
    accept(&db.store, &events(2)).await;
    db.tamper("delete from event").await;
    accept(&db.store, &events(1)).await;
    let held = lead(db).await;
    sweep_events(db, &held, 100).await;
    assert_eq!(counts(db, ["event", "event_feed"]).await, [1, 1]);
}

async fn the_oldest_event_is_told(db: &TestDatabase) {
    assert_eq!(db.store.oldest_event().await.unwrap(), None);
    accept(&db.store, &events(1)).await;
    let old = event().build_at(SystemClock.now() - 3 * DAY);
    accept(&db.store, &[old]).await;
    let age = db.store.oldest_event().await.unwrap().unwrap();
    assert!(age >= 3 * DAY && age < 3 * DAY + Duration::from_mins(10));
}
