//! Reading what editions are made by.

use forge_dispatch::domain::ids::UserId;
use forge_dispatch::domain::snapshot::State;
use forge_dispatch::store::PageRequest;

use super::super::fixture;
use super::super::state::{
    blueprint, deletion, edition, project, project_id, tell, workspace_state,
};
use super::{everything, first, here};
use crate::harness::databases::TestDatabase;
use crate::harness::events::workspace;

on_both_databases!(
    a_workspace_is_read_as_it_was_told,
    a_project_is_known_by_its_name,
    a_blueprint_is_read_as_it_was_told,
);

async fn a_workspace_is_read_as_it_was_told(db: &TestDatabase) {
    tell(
        &db.store,
        &[workspace_state(3, "Acme", &["b", "a", "ä", "Z"])],
    )
    .await;
    let read = db.replica.workspace(&here()).await.unwrap().unwrap();
    assert_eq!((&*read.name, read.version), ("Acme", 3));
    assert_eq!(read.settings.get(), r#"{"b": 1.50, "a": null}"#);
    let elsewhere = db.store.workspace(&workspace("ws_2")).await.unwrap();
    assert!(elsewhere.is_none());

    for limit in [1, 3, 4, 5] {
        let mut after = None;
        let mut found = Vec::new();
        loop {
            let page = PageRequest { limit, after };
            let page = db.store.members(&here(), page).await.unwrap();
            found.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let ids: Vec<_> = found.iter().map(|one| one.user.id.as_str()).collect();
        assert_eq!(ids, ["Z", "a", "b", "ä"]);
        assert_eq!(found[1].email.as_deref(), Some("a@example.org"));
        assert_eq!(found[1].user.name.as_deref(), Some("a by name"));
        assert_eq!(found[1].role, None);
    }
    let members = db.store.members(&workspace("ws_2"), first(9)).await;
    assert!(members.unwrap().items.is_empty());

    tell(&db.store, &[workspace_state(4, "Acme & Co", &["a"])]).await;
    let members = db.store.members(&here(), first(9)).await.unwrap().items;
    assert_eq!(members[0].user.id, UserId::new("a").unwrap());
    assert_eq!(members.len(), 1);
}

async fn a_project_is_known_by_its_name(db: &TestDatabase) {
    // First by what belongs to it, then by itself.
    tell(
        &db.store,
        &[blueprint("bp_1", "pr_2", 1, "x"), edition("ed_1", 1)],
    )
    .await;
    let names = || async {
        let page = db.replica.projects(&everything(), first(9)).await.unwrap();
        let told = |record: forge_dispatch::store::ProjectRecord| {
            (record.id.to_string(), record.name, record.description)
        };
        page.items.into_iter().map(told).collect::<Vec<_>>()
    };
    let known = |id: &str, name: Option<&str>| {
        let description = name.map(|name| format!("about {name}"));
        (id.to_owned(), name.map(str::to_owned), description)
    };
    assert_eq!(names().await, [known("pr_1", None), known("pr_2", None)]);
    tell(&db.store, &[project("pr_2", 1, "Two")]).await;
    let expected = [known("pr_1", None), known("pr_2", Some("Two"))];
    assert_eq!(names().await, expected);
    tell(&db.store, &[deletion(&project("pr_2", 1, "Two"), 2)]).await;
    assert_eq!(names().await, [known("pr_1", None)]);
    let gone = db.store.project(&everything(), &project_id("pr_2")).await;
    assert_eq!(gone.unwrap(), None);
    // An event about it does not bring it back.
    let late = crate::harness::events::event().project("pr_2").build();
    fixture::accept(&db.store, &[late]).await;
    assert_eq!(names().await, [known("pr_1", None)]);
}

async fn a_blueprint_is_read_as_it_was_told(db: &TestDatabase) {
    let told: Vec<_> = ["b", "A", "ä", "a"]
        .map(|id| blueprint(id, "pr_1", 1, &format!("name of {id}")))
        .into();
    tell(&db.store, &told).await;
    tell(&db.store, &[blueprint("c", "pr_2", 1, "of another")]).await;
    for snapshot in &told {
        let State::Blueprint(expected) = &snapshot.state else {
            unreachable!()
        };
        let read = db.replica.blueprint(&everything(), &expected.id).await;
        let read = read.unwrap().unwrap();
        assert_eq!((&read.blueprint, read.version), (expected, 1));
    }
    // A page ends at its limit, or before it is larger than it may be.
    for (limit, max_bytes, longest) in [
        (1, usize::MAX, 1),
        (2, usize::MAX, 2),
        (4, usize::MAX, 4),
        (5, usize::MAX, 4),
        (5, 1, 1),
    ] {
        let (mut found, mut after, mut most) = (Vec::new(), None, 0);
        loop {
            let page = PageRequest { limit, after };
            let page = db
                .store
                .blueprints(&everything(), &project_id("pr_1"), page, max_bytes)
                .await;
            let page = page.unwrap();
            let ids = page.items.iter().map(|one| one.blueprint.id.to_string());
            found.extend(ids);
            most = most.max(page.items.len());
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, ["A", "a", "b", "ä"]);
        assert_eq!(most, longest, "{limit} {max_bytes}");
    }
}
