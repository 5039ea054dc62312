//! Reading edition data.

use std::sync::Arc;

use forge_dispatch::domain::edition::{EditionStatus, Row, SectionContent};
use forge_dispatch::domain::ids::{ProjectId, UserId, WorkspaceId};
use forge_dispatch::domain::output::{OutputFile, OutputStatus};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::snapshot::{Snapshot, State};
use forge_dispatch::domain::values::Values;
use forge_dispatch::domain::workspace::Person;
use forge_dispatch::store::{
    EditionFilter, EditionKey, PageRequest, SectionData, SectionTag, Store, Whole,
};

use super::state::{
    at, blueprint, blueprint_id, deletion, edition, edition_as, edition_id, in_workspace, output,
    output_as, output_id, project, project_id, repeating, single, stated, tell, workspace_state,
};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{reach, workspace};

on_both_databases!(
    a_workspace_is_read_as_it_was_told,
    a_project_is_known_by_its_name,
    a_blueprint_is_read_as_it_was_told,
    an_edition_is_read_as_it_was_told,
    editions_go_in_the_order_of_their_changes,
    editions_are_found_by_each_filter,
    who_asks_again_from_as_of_on_misses_nothing_and_sees_nothing_twice,
    a_section_is_read_by_its_name,
    the_tag_of_sections_moves_with_the_edition_and_its_blueprint,
    rows_are_paged_by_number_and_by_bytes,
    content_is_all_or_nothing,
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
    super::fixture::accept(&db.store, &[late]).await;
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
    for limit in [1, 2, 4, 5] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = PageRequest { limit, after };
            let page = db
                .store
                .blueprints(&everything(), &project_id("pr_1"), page)
                .await;
            let page = page.unwrap();
            let ids = page.items.iter().map(|one| one.blueprint.id.to_string());
            found.extend(ids);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, ["A", "a", "b", "ä"]);
    }
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

async fn the_tag_of_sections_moves_with_the_edition_and_its_blueprint(db: &TestDatabase) {
    let id = edition_id("ed_1");
    let tag = async |reach: &Reach| db.replica.section_tag(reach, &id).await.unwrap();
    let all = everything();
    assert_eq!(tag(&all).await, None);
    tell(&db.store, &[edition("ed_1", 1)]).await;
    let head = async || db.store.edition_tag(&all, &id).await.unwrap().unwrap();
    let bare = SectionTag {
        edition: head().await,
        blueprint: None,
    };
    assert_eq!(tag(&all).await, Some(bare));
    let known = |blueprint| SectionTag {
        blueprint: Some(blueprint),
        ..bare
    };
    tell(&db.store, &[blueprint("bp_1", "pr_1", 4, "x")]).await;
    assert_eq!(tag(&all).await, Some(known(4)));
    tell(&db.store, &[blueprint("bp_1", "pr_1", 5, "y")]).await;
    assert_eq!(tag(&all).await, Some(known(5)));
    // One that is another project's now is not for those who see the edition only.
    tell(&db.store, &[blueprint("bp_1", "pr_2", 6, "y")]).await;
    assert_eq!(tag(&all).await, Some(bare));
    let gone = deletion(&blueprint("bp_1", "pr_1", 6, "y"), 7);
    tell(&db.store, &[gone, edition("ed_1", 2)]).await;
    let moved = SectionTag {
        edition: head().await,
        blueprint: None,
    };
    assert_ne!(moved, bare);
    assert_eq!(tag(&all).await, Some(moved));
    for hidden in [reach(&here(), &["pr_2"]), Reach::all(&workspace("ws_2"))] {
        assert_eq!(tag(&hidden).await, None);
    }
}

/// The ids of what a filter finds, page by page.
async fn found(store: &Arc<dyn Store>, filter: &EditionFilter, limit: usize) -> Vec<String> {
    found_by(store, &everything(), filter, limit).await
}

pub(super) async fn found_by(
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

/// An edition with a section of either kind.
fn filled(id: &str, rows: usize) -> Snapshot {
    edition_as(id, 1, |state| {
        state.content = vec![
            single("summary", r#"{"total":1.50, "done":null}"#),
            repeating("costs", rows, "x"),
        ];
    })
}

async fn a_section_is_read_by_its_name(db: &TestDatabase) {
    tell(&db.store, &[filled("ed_1", 2), edition("ed_2", 1)]).await;
    let values = Values::parse(r#"{"total":1.50, "done":null}"#).unwrap();
    for (edition, section, expected) in [
        ("ed_1", "summary", SectionData::Single(values)),
        ("ed_1", "costs", SectionData::Repeating),
        ("ed_1", "Costs", SectionData::Empty),
        ("ed_2", "summary", SectionData::Empty),
    ] {
        let read = db
            .replica
            .section(&everything(), &edition_id(edition), section)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(read.data, expected);
        assert_eq!(read.edition.edition.id, edition_id(edition));
    }
    let none = db
        .store
        .section(&everything(), &edition_id("ed_3"), "costs")
        .await;
    assert_eq!(none.unwrap(), None);
}

/// The rows of section `costs` in pages, each with its number of rows.
async fn pages(
    store: &Arc<dyn Store>,
    edition: &str,
    limit: usize,
    max_bytes: usize,
) -> (Vec<Row>, Vec<usize>) {
    let (mut rows, mut sizes, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let page = PageRequest { limit, after };
        let id = edition_id(edition);
        let read = store
            .rows(&everything(), &id, "costs", page, max_bytes)
            .await;
        let read = read.unwrap().unwrap();
        assert_eq!(read.edition.edition.version, 1);
        sizes.push(read.page.items.len());
        rows.extend(read.page.items);
        after = read.page.next;
        if after.is_none() {
            return (rows, sizes);
        }
    }
}

async fn rows_are_paged_by_number_and_by_bytes(db: &TestDatabase) {
    let told = filled("ed_1", 7);
    tell(&db.store, &[told.clone(), edition("ed_2", 1)]).await;
    let State::Edition(state) = &told.state else {
        unreachable!()
    };
    let SectionContent::Repeating(expected) = &state.content[1].1 else {
        unreachable!()
    };
    let one = expected[0].id.as_str().len() + expected[0].values.as_str().len();
    for (limit, max_bytes, sizes) in [
        (9, usize::MAX, &[7_usize] as &[usize]),
        (7, usize::MAX, &[7]),
        (usize::MAX, usize::MAX, &[7]),
        (3, usize::MAX, &[3, 3, 1]),
        (9, 3 * one, &[3, 3, 1]),
        (9, 3 * one - 1, &[2, 2, 2, 1]),
        (2, 3 * one, &[2, 2, 2, 1]),
        // A row that is larger than a page may be is a page of its own.
        (9, 1, &[1; 7]),
        (9, 0, &[1; 7]),
    ] {
        let (rows, found) = pages(&db.replica, "ed_1", limit, max_bytes).await;
        assert_eq!(rows, *expected, "{limit} {max_bytes}");
        assert_eq!(found, sizes, "{limit} {max_bytes}");
    }
    let (rows, sizes) = pages(&db.store, "ed_2", 9, 9).await;
    assert_eq!((rows.len(), &*sizes), (0, &[0_usize] as &[usize]));
    let of_single = db
        .store
        .rows(&everything(), &edition_id("ed_1"), "summary", first(9), 9)
        .await
        .unwrap()
        .unwrap();
    assert!(of_single.page.items.is_empty());
    let none = db
        .store
        .rows(&everything(), &edition_id("ed_3"), "costs", first(9), 9)
        .await;
    assert!(none.unwrap().is_none());
}

async fn content_is_all_or_nothing(db: &TestDatabase) {
    let told = filled("ed_1", 7);
    let State::Edition(state) = &told.state else {
        unreachable!()
    };
    let bytes: usize = state
        .content
        .iter()
        .map(|(_, content)| match content {
            SectionContent::Single(values) => values.as_str().len(),
            SectionContent::Repeating(rows) => rows
                .iter()
                .map(|row| row.id.as_str().len() + row.values.as_str().len())
                .sum(),
        })
        .sum();
    tell(&db.store, std::slice::from_ref(&told)).await;
    let id = edition_id("ed_1");
    for (max_bytes, fits) in [
        (usize::MAX, true),
        (bytes, true),
        (bytes - 1, false),
        (0, false),
    ] {
        let read = db.replica.content(&everything(), &id, max_bytes).await;
        match read.unwrap().unwrap() {
            Whole::Content(edition, content) => {
                assert!(fits);
                assert_eq!(edition.edition.id, id);
                assert_eq!(content, state.content);
            }
            Whole::TooLarge => assert!(!fits),
        }
    }
    let none = db
        .store
        .content(&everything(), &edition_id("ed_2"), 0)
        .await;
    assert!(none.unwrap().is_none());
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
        let list = store.blueprints(reach, &project, first(9)).await.unwrap();
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
