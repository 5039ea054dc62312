//! Waiting for a feed to move.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::api::tail::{Tail, Waited};
use forge_dispatch::domain::ids::{EditionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{FeedFilter, FeedPosition, FeedRequest, FeedStart, Store};
use futures::future::join_all;
use futures::poll;
use tokio::task::unconstrained;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::feed::accept;
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{event, events, reach};
use crate::harness::eventually;

on_both_databases!(
    who_waits_is_told_of_what_is_for_it,
    what_was_committed_before_it_waits_is_told_too,
    what_another_process_commits_is_found,
    a_stop_ends_all_waiting,
);

const SOON: Duration = Duration::from_secs(20);

fn tail(store: &Arc<dyn Store>) -> Tail {
    Tail::new(
        Arc::clone(store),
        Entropy::system(),
        CancellationToken::new(),
    )
}

fn all() -> Reach {
    Reach::all(&WorkspaceId::default())
}

/// Later than any test ends.
fn late() -> Instant {
    Instant::now() + Duration::from_hours(1)
}

async fn latest(store: &Arc<dyn Store>) -> FeedPosition {
    let request = FeedRequest {
        start: FeedStart::Latest,
        limit: 1,
        max_bytes: 1,
    };
    let page = store.feed(&all(), &FeedFilter::default(), request).await;
    page.unwrap().unwrap().next
}

async fn soon(waiting: impl Future<Output = Waited>) -> Waited {
    timeout(SOON, waiting).await.expect("it ends")
}

async fn who_waits_is_told_of_what_is_for_it(db: &TestDatabase) {
    let tail = tail(&db.store);
    let everything = FeedFilter::default();
    let one = FeedFilter {
        edition: Some(EditionId::new("ed_1").unwrap()),
        ..FeedFilter::default()
    };
    let some = reach(&WorkspaceId::default(), &["pr_1"]);
    let place = latest(&db.store).await;
    let whole = all();
    let mut of_all = pin!(tail.wait(&whole, &everything, place, late()));
    let mut of_edition = pin!(tail.wait(&whole, &one, place, late()));
    let mut of_project = pin!(tail.wait(&some, &everything, place, late()));
    assert!(poll!(&mut of_all).is_pending());
    assert!(poll!(&mut of_edition).is_pending());
    assert!(poll!(&mut of_project).is_pending());

    accept(
        &db.store,
        &[event().workspace("ws_2").project("pr_1").build()],
    )
    .await;
    accept(&db.store, &[event().build()]).await;
    assert_eq!(soon(&mut of_all).await, Waited::Moved);
    // They have heard of the same look.
    assert!(poll!(&mut of_edition).is_pending());
    assert!(poll!(&mut of_project).is_pending());
    accept(
        &db.store,
        &[event().data(r#"{"edition_id":"ed_1"}"#).build()],
    )
    .await;
    assert_eq!(soon(&mut of_edition).await, Waited::Moved);
    assert!(poll!(&mut of_project).is_pending());
    accept(&db.store, &[event().project("pr_1").build()]).await;
    assert_eq!(soon(&mut of_project).await, Waited::Moved);
}

async fn what_was_committed_before_it_waits_is_told_too(db: &TestDatabase) {
    let tail = tail(&db.store);
    let everything = FeedFilter::default();
    let (place, whole) = (latest(&db.store).await, all());
    // Two come between the read and the wait; of the second room nobody was told yet.
    accept(&db.store, &events(1)).await;
    let first = tail.wait(&whole, &everything, place, late());
    assert_eq!(soon(first).await, Waited::Moved);
    let mut later = pin!(tail.wait(&whole, &everything, latest(&db.store).await, late()));
    assert!(poll!(&mut later).is_pending());
    // The room knows more than this one has read.
    let second = tail.wait(&whole, &everything, place, late());
    assert_eq!(soon(second).await, Waited::Moved);
    assert!(poll!(&mut later).is_pending());
}

async fn what_another_process_commits_is_found(db: &TestDatabase) {
    let tail = tail(&db.store);
    let (place, whole, everything) = (latest(&db.store).await, all(), FeedFilter::default());
    let mut waiting = pin!(tail.wait(&whole, &everything, place, late()));
    assert!(poll!(&mut waiting).is_pending());
    accept(&db.replica, &events(1)).await;
    assert_eq!(soon(waiting).await, Waited::Moved);
}

async fn a_stop_ends_all_waiting(db: &TestDatabase) {
    let stop = CancellationToken::new();
    let tail = Tail::new(Arc::clone(&db.store), Entropy::system(), stop.clone());
    let (place, whole, everything) = (latest(&db.store).await, all(), FeedFilter::default());
    let mut waiting = pin!(tail.wait(&whole, &everything, place, late()));
    assert!(poll!(&mut waiting).is_pending());
    stop.cancel();
    assert_eq!(soon(waiting).await, Waited::InVain);
    let over = tail.wait(&whole, &everything, place, Instant::now());
    assert_eq!(soon(over).await, Waited::InVain);
}

/// As many looks as commits, whatever the number of those who wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_wait_cost_no_more_looks_than_one() {
    const WAITING: usize = 2_000;
    let db = TestDatabase::new(Kind::Postgres).await;
    let tail = tail(&db.store);
    let one = FeedFilter {
        edition: Some(EditionId::new("ed_1").unwrap()),
        ..FeedFilter::default()
    };
    let (place, whole) = (latest(&db.store).await, all());
    let waiting = (0..WAITING).map(|_| tail.wait(&whole, &one, place, late()));
    // All of them sit down at the first poll.
    let mut waiting = pin!(unconstrained(join_all(waiting)));
    assert!(poll!(&mut waiting).is_pending());
    let commits = async {
        for _ in 0..10 {
            accept(&db.store, &events(3)).await;
        }
        let last = event().data(r#"{"edition_id":"ed_1"}"#).build();
        accept(&db.store, &[last]).await;
    };
    let both = async { tokio::join!(waiting, commits) };
    let (waited, ()) = timeout(SOON, both).await.expect("they end");
    assert!(waited.iter().all(|waited| *waited == Waited::Moved));
    // What a connection read is told when it ends, at the latest.
    db.store.close().await;
    let scans = |condition: &str| {
        format!("pg_stat_user_indexes where indexrelname = 'event_feed_pk' and {condition}")
    };
    eventually(SOON, "the looks are told, and few", async || {
        db.count(&scans("idx_scan between 1 and 200")).await == 1
    })
    .await;
    db.remove().await;
}
