//! What a section holds.

use http::StatusCode;
use serde_json::json;

use super::super::rig::Rig;
use super::{ed_1, reader, tell_all, text};
use crate::api::told::{edition, message, tell};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    a_section_is_shown_with_its_values_as_they_were_written,
    a_section_that_was_never_filled_is_the_blueprints_to_know,
    the_name_of_a_section_is_any_text,
);

const SUMMARY: &str = "/v1/editions/ed_1/sections/summary";

async fn a_section_is_shown_with_its_values_as_they_were_written(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    let single = rig.get(&key, SUMMARY).await;
    let expected = r#"{"edition_id":"ed_1","edition_version":7,"name":"summary","kind":"single","values":{"rate":1.50,"note":"all\nwell"}}"#;
    assert_eq!(text(&single), expected);
    let repeating = rig.get(&key, "/v1/editions/ed_1/sections/costs").await;
    let expected = json!({
        "edition_id": "ed_1",
        "edition_version": 7,
        "name": "costs",
        "kind": "repeating",
        "values": null,
    });
    assert_eq!(repeating.json(), expected);
    assert_ne!(single.header("etag"), repeating.header("etag"));
    rig.stop().await;
}

async fn a_section_that_was_never_filled_is_the_blueprints_to_know(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    tell(&db.store, &[ed_1(8, "{}")]).await;
    let shown = rig.get(&key, SUMMARY).await.json();
    assert_eq!(shown["kind"], "single");
    assert_eq!(shown["values"], json!({}));
    let rows = rig.get(&key, "/v1/editions/ed_1/sections/risks/rows").await;
    assert_eq!(
        text(&rows),
        r#"{"edition_version":8,"data":[],"next_cursor":null}"#
    );
    for missing in ["other", "other/rows", "summary/rows"] {
        let path = format!("/v1/editions/ed_1/sections/{missing}");
        let missing = rig.get(&key, &path).await;
        assert_eq!(missing.problem(), "not-found", "{path}");
    }
    let gone = r#"{"id":"bp_1","version":4}"#;
    tell(&db.store, &[message("default", "blueprint.deleted", gone)]).await;
    assert_eq!(rig.get(&key, SUMMARY).await.problem(), "not-found");
    // What it holds is there, whatever became of its blueprint.
    tell(&db.store, &[ed_1(9, super::SECTIONS)]).await;
    assert_eq!(rig.get(&key, SUMMARY).await.status, StatusCode::OK);
    rig.stop().await;
}

async fn the_name_of_a_section_is_any_text(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    let sections = r#"{"a/ä %":{"values":{"x":1}}}"#;
    tell(
        &db.store,
        &[edition("default", "pr_1", "bp_1", "ed/1", 1, sections)],
    )
    .await;
    let path = "/v1/editions/ed%2F1/sections/a%2F%C3%A4%20%25";
    let shown = rig.get(&key, path).await.json();
    assert_eq!(shown["name"], "a/ä %");
    for odd in ["a%00", "%ff", &"x".repeat(256)] {
        let path = format!("/v1/editions/ed%2F1/sections/{odd}");
        assert_eq!(rig.get(&key, &path).await.problem(), "not-found", "{odd}");
    }
    rig.stop().await;
}
