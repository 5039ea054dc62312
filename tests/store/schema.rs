//! The schema, readiness, and the end.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::store::StoreError;
use forge_dispatch::wake::Wake;

use super::fixture::{accept, subscribe};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::events;

on_both_databases!(
    migrating_again_does_nothing,
    a_schema_of_a_later_program_is_not_ready,
    a_migration_that_was_left_out_is_made_up_for,
    what_was_kept_is_there_after_closing_and_opening,
    a_listener_returns_when_the_store_is_closed,
    a_closed_store_is_unavailable,
    the_store_says_which_database_it_is,
);

async fn migrating_again_does_nothing(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    db.store.migrate().await.unwrap();
    db.replica.migrate().await.unwrap();
    db.store.ready().await.unwrap();
    assert_eq!(accept(&db.store, &events(1)).await.pending, 1);
}

async fn a_schema_of_a_later_program_is_not_ready(db: &TestDatabase) {
    db.store.ready().await.unwrap();
    let later = "insert into _sqlx_migrations
            (version, description, success, checksum, execution_time)
        select 9999, 'later', success, checksum, execution_time from _sqlx_migrations limit 1";
    db.tamper(later).await;
    let ready = db.store.ready().await;
    assert!(matches!(ready, Err(StoreError::Schema(_))), "{ready:?}");
    let migrated = db.store.migrate().await;
    assert!(
        matches!(migrated, Err(StoreError::Schema(_))),
        "{migrated:?}"
    );
}

/// As a database has it that was at 13 before there was a 12.
async fn a_migration_that_was_left_out_is_made_up_for(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    accept(&db.store, &events(3)).await;
    db.store.close().await;
    db.replica.close().await;
    for undo in [
        "drop table circuit",
        "drop table replica",
        "alter table subscription drop column rate_limit",
        "alter table subscription drop column missing_since",
        "delete from _sqlx_migrations where version = 12",
    ] {
        db.tamper(undo).await;
    }
    let store = db.open().await;
    let ready = store.ready().await;
    assert!(matches!(ready, Err(StoreError::Schema(_))), "{ready:?}");
    store.migrate().await.unwrap();
    store.ready().await.unwrap();
    assert_eq!(db.count("circuit").await, 0);
    assert_eq!(store.queue_depth().await.unwrap().pending, 3);
    assert_eq!(accept(&store, &events(1)).await.pending, 1);
    store.close().await;
}

async fn what_was_kept_is_there_after_closing_and_opening(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    accept(&db.store, &events(3)).await;
    db.store.close().await;
    db.replica.close().await;
    let store = db.open().await;
    store.migrate().await.unwrap();
    store.ready().await.unwrap();
    assert_eq!(store.queue_depth().await.unwrap().pending, 3);
    assert_eq!(accept(&store, &events(1)).await.pending, 1);
    store.close().await;
}

async fn a_listener_returns_when_the_store_is_closed(db: &TestDatabase) {
    let store = db.open().await;
    let listener = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.listen(Arc::new(Wake::default())).await }
    });
    store.announce();
    store.close().await;
    tokio::time::timeout(Duration::from_secs(10), listener)
        .await
        .expect("the listener ends with the store")
        .unwrap();
}

async fn a_closed_store_is_unavailable(db: &TestDatabase) {
    let store = db.open().await;
    store.close().await;
    store.close().await;
    assert!(store.ready().await.unwrap_err().is_unavailable());
    assert!(store.queue_depth().await.unwrap_err().is_unavailable());
    let accepted = store
        .accept(
            &events(1),
            super::fixture::for_long(super::fixture::owner()),
            &forge_dispatch::store::intake::NoDispatch,
        )
        .await;
    assert!(accepted.unwrap_err().is_unavailable());
}

async fn the_store_says_which_database_it_is(db: &TestDatabase) {
    let expected = match db.kind {
        Kind::Sqlite => "sqlite",
        Kind::Postgres => "postgres",
    };
    assert_eq!(db.store.kind(), expected);
}

/// Before there is a schema; not on the ready-made databases of the other scenarios.
mod unmade {
    use super::*;

    async fn two_processes_that_start_at_once_both_succeed(kind: Kind) {
        let unmade = Arc::new(TestDatabase::unmade(kind).await);
        let starts: Vec<_> = (0..4)
            .map(|_| {
                let unmade = Arc::clone(&unmade);
                tokio::spawn(async move {
                    let store = unmade.open().await.unwrap();
                    store.migrate().await.unwrap();
                    store.ready().await.unwrap();
                    store
                })
            })
            .collect();
        let mut stores = Vec::new();
        for start in starts {
            stores.push(start.await.unwrap());
        }
        subscribe(&stores[0], &["*"]).await;
        for store in &stores {
            assert_eq!(accept(store, &events(1)).await.pending, 1);
            store.close().await;
        }
        Arc::into_inner(unmade).unwrap().remove().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_processes_that_start_at_once_both_succeed_on_sqlite() {
        two_processes_that_start_at_once_both_succeed(Kind::Sqlite).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_processes_that_start_at_once_both_succeed_on_postgres() {
        two_processes_that_start_at_once_both_succeed(Kind::Postgres).await;
    }

    async fn a_database_without_schema_is_not_ready(kind: Kind) {
        let unmade = TestDatabase::unmade(kind).await;
        let store = unmade.open().await.unwrap();
        let ready = store.ready().await;
        assert!(matches!(ready, Err(StoreError::Schema(_))), "{ready:?}");
        store.migrate().await.unwrap();
        store.ready().await.unwrap();
        store.close().await;
        unmade.remove().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_database_without_schema_is_not_ready_on_sqlite() {
        a_database_without_schema_is_not_ready(Kind::Sqlite).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_database_without_schema_is_not_ready_on_postgres() {
        a_database_without_schema_is_not_ready(Kind::Postgres).await;
    }
}
