//! Everything at once on Postgres: nobody stands in a circle with another, nobody is stuck, nothing is
//! lost.

use std::sync::Arc;

use forge_dispatch::domain::delivery::{DeliveryState, Verdict};
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::domain::selection::Selection;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::Store;
use futures::future::join_all;

use super::super::bulk_replay::{begin, put_into_queue};
use super::super::fixture::{
    accept_leased, claim_all, deliveries, for_long, for_no_time, owner, settlement,
};
use super::super::postgres_editions::tell_of_no_deadlock;
use super::{check, drain, here, of, ordered};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::act;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_at_once_nobody_is_stuck_and_nobody_locks_another_out() {
    let db = Arc::new(TestDatabase::new(Kind::Postgres).await);
    let subscriptions = [ordered(&db).await.id, ordered(&db).await.id];
    let dispatchers = (0..4).map(|number| {
        let store = [&db.store, &db.replica][number % 2];
        tokio::spawn(dispatch(Arc::clone(store), subscriptions, number as u64))
    });
    let dispatchers: Vec<_> = dispatchers.collect();
    let replays = tokio::spawn(replay(Arc::clone(&db.store), 9));
    let bulks = {
        let db = Arc::clone(&db);
        tokio::spawn(async move {
            for number in 0..6 {
                let selection = Selection {
                    states: vec![DeliveryState::Failed, DeliveryState::Succeeded],
                    subscription_id: Some(subscriptions[number % 2]),
                    ..Selection::default()
                };
                let many = begin(&db, selection).await;
                put_into_queue(&db, &many).await;
                if number % 2 == 0 {
                    let cancelled = db.store.cancel_replay(&here(), many.id, &act()).await;
                    cancelled.unwrap().unwrap();
                }
            }
        })
    };
    let mut accepted = 0;
    for dispatched in join_all(dispatchers).await {
        accepted += dispatched.unwrap();
    }
    replays.await.unwrap();
    bulks.await.unwrap();
    check(&db, "all came to rest").await;

    for subscription in subscriptions {
        drain(&db, subscription).await;
    }
    assert_eq!(db.count("delivery_queue").await, 0, "nobody is stuck");
    assert_eq!(db.count("order_gate").await, 0);
    let known = deliveries(&db.store, &WorkspaceId::default()).await;
    assert_eq!(known.len(), 2 * accepted, "nothing is lost");
    assert!(known.iter().all(|one| one.state.is_final()));
    tell_of_no_deadlock(&db).await;
    Arc::into_inner(db).unwrap().remove().await;
}
