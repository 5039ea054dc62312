//! Creating editions.

use http::StatusCode;
use serde_json::{Value, json};

use super::begin;
use crate::harness::databases::TestDatabase;

on_both_databases!(
    an_edition_is_created_in_draft_with_ids_of_ours,
    its_name_is_the_blueprints_unless_it_is_given,
    an_edition_that_cannot_be_is_refused,
);

async fn an_edition_is_created_in_draft_with_ids_of_ours(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let body = json!({"blueprint_id": "bp_1", "name": "May", "period": "2026-05"});
    let made = rig.post(&key, "/v1/editions", &body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let edition = made.json();
    let id = edition["id"].as_str().unwrap();
    assert!(id.starts_with("ed_") && id.len() == 29, "{id}");
    let at = &edition["created_at"];
    let expected = json!({
        "id": id,
        "project_id": "pr_1",
        "blueprint_id": "bp_1",
        "name": "May",
        "status": "draft",
        "status_changed_at": at,
        "period": "2026-05",
        "assignee": null,
        "version": 1,
        "created_at": at,
        "updated_at": edition["updated_at"],
    });
    assert_eq!(edition, expected);
    let location = made.header("location");
    assert_eq!(location, format!("/v1/editions/{id}"));
    let shown = rig.get(&key, location).await;
    assert_eq!(shown.body, made.body);
    assert_eq!(shown.header("etag"), made.header("etag"));
    let rows = rig
        .get(&key, &format!("{location}/sections/costs/rows"))
        .await;
    assert_eq!(rows.json()["data"], json!([]));
    let outputs = rig.get(&key, &format!("{location}/outputs")).await.json();
    let outputs = outputs["data"].as_array().unwrap();
    assert_eq!(outputs.len(), 1, "{outputs:?}");
    assert!(outputs[0]["id"].as_str().unwrap().starts_with("out_"));
    assert_eq!(outputs[0]["name"], "Board report");
    assert_eq!(outputs[0]["status"], "not_generated");
    // It can be filled at once.
    let filled = rig
        .patch(
            &key,
            &format!("{location}/sections/summary"),
            &json!({"values": {"rate": 2}}),
        )
        .await;
    assert_eq!(filled.json()["edition_version"], 2, "{filled:?}");
    rig.stop().await;
}

async fn its_name_is_the_blueprints_unless_it_is_given(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    for (period, name) in [
        (json!("2026-Q2"), "Monthly report, 2026-Q2"),
        (Value::Null, "Monthly report"),
    ] {
        let body = json!({"blueprint_id": "bp_1", "period": period, "name": null});
        let made = rig.post(&key, "/v1/editions", &body).await.json();
        assert_eq!(made["name"], name);
        assert_eq!(made["period"], period);
    }
    rig.stop().await;
}

async fn an_edition_that_cannot_be_is_refused(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let long = "x".repeat(501);
    for (body, pointer) in [
        (json!({}), ""),
        (json!({"blueprint_id": 1}), "/blueprint_id"),
        (json!({"blueprint_id": ""}), "/blueprint_id"),
        (json!({"blueprint_id": "bp_1", "name": ""}), "/name"),
        (json!({"blueprint_id": "bp_1", "name": long}), "/name"),
        (json!({"blueprint_id": "bp_1", "period": "a\nb"}), "/period"),
        (
            json!({"blueprint_id": "bp_1", "status": "approved"}),
            "/status",
        ),
    ] {
        let refused = rig.post(&key, "/v1/editions", &body).await;
        assert_eq!(super::errors(&refused)[0]["pointer"], pointer, "{body}");
    }
    let body = json!({"blueprint_id": "bp_9"});
    let refused = rig.post(&key, "/v1/editions", &body).await;
    assert_eq!(refused.problem(), "not-found");
    let editions = rig.get(&key, "/v1/editions").await.json();
    assert_eq!(editions["data"].as_array().unwrap().len(), 1, "ed_1 alone");
    rig.stop().await;
}
