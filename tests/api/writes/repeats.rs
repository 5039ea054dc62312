//! `Idempotency-Key`: a write that is sent again is answered again, and done once.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{ROWS, SUBMIT, SUMMARY, begin, rows, table};
use crate::api::rig::{Answer, Rig};
use crate::api::told::{message, tell};
use crate::harness::databases::TestDatabase;
use forge_dispatch::domain::key_text::KeyText;

on_both_databases!(
    a_repeat_is_given_the_first_answer_and_does_nothing,
    a_repeat_is_answered_whatever_has_become_of_the_blueprint,
    a_repeat_with_another_body_or_address_is_refused,
    a_write_that_failed_can_be_sent_again_with_its_key,
);

async fn named(
    rig: &Rig,
    key: &KeyText,
    name: &str,
    (method, path, body): (Method, &str, &Value),
) -> Answer {
    let ask = rig.ask(method, path).key(key);
    let ask = ask.header("idempotency-key", name);
    if body.is_null() {
        return ask.send().await;
    }
    ask.json(body).send().await
}

fn told(answer: &Answer) -> (StatusCode, &str, Option<&str>, &[u8]) {
    let location = answer.headers.get("location");
    (
        answer.status,
        answer.header("etag"),
        location.map(|value| value.to_str().unwrap()),
        &answer.body,
    )
}

async fn a_repeat_is_given_the_first_answer_and_does_nothing(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let row = format!("{ROWS}/r2");
    let made = json!({"blueprint_id": "bp_1"});
    let rate = json!({"values": {"rate": 3}});
    let appended = json!({"rows": [{"values": {"item": "New"}}]});
    let item = json!({"values": {"item": "Other"}});
    let writes = [
        (Method::POST, "/v1/editions", &made),
        (Method::PATCH, SUMMARY, &rate),
        (Method::POST, ROWS, &appended),
        (Method::PUT, ROWS, &appended),
        (Method::POST, ROWS, &item_row()),
        (Method::PATCH, row.as_str(), &item),
        (Method::DELETE, row.as_str(), &Value::Null),
        (Method::POST, SUBMIT, &Value::Null),
    ];
    let mut first = Vec::new();
    for (at, write) in writes.iter().enumerate() {
        let answer = named(&rig, &key, &format!("key {at}"), write.clone()).await;
        assert!(answer.status.is_success(), "{write:?}: {answer:?}");
        first.push(answer);
    }
    let before = rig.get(&key, "/v1/editions").await.json()["data"].clone();
    for (at, write) in writes.iter().enumerate() {
        let again = named(&rig, &key, &format!("key {at}"), write.clone()).await;
        assert_eq!(told(&again), told(&first[at]), "{write:?}");
    }
    let after = rig.get(&key, "/v1/editions").await.json()["data"].clone();
    assert_eq!(after, before);
    rig.stop().await;
}

/// A row that is called as the one that is changed and deleted afterwards.
fn item_row() -> Value {
    json!({"rows": [{"id": "r2", "values": {"item": "Again"}}]})
}

async fn a_repeat_is_answered_whatever_has_become_of_the_blueprint(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let writes = [
        (
            Method::POST,
            "/v1/editions",
            json!({"blueprint_id": "bp_1"}),
        ),
        (Method::PATCH, SUMMARY, json!({"values": {"rate": 3}})),
        (
            Method::PUT,
            ROWS,
            json!({"rows": [{"values": {"item": "New"}}]}),
        ),
        (Method::POST, SUBMIT, Value::Null),
    ];
    let mut first = Vec::new();
    for (at, (method, path, body)) in writes.iter().enumerate() {
        let write = (method.clone(), *path, body);
        first.push(named(&rig, &key, &format!("key {at}"), write).await);
    }
    // What was sent would be wrong now; then nothing is known of how it was to be filled.
    let empty =
        r#"{"id":"bp_1","version":4,"project_id":"pr_1","name":"Monthly report","sections":[]}"#;
    let gone = r#"{"id":"bp_1","version":5}"#;
    for (kind, data) in [("blueprint.snapshot", empty), ("blueprint.deleted", gone)] {
        tell(&db.store, &[message("default", kind, data)]).await;
        for (at, (method, path, body)) in writes.iter().enumerate() {
            let write = (method.clone(), *path, body);
            let again = named(&rig, &key, &format!("key {at}"), write).await;
            assert_eq!(told(&again), told(&first[at]), "{kind}: {method} {path}");
        }
    }
    rig.stop().await;
}

async fn a_repeat_with_another_body_or_address_is_refused(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let rate = json!({"values": {"rate": 3}});
    let done = named(&rig, &key, "once", (Method::PATCH, SUMMARY, &rate)).await;
    assert_eq!(done.status, StatusCode::OK);
    let other = json!({"values": {"rate": 4}});
    let reused = named(&rig, &key, "once", (Method::PATCH, SUMMARY, &other)).await;
    assert_eq!(reused.problem(), "idempotency-key-reused");
    // Each route has keys of its own; one of them is for one row.
    for (row, status) in [
        ("r1", StatusCode::OK),
        ("r2", StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let path = format!("{ROWS}/{row}");
        let body = json!({"values": {"amount": 1}});
        let answer = named(&rig, &key, "once", (Method::PATCH, &path, &body)).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    // The same bytes are another table as another type.
    let csv = table(&rig, &key, Method::PUT, "text/csv", "item\nSteel\n");
    let csv = csv.header("idempotency-key", "table").send().await;
    assert_eq!(csv.status, StatusCode::OK);
    let tsv = table(
        &rig,
        &key,
        Method::PUT,
        "text/tab-separated-values",
        "item\nSteel\n",
    );
    let tsv = tsv.header("idempotency-key", "table").send().await;
    assert_eq!(tsv.problem(), "idempotency-key-reused");
    rig.stop().await;
}

async fn a_write_that_failed_can_be_sent_again_with_its_key(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let taken = json!({"rows": [{"id": "r1", "values": {}}]});
    let refused = named(&rig, &key, "k", (Method::POST, ROWS, &taken)).await;
    assert_eq!(refused.problem(), "invalid-values");
    let free = json!({"rows": [{"id": "r9", "values": {}}]});
    let done = named(&rig, &key, "k", (Method::POST, ROWS, &free)).await;
    assert_eq!(done.status, StatusCode::OK, "{done:?}");
    assert!(rows(&rig, &key).await.contains(r#""id":"r9""#));
    rig.stop().await;
}
