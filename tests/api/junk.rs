//! Junk at every endpoint: whatever comes, it is never our fault.

use forge_dispatch::api::openapi;
use forge_dispatch::domain::api_key::Scope;
use http::Method;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::rig::{Key, Rig};
use super::scene::{ROW, SECTION, Scene};
use crate::harness::databases::TestDatabase;

on_both_databases!(no_junk_is_a_fault_of_ours);

/// Rounds over all operations.
const ROUNDS: usize = 25;

/// Any JSON, with the members that some operation knows more often than others.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
        Just(json!("https://receiver.example/hook")),
        Just(json!("\u{0}")),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        let name = prop_oneof![
            prop::sample::select(vec![
                "url",
                "event_types",
                "project_ids",
                "format",
                "headers",
                "secret",
                "name",
                "scopes",
                "expires_at",
                "limits",
                "status",
                "retry_schedule",
                "max_concurrency",
                "rate_limit",
                "ordering",
                "description",
                "overlap_seconds",
                "disabled_reason",
                "blueprint_id",
                "period",
                "values",
                "rows",
            ])
            .prop_map(str::to_owned),
            ".{0,12}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..6).prop_map(Value::from_iter),
        ]
    })
}

async fn no_junk_is_a_fault_of_ours(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let scene = Scene::in_workspace(&rig, "default", "pr_1").await;
    let key = rig.key(Key::with(&[Scope::Admin])).await;
    let document: Value = serde_json::from_str(&openapi::write(&openapi::document())).unwrap();
    let mut runner = TestRunner::deterministic();
    let mut draw =
        |strategy: &BoxedStrategy<String>| strategy.new_tree(&mut runner).unwrap().current();
    let text = ".{0,40}".boxed();
    let body = prop_oneof![
        4 => anything().prop_map(|value| value.to_string()),
        1 => ".*",
    ]
    .boxed();
    let header = "[ -~]{0,60}".boxed();
    let encode =
        |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    for round in 0..ROUNDS {
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let id = match round % 3 {
                    0 => encode(&draw(&text)),
                    _ if path.contains("/api-keys/") => "key_01h455vb4pex5vsknk084sn02q".to_owned(),
                    _ if path.contains("{id}") => scene.id_for(path),
                    _ => String::new(),
                };
                let mut query = url::form_urlencoded::Serializer::new(String::new());
                let parameters = operation["parameters"].as_array();
                for parameter in parameters.into_iter().flatten() {
                    if parameter["in"] == "query" && round % 2 == 0 {
                        query.append_pair(parameter["name"].as_str().unwrap(), &draw(&text));
                    }
                }
                let path = path.replace("{id}", &id).replace("{name}", SECTION);
                let asked = format!("{}?{}", path.replace("{row}", ROW), query.finish());
                let method: Method = method.to_uppercase().parse().unwrap();
                let body = draw(&body);
                let content_type = match round % 4 {
                    1 if path.ends_with("/rows") => "text/csv",
                    2 if path.ends_with("/rows") => "text/tab-separated-values",
                    _ => "application/json",
                };
                let mut request = rig.ask(method.clone(), &asked).key(&key);
                // What would be gone for the rounds to come is kept by a version that nothing has.
                if round % 5 == 0 || method == Method::DELETE || path.ends_with("/submit") {
                    request = request.header("if-match", &draw(&header));
                } else if round % 5 == 1 {
                    request = request.header("if-match", "*");
                }
                let answer = request
                    .header("content-type", content_type)
                    .header("if-none-match", &draw(&header))
                    .header("idempotency-key", &draw(&header))
                    .header("accept", &draw(&header))
                    .bytes(body.clone())
                    .send()
                    .await;
                let told = format!("{method} {asked} {body}: {answer:?}");
                assert!(!answer.status.is_server_error(), "{told}");
                if answer.status.is_client_error() {
                    answer.problem();
                }
            }
        }
    }
    rig.stop().await;
}
