//! Reading what editions hold.

use std::sync::Arc;

use forge_dispatch::domain::edition::{Row, SectionContent};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::snapshot::{Snapshot, State};
use forge_dispatch::domain::values::Values;
use forge_dispatch::store::{PageRequest, SectionData, SectionTag, Store, Whole};

use super::super::state::{
    blueprint, deletion, edition, edition_as, edition_id, repeating, single, tell,
};
use super::{everything, first, here};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{reach, workspace};

on_both_databases!(
    a_section_is_read_by_its_name,
    the_tag_of_sections_moves_with_the_edition_and_its_blueprint,
    rows_are_paged_by_number_and_by_bytes,
    content_is_all_or_nothing,
);

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
