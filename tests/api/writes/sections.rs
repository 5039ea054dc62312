//! Values of a section that is filled once.

use serde_json::json;

use super::{SUMMARY, begin, errors, tag, text};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    values_are_merged_into_those_that_are_there,
    what_changes_nothing_raises_no_version,
    values_that_break_rules_are_told_each_by_its_field,
);

async fn values_are_merged_into_those_that_are_there(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let body = json!({"values": {"note": null, "rate": 2.5}});
    let changed = rig.patch(&key, SUMMARY, &body).await;
    assert_eq!(
        text(&changed),
        r#"{"edition_id":"ed_1","edition_version":8,"section":"summary"}"#
    );
    assert_eq!(changed.header("etag"), tag(&rig, &key).await);
    let shown = rig.get(&key, SUMMARY).await;
    assert_eq!(
        text(&shown),
        r#"{"edition_id":"ed_1","edition_version":8,"name":"summary","kind":"single","values":{"rate":2.5}}"#
    );
    let body = json!({"values": {"note": "some"}});
    let changed = rig.patch(&key, SUMMARY, &body).await.json();
    assert_eq!(changed["edition_version"], 9);
    let shown = rig.get(&key, SUMMARY).await.json();
    assert_eq!(shown["values"], json!({"rate": 2.5, "note": "some"}));
    rig.stop().await;
}

async fn what_changes_nothing_raises_no_version(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let before = tag(&rig, &key).await;
    for body in [
        json!({"values": {}}),
        json!({"values": {"note": "all well"}}),
    ] {
        let answer = rig.patch(&key, SUMMARY, &body).await;
        assert_eq!(answer.json()["edition_version"], 7, "{body}");
        assert_eq!(answer.header("etag"), before);
    }
    assert_eq!(tag(&rig, &key).await, before);
    rig.stop().await;
}

async fn values_that_break_rules_are_told_each_by_its_field(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let before = tag(&rig, &key).await;
    let body = json!({"values": {"a/b": 1, "rate": 0.1, "note": "fine"}});
    let refused = rig.patch(&key, SUMMARY, &body).await;
    let expected = json!([
        {"pointer": "/values/a~1b", "detail": "is no field of this section"},
        {"pointer": "/values/rate", "detail": "must be at least 0.5"},
    ]);
    assert_eq!(errors(&refused), expected);
    for (body, pointer) in [
        (json!({}), ""),
        (json!({"values": []}), "/values"),
        (json!({"values": {}, "rows": []}), "/rows"),
    ] {
        let refused = rig.patch(&key, SUMMARY, &body).await;
        assert_eq!(errors(&refused)[0]["pointer"], pointer, "{body}");
    }
    let rows = "/v1/editions/ed_1/sections/costs";
    let refused = rig.patch(&key, rows, &json!({"values": {}})).await;
    let detail = "are of a section that is filled row by row: write its rows";
    assert_eq!(
        errors(&refused),
        json!([{"pointer": "/values", "detail": detail}])
    );
    assert_eq!(tag(&rig, &key).await, before, "nothing is written");
    rig.stop().await;
}
