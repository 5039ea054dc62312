//! Edition data as polling clients read it.

use http::{HeaderMap, Method, StatusCode};

use super::rig::{Answer, Key, Rig};
use super::told::{blueprint, edition, message, output, tell};
use crate::harness::databases::TestDatabase;
use forge_dispatch::domain::api_key::Scope;
use forge_dispatch::domain::key_text::KeyText;
use forge_dispatch::domain::snapshot::Snapshot;

mod conditional;
mod editions;
mod following;
mod outputs;
mod rows;
mod sections;
mod sizes;
mod structure;

const SECTIONS: &str = r#"{
    "summary":{"values":{"rate":1.50,"note":"all\nwell"}},
    "costs":{"rows":[
        {"id":"r1","values":{"item":"Steel","amount":12345678901234567890.10,"tags":["a","b"]}},
        {"id":"=r2","values":{"amount":-1.0,"item":"=1+1"}},
        {"id":"r3","values":{"item":"a, \"b\"","gone":true,"total":{"x": [1, null]}}}]}}"#;

/// `ed_1` of workspace `default`, at a version.
fn ed_1(version: i64, sections: &str) -> Snapshot {
    edition("default", "pr_1", "bp_1", "ed_1", version, sections)
}

/// Tells of a project, its blueprint, an edition, and an output.
async fn tell_all(db: &TestDatabase) {
    let project =
        r#"{"id":"pr_1","version":1,"name":"North","description":"What is built in the north"}"#;
    let told = [
        message("default", "project.snapshot", project),
        blueprint("default", "pr_1", "bp_1"),
        ed_1(7, SECTIONS),
        output(
            "default",
            "pr_1",
            "ed_1",
            "out_1",
            2,
            r#""status":"queued""#,
        ),
    ];
    tell(&db.store, &told).await;
}

/// A key that reads all of workspace `default`.
async fn reader(rig: &Rig) -> KeyText {
    let scopes = [
        Scope::ReadEditions,
        Scope::ReadBlueprints,
        Scope::ReadOutputs,
        Scope::ReadWorkspace,
    ];
    rig.key(Key::with(&scopes)).await
}

async fn conditional(rig: &Rig, key: &KeyText, path: &str, tags: &str) -> Answer {
    let ask = rig.ask(Method::GET, path).key(key);
    ask.header("if-none-match", tags).send().await
}

async fn accepting(rig: &Rig, key: &KeyText, path: &str, accept: &str) -> Answer {
    let ask = rig.ask(Method::GET, path).key(key);
    ask.header("accept", accept).send().await
}

fn text(answer: &Answer) -> &str {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    std::str::from_utf8(&answer.body).unwrap()
}

/// The headers that say something of what is shown.
fn of_what_is_shown(headers: &HeaderMap) -> Vec<(&str, &str)> {
    [
        "content-type",
        "content-length",
        "etag",
        "cache-control",
        "vary",
        "link",
        "x-edition-version",
    ]
    .into_iter()
    .filter_map(|name| Some((name, headers.get(name)?.to_str().unwrap())))
    .collect()
}

/// What the answer links to as `next`.
fn next(answer: &Answer) -> Option<String> {
    let link = answer.headers.get("link")?.to_str().unwrap();
    let target = link.strip_suffix(">; rel=\"next\"").unwrap();
    Some(target.strip_prefix('<').unwrap().to_owned())
}
