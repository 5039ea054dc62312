//! Answers end before 10 MB, or are refused.

use http::StatusCode;

use super::super::rig::Rig;
use super::{accepting, ed_1, next, reader, tell_all, text};
use crate::api::told::{message, tell};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    pages_of_rows_end_before_ten_megabytes,
    a_wide_table_is_refused_before_it_is_written,
    what_no_page_can_hold_is_told,
);

const ROWS: &str = "/v1/editions/ed_1/sections/costs/rows";
const MOST: usize = 10_000_000;

/// Rows of which each holds a text of so many bytes.
fn rows(count: usize, bytes: usize) -> String {
    let text = "x".repeat(bytes);
    let rows: Vec<String> = (0..count)
        .map(|number| format!(r#"{{"id":"r{number}","values":{{"item":"{text}"}}}}"#))
        .collect();
    format!(r#"{{"costs":{{"rows":[{}]}}}}"#, rows.join(","))
}

async fn pages_of_rows_end_before_ten_megabytes(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    tell(&db.store, &[ed_1(8, &rows(12, 1_000_000))]).await;
    for accept in ["application/json", "text/csv", "application/x-ndjson"] {
        let refused = accepting(&rig, &key, ROWS, accept).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert_eq!(refused.problem(), "response-too-large");
        assert_eq!(refused.header("vary"), "Accept, Authorization");
        let (mut path, mut pages, mut bytes) = (format!("{ROWS}?limit=500"), 0, 0);
        loop {
            let page = accepting(&rig, &key, &path, accept).await;
            let length = text(&page).len();
            assert!(length <= MOST, "{accept}: {length}");
            (pages, bytes) = (pages + 1, bytes + length);
            match next(&page) {
                Some(next) => path = next,
                None => break,
            }
        }
        assert!(pages > 1 && bytes > 12_000_000, "{accept}: {pages} {bytes}");
    }
    // What fits is sent whole.
    tell(&db.store, &[ed_1(9, &rows(9, 1_000_000))]).await;
    let whole = rig.get(&key, ROWS).await;
    assert!(text(&whole).len() > 9_000_000);
    assert_eq!(next(&whole), None);
    rig.stop().await;
}

async fn a_wide_table_is_refused_before_it_is_written(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    let fields: Vec<String> = (0..500)
        .map(|number| format!(r#"{{"name":"f{number}","type":"text"}}"#))
        .collect();
    let wide = format!(
        r#"{{"id":"bp_1","version":4,"project_id":"pr_1","name":"Wide","sections":[
            {{"name":"costs","kind":"repeating","fields":[{}]}}]}}"#,
        fields.join(",")
    );
    let empty: Vec<String> = (0..21_000)
        .map(|number| format!(r#"{{"id":"{number}"}}"#))
        .collect();
    let empty = format!(r#"{{"costs":{{"rows":[{}]}}}}"#, empty.join(","));
    let told = [
        message("default", "blueprint.snapshot", &wide),
        ed_1(8, &empty),
    ];
    tell(&db.store, &told).await;
    let table = accepting(&rig, &key, ROWS, "text/csv").await;
    assert_eq!(table.problem(), "response-too-large");
    assert_eq!(rig.get(&key, ROWS).await.status, StatusCode::OK);
    let page = accepting(&rig, &key, &format!("{ROWS}?limit=500"), "text/csv").await;
    assert_eq!(text(&page).lines().count(), 501);
    rig.stop().await;
}

async fn what_no_page_can_hold_is_told(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    tell(&db.store, &[ed_1(8, &rows(1, MOST))]).await;
    let refused = rig.get(&key, &format!("{ROWS}?limit=1")).await;
    assert_eq!(refused.problem(), "response-too-large");
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("`r0`"), "{detail}");
    let single = format!(
        r#"{{"summary":{{"values":{{"note":"{}"}}}}}}"#,
        "x".repeat(MOST)
    );
    tell(&db.store, &[ed_1(9, &single)]).await;
    let refused = rig.get(&key, "/v1/editions/ed_1/sections/summary").await;
    assert_eq!(refused.problem(), "response-too-large");
    rig.stop().await;
}
