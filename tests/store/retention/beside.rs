//! Removing while everybody else works.

use std::collections::HashSet;
use std::sync::Arc;

use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::domain::ids::{EventId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::store::{FeedFilter, FeedPosition, FeedRequest, FeedStart, Rest, Store};

use super::super::fixture::{accept_leased, for_long, owner, settlement, subscribe};
use super::{EVENTS, MONTH, grow_older, lead};
use crate::harness::databases::TestDatabase;
use crate::harness::events::events;

on_both_databases!(nothing_that_is_young_is_lost_and_no_reader_has_a_gap);

const OLD: usize = 1_200;
const WRITERS: usize = 3;
const BATCHES: usize = 20;
const BATCH: usize = 30;

/// Accepts events and delivers them, batch by batch; answers which.
async fn work(store: Arc<dyn Store>, batches: usize, batch: usize) -> Vec<EventId> {
    let (me, mut written) = (owner(), Vec::new());
    for _ in 0..batches {
        let came = events(batch);
        let leased = accept_leased(&store, &came, for_long(me)).await;
        let settlements: Vec<_> = leased
            .iter()
            .map(|delivery| settlement(delivery, Verdict::Succeeded))
            .collect();
        store.settle(me, &settlements).await.unwrap();
        written.extend(came.iter().map(|payload| payload.event().id));
    }
    written
}

/// Reads the feed, always a little; answers what it saw behind the last place that it had missed.
async fn read(store: &Arc<dyn Store>, enough: impl Fn() -> bool) -> Vec<(i64, EventId)> {
    let (here, filter) = (Reach::all(&WorkspaceId::default()), FeedFilter::default());
    let (mut start, mut seen) = (FeedStart::Oldest, Vec::new());
    loop {
        // Asked first: what is written by then is seen by the look behind it.
        let enough = enough();
        let request = FeedRequest {
            start,
            limit: 7,
            max_bytes: usize::MAX,
        };
        let Some(page) = store.feed(&here, &filter, request).await.unwrap() else {
            seen.clear();
            start = FeedStart::Oldest;
            continue;
        };
        for item in page.items {
            let position: FeedPosition = item.position;
            seen.push((position.to_string().parse().unwrap(), item.event.id));
        }
        start = FeedStart::Behind(page.next);
        if enough && page.caught_up {
            return seen;
        }
    }
}

async fn nothing_that_is_young_is_lost_and_no_reader_has_a_gap(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    work(Arc::clone(&db.store), 1, OLD).await;
    grow_older(db, &EVENTS, 31).await;
    let places_before = db.feed(&WorkspaceId::default()).await;
    let held = lead(db).await;

    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let store = [&db.store, &db.replica][number % 2];
            tokio::spawn(work(Arc::clone(store), BATCHES, BATCH))
        })
        .collect();
    let sweeping = async {
        loop {
            let swept = db.store.remove_events(&held, MONTH, 20).await.unwrap();
            if swept.expect("leads").rest == Rest::Nothing {
                return;
            }
        }
    };
    let written = || writers.iter().all(tokio::task::JoinHandle::is_finished);
    let ((), seen) = tokio::join!(sweeping, read(&db.replica, written));

    let mut young = HashSet::new();
    for writer in writers {
        young.extend(writer.await.unwrap());
    }
    assert_eq!(young.len(), WRITERS * BATCHES * BATCH);
    let places = db.feed(&WorkspaceId::default()).await;
    assert!(
        places[0].0 > places_before[OLD - 1].0,
        "all that was old is gone"
    );
    let kept: HashSet<EventId> = places.iter().map(|(_, event)| *event).collect();
    assert_eq!(kept, young);
    for table in ["event", "delivery", "attempt"] {
        assert_eq!(db.count(table).await, i64::try_from(young.len()).unwrap());
    }
    // The reader has all that is there, and what it had of the old before it was gone has no gap.
    let all: Vec<_> = places_before.into_iter().chain(places).collect();
    assert!(all.ends_with(&seen), "{} of {}", seen.len(), all.len());
    assert!(seen.len() >= young.len());
}
