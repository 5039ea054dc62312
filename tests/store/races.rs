//! The same thing done by several at once.

use std::sync::Arc;

use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::store::AcceptOutcome;

use super::fixture::{accept, deliveries, subscribe};
use crate::harness::databases::TestDatabase;
use crate::harness::events::event;

on_both_databases!(the_same_events_accepted_at_once_are_kept_once);

async fn the_same_events_accepted_at_once_are_kept_once(db: &TestDatabase) {
    const ROUNDS: usize = 20;
    const EVENTS: usize = 50;
    subscribe(&db.store, &["*"]).await;
    for round in 0..ROUNDS {
        // Each copy has an id of its own, and half of them come in another order.
        let copy = |reversed: bool| -> Vec<Arc<Payload>> {
            let mut copy: Vec<_> = (0..EVENTS)
                .map(|number| event().id(&format!("{round}/{number}")).build())
                .collect();
            if reversed {
                copy.reverse();
            }
            copy
        };
        let writers: Vec<_> = [&db.store, &db.replica, &db.store, &db.replica]
            .into_iter()
            .enumerate()
            .map(|(number, store)| {
                let (store, copy) = (Arc::clone(store), copy(number % 2 == 1));
                tokio::spawn(async move { accept(&store, &copy).await })
            })
            .collect();
        let (mut stored, mut pending) = (0, 0);
        for writer in writers {
            let accepted = writer.await.unwrap();
            assert_eq!(accepted.outcomes.len(), EVENTS);
            stored += accepted
                .outcomes
                .iter()
                .filter(|outcome| **outcome == AcceptOutcome::Stored)
                .count();
            pending += accepted.pending;
        }
        assert_eq!((stored, pending), (EVENTS, EVENTS), "round {round}");
    }
    let here = WorkspaceId::default();
    assert_eq!(deliveries(&db.store, &here).await.len(), ROUNDS * EVENTS);
    assert_eq!(db.feed(&here).await.len(), ROUNDS * EVENTS);
}
