//! Everything at once on Postgres: nobody stands in a circle with another, nobody is stuck, nothing is
//! lost.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::delivery::{DeliveryState, Verdict};
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId, created_at};
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::domain::selection::Selection;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{PageRequest, Store};
use futures::future::join_all;

use super::super::bulk_replay::{begin, finish, put_into_queue};
use super::super::fixture::{
    HOUR, accept, accept_leased, claim_all, deliveries, for_long, for_no_time, owner, settlement,
};
use super::super::postgres_editions::tell_of_no_deadlock;
use super::super::retention::{EVENTS, MONTH, grow_older, lead};
use super::{check, data_of, drain, here, of, ordered};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{act, event};

/// How often each of them acts.
const ACTS: usize = 25;

const EDITIONS: [&str; 4] = ["ed_1", "ed_2", "ed_3", "ed_4"];

struct Rng(Entropy);

impl Rng {
    fn below(&self, end: usize) -> usize {
        usize::from(u16::from_le_bytes(self.0.bytes())) % end
    }
}

/// Batches of many editions, in an order of their own; settled together with what is due.
async fn dispatch(store: Arc<dyn Store>, subscriptions: [SubscriptionId; 2], seed: u64) -> usize {
    let random = Rng(Entropy::seeded(seed));
    let mut accepted = 0;
    for _ in 0..ACTS {
        let me = owner();
        let batch: Vec<_> = (0..8)
            .flat_map(|_| of(EDITIONS[random.below(EDITIONS.len())], 1))
            .collect();
        accepted += batch.len();
        let mut leased = accept_leased(&store, &batch, for_long(me)).await;
        for subscription in subscriptions {
            // Some leases are lost.
            let leasing = match random.below(4) {
                0 => for_no_time(me),
                _ => for_long(me),
            };
            leased.extend(claim_all(&store, subscription, leasing).await);
        }
        let outcomes: Vec<_> = leased
            .iter()
            .map(|delivery| {
                let verdict = match (random.below(5), delivery.replaying) {
                    (0, None) => Verdict::Retry {
                        delay: std::time::Duration::ZERO,
                    },
                    (1, None) => Verdict::Failed,
                    (2, _) => Verdict::Released,
                    _ => Verdict::Succeeded,
                };
                settlement(delivery, verdict)
            })
            .collect();
        store.settle(me, &outcomes).await.unwrap();
    }
    accepted
}

/// Single replays of what was settled, whatever it is by now.
async fn replay(store: Arc<dyn Store>, seed: u64) {
    let random = Rng(Entropy::seeded(seed));
    for _ in 0..ACTS {
        let known = deliveries(&store, &WorkspaceId::default()).await;
        let settled: Vec<_> = known.iter().filter(|one| one.state.is_final()).collect();
        for _ in 0..settled.len().min(3) {
            let one = settled[random.below(settled.len())];
            store
                .replay_delivery(&here(), one.id, &act())
                .await
                .unwrap();
        }
        tokio::task::yield_now().await;
    }
}

/// How many events come before all that, once of old and once of late.
const BEFORE: usize = 30;

/// How old the old events are.
const DAYS: u32 = 60;

/// Events of all editions, that came then.
fn come_at(then: DateTime<Utc>, count: usize) -> Vec<Arc<Payload>> {
    let all = (0..count).map(|number| {
        let data = data_of(EDITIONS[number % EDITIONS.len()]);
        event().data(&data).build_at(then)
    });
    all.collect()
}

/// Replays of many: of what was settled, and of what was never made for the second subscription. Half of
/// the former are cancelled under way, and nearly all of the latter, so that there is something left for the
/// next.
async fn replay_many(db: Arc<TestDatabase>, subscriptions: [SubscriptionId; 2]) {
    const ROUNDS: usize = 6;
    let settled = vec![DeliveryState::Failed, DeliveryState::Succeeded];
    for number in 0..ROUNDS {
        for (states, subscription) in [
            (settled.clone(), subscriptions[number % 2]),
            (Vec::new(), subscriptions[1]),
        ] {
            let backfill = states.is_empty();
            let selection = Selection {
                backfill,
                states,
                subscription_id: Some(subscription),
                ..Selection::default()
            };
            let many = begin(&db, selection).await;
            put_into_queue(&db, &many).await;
            let is_last = number + 1 == ROUNDS;
            if number % 2 == 0 || backfill && !is_last {
                let cancelled = db.store.cancel_replay(&here(), many.id, &act()).await;
                cancelled.unwrap().unwrap();
                finish(&db, &many).await;
            }
        }
    }
}

/// Removes what is old, an event at a time.
async fn retain(db: Arc<TestDatabase>) {
    let held = lead(&db).await;
    for _ in 0..2 * ACTS {
        let swept = db.replica.remove_events(&held, MONTH, 1).await.unwrap();
        swept.expect("leads");
        let swept = db.replica.remove_loose_events(&held, MONTH, None, 1).await;
        swept.unwrap().expect("leads");
        tokio::task::yield_now().await;
    }
}

/// What was never made for it is made, whatever was cancelled; to be called when nobody else acts.
async fn make_the_rest(db: &TestDatabase, subscription: SubscriptionId) {
    let all = PageRequest {
        limit: 100,
        after: None,
    };
    for cancelled in db.store.unfinished_replays(all).await.unwrap() {
        db.store.settle_replay(&cancelled).await.unwrap();
    }
    let selection = Selection {
        backfill: true,
        states: Vec::new(),
        subscription_id: Some(subscription),
        ..Selection::default()
    };
    let many = begin(db, selection).await;
    put_into_queue(db, &many).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_at_once_nobody_is_stuck_and_nobody_locks_another_out() {
    let db = Arc::new(TestDatabase::new(Kind::Postgres).await);
    // The second subscription comes too late for all of these, and the first of them are so old that they go.
    let first = ordered(&db).await.id;
    let then = SystemClock.now() - 24 * DAYS * HOUR;
    accept(&db.store, &come_at(then, BEFORE)).await;
    drain(&db, first).await;
    grow_older(&db, &EVENTS, DAYS).await;
    accept(&db.store, &come_at(SystemClock.now(), BEFORE)).await;
    let subscriptions = [first, ordered(&db).await.id];
    let dispatchers = (0..4).map(|number| {
        let store = [&db.store, &db.replica][number % 2];
        tokio::spawn(dispatch(Arc::clone(store), subscriptions, number as u64))
    });
    let dispatchers: Vec<_> = dispatchers.collect();
    let replays = tokio::spawn(replay(Arc::clone(&db.store), 9));
    let bulks = tokio::spawn(replay_many(Arc::clone(&db), subscriptions));
    let retention = tokio::spawn(retain(Arc::clone(&db)));
    let mut accepted = BEFORE;
    for dispatched in join_all(dispatchers).await {
        accepted += dispatched.unwrap();
    }
    replays.await.unwrap();
    bulks.await.unwrap();
    retention.await.unwrap();
    check(&db, "all came to rest").await;
    make_the_rest(&db, subscriptions[1]).await;
    check(&db, "the rest is made").await;

    for subscription in subscriptions {
        drain(&db, subscription).await;
    }
    assert_eq!(db.count("delivery_queue").await, 0, "nobody is stuck");
    assert_eq!(db.count("order_gate").await, 0);
    let known = deliveries(&db.store, &WorkspaceId::default()).await;
    assert!(known.iter().all(|one| one.state.is_final()));
    let is_young = |created: DateTime<Utc>| created > then + 24 * HOUR;
    let young = known.iter();
    let young = young.filter(|one| is_young(created_at(one.event_id.uuid())));
    assert_eq!(young.count(), 2 * accepted, "nothing is lost");
    let homeless = "delivery d where not exists (select from event e where e.id = d.event_id)";
    assert_eq!(
        db.count(homeless).await,
        0,
        "nothing stays without its event"
    );
    tell_of_no_deadlock(&db).await;
    Arc::into_inner(db).unwrap().remove().await;
}
