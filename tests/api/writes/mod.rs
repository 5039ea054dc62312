//! Edition data pushed by clients.

use forge_dispatch::domain::api_key::Scope;
use forge_dispatch::domain::key_text::KeyText;
use http::{Method, StatusCode};
use serde_json::Value;

use super::rig::{Answer, Ask, Key, Rig};
use super::told::{blueprint, edition, tell};
use crate::harness::databases::TestDatabase;

mod create;
mod large;
mod refused;
mod repeats;
mod rows;
mod sections;
mod submit;

const SUMMARY: &str = "/v1/editions/ed_1/sections/summary";
const ROWS: &str = "/v1/editions/ed_1/sections/costs/rows";
const SUBMIT: &str = "/v1/editions/ed_1/submit";

/// What `ed_1` holds at version 7.
const HELD: &str = r#"{"summary":{"values":{"note":"all well","rate":1.50}},
    "costs":{"rows":[
        {"id":"r1","values":{"item":"Steel","amount":12.50,"total":25}},
        {"id":"r2","values":{"item":"Glass"}}]}}"#;

/// An API over a store that knows `bp_1` and its draft `ed_1` at version 7, and a key that reads and
/// writes editions.
async fn begin(db: &TestDatabase) -> (Rig, KeyText) {
    let rig = Rig::over(&db.store).await;
    let told = [
        blueprint("default", "pr_1", "bp_1"),
        edition("default", "pr_1", "bp_1", "ed_1", 7, HELD),
    ];
    tell(&db.store, &told).await;
    let scopes = [
        Scope::ReadEditions,
        Scope::WriteEditions,
        Scope::ReadOutputs,
    ];
    let key = rig.key(Key::with(&scopes)).await;
    (rig, key)
}

/// A table, sent as this type.
fn table(rig: &Rig, key: &KeyText, method: Method, content_type: &str, body: &str) -> Ask {
    let ask = rig.ask(method, ROWS).key(key);
    ask.header("content-type", content_type)
        .bytes(body.to_owned())
}

fn text(answer: &Answer) -> &str {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    std::str::from_utf8(&answer.body).unwrap()
}

/// The rows of `costs`, as they are shown.
async fn rows(rig: &Rig, key: &KeyText) -> String {
    text(&rig.get(key, ROWS).await).to_owned()
}

/// The tag of `ed_1`, which any change of it changes.
async fn tag(rig: &Rig, key: &KeyText) -> String {
    let shown = rig.get(key, "/v1/editions/ed_1").await;
    shown.header("etag").to_owned()
}

/// All that is wrong, of an answer that says that values are.
fn errors(answer: &Answer) -> Value {
    assert_eq!(answer.problem(), "invalid-values", "{answer:?}");
    answer.json()["errors"].clone()
}
