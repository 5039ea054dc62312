//! Writes that are not taken, whatever they hold: nothing is written.

use forge_dispatch::domain::api_key::Scope;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{HELD, ROWS, SUBMIT, SUMMARY, begin, table, tag};
use crate::api::rig::{Answer, Key, Rig};
use crate::api::told::{message, tell};
use crate::harness::databases::TestDatabase;
use forge_dispatch::domain::key_text::KeyText;

on_both_databases!(
    a_version_that_is_not_the_current_one_is_told,
    an_edition_that_is_not_open_takes_no_changes,
    what_is_not_there_is_not_found,
    without_its_blueprint_nothing_can_be_written,
    what_is_too_large_is_refused_whole,
    what_is_of_another_type_is_not_read,
    a_key_needs_the_scope_and_the_project,
);

/// Every write of `ed_1`: method, address, body.
fn writes() -> [(Method, String, Value); 6] {
    let values = json!({"values": {}});
    let rows = json!({"rows": [{"values": {}}]});
    [
        (
            Method::PATCH,
            SUMMARY.to_owned(),
            json!({"values": {"rate": 3}}),
        ),
        (Method::PUT, ROWS.to_owned(), rows.clone()),
        (Method::POST, ROWS.to_owned(), rows),
        (Method::PATCH, format!("{ROWS}/r1"), values),
        (Method::DELETE, format!("{ROWS}/r1"), Value::Null),
        (Method::POST, SUBMIT.to_owned(), json!({})),
    ]
}

async fn send(
    rig: &Rig,
    key: &KeyText,
    (method, path, body): (Method, String, Value),
    headers: &[(&str, &str)],
) -> Answer {
    let mut ask = rig.ask(method, &path).key(key);
    for (name, value) in headers {
        ask = ask.header(name, value);
    }
    if !body.is_null() {
        ask = ask.json(&body);
    }
    ask.send().await
}

async fn a_version_that_is_not_the_current_one_is_told(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let before = tag(&rig, &key).await;
    for write in writes() {
        let told = format!("{} {}", write.0, write.1);
        let stale = send(&rig, &key, write, &[("if-match", "\"6.1-json\"")]).await;
        assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED, "{told}");
        assert_eq!(stale.problem(), "stale-version", "{told}");
    }
    assert_eq!(tag(&rig, &key).await, before);
    // Any tag of the version that is there will do.
    let body = json!({"values": {"rate": 3}});
    let write = (Method::PATCH, SUMMARY.to_owned(), body);
    let changed = send(&rig, &key, write, &[("if-match", "\"7.other\", \"1.x\"")]).await;
    assert_eq!(changed.json()["edition_version"], 8);
    rig.stop().await;
}

async fn an_edition_that_is_not_open_takes_no_changes(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let data = format!(
        r#"{{"id":"ed_1","version":8,"project_id":"pr_1","blueprint_id":"bp_1","name":"April",
            "status":"approved","status_changed_at":"2026-05-02T00:00:00Z","period":"2026-04",
            "created_at":"2026-04-01T00:00:00Z","sections":{HELD}}}"#
    );
    tell(&db.store, &[message("default", "edition.snapshot", &data)]).await;
    let before = tag(&rig, &key).await;
    for write in writes() {
        let told = format!("{} {}", write.0, write.1);
        let refused = send(&rig, &key, write, &[]).await;
        assert_eq!(refused.problem(), "edition-not-open", "{told}");
        let expected = json!({
            "type": "/problems/edition-not-open",
            "title": "The edition takes no changes",
            "status": 409,
            "detail": "The edition is `approved`: only `draft` and `changes_requested` ones take changes.",
        });
        assert_eq!(refused.json(), expected, "{told}");
    }
    assert_eq!(tag(&rig, &key).await, before);
    rig.stop().await;
}

async fn what_is_not_there_is_not_found(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let values = || json!({"values": {}});
    let rows = || json!({"rows": []});
    for (method, path, body) in [
        (Method::PATCH, "ed_9/sections/summary", values()),
        (Method::PATCH, "ed_1/sections/other", values()),
        (Method::PUT, "ed_1/sections/other/rows", rows()),
        // A section that is filled once has no rows.
        (Method::PUT, "ed_1/sections/summary/rows", rows()),
        (Method::POST, "ed_1/sections/summary/rows", rows()),
        (Method::PATCH, "ed_1/sections/costs/rows/r9", values()),
        (Method::DELETE, "ed_1/sections/costs/rows/r9", Value::Null),
        (Method::DELETE, "ed_1/sections/costs/rows/x%00", Value::Null),
        (Method::POST, "ed_9/submit", json!({})),
    ] {
        let path = format!("/v1/editions/{path}");
        let answer = send(&rig, &key, (method.clone(), path.clone(), body), &[]).await;
        assert_eq!(answer.problem(), "not-found", "{method} {path}");
    }
    rig.stop().await;
}

async fn without_its_blueprint_nothing_can_be_written(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let gone = message(
        "default",
        "blueprint.deleted",
        r#"{"id":"bp_1","version":4}"#,
    );
    tell(&db.store, &[gone]).await;
    for write in writes() {
        let told = format!("{} {}", write.0, write.1);
        let refused = send(&rig, &key, write, &[]).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{told}");
        assert_eq!(refused.problem(), "blueprint-unknown", "{told}");
    }
    rig.stop().await;
}

async fn what_is_too_large_is_refused_whole(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let before = tag(&rig, &key).await;
    let header = "item\n";
    let many = format!("{header}{}", "A\n".repeat(50_001));
    let large = format!("{header}{}", "A".repeat(5_000_001));
    let rows = format!(
        r#"{{"rows":[{}]}}"#,
        vec![r#"{"values":{}}"#; 50_001].join(",")
    );
    for (kind, body) in [
        ("text/csv", &many),
        ("text/csv", &large),
        ("text/tab-separated-values", &many),
        ("application/json", &rows),
    ] {
        let refused = table(&rig, &key, Method::PUT, kind, body).send().await;
        assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE, "{kind}");
        assert_eq!(refused.problem(), "payload-too-large");
    }
    assert_eq!(tag(&rig, &key).await, before);
    rig.stop().await;
}

async fn what_is_of_another_type_is_not_read(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    for kind in [
        "text/plain",
        "text/csv; charset=utf-16",
        "application/x-ndjson",
    ] {
        let refused = table(&rig, &key, Method::POST, kind, "item\nA\n")
            .send()
            .await;
        assert_eq!(refused.problem(), "unsupported-media-type", "{kind}");
    }
    let ask = rig.ask(Method::PATCH, SUMMARY).key(&key);
    let refused = ask.header("content-type", "text/csv").bytes("rate\n1\n");
    assert_eq!(refused.send().await.problem(), "unsupported-media-type");
    rig.stop().await;
}

async fn a_key_needs_the_scope_and_the_project(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let before = tag(&rig, &key).await;
    let reader = rig.key(Key::with(&[Scope::ReadEditions])).await;
    let elsewhere = Key {
        projects: Some(&["pr_2"]),
        ..Key::with(&[Scope::WriteEditions])
    };
    let elsewhere = rig.key(elsewhere).await;
    let create = (
        Method::POST,
        "/v1/editions".to_owned(),
        json!({"blueprint_id": "bp_1"}),
    );
    for write in writes().into_iter().chain([create]) {
        let told = format!("{} {}", write.0, write.1);
        let refused = send(&rig, &reader, write.clone(), &[]).await;
        assert_eq!(refused.problem(), "insufficient-scope", "{told}");
        let hidden = send(&rig, &elsewhere, write, &[]).await;
        assert_eq!(hidden.problem(), "not-found", "{told}");
    }
    assert_eq!(tag(&rig, &key).await, before);
    rig.stop().await;
}
