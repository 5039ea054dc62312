//! Reading edition data.

use std::sync::Arc;

use forge_dispatch::domain::edition::EditionStatus;
use forge_dispatch::domain::ids::{ProjectId, UserId, WorkspaceId};
use forge_dispatch::domain::output::{OutputFile, OutputStatus};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::snapshot::State;
use forge_dispatch::domain::workspace::Person;
use forge_dispatch::store::{EditionFilter, PageRequest, Store};

use super::state::{
    at, blueprint, blueprint_id, edition, edition_as, edition_id, in_workspace, output, output_as,
    output_id, project_id, repeating, single, tell,
};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{reach, workspace};

mod filters;
mod lists;
mod sections;
mod structure;

on_both_databases!(
    an_edition_is_read_as_it_was_told,
    outputs_are_read_as_they_were_told,
    nothing_out_of_reach_is_seen,
);

fn here() -> WorkspaceId {
    WorkspaceId::default()
}

fn everything() -> Reach {
    Reach::all(&here())
}

fn first<Key>(limit: usize) -> PageRequest<Key> {
    PageRequest { limit, after: None }
}

async fn an_edition_is_read_as_it_was_told(db: &TestDatabase) {
    let told = edition_as("ed_1", 7, |state| {
        let head = &mut state.edition;
        head.period = Some("2026-Q2".to_owned());
        head.assignee = Some(Person {
            id: UserId::new("u1").unwrap(),
            name: None,
        });
        head.status = EditionStatus::parse("on_ice").unwrap();
        head.status_changed_at = at(5);
    });
    let State::Edition(expected) = &told.state else {
        unreachable!()
    };
    tell(&db.store, std::slice::from_ref(&told)).await;
    let read = db.replica.edition(&everything(), &edition_id("ed_1")).await;
    let read = read.unwrap().unwrap();
    let mut expected = expected.edition.clone();
    // When it changed here, not there: what `updated_since` goes by.
    assert!(read.edition.updated_at > expected.updated_at);
    expected.updated_at = read.edition.updated_at;
    assert_eq!(read.edition, expected);
    let tag = db
        .store
        .edition_tag(&everything(), &edition_id("ed_1"))
        .await;
    assert_eq!(tag.unwrap(), Some(read.tag()));
    let none = db.store.edition(&everything(), &edition_id("ed_2")).await;
    assert_eq!(none.unwrap(), None);
}

/// The ids of what a filter finds, page by page.
async fn found(store: &Arc<dyn Store>, filter: &EditionFilter, limit: usize) -> Vec<String> {
    found_by(store, &everything(), filter, limit).await
}

async fn found_by(
    store: &Arc<dyn Store>,
    reach: &Reach,
    filter: &EditionFilter,
    limit: usize,
) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = PageRequest { limit, after };
        let page = store.editions(reach, filter, page).await.unwrap().page;
        assert!(page.items.len() <= limit);
        found.extend(page.items.iter().map(|one| one.edition.id.to_string()));
        after = page.next.map(|key| {
            let text = key.to_string();
            assert_eq!(text.parse(), Ok(key), "a key can be sent and read again");
            text.parse().unwrap()
        });
        if after.is_none() {
            return found;
        }
    }
}

async fn outputs_are_read_as_they_were_told(db: &TestDatabase) {
    let made = output_as("b", "ed_1", 4, |output| {
        output.status = OutputStatus::Generated;
        output.updated_at = at(3);
        output.file = Some(OutputFile {
            size: 1 << 40,
            sha256: "ab".repeat(32),
            generated_at: at(2),
        });
    });
    let failed = output_as("A", "ed_1", 1, |output| {
        output.status = OutputStatus::Failed;
        output.failure = Some("no fonts".to_owned());
    });
    let others = [output("a", "ed_1", 1), output("c", "ed_2", 1)];
    let editions = [edition("ed_1", 1), edition("ed_2", 1)];
    // Outputs may come before their edition; they are not seen until then.
    tell(&db.store, &[made.clone(), failed.clone()]).await;
    tell(&db.store, &others).await;
    let early = db.store.output(&everything(), &output_id("b")).await;
    assert_eq!(early.unwrap(), None);
    tell(&db.store, &editions).await;
    for snapshot in [&made, &failed] {
        let State::Output(expected) = &snapshot.state else {
            unreachable!()
        };
        let read = db.replica.output(&everything(), &expected.id).await;
        assert_eq!(read.unwrap().unwrap().output, **expected);
    }
    for limit in [1, 2, 3, 4] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = PageRequest { limit, after };
            let page = db
                .store
                .outputs(&everything(), &edition_id("ed_1"), page)
                .await;
            let page = page.unwrap().unwrap();
            found.extend(page.items.iter().map(|one| one.output.id.to_string()));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, ["A", "a", "b"]);
    }
    let none = db
        .store
        .outputs(&everything(), &edition_id("ed_3"), first(9))
        .await;
    assert!(none.unwrap().is_none());
}

async fn nothing_out_of_reach_is_seen(db: &TestDatabase) {
    let elsewhere = workspace("ws_2");
    let of = |project: &str| {
        let project_of = project_id(project);
        let edition = edition_as("ed_1", 1, |state| {
            state.edition.project = project_of;
            state.content = vec![single("summary", "{}"), repeating("costs", 1, "x")];
        });
        [
            blueprint("bp_1", project, 1, "x"),
            edition,
            output("out_1", "ed_1", 1),
        ]
    };
    tell(&db.store, &of("pr_1")).await;
    // Of the same ids.
    let theirs = of("pr_2").map(|one| in_workspace(&elsewhere, one));
    tell(&db.store, &theirs).await;
    for (reach, expected) in [
        (everything(), Some("pr_1")),
        (Reach::all(&elsewhere), Some("pr_2")),
        (reach(&here(), &["pr_0", "pr_1"]), Some("pr_1")),
        (reach(&here(), &["pr_2"]), None),
        (reach(&here(), &[]), None),
        (reach(&elsewhere, &["pr_2"]), Some("pr_2")),
        (reach(&elsewhere, &["pr_1"]), None),
        (Reach::all(&workspace("ws_3")), None),
    ] {
        let seen = seen(&db.replica, &reach).await;
        assert_eq!(
            seen,
            [expected.map(project_id).as_ref(); 4].map(Option::<&ProjectId>::cloned)
        );
    }
}

/// The project of each kind of thing that is seen; every road to one must agree.
async fn seen(store: &Arc<dyn Store>, reach: &Reach) -> [Option<ProjectId>; 4] {
    let (id, output) = (edition_id("ed_1"), output_id("out_1"));
    let edition = store.edition(reach, &id).await.unwrap();
    let is_seen = edition.is_some();
    let tag = store.edition_tag(reach, &id).await.unwrap();
    assert_eq!(
        tag,
        edition
            .as_ref()
            .map(forge_dispatch::store::EditionRecord::tag)
    );
    let section = store.section(reach, &id, "summary").await.unwrap();
    assert_eq!(section.is_some(), is_seen);
    let rows = store.rows(reach, &id, "costs", first(9), 99).await.unwrap();
    assert_eq!(rows.is_some(), is_seen);
    let content = store.content(reach, &id, 99).await.unwrap();
    assert_eq!(content.is_some(), is_seen);
    let outputs = store.outputs(reach, &id, first(9)).await.unwrap();
    assert_eq!(outputs.is_some(), is_seen);

    let blueprint = store.blueprint(reach, &blueprint_id("bp_1")).await.unwrap();
    for project in ["pr_1", "pr_2"].map(project_id) {
        let list = store
            .blueprints(reach, &project, first(9), 99)
            .await
            .unwrap();
        let of_it = blueprint
            .as_ref()
            .is_some_and(|one| one.blueprint.project == project);
        assert_eq!(list.items.len(), usize::from(of_it));
    }
    let listed = found_by(store, reach, &EditionFilter::default(), 9).await;
    assert_eq!(listed.len(), usize::from(is_seen));
    let read = store.output(reach, &output).await.unwrap();
    [
        edition.map(|one| one.edition.project),
        blueprint.map(|one| one.blueprint.project),
        read.map(|one| one.output.project),
        outputs.and_then(|page| Some(page.items.first()?.output.project.clone())),
    ]
}
