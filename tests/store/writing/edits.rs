//! What edits change.

use forge_dispatch::domain::blueprint::{Bounds, Field, FieldType};
use forge_dispatch::domain::edition::SectionContent;
use forge_dispatch::store::Edit;
use serde_json::json;

use super::{
    costs, draft, edit, head, outbox, row, row_id, rows, summary, told, values, values_of,
};
use crate::harness::databases::TestDatabase;
use crate::store::state::{apply, edition, edition_as, repeating, single, tell};

on_both_databases!(
    values_are_set_over_those_that_are_there,
    rows_are_appended_set_deleted_and_put,
    each_edit_raises_the_version_and_is_told_of_in_order,
    a_large_edit_is_told_of_without_its_content,
    an_edit_that_changes_nothing_raises_no_version,
    a_put_keeps_what_only_the_core_may_write,
    a_section_becomes_of_the_other_kind,
    a_section_that_was_never_filled_is_filled,
    a_newer_snapshot_replaces_what_was_written,
);

async fn values_are_set_over_those_that_are_there(db: &TestDatabase) {
    draft(db).await;
    let set = async |patch| {
        edit(&db.store, &summary(), &Edit::SetValues(values_of(patch))).await;
        values(&db.replica).await.unwrap()
    };
    let after = set(r#"{"done":true,"total":2.00}"#).await;
    assert_eq!(after, r#"{"total":2.00,"done":true}"#);
    assert_eq!(set(r#"{"total":null}"#).await, r#"{"done":true}"#);
    assert_eq!(rows(&db.store).await.len(), 3, "of another section");
}

async fn rows_are_appended_set_deleted_and_put(db: &TestDatabase) {
    draft(db).await;
    let old = |number: usize| format!(r#"{{"n": {number}.0, "word": "old"}}"#);
    let change = async |change| {
        edit(&db.store, &costs(), &change).await;
        rows(&db.replica).await
    };
    let new = row("new", r#"{"a":1,"b":null}"#);
    let after = change(Edit::AppendRows(vec![new, row("é", "{}")])).await;
    let there = [("r0", old(0)), ("r1", old(1)), ("r2", old(2))];
    let mut expected = told(&there.each_ref().map(|(id, text)| (*id, text.as_str())));
    expected.extend(told(&[("new", r#"{"a":1}"#), ("é", "{}")]));
    assert_eq!(after, expected);

    let patch = values_of(r#"{"word":null,"x":"y"}"#);
    let after = change(Edit::SetRow(row_id("r1"), patch)).await;
    expected[1] = ("r1".to_owned(), r#"{"n":1.0,"x":"y"}"#.to_owned());
    assert_eq!(after, expected);

    let after = change(Edit::DeleteRow(row_id("r2"))).await;
    expected.remove(2);
    assert_eq!(after, expected);
    let after = change(Edit::AppendRows(vec![row("r2", "{}")])).await;
    expected.extend(told(&[("r2", "{}")]));
    assert_eq!(after, expected, "behind the others");

    for put in [
        vec![("r2", "{}"), ("r0", r#"{"n":7}"#), ("x", "{}"), ("é", "{}")],
        vec![("r0", r#"{"n":7}"#), ("r2", "{}")],
        vec![],
        vec![("b", "{}"), ("a", "{}")],
    ] {
        let wanted = put.iter().map(|(id, text)| row(id, text)).collect();
        assert_eq!(change(Edit::PutRows(wanted)).await, told(&put));
    }
    assert_eq!(values(&db.store).await.unwrap(), r#"{"total": 1.50}"#);
}

async fn each_edit_raises_the_version_and_is_told_of_in_order(db: &TestDatabase) {
    draft(db).await;
    let before = head(&db.store).await;
    let steps = [
        (
            summary(),
            Edit::SetValues(values_of(r#"{"done":true,"total":null}"#)),
            json!({"kind":"values_set","section":"summary","fields":["done","total"],
                "values":{"done":true,"total":null}}),
        ),
        (
            costs(),
            Edit::AppendRows(vec![row("a", "{}"), row("b", "{}")]),
            json!({"kind":"rows_appended","section":"costs","rows":2,
                "data":[{"id":"a","values":{}},{"id":"b","values":{}}]}),
        ),
        (
            costs(),
            Edit::SetRow(row_id("a"), values_of(r#"{"x":1}"#)),
            json!({"kind":"row_set","section":"costs","row":"a","fields":["x"],"values":{"x":1}}),
        ),
        (
            costs(),
            Edit::DeleteRow(row_id("b")),
            json!({"kind":"row_deleted","section":"costs","row":"b"}),
        ),
        (
            costs(),
            Edit::PutRows(vec![row("c", "{}")]),
            json!({"kind":"rows_replaced","section":"costs","rows":1,
                "data":[{"id":"c","values":{}}]}),
        ),
    ];
    let mut expected = Vec::new();
    for (version, (section, change, event)) in (2..).zip(steps) {
        assert_eq!(edit(&db.store, &section, &change).await, version);
        let data = json!({
            "edition_id": "ed_1", "project_id": "pr_1", "version": version, "changes": [event],
        });
        expected.push(("edition.changed".to_owned(), data));
    }
    assert_eq!(outbox(&db.replica).await, expected);
    let after = head(&db.replica).await;
    assert_eq!(after.edition.version, 6);
    assert_eq!(after.revision, before.revision + 5);
    assert!(after.edition.updated_at > before.edition.updated_at);
    assert_eq!(after.edition.status, before.edition.status);
    // It is no event of subscribers.
    assert_eq!(db.count("event_feed").await, 0);
}

async fn a_large_edit_is_told_of_without_its_content(db: &TestDatabase) {
    draft(db).await;
    let text = |bytes: usize| format!(r#"{{"x":"{}"}}"#, "y".repeat(bytes));
    // Together they are too large, each for itself it is not; the last is alone.
    let (half, whole) = (text(140_000), text(270_000));
    let steps = [
        (
            costs(),
            Edit::PutRows(vec![row("a", &half), row("b", &half)]),
        ),
        (costs(), Edit::AppendRows(vec![row("c", &whole)])),
        (costs(), Edit::SetRow(row_id("a"), values_of(&whole))),
        (summary(), Edit::SetValues(values_of(&whole))),
    ];
    for (section, change) in &steps {
        edit(&db.store, section, change).await;
    }
    let told: Vec<_> = outbox(&db.replica)
        .await
        .into_iter()
        .map(|(_, data)| data["changes"][0].clone())
        .collect();
    let expected = [
        json!({"kind":"rows_replaced","section":"costs","rows":2}),
        json!({"kind":"rows_appended","section":"costs","rows":1}),
        json!({"kind":"row_set","section":"costs","row":"a","fields":["x"]}),
        json!({"kind":"values_set","section":"summary","fields":["x"]}),
    ];
    assert_eq!(told, expected);
}

async fn an_edit_that_changes_nothing_raises_no_version(db: &TestDatabase) {
    draft(db).await;
    let there = [row("a", r#"{"x": 1.0}"#), row("b", "{}"), row("c", "{}")];
    edit(&db.store, &costs(), &Edit::PutRows(there.to_vec())).await;
    // A gap in the places of the rows is no change.
    edit(&db.store, &costs(), &Edit::DeleteRow(row_id("b"))).await;
    let before = head(&db.store).await;
    let told = outbox(&db.store).await;
    let [first, _, last] = there;
    for (section, change) in [
        (summary(), Edit::SetValues(values_of("{}"))),
        (summary(), Edit::SetValues(values_of(r#"{"total":1.50}"#))),
        (summary(), Edit::SetValues(values_of(r#"{"done":null}"#))),
        (costs(), Edit::PutRows(vec![first, last])),
        (costs(), Edit::AppendRows(Vec::new())),
        (
            costs(),
            Edit::SetRow(row_id("a"), values_of(r#"{"x":1.0}"#)),
        ),
    ] {
        let version = edit(&db.store, &section, &change).await;
        assert_eq!(version, before.edition.version, "{change:?}");
    }
    assert_eq!(head(&db.store).await, before);
    assert_eq!(outbox(&db.store).await, told);
}

async fn a_put_keeps_what_only_the_core_may_write(db: &TestDatabase) {
    draft(db).await;
    let mut section = costs();
    section.fields.push(Field {
        name: "sum".to_owned(),
        label: None,
        field_type: FieldType::Calculated,
        required: false,
        bounds: Bounds::default(),
        pattern: None,
    });
    let computed = edition_as("ed_1", 2, |state| {
        let rows = vec![
            row("a", r#"{"sum": 7.10, "region": "north"}"#),
            row("b", r#"{"sum": 8}"#),
        ];
        state.content = vec![("costs".to_owned(), SectionContent::Repeating(rows))];
    });
    tell(&db.store, &[computed]).await;
    let put = [
        row("b", "{}"),
        row("a", r#"{"region":"south"}"#),
        row("c", "{}"),
    ];
    let put = Edit::PutRows(put.to_vec());
    assert_eq!(edit(&db.store, &section, &put).await, 3);
    let expected = told(&[
        ("b", r#"{"sum":8}"#),
        ("a", r#"{"region":"south","sum":7.10}"#),
        ("c", "{}"),
    ]);
    assert_eq!(rows(&db.replica).await, expected);
    assert_eq!(edit(&db.store, &section, &put).await, 3, "it is so already");
    edit(&db.store, &section, &Edit::PutRows(Vec::new())).await;
    edit(&db.store, &section, &put).await;
    let expected = told(&[("b", "{}"), ("a", r#"{"region":"south"}"#), ("c", "{}")]);
    assert_eq!(rows(&db.replica).await, expected, "those were other rows");
}

async fn a_section_becomes_of_the_other_kind(db: &TestDatabase) {
    draft(db).await;
    let swapped = edition_as("ed_1", 2, |state| {
        state.content = vec![repeating("summary", 2, "x"), single("costs", r#"{"a":1}"#)];
    });
    tell(&db.store, &[swapped]).await;
    let set = Edit::SetValues(values_of(r#"{"total":1}"#));
    edit(&db.store, &summary(), &set).await;
    assert_eq!(values(&db.replica).await.unwrap(), r#"{"total":1}"#);
    assert_eq!(db.count("edition_row").await, 0);
    let append = Edit::AppendRows(vec![row("a", "{}")]);
    edit(&db.store, &costs(), &append).await;
    assert_eq!(rows(&db.replica).await, told(&[("a", "{}")]));
    assert_eq!(db.count("edition_section where content is null").await, 1);

    // No rows are another thing than no values.
    let emptied = edition_as("ed_1", 5, |state| {
        state.content = vec![single("costs", "{}")];
    });
    tell(&db.store, &[emptied]).await;
    let none = Edit::PutRows(Vec::new());
    assert_eq!(edit(&db.store, &costs(), &none).await, 6);
    assert_eq!(db.count("edition_section where content is null").await, 1);
    assert_eq!(
        edit(&db.store, &costs(), &none).await,
        6,
        "it is so already"
    );
}

async fn a_section_that_was_never_filled_is_filled(db: &TestDatabase) {
    draft(db).await;
    tell(&db.store, &[edition("ed_1", 2)]).await;
    assert_eq!(values(&db.store).await, None);
    let append = Edit::AppendRows(vec![row("a", "{}")]);
    edit(&db.store, &costs(), &append).await;
    let set = Edit::SetValues(values_of(r#"{"total":1}"#));
    edit(&db.store, &summary(), &set).await;
    assert_eq!(rows(&db.replica).await, told(&[("a", "{}")]));
    assert_eq!(values(&db.replica).await.unwrap(), r#"{"total":1}"#);
}

async fn a_newer_snapshot_replaces_what_was_written(db: &TestDatabase) {
    draft(db).await;
    let snapshot = |version| {
        edition_as("ed_1", version, |state| {
            state.content = vec![repeating("costs", 3, "old")];
        })
    };
    let expected = rows(&db.store).await;
    for (version, change) in [
        (2, Edit::DeleteRow(row_id("r1"))),
        (4, Edit::SetRow(row_id("r1"), values_of(r#"{"n":7}"#))),
        (6, Edit::AppendRows(vec![row("new", "{}")])),
        (8, Edit::PutRows(vec![row("r1", "{}"), row("r0", "{}")])),
    ] {
        assert_eq!(edit(&db.store, &costs(), &change).await, version);
        let written = rows(&db.store).await;
        assert_ne!(written, expected);
        apply(&db.store, &[snapshot(version)]).await;
        assert_eq!(rows(&db.store).await, written, "it is not newer");
        tell(&db.store, &[snapshot(version + 1)]).await;
        assert_eq!(rows(&db.replica).await, expected, "{change:?}");
        assert_eq!(head(&db.replica).await.edition.version, version + 1);
    }
    // What the core says that was put is kept as it is.
    let put = Edit::PutRows(vec![row("a", "{}"), row("b", r#"{"x":1}"#)]);
    edit(&db.store, &costs(), &put).await;
    let confirmed = edition_as("ed_1", 11, |state| {
        let rows = vec![row("a", "{}"), row("b", r#"{"x":1}"#)];
        state.content = vec![("costs".to_owned(), SectionContent::Repeating(rows))];
    });
    tell(&db.store, &[confirmed]).await;
    let expected = told(&[("a", "{}"), ("b", r#"{"x":1}"#)]);
    assert_eq!(rows(&db.replica).await, expected);
}
