//! Submitting, and who is told of it.

use std::time::Duration;

use forge_dispatch::domain::api_key::Scope;
use serde_json::{Value, json};

use super::{HELD, SUBMIT, SUMMARY, begin, errors, tag};
use crate::api::rig::{Key, Rig};
use crate::api::told::{blueprint, edition, tell};
use crate::harness::databases::TestDatabase;
use crate::harness::program::{InProcess, settings};
use crate::harness::receiver::Receiver;

on_both_databases!(
    what_is_required_and_missing_is_told,
    a_submitted_edition_is_shown_and_takes_no_changes,
    subscribers_and_the_feed_are_told_of_it,
);

/// How long a delivery may take.
const PATIENCE: Duration = Duration::from_secs(30);

async fn what_is_required_and_missing_is_told(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let emptied = json!({"values": {"rate": null}});
    rig.patch(&key, SUMMARY, &emptied).await;
    let before = tag(&rig, &key).await;
    let refused = rig.post(&key, SUBMIT, &json!({})).await;
    let expected = json!([{"pointer": "/sections/summary/values/rate", "detail": "is required"}]);
    assert_eq!(errors(&refused), expected);
    let refused = rig.post(&key, SUBMIT, &json!({"comment": "done"})).await;
    assert_eq!(errors(&refused)[0]["pointer"], "/comment");
    assert_eq!(tag(&rig, &key).await, before);
    rig.stop().await;
}

async fn a_submitted_edition_is_shown_and_takes_no_changes(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    // No body is as good as an empty one.
    let ask = rig.ask(http::Method::POST, SUBMIT).key(&key);
    let submitted = ask.header("if-match", "\"7.x\"").send().await;
    let view = submitted.json();
    assert_eq!(view["status"], "submitted", "{submitted:?}");
    assert_eq!(view["version"], 8);
    let shown = rig.get(&key, "/v1/editions/ed_1").await;
    assert_eq!(shown.body, submitted.body);
    assert_eq!(shown.header("etag"), submitted.header("etag"));
    let again = rig.post(&key, SUBMIT, &json!({})).await;
    assert_eq!(again.problem(), "edition-not-open");
    let body = json!({"values": {"rate": 3}});
    let changed = rig.patch(&key, SUMMARY, &body).await;
    assert_eq!(changed.problem(), "edition-not-open");
    rig.stop().await;
}

async fn subscribers_and_the_feed_are_told_of_it(db: &TestDatabase) {
    let receiver = Receiver::ok();
    let program = InProcess::start(settings(db.url())).await;
    let rig = Rig::over(&program.store).await;
    let told = [
        blueprint("default", "pr_1", "bp_1"),
        edition("default", "pr_1", "bp_1", "ed_1", 7, HELD),
    ];
    tell(&program.store, &told).await;
    let key = rig.key(Key::with(&[Scope::Admin])).await;
    let hook = json!({"url": receiver.url("/hook"), "event_types": ["edition.submitted"]});
    let hook = rig.post(&key, "/v1/subscriptions", &hook).await.json();
    // Neither a change nor what is refused is told to subscribers.
    let body = json!({"values": {"rate": 3}});
    rig.patch(&key, SUMMARY, &body).await;
    let submitted = rig.post(&key, SUBMIT, &json!({})).await.json();
    assert_eq!(submitted["version"], 9, "{submitted}");
    let refused = rig.post(&key, SUBMIT, &json!({})).await;
    assert_eq!(refused.problem(), "edition-not-open");

    let told = receiver.wait_for_count(1, PATIENCE).await.unwrap();
    let delivery = &told[0];
    delivery.verify(hook["secret"].as_str().unwrap()).unwrap();
    let data = json!({
        "edition_id": "ed_1",
        "blueprint_id": "bp_1",
        "project_id": "pr_1",
        "version": 9,
        "timestamp": delivery.json()["data"]["timestamp"],
    });
    assert_eq!(delivery.json()["type"], "edition.submitted");
    assert_eq!(delivery.json()["data"], data);
    let feed = rig
        .get(&key, "/v1/events?type=edition.submitted")
        .await
        .json();
    let items: Vec<&Value> = feed["data"].as_array().unwrap().iter().collect();
    assert_eq!(items.len(), 1, "{feed}");
    assert_eq!(items[0]["id"], delivery.webhook_id());
    assert_eq!(items[0]["data"], data);
    rig.stop().await;
    program.stop().await.unwrap();
    assert_eq!(receiver.count(), 1);
}
