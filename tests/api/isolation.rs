//! What lies in another workspace, or outside of a key's projects, is answered byte for byte as what
//! does not exist; what is in reach is found.

use forge_dispatch::api::openapi;
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::api_key::Scope;
use forge_dispatch::domain::ids::{DeliveryId, EventId};
use forge_dispatch::domain::key_text::KeyText;
use forge_dispatch::entropy::Entropy;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::rig::{Answer, Key, Rig};
use super::scene::{ROW, SECTION, Scene, accept};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    what_is_elsewhere_is_answered_as_what_is_missing,
    lists_hold_what_is_in_reach_only,
    a_restricted_key_hands_out_no_more_than_its_own,
    an_admin_that_is_restricted_does_not_see_the_whole,
);

const EVERYTHING: [Scope; 8] = [
    Scope::ReadWebhooks,
    Scope::WriteWebhooks,
    Scope::ReadEditions,
    Scope::WriteEditions,
    Scope::ReadWorkspace,
    Scope::ReadBlueprints,
    Scope::ReadOutputs,
    Scope::WriteOutputs,
];

/// Every operation of the document with an id in its path.
fn operations() -> Vec<(Method, String)> {
    let document = openapi::write(&openapi::document());
    let document: Value = serde_json::from_str(&document).unwrap();
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            if path.contains("{id}") && !path.contains("/api-keys") {
                found.push((method.to_uppercase().parse().unwrap(), path.clone()));
            }
        }
    }
    assert!(found.len() >= 27, "{found:?}");
    found
}

async fn ask(rig: &Rig, key: &KeyText, method: &Method, path: &str, id: &str) -> Answer {
    let body = match *method {
        Method::PATCH if path.contains("/sections/") => json!({"values": {}}),
        Method::PATCH => json!({"description": "mine"}),
        _ if path.ends_with("/rows") => json!({"rows": []}),
        _ => json!({}),
    };
    let path = path.replace("{id}", id).replace("{name}", SECTION);
    let path = path.replace("{row}", ROW);
    rig.ask(method.clone(), &path)
        .key(key)
        .json(&body)
        .send()
        .await
}

async fn what_is_elsewhere_is_answered_as_what_is_missing(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let scene = Scene::with_file(&rig, "default", "pr_1").await;
    let elsewhere = rig
        .key(Key {
            workspace: "other",
            ..Key::with(&EVERYTHING)
        })
        .await;
    let other_project = rig
        .key(Key {
            projects: Some(&["pr_2"]),
            ..Key::with(&EVERYTHING)
        })
        .await;
    for (method, path) in operations() {
        let id = scene.id_for(&path);
        let missing = Scene::missing_id_for(&path);
        for key in [&elsewhere, &other_project] {
            let hidden = ask(&rig, key, &method, &path, &id).await;
            assert_eq!(
                hidden.status,
                StatusCode::NOT_FOUND,
                "{method} {path}: {hidden:?}"
            );
            assert_eq!(hidden.problem(), "not-found");
            let missing = ask(&rig, key, &method, &path, &missing).await;
            assert_eq!(hidden.body, missing.body, "{method} {path}");
            assert_eq!(hidden.status, missing.status);
            let names = |answer: &Answer| {
                let mut names: Vec<String> =
                    answer.headers.keys().map(ToString::to_string).collect();
                names.sort();
                names
            };
            assert_eq!(names(&hidden), names(&missing), "{method} {path}");
            let malformed = ask(&rig, key, &method, &path, "x%00y").await;
            assert_eq!(hidden.body, malformed.body, "{method} {path}");
        }
    }
    // Nothing was done by any of it.
    let whole = rig.key(Key::with(&EVERYTHING)).await;
    let own = rig
        .key(Key {
            projects: Some(&["pr_1", "pr_3"]),
            ..Key::with(&EVERYTHING)
        })
        .await;
    for (method, path) in operations() {
        if method == Method::GET {
            for key in [&whole, &own] {
                let found = ask(&rig, key, &method, &path, &scene.id_for(&path)).await;
                assert_eq!(found.status, StatusCode::OK, "{method} {path}: {found:?}");
            }
        }
    }
    let shown = rig
        .get(&whole, &format!("/v1/subscriptions/{}", scene.subscription))
        .await;
    assert_eq!(shown.header("etag"), "\"1.json\"");
    let shown = rig
        .get(&whole, &format!("/v1/editions/{}", scene.edition))
        .await;
    assert_eq!(shown.json()["version"], 1);
    rig.stop().await;
}

async fn lists_hold_what_is_in_reach_only(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let here = Scene::in_workspace(&rig, "default", "pr_1").await;
    Scene::in_workspace(&rig, "default", "pr_2").await;
    Scene::in_workspace(&rig, "other", "pr_1").await;
    let own = rig
        .key(Key {
            projects: Some(&["pr_1"]),
            ..Key::with(&EVERYTHING)
        })
        .await;
    let ids = async |path: &str| -> Vec<String> {
        let page = rig.get(&own, path).await.json();
        let items = page["data"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids("/v1/subscriptions").await, [here.subscription.as_str()]);
    assert_eq!(ids("/v1/deliveries").await, [here.delivery.as_str()]);
    assert_eq!(ids("/v1/projects").await, ["pr_1"]);
    let edition = here.edition.as_str();
    assert_eq!(ids("/v1/editions").await, [edition]);
    assert_eq!(ids("/v1/editions?project=pr_1").await, [edition]);
    assert!(ids("/v1/editions?project=pr_2").await.is_empty());
    assert!(ids("/v1/editions?blueprint=bp_pr_2").await.is_empty());
    let none = rig
        .key(Key {
            workspace: "third",
            ..Key::with(&EVERYTHING)
        })
        .await;
    for path in ["/v1/subscriptions", "/v1/deliveries", "/v1/projects"] {
        let page = rig.get(&none, path).await.json();
        assert_eq!(page, json!({"data": [], "next_cursor": null}), "{path}");
    }
    let editions = rig.get(&none, "/v1/editions").await.json();
    assert_eq!(editions["data"], json!([]));
    rig.stop().await;
}

async fn a_restricted_key_hands_out_no_more_than_its_own(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let own = rig
        .key(Key {
            projects: Some(&["pr_1", "pr_2"]),
            ..Key::with(&EVERYTHING)
        })
        .await;
    let body = |projects: Value| json!({"url": "http://127.0.0.1:9/", "event_types": ["*"], "project_ids": projects});
    let made = rig
        .post(&own, "/v1/subscriptions", &body(Value::Null))
        .await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(
        made.json()["project_ids"],
        json!(["pr_1", "pr_2"]),
        "all of its own by default"
    );
    let path = format!("/v1/subscriptions/{}", made.json()["id"].as_str().unwrap());
    for wider in [json!(["pr_3"]), json!(["pr_1", "pr_3"])] {
        let refused = rig
            .post(&own, "/v1/subscriptions", &body(wider.clone()))
            .await;
        assert_eq!(refused.problem(), "invalid-values");
        assert_eq!(refused.json()["errors"][0]["pointer"], "/project_ids");
        let refused = rig.patch(&own, &path, &json!({"project_ids": wider})).await;
        assert_eq!(refused.problem(), "invalid-values");
    }
    let narrowed = rig
        .patch(&own, &path, &json!({"project_ids": ["pr_2"]}))
        .await;
    assert_eq!(narrowed.json()["project_ids"], json!(["pr_2"]));
    let again = rig.patch(&own, &path, &json!({"project_ids": null})).await;
    assert_eq!(again.json()["project_ids"], json!(["pr_1", "pr_2"]));

    let writer = [Scope::ReadWebhooks, Scope::WriteWebhooks];
    let writer = rig.key(Key::with(&writer)).await;
    for change in [
        json!({"url": "http://127.0.0.1:9/other"}),
        json!({"event_types": ["edition.*"]}),
        json!({"project_ids": null}),
    ] {
        let refused = rig.patch(&writer, &path, &change).await;
        assert_eq!(refused.problem(), "insufficient-scope", "{change}");
    }
    let noted = rig
        .patch(
            &writer,
            &path,
            &json!({"description": "x", "status": "disabled"}),
        )
        .await;
    assert_eq!(noted.status, StatusCode::OK);
    rig.stop().await;
}

async fn an_admin_that_is_restricted_does_not_see_the_whole(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let restricted = rig
        .key(Key {
            projects: Some(&["pr_1"]),
            ..Key::with(&[Scope::Admin])
        })
        .await;
    let refused = rig.get(&restricted, "/v1/audit-log").await;
    assert_eq!(refused.problem(), "restricted-key");
    let whole = accept(&rig.store, "default", Some("pr_2")).await;
    let hidden = rig.get(&restricted, &format!("/v1/events/{whole}")).await;
    assert_eq!(hidden.problem(), "not-found");
    let entropy = Entropy::system();
    let nowhere: EventId = entropy.id(SystemClock.now());
    let missing = rig.get(&restricted, &format!("/v1/events/{nowhere}")).await;
    assert_eq!(hidden.body, missing.body);
    let nothing: DeliveryId = entropy.id(SystemClock.now());
    let missing = rig
        .get(&restricted, &format!("/v1/deliveries/{nothing}/attempts"))
        .await;
    assert_eq!(hidden.body, missing.body);
    rig.stop().await;
}
