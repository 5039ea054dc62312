//! Taking in what the core says of its entities.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use forge_dispatch::domain::edition::SectionContent;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::snapshot::Snapshot;
use forge_dispatch::store::{Applied, EditionFilter, EditionRecord, PageRequest, Store, Whole};

use super::fixture::accept;
use super::state::{
    apply, at, blueprint, blueprint_id, deletion, edition, edition_as, edition_id, output,
    output_id, project, project_id, repeating, single, stated, tell, told, workspace_state,
};
use crate::harness::databases::{Kind, TestDatabase};

on_both_databases!(
    the_greatest_version_wins_whenever_it_came,
    of_one_entity_in_a_batch_the_greatest_version_wins,
    what_was_deleted_stays_deleted_for_older_versions,
    what_was_never_there_can_be_deleted,
    a_greater_version_brings_back_what_was_deleted,
    an_edition_is_replaced_as_a_whole,
    a_deleted_edition_holds_nothing_and_its_outputs_are_gone,
    a_deleted_project_hides_what_belongs_to_it,
    what_changed_while_its_project_was_deleted_is_told_when_that_comes_back,
    a_large_edition_is_kept_whole,
    a_batch_that_fails_changes_nothing,
    nothing_is_no_change,
);

fn everything() -> Reach {
    Reach::all(&WorkspaceId::default())
}

/// One of each entity at this version, all of them about one another.
fn one_of_each(version: i64) -> Vec<Snapshot> {
    vec![
        workspace_state(version, &format!("ws v{version}"), &["u1"]),
        project("pr_1", version, &format!("pr v{version}")),
        blueprint("bp_1", "pr_1", version, &format!("bp v{version}")),
        edition("ed_1", version),
        output("out_1", "ed_1", version),
    ]
}

/// The version of each, where it is seen. A project's is read off its name.
async fn versions(store: &Arc<dyn Store>) -> [Option<i64>; 5] {
    let reach = everything();
    let workspace = store.workspace(&reach.workspace).await.unwrap();
    let project = store.project(&reach, &project_id("pr_1")).await.unwrap();
    let blueprint = store.blueprint(&reach, &blueprint_id("bp_1")).await;
    let edition = store.edition(&reach, &edition_id("ed_1")).await.unwrap();
    let output = store.output(&reach, &output_id("out_1")).await.unwrap();
    let of_name = |name: String| name.rsplit('v').next().unwrap().parse().unwrap();
    [
        workspace.map(|record| record.version),
        project.and_then(|record| record.name).map(of_name),
        blueprint.unwrap().map(|record| record.version),
        edition.map(|record| record.edition.version),
        output.map(|record| record.output.version),
    ]
}

async fn the_greatest_version_wins_whenever_it_came(db: &TestDatabase) {
    assert_eq!(versions(&db.store).await, [None; 5]);
    for (version, expected, seen) in [
        (2, Applied::Changed, 2),
        (1, Applied::Older, 2),
        (2, Applied::Older, 2),
        (7, Applied::Changed, 7),
        (3, Applied::Older, 7),
        (0, Applied::Older, 7),
    ] {
        let applied = apply(&db.store, &one_of_each(version)).await;
        assert_eq!(applied, [expected; 5], "version {version}");
        assert_eq!(
            versions(&db.replica).await,
            [Some(seen); 5],
            "version {version}"
        );
    }
}

async fn of_one_entity_in_a_batch_the_greatest_version_wins(db: &TestDatabase) {
    let batch: Vec<_> = [3, 5, 4, 5].into_iter().flat_map(one_of_each).collect();
    let applied = apply(&db.store, &batch).await;
    for (number, applied) in applied.into_iter().enumerate() {
        let expected = if number / 5 == 1 {
            Applied::Changed
        } else {
            Applied::Older
        };
        assert_eq!(applied, expected, "number {number}");
    }
    assert_eq!(versions(&db.replica).await, [Some(5); 5]);
}

async fn what_was_deleted_stays_deleted_for_older_versions(db: &TestDatabase) {
    tell(&db.store, &one_of_each(1)).await;
    for (number, one) in one_of_each(1).iter().enumerate().rev() {
        tell(&db.store, &[deletion(one, 5)]).await;
        assert_eq!(versions(&db.replica).await[number], None, "{:?}", one.key);
    }
    for version in [1, 4, 5] {
        let applied = apply(&db.store, &one_of_each(version)).await;
        assert_eq!(applied, [Applied::Older; 5], "version {version}");
    }
    let again: Vec<_> = one_of_each(1).iter().map(|one| deletion(one, 5)).collect();
    assert_eq!(apply(&db.store, &again).await, [Applied::Older; 5]);
    assert_eq!(versions(&db.store).await, [None; 5]);
}

async fn what_was_never_there_can_be_deleted(db: &TestDatabase) {
    let deletions: Vec<_> = one_of_each(1).iter().map(|one| deletion(one, 5)).collect();
    tell(&db.store, &deletions).await;
    assert_eq!(apply(&db.store, &one_of_each(4)).await, [Applied::Older; 5]);
    assert_eq!(versions(&db.store).await, [None; 5]);
}

async fn a_greater_version_brings_back_what_was_deleted(db: &TestDatabase) {
    tell(&db.store, &one_of_each(1)).await;
    let deletions: Vec<_> = one_of_each(1).iter().map(|one| deletion(one, 2)).collect();
    tell(&db.store, &deletions).await;
    tell(&db.store, &one_of_each(3)).await;
    assert_eq!(versions(&db.store).await, [Some(3); 5]);
}

/// What an edition holds.
async fn content(store: &Arc<dyn Store>, id: &str) -> Vec<(String, SectionContent)> {
    let content = store
        .content(&everything(), &edition_id(id), usize::MAX)
        .await;
    match content.unwrap() {
        Some(Whole::Content(_, content)) => content,
        other => panic!("{other:?}"),
    }
}

async fn an_edition_is_replaced_as_a_whole(db: &TestDatabase) {
    let contents = [
        vec![single("a", r#"{"x":1.50}"#), repeating("b", 3, "one")],
        vec![],
        vec![repeating("b", 3, "one"), repeating("c", 2, "two")],
        // The same rows, fewer, others, none; and a section that is of the other kind now.
        vec![repeating("c", 2, "two"), repeating("b", 2, "one")],
        vec![repeating("b", 2, "other"), single("c", "{}")],
        vec![repeating("b", 0, ""), repeating("c", 5, "more")],
    ];
    for (version, expected) in (1..).zip(&contents) {
        let told = edition_as("ed_1", version, |state| state.content.clone_from(expected));
        let beside = edition_as("ed_2", version, |state| {
            state.content = vec![repeating("b", 2, "beside")];
        });
        tell(&db.store, &[told, beside]).await;
        assert_eq!(content(&db.replica, "ed_1").await, *expected);
        let beside = content(&db.replica, "ed_2").await;
        assert_eq!(beside, [repeating("b", 2, "beside")]);
    }
    // An old one leaves it as it is.
    let old = edition_as("ed_1", 3, |state| state.content = vec![single("z", "{}")]);
    apply(&db.store, &[old]).await;
    assert_eq!(content(&db.store, "ed_1").await, contents[5]);
}

async fn a_deleted_edition_holds_nothing_and_its_outputs_are_gone(db: &TestDatabase) {
    let full = |version| {
        edition_as("ed_1", version, |state| {
            state.content = vec![single("a", "{}"), repeating("b", 3, "one")];
        })
    };
    tell(&db.store, &[full(1), output("out_1", "ed_1", 1)]).await;
    tell(&db.store, &[deletion(&full(1), 2)]).await;
    assert_eq!(db.count("edition_section").await, 0);
    assert_eq!(db.count("edition_row").await, 0);
    let reach = everything();
    let one = PageRequest {
        limit: 9,
        after: None,
    };
    let outputs = db.store.outputs(&reach, &edition_id("ed_1"), one).await;
    assert!(outputs.unwrap().is_none());
    let output = db.store.output(&reach, &output_id("out_1")).await;
    assert_eq!(output.unwrap(), None);
    // One that comes late is not seen either.
    tell(&db.store, &[super::state::output("out_2", "ed_1", 1)]).await;
    let output = db.store.output(&reach, &output_id("out_2")).await;
    assert_eq!(output.unwrap(), None);
}

async fn a_deleted_project_hides_what_belongs_to_it(db: &TestDatabase) {
    tell(&db.store, &one_of_each(1)).await;
    tell(&db.store, &[deletion(&project("pr_1", 1, "x"), 2)]).await;
    let all_but_workspace = [Some(1), None, None, None, None];
    assert_eq!(versions(&db.replica).await, all_but_workspace);
    let reach = everything();
    let list = PageRequest {
        limit: 9,
        after: None,
    };
    let editions = db.store.editions(&reach, &<_>::default(), list).await;
    assert!(editions.unwrap().page.items.is_empty());
    let list = PageRequest {
        limit: 9,
        after: None,
    };
    let blueprints = db
        .store
        .blueprints(&reach, &project_id("pr_1"), list, usize::MAX)
        .await;
    assert!(blueprints.unwrap().items.is_empty());
    let tag = db.store.edition_tag(&reach, &edition_id("ed_1")).await;
    assert_eq!(tag.unwrap(), None);
    // Also what comes later.
    tell(&db.store, &[edition("ed_1", 2), edition("ed_2", 1)]).await;
    assert_eq!(versions(&db.replica).await, all_but_workspace);
    tell(&db.store, &[project("pr_1", 3, "pr v3")]).await;
    let expected = [Some(1), Some(3), Some(1), Some(2), Some(1)];
    assert_eq!(versions(&db.replica).await, expected);
}

/// What changed since then, and from when on to ask the next time.
async fn changed(
    store: &Arc<dyn Store>,
    since: Option<DateTime<Utc>>,
) -> (Vec<EditionRecord>, DateTime<Utc>) {
    let filter = EditionFilter {
        updated_since: since,
        ..EditionFilter::default()
    };
    let page = PageRequest {
        limit: 100,
        after: None,
    };
    let list = store.editions(&everything(), &filter, page).await.unwrap();
    (list.page.items, list.as_of)
}

async fn what_changed_while_its_project_was_deleted_is_told_when_that_comes_back(
    db: &TestDatabase,
) {
    let elsewhere = edition_as("ed_9", 1, |state| {
        state.edition.project = project_id("pr_2");
    });
    let first = ["ed_1", "ed_2", "ed_3"].map(|id| edition(id, 1));
    tell(&db.store, &[project("pr_1", 1, "x"), elsewhere]).await;
    tell(&db.store, &first).await;
    // That was long ago.
    let hour = match db.kind {
        Kind::Sqlite => "3600000",
        Kind::Postgres => "interval '1 hour'",
    };
    db.tamper(&format!(
        "update edition set changed_at = changed_at - {hour}"
    ))
    .await;
    let (all, since) = changed(&db.store, None).await;
    assert_eq!(all.len(), 4);

    tell(&db.store, &[deletion(&project("pr_1", 1, "x"), 2)]).await;
    tell(&db.store, &[edition("ed_1", 2)]).await;
    accept(&db.store, &[told("approved", "ed_2", at(9)).build()]).await;
    let (seen, since) = changed(&db.store, Some(since)).await;
    assert!(seen.is_empty(), "{seen:?}");

    // In a batch with others, one of which is hidden too.
    let with_others = [
        edition("ed_0", 1),
        project("pr_1", 3, "x"),
        edition("ed_2", 2),
        project("pr_2", 1, "y"),
    ];
    tell(&db.replica, &with_others).await;
    let (seen, since) = changed(&db.store, Some(since)).await;
    let mut ids: Vec<_> = seen.iter().map(|one| one.edition.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["ed_0", "ed_1", "ed_2"]);
    for one in &seen {
        let before = all.iter().find(|known| known.edition.id == one.edition.id);
        assert!(before.is_none_or(|before| before.revision < one.revision));
    }
    // It comes back once.
    tell(&db.store, &[project("pr_1", 4, "x")]).await;
    assert!(changed(&db.store, Some(since)).await.0.is_empty());
}

async fn a_large_edition_is_kept_whole(db: &TestDatabase) {
    let expected = vec![repeating("a", 5_001, "one"), repeating("b", 511, "two")];
    let told = edition_as("ed_1", 1, |state| state.content.clone_from(&expected));
    tell(&db.store, &[told]).await;
    assert!(content(&db.replica, "ed_1").await == expected);
}

async fn a_batch_that_fails_changes_nothing(db: &TestDatabase) {
    db.tamper("alter table edition_row rename to elsewhere")
        .await;
    let full = edition_as("ed_1", 2, |state| {
        state.content = vec![repeating("b", 3, "")];
    });
    let batch = [project("pr_1", 1, "pr v1"), full];
    db.store.apply(&batch).await.unwrap_err();
    db.tamper("alter table elsewhere rename to edition_row")
        .await;
    assert_eq!(versions(&db.store).await, [None; 5]);
    assert_eq!(apply(&db.store, &batch).await, [Applied::Changed; 2]);
}

async fn nothing_is_no_change(db: &TestDatabase) {
    assert!(apply(&db.store, &[]).await.is_empty());
    let draft = edition_as("ed_1", 1, stated("draft", at(0)));
    tell(&db.store, std::slice::from_ref(&draft)).await;
    let tag = || async {
        let tag = db
            .store
            .edition_tag(&everything(), &edition_id("ed_1"))
            .await;
        tag.unwrap().unwrap()
    };
    let before = tag().await;
    apply(&db.store, &[draft]).await;
    assert_eq!(tag().await, before);
    tell(&db.store, &[edition("ed_1", 2)]).await;
    let after = tag().await;
    assert_eq!(after.version, 2);
    assert!(after.revision > before.revision);
}
