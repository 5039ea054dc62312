//! As many rows as a client may well send at once. (How fast that is, is `scripts/bench put`.)

use http::Method;

use super::text;
use crate::api::rig::{Answer, Key, Rig};
use crate::api::told::tell;
use crate::harness::databases::TestDatabase;
use crate::harness::sheet;
use forge_dispatch::domain::api_key::Scope;
use forge_dispatch::domain::key_text::KeyText;

on_both_databases!(twenty_thousand_rows_are_taken_whole_and_read_back_as_they_were_sent,);

const ROWS: usize = 20_000;
const CSV: &str = "text/csv";

async fn put(rig: &Rig, key: &KeyText, kind: &str, body: String) -> Answer {
    let ask = rig.ask(Method::PUT, &sheet::path("ed_1")).key(key);
    ask.header("content-type", kind).bytes(body).send().await
}

/// As JSON, and as CSV.
async fn shown(rig: &Rig, key: &KeyText) -> [Answer; 2] {
    let path = sheet::path("ed_1");
    let csv = rig.ask(Method::GET, &path).key(key);
    let csv = csv.header("accept", CSV).send().await;
    [rig.get(key, &path).await, csv]
}

async fn twenty_thousand_rows_are_taken_whole_and_read_back_as_they_were_sent(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    tell(&db.store, &[sheet::blueprint(), sheet::draft("ed_1")]).await;
    let key = rig
        .key(Key::with(&[Scope::ReadEditions, Scope::WriteEditions]))
        .await;
    for (version, kind, word) in [(2, "application/json", "Steel"), (3, CSV, "Glass")] {
        let rows = sheet::json_rows(ROWS, word);
        let csv = sheet::csv(ROWS, word);
        let body = if kind == CSV {
            csv.clone()
        } else {
            format!(r#"{{"rows":[{rows}]}}"#)
        };
        let answer = put(&rig, &key, kind, body).await;
        let receipt = answer.json();
        assert_eq!(receipt["edition_version"], version, "{kind}: {receipt}");
        assert_eq!(receipt["row_ids"].as_array().map(Vec::len), Some(ROWS));
        let [as_json, as_csv] = shown(&rig, &key).await;
        let expected =
            format!(r#"{{"edition_version":{version},"data":[{rows}],"next_cursor":null}}"#);
        // Not `assert_eq`, which would print millions of characters.
        assert!(text(&as_json) == expected, "{kind}: other rows are shown");
        assert!(text(&as_csv) == csv, "{kind}: another table is shown");
    }
    rig.stop().await;
}
