//! Many writers of one edition.

use std::sync::Arc;

use forge_dispatch::store::Edit;
use futures::future::join_all;

use super::state::{edition_as, tell};
use super::writing::{ask, costs, draft, edit, head, outbox, row, rows, version};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    versions_are_dense_and_told_of_in_order_however_many_write,
    writers_and_snapshots_of_one_edition_never_lock_each_other_out,
);

const WRITERS: i64 = 6;
const EACH: i64 = 15;

async fn versions_are_dense_and_told_of_in_order_however_many_write(db: &TestDatabase) {
    draft(db).await;
    let writers = (0..WRITERS).map(|writer| {
        let store = [&db.store, &db.replica][usize::from(writer % 2 == 0)];
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut versions = Vec::new();
            for number in 0..EACH {
                let new = row(&format!("{writer}/{number}"), "{}");
                let append = Edit::AppendRows(vec![new]);
                versions.push(edit(&store, &costs(), &append).await);
            }
            versions
        })
    });
    let mut versions = Vec::new();
    for writer in join_all(writers).await {
        let own = writer.unwrap();
        assert!(own.is_sorted());
        versions.extend(own);
    }
    versions.sort_unstable();
    let dense: Vec<i64> = (2..2 + WRITERS * EACH).collect();
    assert_eq!(versions, dense);
    let told: Vec<i64> = outbox(&db.store)
        .await
        .iter()
        .map(|(_, data)| data["version"].as_i64().unwrap())
        .collect();
    assert_eq!(told, dense);
    let found = rows(&db.replica).await.len();
    assert_eq!(i64::try_from(found).unwrap(), 3 + WRITERS * EACH);
    assert_eq!(head(&db.store).await.edition.version, 1 + WRITERS * EACH);
}

async fn writers_and_snapshots_of_one_edition_never_lock_each_other_out(db: &TestDatabase) {
    draft(db).await;
    let writer = |store: &Arc<dyn forge_dispatch::store::Store>, name: &'static str| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            for number in 0..EACH {
                let new = row(&format!("{name}/{number}"), "{}");
                version(
                    ask()
                        .edit(&store, &costs(), &Edit::PutRows(vec![new]))
                        .await,
                );
            }
        })
    };
    let core = {
        let store = Arc::clone(&db.store);
        tokio::spawn(async move {
            for number in 1..=EACH {
                tell(&store, &[edition_as("ed_1", 1_000 * number, |_| {})]).await;
            }
        })
    };
    let tasks = [writer(&db.store, "a"), writer(&db.replica, "b"), core];
    for task in join_all(tasks).await {
        task.unwrap();
    }
    let last = head(&db.store).await.edition.version;
    assert!(last >= 1_000 * EACH, "{last}");
    let one_more = Edit::AppendRows(vec![row("last", "{}")]);
    assert_eq!(edit(&db.store, &costs(), &one_more).await, last + 1);
}
