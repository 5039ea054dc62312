//! The OpenAPI document, held against the running API: no route can forget its key or its scope.

use std::collections::BTreeSet;

use forge_dispatch::api::openapi;
use forge_dispatch::domain::api_key::Scope;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::rig::{Key, Rig};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    every_route_wants_a_key_and_its_scope,
    the_document_and_its_browser_are_served_by_us_alone,
);

fn document() -> Value {
    serde_json::from_str(&openapi::write(&openapi::document())).unwrap()
}

/// Every operation: method, path, scopes.
fn operations(document: &Value) -> Vec<(Method, String, Vec<Scope>)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let security = &operation["security"];
            let scopes = security[0]["api_key"].as_array().unwrap();
            let scopes = scopes
                .iter()
                .map(|scope| scope.as_str().unwrap().parse().unwrap());
            found.push((method, path.clone(), scopes.collect()));
        }
    }
    assert!(found.len() > 15, "{found:?}");
    found
}

async fn every_route_wants_a_key_and_its_scope(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    for (method, path, needed) in operations(&document()) {
        assert!(!needed.is_empty(), "{method} {path}: no scope");
        let path = path.replace("{id}", "sub_01h455vb4pex5vsknk084sn02q");
        for prefix in ["", "/report-forge"] {
            let path = format!("{prefix}{path}");
            let bare = rig.ask(method.clone(), &path).send().await;
            assert_eq!(bare.problem(), "unauthorized", "{method} {path}");
        }
        // Every scope but one of those needed, one by one for each of those.
        for lacking in &needed {
            let others: Vec<Scope> = Scope::ALL
                .into_iter()
                .filter(|scope| scope != lacking && *scope != Scope::Admin)
                .collect();
            let key = rig.key(Key::with(&others)).await;
            let body = json!({"url": "https://receiver.example/", "event_types": ["*"]});
            let refused = rig
                .ask(method.clone(), &path)
                .key(&key)
                .json(&body)
                .send()
                .await;
            assert_eq!(refused.problem(), "insufficient-scope", "{method} {path}");
            assert_eq!(refused.status, StatusCode::FORBIDDEN);
            let challenge = refused.header("www-authenticate");
            assert!(
                challenge.contains(&format!("scope=\"{lacking}\"")),
                "{challenge}"
            );
        }
        let enough = rig.key(Key::with(&needed)).await;
        let answer = rig.ask(method.clone(), &path).key(&enough).send().await;
        assert!(
            !matches!(
                answer.status,
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
            ),
            "{method} {path}: {answer:?}"
        );
        assert!(
            !answer.status.is_server_error(),
            "{method} {path}: {answer:?}"
        );
    }
    rig.stop().await;
}

async fn the_document_and_its_browser_are_served_by_us_alone(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let served = rig.ask(Method::GET, "/openapi.json").send().await;
    assert_eq!(served.json(), document());
    let page = rig.ask(Method::GET, "/docs/").send().await;
    assert_eq!(page.status, StatusCode::OK);
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("http"),
        "{policy}"
    );
    let html = String::from_utf8(page.body.to_vec()).unwrap();
    for (at, _) in html
        .match_indices("src=\"")
        .chain(html.match_indices("href=\""))
    {
        let target = html[at..].split('"').nth(1).unwrap();
        assert!(
            target.starts_with("./") || target.starts_with("index"),
            "{target}"
        );
        if !target.contains("favicon") {
            let path = format!("/docs/{}", target.trim_start_matches("./"));
            let asset = rig.ask(Method::GET, &path).send().await;
            assert_eq!(asset.status, StatusCode::OK, "{path}");
        }
    }
    rig.stop().await;
}

#[test]
fn the_document_is_the_one_that_is_kept() {
    // On a change that is meant: `INSTA_UPDATE=always scripts/test the_document_is_the_one`.
    insta::with_settings!({snapshot_path => "../../docs", prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!("openapi.json", openapi::write(&openapi::document()));
    });
}

#[test]
fn every_problem_of_the_document_is_one_of_the_list() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let webhooks: BTreeSet<&str> = document["webhooks"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let documented = [
        "delivery.failed",
        "edition.approved",
        "edition.changes_requested",
        "edition.submitted",
        "output.generated",
        "subscription.circuit_opened",
        "subscription.disabled",
    ];
    assert_eq!(webhooks, BTreeSet::from(documented));
    let text = document.to_string();
    for kind in forge_dispatch::api::problem_type::ProblemType::ALL {
        assert!(
            text.contains(&format!("/problems/{}", kind.slug())),
            "{kind:?}"
        );
    }
}
