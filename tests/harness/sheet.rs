//! A sheet of many rows: the edition that it is of, and how a client sends and is shown it.
//! (The bench puts it too.)

#![expect(
    clippy::expect_used,
    reason = "a sheet that cannot be made ends what needs it"
)]

use chrono::DateTime;
use forge_dispatch::domain::snapshot::Snapshot;
use serde_json::{Value, json};

/// Where the rows of an edition are.
pub(crate) fn path(edition: &str) -> String {
    format!("/v1/editions/{edition}/sections/lines/rows")
}

/// So many rows, each with this word in it, as one document's items.
pub(crate) fn json_rows(rows: usize, word: &str) -> String {
    let row = |number: usize| {
        format!(
            r#"{{"id":"r{number}","values":{{"item":"{word}, no. {number}","amount":{number}.50,"count":{number},"day":"2026-05-{:02}","kind":"b"}}}}"#,
            day(number)
        )
    };
    (0..rows).map(row).collect::<Vec<_>>().join(",")
}

/// The same as CSV, as it is shown.
pub(crate) fn csv(rows: usize, word: &str) -> String {
    let row = |number: usize| {
        format!(
            "r{number},\"{word}, no. {number}\",{number}.50,{number},2026-05-{:02},b\r\n",
            day(number)
        )
    };
    let rows: String = (0..rows).map(row).collect();
    format!("id,item,amount,count,day,kind\r\n{rows}")
}

fn day(number: usize) -> usize {
    number % 28 + 1
}

/// The blueprint of such sheets.
pub(crate) fn blueprint() -> Snapshot {
    let data = json!({
        "id": "bp_sheet", "version": 1, "project_id": "pr_1", "name": "Sheet",
        "sections": [{"name": "lines", "kind": "repeating", "fields": [
            {"name": "item", "type": "text", "required": true},
            {"name": "amount", "type": "number", "min": 0},
            {"name": "count", "type": "integer"},
            {"name": "day", "type": "date"},
            {"name": "kind", "type": "select", "options": ["a", "b"]},
        ]}],
    });
    snapshot("blueprint.snapshot", &data)
}

/// An empty draft of that blueprint.
pub(crate) fn draft(id: &str) -> Snapshot {
    let data = json!({
        "id": id, "version": 1, "project_id": "pr_1", "blueprint_id": "bp_sheet", "name": "A sheet",
        "status": "draft", "status_changed_at": "2026-04-01T00:00:00Z",
        "created_at": "2026-04-01T00:00:00Z",
    });
    snapshot("edition.snapshot", &data)
}

fn snapshot(kind: &str, data: &Value) -> Snapshot {
    let text = json!({
        "specversion": "1.0", "id": "1", "source": "/report-forge", "type": kind,
        "time": "2026-05-01T09:00:00Z", "data": data,
    });
    let text = text.to_string();
    Snapshot::decode(text.as_bytes(), DateTime::UNIX_EPOCH).expect("a snapshot")
}
