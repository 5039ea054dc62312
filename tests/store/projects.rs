//! Which projects are known.

use std::sync::Arc;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::ids::{ProjectId, WorkspaceId};
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::{PageRequest, Store};

use super::fixture::{accept, for_long, owner};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{event, events, reach, workspace};

on_both_databases!(
    a_project_is_known_from_its_first_event_on,
    projects_are_paged_in_the_order_of_their_ids,
    a_project_out_of_reach_is_not_seen,
    an_accept_that_failed_makes_no_project_known_and_the_next_one_does,
    two_replicas_that_meet_the_same_projects_both_succeed,
    projects_of_events_that_were_kept_before_are_known,
);

fn here() -> WorkspaceId {
    WorkspaceId::default()
}

fn of(project: &str) -> Arc<Payload> {
    event().project(project).build()
}

fn project(id: &str) -> ProjectId {
    ProjectId::new(id).unwrap()
}

/// The ids in reach, page by page.
async fn ids(store: &Arc<dyn Store>, reach: &Reach, limit: usize) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.projects(reach, PageRequest { limit, after });
        let page = page.await.unwrap();
        assert!(page.next.is_none() || page.items.len() == limit);
        found.extend(page.items.iter().map(|record| record.id.to_string()));
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

async fn a_project_is_known_from_its_first_event_on(db: &TestDatabase) {
    let everything = Reach::all(&here());
    accept(&db.store, &events(2)).await;
    assert!(ids(&db.store, &everything, 9).await.is_empty());
    let before = SystemClock.now();
    accept(&db.store, &[of("pr_1"), of("pr_1"), event().build()]).await;
    let id = project("pr_1");
    let first = db.replica.project(&everything, &id).await.unwrap().unwrap();
    assert_eq!((&first.id, &first.name), (&id, &None));
    assert!((before..=SystemClock.now()).contains(&first.first_seen_at));

    // Neither this process nor another changes it with later events.
    for store in [&db.store, &db.replica] {
        accept(store, &[of("pr_2"), of("pr_1")]).await;
    }
    let again = db.store.project(&everything, &id).await.unwrap();
    assert_eq!(again, Some(first));
    assert_eq!(ids(&db.store, &everything, 9).await, ["pr_1", "pr_2"]);
    let unknown = db.store.project(&everything, &project("pr_3")).await;
    assert_eq!(unknown.unwrap(), None);
}

async fn projects_are_paged_in_the_order_of_their_ids(db: &TestDatabase) {
    // By their bytes: a language would mix the cases.
    let names = ["A", "Z", "_", "a", "a b", "b", "ä", "\u{1f600}"];
    for name in names.iter().rev() {
        accept(&db.store, &[of(name)]).await;
    }
    for limit in [1, 3, 7, 8, 9] {
        assert_eq!(ids(&db.replica, &Reach::all(&here()), limit).await, names);
    }
    let some = reach(&here(), &["b", "_", "x", "A"]);
    for limit in [1, 2, 9] {
        assert_eq!(ids(&db.store, &some, limit).await, ["A", "_", "b"]);
    }
}

async fn a_project_out_of_reach_is_not_seen(db: &TestDatabase) {
    let elsewhere = workspace("ws_2");
    let theirs = event().project("pr_2").workspace("ws_2").build();
    let shared = event().project("pr_1").workspace("ws_2").build();
    accept(&db.store, &[of("pr_1"), theirs, shared]).await;
    for (reach, expected) in [
        (Reach::all(&here()), &["pr_1"] as &[&str]),
        (Reach::all(&elsewhere), &["pr_1", "pr_2"]),
        (reach(&here(), &["pr_1", "pr_2"]), &["pr_1"]),
        (reach(&elsewhere, &["pr_2"]), &["pr_2"]),
        (reach(&here(), &["pr_2"]), &[]),
        (reach(&here(), &[]), &[]),
    ] {
        assert_eq!(ids(&db.store, &reach, 9).await, expected, "{reach:?}");
        for id in ["pr_1", "pr_2"] {
            let found = db.store.project(&reach, &project(id)).await.unwrap();
            assert_eq!(found.is_some(), expected.contains(&id), "{id} in {reach:?}");
        }
    }
}

async fn an_accept_that_failed_makes_no_project_known_and_the_next_one_does(db: &TestDatabase) {
    let came = [of("pr_1")];
    db.tamper("alter table event_feed rename to elsewhere")
        .await;
    let failed = db.store.accept(&came, for_long(owner()), &NoDispatch).await;
    failed.unwrap_err();
    assert_eq!(db.count("project").await, 0);
    db.tamper("alter table elsewhere rename to event_feed")
        .await;
    accept(&db.store, &came).await;
    assert_eq!(ids(&db.store, &Reach::all(&here()), 9).await, ["pr_1"]);
}

async fn two_replicas_that_meet_the_same_projects_both_succeed(db: &TestDatabase) {
    let writers: Vec<_> = [&db.store, &db.replica]
        .into_iter()
        .enumerate()
        .map(|(number, store)| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                for round in 0..20 {
                    let mut batch: Vec<_> = (0..50).map(|n| of(&format!("{round}/{n}"))).collect();
                    // Each comes with them in another order.
                    if number == 1 {
                        batch.reverse();
                    }
                    accept(&store, &batch).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(db.count("project").await, 1_000);
    assert_eq!(db.count("event").await, 2_000);
}

async fn projects_of_events_that_were_kept_before_are_known(db: &TestDatabase) {
    accept(&db.store, &[of("pr_2"), of("pr_1"), of("pr_1")]).await;
    accept(&db.store, &events(1)).await;
    // As the migration before this one left it; a later one changes it too.
    for table in [
        "project",
        "workspace",
        "member",
        "blueprint",
        "edition_clock",
        "edition",
        "edition_section",
        "edition_row",
        "output",
    ] {
        db.tamper(&format!("drop table {table}")).await;
    }
    db.tamper("delete from _sqlx_migrations where version in (4, 6)")
        .await;
    let store = db.open().await;
    store.migrate().await.unwrap();
    let everything = Reach::all(&here());
    assert_eq!(ids(&store, &everything, 9).await, ["pr_1", "pr_2"]);
    let one = store.project(&everything, &project("pr_1")).await.unwrap();
    let age = SystemClock.now() - one.unwrap().first_seen_at;
    assert!(age.num_minutes() == 0, "{age}");
    store.close().await;
}
