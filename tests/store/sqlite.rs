//! What only `SQLite` has: a file, its modes, its log; and a clock that a test can move.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use forge_dispatch::clock::{Clock, ManualClock, SystemClock};
use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::sqlite::SqliteStore;
use forge_dispatch::store::vault::{MasterKey, Vault};
use forge_dispatch::store::{Leasing, Maintenance, StoreError};

use super::fixture::{
    HOUR, accept, accept_leased, claim_all, claim_of, for_long, owner, record, settle, subscribe,
};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{act, event, events};

async fn open(path: &Path) -> forge_dispatch::store::Result<SqliteStore> {
    let key = MasterKey::parse("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=").unwrap();
    let vault = Vault::new(&key, Entropy::system());
    SqliteStore::open(path, 2, vault, Arc::new(SystemClock)).await
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_missing_directory_and_file_are_made_for_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/forge.db");
    let store = open(&path).await.unwrap();
    store.migrate().await.unwrap();
    assert_eq!(mode(&dir.path().join("a/b")), 0o700);
    for file in fs::read_dir(path.parent().unwrap()).unwrap() {
        let file = file.unwrap().path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    store.close().await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("letter.txt");
    fs::write(
        &path,
        "Dear Sir or Madam, this is no database at all.".repeat(100),
    )
    .unwrap();
    let error = open(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::Configuration(_)), "{error:?}");
    assert!(error.to_string().contains("letter.txt"), "{error}");
    assert!(fs::read_to_string(&path).unwrap().starts_with("Dear Sir"));
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_named() {
    let error = open(Path::new("/proc/no/such/place.db")).await.unwrap_err();
    assert!(matches!(error, StoreError::Configuration(_)), "{error:?}");
    assert!(
        error.to_string().contains("/proc/no/such/place.db"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_folds_the_log_back() {
    let db = TestDatabase::new(Kind::Sqlite).await;
    subscribe(&db.store, &["*"]).await;
    accept(&db.store, &events(200)).await;
    let log = db.path().with_extension("db-wal");
    assert!(fs::metadata(&log).unwrap().len() > 0);
    db.replica.close().await;
    db.store.close().await;
    assert!(fs::metadata(&log).map_or(0, |log| log.len()) == 0);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_short_while_much_is_written() {
    const MIB: u64 = 1024 * 1024;
    let db = TestDatabase::new(Kind::Sqlite).await;
    let large = format!(r#""{}""#, "x".repeat(900_000));
    let log = db.path().with_extension("db-wal");
    let mut longest = 0;
    for _ in 0..20 {
        let batch: Vec<_> = (0..10).map(|_| event().data(&large).build()).collect();
        accept(&db.store, &batch).await;
        longest = longest.max(fs::metadata(&log).unwrap().len());
    }
    assert!(longest < 80 * MIB, "{longest} after 180 MB");
    db.remove().await;
}

/// A database on a clock that stands.
async fn at_a_standstill() -> (TestDatabase, Arc<ManualClock>) {
    let start = DateTime::from_timestamp_millis(1_777_000_000_000).unwrap();
    let clock = Arc::new(ManualClock::at(start));
    let db = TestDatabase::with_clock(Kind::Sqlite, Arc::clone(&clock) as Arc<dyn Clock>).await;
    (db, clock)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_is_due_to_the_millisecond() {
    let (db, clock) = at_a_standstill().await;
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(1), for_long(me))
        .await
        .remove(0);
    let (almost, rest) = (Duration::from_secs(5), Duration::from_millis(1));
    let delay = almost + rest;
    settle(&db.store, me, &born, Verdict::Retry { delay }).await;
    assert_eq!(
        record(&db.store, born.id).await.due_at,
        Some(clock.now() + delay)
    );
    assert_eq!(db.store.due(HOUR).await.unwrap().next_in, Some(delay));

    clock.advance(almost);
    assert!(
        claim_all(&db.store, subscription.id, for_long(me))
            .await
            .is_empty()
    );
    clock.advance(rest);
    assert_eq!(db.store.due(HOUR).await.unwrap().work.len(), 1);
    assert_eq!(
        claim_all(&db.store, subscription.id, for_long(me))
            .await
            .len(),
        1
    );
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_holds_to_its_end_and_the_grace_beyond() {
    let (db, clock) = at_a_standstill().await;
    let subscription = subscribe(&db.store, &["*"]).await;
    let (lease, grace) = (Duration::from_mins(1), Duration::from_secs(5));
    let leasing = Leasing {
        owner: owner(),
        lease,
    };
    let born = accept_leased(&db.store, &events(1), leasing)
        .await
        .remove(0);
    assert_eq!(born.leased_until, clock.monotonic() + lease);
    let claim = forge_dispatch::store::Claim {
        grace,
        ..claim_of(subscription.id, for_long(owner()))
    };
    clock.advance(lease + Duration::from_millis(4_999));
    assert!(db.store.claim(&claim).await.unwrap().is_empty());
    clock.advance(Duration::from_millis(1));
    assert_eq!(db.store.due(grace).await.unwrap().work.len(), 1);
    assert_eq!(db.store.claim(&claim).await.unwrap().len(), 1);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adopted_lease_begins_anew() {
    let (db, clock) = at_a_standstill().await;
    let subscription = subscribe(&db.store, &["*"]).await;
    let lease = Duration::from_mins(1);
    let leasing = Leasing {
        owner: owner(),
        lease,
    };
    let batch = events(1);
    let born = accept_leased(&db.store, &batch, leasing).await.remove(0);
    clock.advance(Duration::from_secs(50));
    let adopted = accept_leased(&db.store, &batch, leasing).await.remove(0);
    assert_eq!((adopted.id, adopted.epoch), (born.id, 1));
    assert_eq!(adopted.leased_until, clock.monotonic() + lease);
    clock.advance(Duration::from_secs(59));
    assert!(
        claim_all(&db.store, subscription.id, for_long(owner()))
            .await
            .is_empty()
    );
    clock.advance(Duration::from_secs(1));
    assert_eq!(
        claim_all(&db.store, subscription.id, for_long(owner()))
            .await
            .len(),
        1
    );
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_subscription_is_swept_for_good_only_when_its_queue_is_empty() {
    let (db, clock) = at_a_standstill().await;
    let here = WorkspaceId::default();
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let lease = Duration::from_hours(24);
    let flying = accept_leased(&db.store, &events(1), Leasing { owner: me, lease })
        .await
        .remove(0);
    db.store
        .delete_subscription(&Reach::all(&here), subscription.id, None, &act())
        .await
        .unwrap();
    clock.advance(HOUR);
    assert_eq!(
        db.store.cancel_orphans(Duration::ZERO, 10).await.unwrap(),
        0
    );
    settle(&db.store, me, &flying, Verdict::Released).await;
    assert_eq!(
        db.store.cancel_orphans(Duration::ZERO, 10).await.unwrap(),
        1
    );
    let unswept = "subscription where swept = 0";
    assert_eq!(db.count(unswept).await, 0, "swept in the same step");
    db.remove().await;
}

#[tokio::test]
async fn a_long_queue_is_not_counted_to_its_end() {
    let db = TestDatabase::new(Kind::Sqlite).await;
    subscribe(&db.store, &["*"]).await;
    accept(&db.store, &events(1)).await;
    db.tamper(
        "with recursive copy (number) as (
            select 1 union all select number + 1 from copy where number < 100001
        )
        insert into delivery_queue (delivery_id, event_id, workspace, subscription_id, lane,
            visible_at, owner, epoch, attempts, lost_leases, bytes)
        select randomblob(16), event_id, workspace, subscription_id, lane, visible_at,
            iif(number % 4 = 0, randomblob(16), null), 1, attempts, lost_leases, bytes
        from copy
        cross join delivery_queue",
    )
    .await;
    let depth = db.store.queue_depth().await.unwrap();
    assert_eq!(depth.pending + depth.in_flight, 100_000);
    assert!((20_000..30_000).contains(&depth.in_flight), "{depth:?}");
    assert!(depth.oldest_due.is_some());
    db.remove().await;
}
