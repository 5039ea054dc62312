//! Several at one gate in the same moment.

use std::sync::Arc;

use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::store::SettleOutcome;
use tokio::sync::Barrier;

use super::super::fixture::{accept, accept_leased, for_long, owner, settle};
use super::{check, drain, event_ids, ids_of, of, ordered};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    accepts_at_once_of_one_edition_agree_on_one_order,
    an_accept_beside_a_settle_leaves_nobody_stuck,
);

async fn accepts_at_once_of_one_edition_agree_on_one_order(db: &TestDatabase) {
    const ROUNDS: usize = 15;
    let subscription = ordered(db).await.id;
    let workspace = WorkspaceId::default();
    for round in 0..ROUNDS {
        let barrier = Arc::new(Barrier::new(4));
        let writers: Vec<_> = [&db.store, &db.replica, &db.store, &db.replica]
            .into_iter()
            .enumerate()
            .map(|(number, store)| {
                // Each meets all editions, some of them from the other end.
                let mut batch: Vec<_> = ["ed_1", "ed_2", "ed_3"]
                    .iter()
                    .flat_map(|edition| of(edition, 2))
                    .collect();
                if number % 2 == 1 {
                    batch.reverse();
                }
                let (store, barrier) = (Arc::clone(store), Arc::clone(&barrier));
                tokio::spawn(async move {
                    barrier.wait().await;
                    let me = owner();
                    let born = accept_leased(&store, &batch, for_long(me)).await;
                    (me, born)
                })
            })
            .collect();
        let mut sent = Vec::new();
        for writer in writers {
            let (me, born) = writer.await.unwrap();
            for delivery in born {
                settle(&db.store, me, &delivery, Verdict::Succeeded).await;
                sent.push(delivery);
            }
        }
        assert_eq!(sent.len(), 3, "round {round}: one head for each edition");
        sent.extend(drain(db, subscription).await);
        let feed = db.feed(&workspace).await;
        let accepted: Vec<String> = feed[feed.len() - 24..]
            .iter()
            .map(|(_, event)| event.to_string())
            .collect();
        for edition in ["ed_1", "ed_2", "ed_3"] {
            let sent: Vec<_> = sent
                .iter()
                .filter(|one| one.payload.event().edition.as_ref().unwrap().as_str() == edition)
                .cloned()
                .collect();
            let sent = event_ids(&sent);
            let in_order = accepted.iter().filter(|id| sent.contains(id));
            assert_eq!(sent, in_order.cloned().collect::<Vec<_>>(), "round {round}");
            assert_eq!(sent.len(), 8);
        }
    }
}

/// The one that waits for the gate while another lets it go must be seen by that, or become the head.
async fn an_accept_beside_a_settle_leaves_nobody_stuck(db: &TestDatabase) {
    const ROUNDS: usize = 40;
    let subscription = ordered(db).await.id;
    for round in 0..ROUNDS {
        let me = owner();
        let batch = of("ed_1", 1);
        let born = accept_leased(&db.store, &batch, for_long(me)).await;
        let barrier = Arc::new(Barrier::new(2));
        let settling = {
            let (store, barrier) = (Arc::clone(&db.store), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                settle(&store, me, &born[0], Verdict::Succeeded).await
            })
        };
        let next = of("ed_1", 2);
        barrier.wait().await;
        accept(&db.replica, &next).await;
        assert_ne!(settling.await.unwrap(), SettleOutcome::LeaseLost);
        check(db, &format!("round {round}")).await;
        assert_eq!(event_ids(&drain(db, subscription).await), ids_of(&next));
    }
}
