//! The workspace, its members, its projects and their blueprints.

use http::StatusCode;
use serde_json::{Value, json};

use super::super::rig::{Key, Rig};
use super::{reader, tell_all, text};
use crate::api::told::{message, tell};
use crate::harness::databases::TestDatabase;
use forge_dispatch::domain::api_key::Scope;

on_both_databases!(
    the_workspace_is_shown_with_its_name_and_settings,
    members_are_for_keys_of_the_whole_workspace,
    projects_are_shown_with_what_was_told_of_them,
    blueprints_are_shown_with_sections_fields_and_outputs,
);

async fn the_workspace_is_shown_with_its_name_and_settings(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    let unknown = rig.get(&key, "/v1/workspace").await;
    let nothing = json!({"id": "default", "name": null, "settings": null});
    assert_eq!(unknown.json(), nothing);
    let data = r#"{"version":0,"name":"Acme","settings":{"rate":1.50, "a":[null]}}"#;
    tell(&db.store, &[message("default", "workspace.snapshot", data)]).await;
    let known = rig.get(&key, "/report-forge/v1/workspace").await;
    let expected = r#"{"id":"default","name":"Acme","settings":{"rate":1.50, "a":[null]}}"#;
    assert_eq!(text(&known), expected);
    assert_ne!(known.header("etag"), unknown.header("etag"));
    assert_eq!(known.header("cache-control"), "private, no-cache");
    rig.stop().await;
}

async fn members_are_for_keys_of_the_whole_workspace(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let data = r#"{"version":1,"name":"Acme","members":[{"id":"u_2"},
        {"id":"u_1","name":"Ada","email":"ada@example.com","role":"editor"}]}"#;
    tell(&db.store, &[message("default", "workspace.snapshot", data)]).await;
    let key = reader(&rig).await;
    let ada = json!({"id": "u_1", "name": "Ada", "email": "ada@example.com", "role": "editor"});
    let first = rig.get(&key, "/v1/workspace/members?limit=1").await;
    assert_eq!(first.json()["data"], json!([ada]));
    let rest = rig.get(&key, &super::next(&first).unwrap()).await;
    let other = json!({"id": "u_2", "name": null, "email": null, "role": null});
    assert_eq!(rest.json(), json!({"data": [other], "next_cursor": null}));
    let scopes = [Scope::ReadWorkspace, Scope::Admin];
    for scope in &scopes {
        let restricted = Key {
            projects: Some(&["pr_1"]),
            ..Key::with(std::slice::from_ref(scope))
        };
        let restricted = rig.key(restricted).await;
        let refused = rig.get(&restricted, "/v1/workspace/members").await;
        assert_eq!(refused.problem(), "restricted-key");
        let workspace = rig.get(&restricted, "/v1/workspace").await;
        assert_eq!(workspace.status, StatusCode::OK);
    }
    rig.stop().await;
}

async fn projects_are_shown_with_what_was_told_of_them(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    tell(&db.store, &[super::blueprint("default", "pr_2", "bp_2")]).await;
    let project = rig.get(&key, "/v1/projects/pr_1").await;
    let mut shown = project.json();
    let seen = shown["first_seen_at"].take();
    assert!(seen.is_string());
    let expected = json!({
        "id": "pr_1",
        "name": "North",
        "description": "What is built in the north",
        "first_seen_at": null,
    });
    assert_eq!(shown, expected);
    let list = rig.get(&key, "/v1/projects").await.json();
    assert_eq!(list["data"][0], project.json());
    assert_eq!(list["data"][1]["name"], Value::Null);
    assert_eq!(list["data"][1]["description"], Value::Null);
    rig.stop().await;
}

async fn blueprints_are_shown_with_sections_fields_and_outputs(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    let field = |name: &str, label: &str, kind: &str| {
        json!({
            "name": name, "label": label, "type": kind, "required": false, "read_only": false,
            "min": null, "max": null, "pattern": null,
        })
    };
    let with = |mut field: Value, more: Value| {
        for (name, value) in more.as_object().unwrap() {
            field[name] = value.clone();
        }
        field
    };
    let expected = json!({
        "id": "bp_1", "project_id": "pr_1", "name": "Monthly report", "version": 3,
        "sections": [
            {"name": "summary", "label": "Summary", "kind": "single", "fields": [
                field("note", "note", "long_text"),
                with(field("rate", "rate", "number"), json!({"required": true, "min": 0.5, "max": 100})),
            ]},
            {"name": "costs", "label": "costs", "kind": "repeating", "fields": [
                with(field("item", "Item", "text"), json!({"pattern": "[A-Z].*"})),
                field("amount", "amount", "number"),
                with(field("tags", "tags", "multi_select"), json!({"options": ["a", "b"]})),
                with(field("total", "total", "calculated"), json!({"read_only": true})),
            ]},
            {"name": "risks", "label": "risks", "kind": "repeating", "fields": [field("risk", "risk", "text")]},
        ],
        "outputs": [{"name": "Board report", "format": "pdf"}],
    });
    let shown = rig.get(&key, "/v1/blueprints/bp_1").await;
    assert_eq!(shown.json(), expected);
    assert_eq!(shown.header("etag"), "\"3.json\"");
    let list = rig.get(&key, "/v1/projects/pr_1/blueprints").await.json();
    assert_eq!(list, json!({"data": [expected], "next_cursor": null}));
    for missing in ["/v1/projects/pr_2/blueprints", "/v1/blueprints/bp_2"] {
        assert_eq!(rig.get(&key, missing).await.problem(), "not-found");
    }
    rig.stop().await;
}
