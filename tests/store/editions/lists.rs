//! Finding editions, and following their changes.

use forge_dispatch::domain::edition::EditionStatus;
use forge_dispatch::store::{EditionFilter, EditionKey, PageRequest};

use super::super::state::{at, blueprint_id, edition, edition_as, project_id, stated, tell};
use super::{everything, first, found};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    editions_go_in_the_order_of_their_changes,
    editions_are_found_by_each_filter,
    who_asks_again_from_as_of_on_misses_nothing_and_sees_nothing_twice,
);

async fn editions_go_in_the_order_of_their_changes(db: &TestDatabase) {
    let all = EditionFilter::default();
    assert!(found(&db.store, &all, 9).await.is_empty());
    // Those of one transaction in the order of their ids.
    let ids = ["b", "A", "a b", "ä", "a"];
    tell(&db.store, &ids.map(|id| edition(id, 1))).await;
    for id in ["z", "c"] {
        tell(&db.store, &[edition(id, 1)]).await;
    }
    for limit in [1, 2, 5, 7, 8] {
        let found = found(&db.replica, &all, limit).await;
        assert_eq!(found, ["A", "a", "a b", "b", "ä", "z", "c"]);
    }
    // What changes while somebody pages moves to the end, and is seen there.
    let page = db.store.editions(&everything(), &all, first(2)).await;
    let after = page.unwrap().page.next;
    tell(&db.store, &[edition("a b", 2)]).await;
    let rest = PageRequest { limit: 9, after };
    let rest = db.store.editions(&everything(), &all, rest).await.unwrap();
    let ids: Vec<_> = rest
        .page
        .items
        .iter()
        .map(|one| one.edition.id.as_str())
        .collect();
    assert_eq!(ids, ["b", "ä", "z", "c", "a b"]);
    let key = EditionKey::of(&rest.page.items[4]);
    assert!(key.changed_at < rest.as_of);
}

async fn editions_are_found_by_each_filter(db: &TestDatabase) {
    let of = |id: &str, project: &str, blueprint: &str, status: &str, period: Option<&str>| {
        edition_as(id, 1, |state| {
            stated(status, at(0))(state);
            state.edition.project = project_id(project);
            state.edition.blueprint = blueprint_id(blueprint);
            state.edition.period = period.map(str::to_owned);
        })
    };
    tell(
        &db.store,
        &[
            of("1", "pr_1", "bp_1", "draft", Some("Q1")),
            of("2", "pr_1", "bp_2", "approved", Some("Q1")),
            of("3", "pr_2", "bp_3", "draft", None),
            of("4", "pr_2", "bp_3", "on_ice", Some("Q2")),
        ],
    )
    .await;
    let all = EditionFilter::default;
    let project = |id| EditionFilter {
        project: Some(project_id(id)),
        ..all()
    };
    let blueprint = |id| EditionFilter {
        blueprint: Some(blueprint_id(id)),
        ..all()
    };
    let status = |words: &[&str]| EditionFilter {
        statuses: words
            .iter()
            .map(|word| EditionStatus::parse(word).unwrap())
            .collect(),
        ..all()
    };
    let period = |text: &str| EditionFilter {
        period: Some(text.to_owned()),
        ..all()
    };
    let each = EditionFilter {
        project: project("pr_2").project,
        blueprint: blueprint("bp_3").blueprint,
        statuses: status(&["on_ice"]).statuses,
        period: period("Q2").period,
        updated_since: Some(at(0)),
    };
    let two = EditionFilter {
        statuses: status(&["draft"]).statuses,
        ..period("Q1")
    };
    for (filter, expected) in [
        (all(), &["1", "2", "3", "4"] as &[&str]),
        (project("pr_1"), &["1", "2"]),
        (project("pr_3"), &[]),
        (blueprint("bp_3"), &["3", "4"]),
        (status(&["draft"]), &["1", "3"]),
        (status(&["on_ice"]), &["4"]),
        (status(&["on_ice", "closed", "approved"]), &["2", "4"]),
        (period("Q1"), &["1", "2"]),
        (period(""), &[]),
        (two, &["1"]),
        (each, &["4"]),
    ] {
        for limit in [1, 9] {
            assert_eq!(
                found(&db.store, &filter, limit).await,
                expected,
                "{filter:?}"
            );
        }
    }
}

async fn who_asks_again_from_as_of_on_misses_nothing_and_sees_nothing_twice(db: &TestDatabase) {
    let mut since = db
        .store
        .editions(&everything(), &EditionFilter::default(), first(9))
        .await
        .unwrap()
        .as_of;
    for version in 1..20 {
        for id in ["a", "b"] {
            tell(&db.store, &[edition(id, version)]).await;
            let filter = EditionFilter {
                updated_since: Some(since),
                ..EditionFilter::default()
            };
            let list = db.replica.editions(&everything(), &filter, first(9)).await;
            let list = list.unwrap();
            let ids: Vec<_> = list
                .page
                .items
                .iter()
                .map(|one| one.edition.id.as_str())
                .collect();
            assert_eq!(ids, [id], "version {version}");
            since = list.as_of;
        }
    }
    // From the very time of a change on it is seen.
    let list = db
        .store
        .editions(&everything(), &EditionFilter::default(), first(9))
        .await
        .unwrap();
    let newest = list.page.items.last().unwrap();
    let filter = EditionFilter {
        updated_since: Some(newest.edition.updated_at),
        ..EditionFilter::default()
    };
    assert_eq!(found(&db.store, &filter, 9).await, ["b"]);
}
