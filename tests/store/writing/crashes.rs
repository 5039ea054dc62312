//! Writes that end before they are committed.

use std::sync::Arc;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::{Edit, Write};

use super::{Ask, ask, costs, counts, draft, edit, head, outbox, row, rows, version};
use crate::harness::databases::TestDatabase;
use crate::store::fixture::subscribe;
use crate::store::state::edition_id;

on_both_databases!(
    a_crash_before_the_commit_leaves_nothing,
    a_request_that_is_given_up_is_done_whole_or_not_at_all,
);

fn keyed() -> Ask {
    ask().once(Entropy::system().id(SystemClock.now()), "k", 7)
}

async fn a_crash_before_the_commit_leaves_nothing(db: &TestDatabase) {
    draft(db).await;
    subscribe(&db.store, &["*"]).await;
    let before = (
        head(&db.store).await,
        rows(&db.store).await,
        counts(db).await,
    );
    for submits in [false, true] {
        let (store, ask) = (Arc::clone(&db.store), keyed());
        let crashed = tokio::spawn(async move {
            // All is written by the time that the answer is made.
            let write = Write {
                answer: &|_| panic!("the process ends here"),
                ..ask.write(&NoDispatch)
            };
            let id = edition_id("ed_1");
            let put = Edit::PutRows(vec![row("a", "{}")]);
            if submits {
                store.submit_edition(&id, &write).await
            } else {
                store.edit_section(&id, &costs(), &put, &write).await
            }
        });
        assert!(crashed.await.unwrap_err().is_panic());
        let after = (
            head(&db.store).await,
            rows(&db.store).await,
            counts(db).await,
        );
        assert_eq!(after, before);
    }
    assert_eq!(version(ask().submit(&db.store).await), 2);
}

async fn a_request_that_is_given_up_is_done_whole_or_not_at_all(db: &TestDatabase) {
    draft(db).await;
    let mut there = rows(&db.store).await;
    for polls in 0..30 {
        let (store, ask, change) = (
            Arc::clone(&db.store),
            keyed(),
            Edit::AppendRows(vec![row(&format!("poll {polls}"), r#"{"x":1}"#)]),
        );
        let section = costs();
        let mut request = Box::pin(ask.edit(&store, &section, &change));
        for _ in 0..polls {
            if futures::poll!(&mut request).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(request);
        // What comes next waits for whatever is left of it.
        let last = row(&format!("after {polls}"), "{}");
        let version = edit(&db.store, &costs(), &Edit::AppendRows(vec![last])).await;
        let told = outbox(&db.store).await;
        let versions: Vec<_> = told
            .iter()
            .map(|(_, data)| data["version"].as_i64())
            .collect();
        assert_eq!(versions, (2..=version).map(Some).collect::<Vec<_>>());
        let now = rows(&db.store).await;
        let new = now.len() - there.len();
        assert!(now.starts_with(&there) && (1..=2).contains(&new), "{now:?}");
        assert_eq!(head(&db.store).await.edition.version, version);
        assert_eq!(i64::try_from(now.len()).unwrap() - 3, version - 1);
        there = now;
    }
    let keys = db.count("idempotency_key").await;
    let appended = there
        .iter()
        .filter(|(id, _)| id.starts_with("poll"))
        .count();
    assert_eq!(keys, i64::try_from(appended).unwrap());
}
