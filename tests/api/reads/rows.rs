//! Rows, in each form.

use http::StatusCode;
use serde_json::{Value, json};

use super::super::rig::Rig;
use super::{accepting, ed_1, next, reader, tell_all, text};
use crate::api::told::{edition, message, tell};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    rows_are_json_with_the_digits_that_came,
    rows_are_a_table_for_spreadsheets,
    rows_are_one_document_a_line,
    the_form_is_what_accept_likes_best,
    rows_are_paged_in_each_form,
    a_cursor_belongs_to_its_edition_and_section,
);

const ROWS: &str = "/v1/editions/ed_1/sections/costs/rows";

/// As JSON, without what is around them.
const AS_JSON: [&str; 3] = [
    r#"{"id":"r1","values":{"item":"Steel","amount":12345678901234567890.10,"tags":["a","b"]}}"#,
    r#"{"id":"=r2","values":{"amount":-1.0,"item":"=1+1"}}"#,
    r#"{"id":"r3","values":{"item":"a, \"b\"","gone":true,"total":{"x": [1, null]}}}"#,
];

async fn rows_are_json_with_the_digits_that_came(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    let rows = rig.get(&key, ROWS).await;
    let expected = format!(
        r#"{{"edition_version":7,"data":[{}],"next_cursor":null}}"#,
        AS_JSON.join(",")
    );
    assert_eq!(text(&rows), expected);
    assert_eq!(rows.header("content-type"), "application/json");
    assert_eq!(rows.header("x-edition-version"), "7");
    assert_eq!(rows.header("vary"), "Accept, Authorization");
    assert_eq!(rows.header("cache-control"), "private, no-cache");
    assert_eq!(next(&rows), None);
    rig.stop().await;
}

async fn rows_are_a_table_for_spreadsheets(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    let rows = accepting(&rig, &key, ROWS, "text/csv").await;
    let expected = [
        "id,item,amount,tags,total",
        "r1,Steel,12345678901234567890.10,a;b,",
        "'=r2,'=1+1,-1.0,,",
        r#"r3,"a, ""b""",,,"{""x"": [1, null]}""#,
        "",
    ];
    assert_eq!(text(&rows), expected.join("\r\n"));
    let kind = "text/csv; charset=utf-8; header=present";
    assert_eq!(rows.header("content-type"), kind);
    assert_eq!(rows.header("x-edition-version"), "7");
    // Columns are the blueprint's: another one is another table.
    let tag = rows.header("etag").to_owned();
    let gone = r#"{"id":"bp_1","version":4}"#;
    tell(&db.store, &[message("default", "blueprint.deleted", gone)]).await;
    let rows = accepting(&rig, &key, ROWS, "text/csv").await;
    assert!(text(&rows).starts_with("id,item,amount,tags,gone,total\r\n"));
    assert_ne!(rows.header("etag"), tag);
    rig.stop().await;
}

async fn rows_are_one_document_a_line(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    let rows = accepting(&rig, &key, ROWS, "application/x-ndjson").await;
    assert_eq!(text(&rows), AS_JSON.map(|row| format!("{row}\n")).concat());
    assert_eq!(rows.header("content-type"), "application/x-ndjson");
    let pretty = "{\"costs\":{\"rows\":[{\"id\":\"r1\",\"values\":{\r\n  \"a\": 1.0,\n  \"b\": \"\\n\"\n}}]}}";
    tell(&db.store, &[ed_1(8, pretty)]).await;
    let rows = accepting(&rig, &key, ROWS, "application/x-ndjson").await;
    let lines: Vec<&str> = text(&rows).lines().collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let row: Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!(row, json!({"id": "r1", "values": {"a": 1.0, "b": "\n"}}));
    rig.stop().await;
}

async fn the_form_is_what_accept_likes_best(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    for (accept, expected) in [
        ("*/*", "application/json"),
        ("text/*", "text/csv"),
        ("application/json;q=0.1, text/csv;q=0.2", "text/csv"),
        ("application/x-ndjson, */*;q=0.5", "application/x-ndjson"),
    ] {
        let rows = accepting(&rig, &key, ROWS, accept).await;
        assert!(
            rows.header("content-type").starts_with(expected),
            "{accept}"
        );
        assert_eq!(rows.header("vary"), "Accept, Authorization");
    }
    for accept in ["text/html", "application/json;q=0"] {
        let refused = accepting(&rig, &key, ROWS, accept).await;
        assert_eq!(refused.status, StatusCode::NOT_ACCEPTABLE, "{accept}");
        assert_eq!(refused.problem(), "not-acceptable");
        assert_eq!(refused.header("vary"), "Accept, Authorization");
    }
    rig.stop().await;
}

async fn rows_are_paged_in_each_form(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    let first = rig.get(&key, &format!("{ROWS}?limit=2")).await;
    let page = first.json();
    assert_eq!(page["edition_version"], 7);
    assert_eq!(page["data"].as_array().unwrap().len(), 2);
    let cursor = page["next_cursor"].as_str().unwrap();
    let path = next(&first).unwrap();
    assert_eq!(path, format!("{ROWS}?limit=2&after={cursor}"));
    let last = rig.get(&key, &path).await;
    let expected = format!(
        r#"{{"edition_version":7,"data":[{}],"next_cursor":null}}"#,
        AS_JSON[2]
    );
    assert_eq!(text(&last), expected);
    assert_ne!(first.header("etag"), last.header("etag"));
    // Without `limit` it is a page, too.
    let rest = rig.get(&key, &format!("{ROWS}?after={cursor}")).await;
    assert_eq!(rest.body, last.body);
    for (accept, lines) in [("text/csv", 3), ("application/x-ndjson", 2)] {
        let first = accepting(&rig, &key, &format!("{ROWS}?limit=2"), accept).await;
        assert_eq!(text(&first).lines().count(), lines, "{accept}");
        assert_eq!(first.header("x-edition-version"), "7");
        let last = accepting(&rig, &key, &next(&first).unwrap(), accept).await;
        assert_eq!(text(&last).lines().count(), lines - 1, "{accept}");
        assert_eq!(next(&last), None);
    }
    rig.stop().await;
}

async fn a_cursor_belongs_to_its_edition_and_section(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    let rows =
        r#"{"costs":{"rows":[{"id":"a"},{"id":"b"}]},"risks":{"rows":[{"id":"a"},{"id":"b"}]}}"#;
    let other = edition("default", "pr_1", "bp_1", "ed_2", 1, rows);
    tell(&db.store, &[other]).await;
    let first = rig.get(&key, &format!("{ROWS}?limit=1")).await.json();
    let cursor = first["next_cursor"].as_str().unwrap();
    for other in ["ed_2/sections/costs", "ed_1/sections/risks"] {
        let path = format!("/v1/editions/{other}/rows?after={cursor}");
        assert_eq!(rig.get(&key, &path).await.problem(), "invalid-cursor");
    }
    for wrong in ["limit=0", "limit=501", "all=true"] {
        let refused = rig.get(&key, &format!("{ROWS}?{wrong}")).await;
        assert_eq!(refused.problem(), "invalid-parameter", "{wrong}");
    }
    rig.stop().await;
}
