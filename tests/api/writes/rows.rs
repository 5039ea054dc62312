//! Rows, put and appended as JSON, CSV and tab-separated text; one row, changed and deleted.

use http::Method;
use serde_json::json;

use super::{ROWS, begin, errors, rows, table, tag, text};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    rows_are_put_instead_of_those_that_are_there,
    rows_are_appended_behind_those_that_are_there,
    a_table_of_a_spreadsheet_is_taken,
    what_is_written_as_csv_is_taken_back,
    each_cell_that_is_wrong_is_told_and_nothing_is_written,
    one_row_is_changed_and_deleted,
    text_that_is_no_table_is_malformed,
);

const JSON: &str = "application/json";

async fn rows_are_put_instead_of_those_that_are_there(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let body = r#"{"rows":[{"id":"r3","values":{"item":"Wood","amount":1.0}},
        {"id":"r1","values":{"item":"Iron","tags":null}}]}"#;
    let put = table(&rig, &key, Method::PUT, JSON, body).send().await;
    assert_eq!(
        text(&put),
        r#"{"edition_id":"ed_1","edition_version":8,"section":"costs","row_ids":["r3","r1"]}"#
    );
    assert_eq!(put.header("etag"), tag(&rig, &key).await);
    // What the core computed stays.
    assert_eq!(
        rows(&rig, &key).await,
        r#"{"edition_version":8,"data":[{"id":"r3","values":{"item":"Wood","amount":1.0}},{"id":"r1","values":{"item":"Iron","total":25}}],"next_cursor":null}"#
    );
    let none = table(&rig, &key, Method::PUT, JSON, r#"{"rows":[]}"#);
    assert_eq!(none.send().await.json()["row_ids"], json!([]));
    assert_eq!(
        rows(&rig, &key).await,
        r#"{"edition_version":9,"data":[],"next_cursor":null}"#
    );
    rig.stop().await;
}

async fn rows_are_appended_behind_those_that_are_there(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let body = r#"{"rows":[{"values":{"item":"Wood"}},{"id":"x","values":{}}]}"#;
    let answer = table(&rig, &key, Method::POST, JSON, body).send().await;
    let ids = answer.json()["row_ids"].clone();
    let made = ids[0].as_str().unwrap();
    assert!(made.starts_with("row_") && made.len() == 30, "{made}");
    assert_eq!(ids[1], "x");
    let shown: serde_json::Value = serde_json::from_str(&rows(&rig, &key).await).unwrap();
    assert_eq!(shown["edition_version"], 8);
    let data = shown["data"].as_array().unwrap();
    let there: Vec<_> = data.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(there, ["r1", "r2", made, "x"]);
    let taken = r#"{"rows":[{"values":{}},{"id":"r2","values":{}}]}"#;
    let refused = table(&rig, &key, Method::POST, JSON, taken).send().await;
    assert_eq!(errors(&refused)[0]["pointer"], "/rows/1/id");
    let csv = "item,ID\r\nSteel,new\r\n\r\nGlass,r2\r\nWood,\r\nIron,x\r\n";
    for (kind, body) in [
        ("text/csv", csv.to_owned()),
        ("text/tab-separated-values", csv.replace(',', "\t")),
    ] {
        let refused = table(&rig, &key, Method::POST, kind, &body).send().await;
        let detail = "is the id of a row that is there";
        let expected = json!([
            {"line": 4, "column": "ID", "detail": detail},
            {"line": 6, "column": "ID", "detail": detail},
        ]);
        assert_eq!(errors(&refused), expected);
    }
    let again: serde_json::Value = serde_json::from_str(&rows(&rig, &key).await).unwrap();
    assert_eq!(again, shown, "nothing is written");
    rig.stop().await;
}

async fn a_table_of_a_spreadsheet_is_taken(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let pasted = "Item\tAMOUNT\tTags\r\nSteel\t 12.50\ta; b\r\nGlass\t\t\r\n";
    let put = table(&rig, &key, Method::PUT, "text/tab-separated-values", pasted);
    let put = put.send().await.json();
    let shown: serde_json::Value = serde_json::from_str(&rows(&rig, &key).await).unwrap();
    let expected = json!([
        {"id": put["row_ids"][0], "values": {"item": "Steel", "amount": 12.5, "tags": ["a", "b"]}},
        {"id": put["row_ids"][1], "values": {"item": "Glass"}},
    ]);
    assert_eq!(shown["data"], expected);
    rig.stop().await;
}

async fn what_is_written_as_csv_is_taken_back(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let kind = "text/csv; charset=utf-8";
    let sent = "id,item,amount\r\nr2,\"Glass, \"\"thick\"\"\",-0.10\r\n'=r1,Steel,\r\n";
    let put = table(&rig, &key, Method::PUT, kind, sent).send().await;
    assert_eq!(put.json()["row_ids"], json!(["r2", "=r1"]), "{put:?}");
    let ask = rig.ask(Method::GET, ROWS).key(&key);
    let shown = ask.header("accept", "text/csv").send().await;
    assert_eq!(
        text(&shown),
        "id,item,amount,tags,total\r\nr2,\"Glass, \"\"thick\"\"\",-0.10,,\r\n'=r1,Steel,,,\r\n"
    );
    rig.stop().await;
}

async fn each_cell_that_is_wrong_is_told_and_nothing_is_written(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let before = (tag(&rig, &key).await, rows(&rig, &key).await);
    let csv = "id,Item,amount,tags\nx,Steel,12,a\ny,steel,1.2.3,c\nx,Wood,,\n";
    let tsv = csv.replace(',', "\t");
    for (kind, body) in [("text/csv", csv), ("text/tab-separated-values", &tsv)] {
        for method in [Method::PUT, Method::POST] {
            let refused = table(&rig, &key, method, kind, body).send().await;
            let list = errors(&refused);
            let places: Vec<_> = list
                .as_array()
                .unwrap()
                .iter()
                .map(|error| {
                    (
                        error["line"].as_u64().unwrap(),
                        error["column"].as_str().unwrap(),
                    )
                })
                .collect();
            assert_eq!(
                places,
                [(3, "Item"), (3, "amount"), (3, "tags"), (4, "id")],
                "{list}"
            );
        }
    }
    let header = "item,price,total\nSteel,1,2\n";
    let refused = table(&rig, &key, Method::PUT, "text/csv", header)
        .send()
        .await;
    let expected = json!([
        {"line": 1, "column": "price", "detail": "is no field of this section"},
        {"line": 1, "column": "total", "detail": "is read-only: leave it out"},
    ]);
    assert_eq!(errors(&refused), expected);
    let body = r#"{"rows":[{"values":{"item":"Steel"}},{"id":"","values":{"amount":"1","total":2,"x":3}}]}"#;
    let refused = table(&rig, &key, Method::PUT, JSON, body).send().await;
    let list = errors(&refused);
    let pointers: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    assert_eq!(
        pointers,
        [
            "/rows/1/id",
            "/rows/1/values/amount",
            "/rows/1/values/total",
            "/rows/1/values/x"
        ]
    );
    assert_eq!(before, (tag(&rig, &key).await, rows(&rig, &key).await));
    rig.stop().await;
}

async fn one_row_is_changed_and_deleted(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let path = format!("{ROWS}/r1");
    let body = json!({"values": {"amount": 99, "item": null}});
    let changed = rig.patch(&key, &path, &body).await;
    let receipt = r#"{"edition_id":"ed_1","edition_version":8,"section":"costs"}"#;
    assert_eq!(text(&changed), receipt);
    assert_eq!(changed.header("etag"), tag(&rig, &key).await);
    let shown = rows(&rig, &key).await;
    assert!(
        shown.contains(r#"{"id":"r1","values":{"amount":99,"total":25}}"#),
        "{shown}"
    );
    let refused = rig
        .patch(&key, &path, &json!({"values": {"total": 1}}))
        .await;
    let detail = "is read-only: leave it out";
    assert_eq!(
        errors(&refused),
        json!([{"pointer": "/values/total", "detail": detail}])
    );
    let deleted = rig.delete(&key, &path).await;
    assert_eq!(text(&deleted), receipt.replace(":8", ":9"));
    assert_eq!(deleted.header("etag"), tag(&rig, &key).await);
    assert_eq!(
        rows(&rig, &key).await,
        r#"{"edition_version":9,"data":[{"id":"r2","values":{"item":"Glass"}}],"next_cursor":null}"#
    );
    assert_eq!(rig.delete(&key, &path).await.problem(), "not-found");
    rig.stop().await;
}

async fn text_that_is_no_table_is_malformed(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    for (kind, body) in [
        (JSON, ""),
        (JSON, "{\"rows\":["),
        (JSON, "id,item\n"),
        ("text/csv", ""),
        ("text/csv", "item\n\"Steel\n"),
    ] {
        let refused = table(&rig, &key, Method::POST, kind, body).send().await;
        assert_eq!(refused.problem(), "malformed-body", "{kind} {body:?}");
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with("At line "), "{detail}");
    }
    rig.stop().await;
}
