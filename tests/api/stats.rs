//! Statistics over HTTP: of a subscription, and of all that a key sees together.

use std::time::Duration;

use forge_dispatch::domain::api_key::Scope;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::key_text::KeyText;
use forge_dispatch::store::stats::{MAX_SUMMED, MAX_UNFOLDED};
use http::StatusCode;
use serde_json::{Value, json};

use super::rig::{Key, Rig};
use super::scene::Scene;
use crate::harness::databases::TestDatabase;
use crate::harness::events::{register, registration, spec};
use crate::harness::rollups::{deliver, wait_to_be_folded};

on_both_databases!(
    stats_tell_what_was_attempted_in_all_and_step_by_step,
    a_workspace_is_as_much_of_it_as_the_key_sees,
    what_is_too_much_is_refused_with_the_way_out,
    what_is_not_all_counted_yet_is_marked,
);

const READER: [Scope; 1] = [Scope::ReadWebhooks];

async fn stats_tell_what_was_attempted_in_all_and_step_by_step(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = rig.key(Key::with(&READER)).await;
    let scene = Scene::in_workspace(&rig, "default", "pr_1").await;
    let of_one = format!("/v1/subscriptions/{}/stats", scene.subscription);
    let paths = [of_one.as_str(), "/v1/stats"];
    for path in paths {
        let stats = rig.get(&key, path).await.json();
        assert_eq!(
            (&stats["attempts"], &stats["latency"], &stats["exact"]),
            (&json!(0), &Value::Null, &json!(true))
        );
        assert_eq!(stats.get("series"), None);
    }
    deliver(db, &scene.subscription, Duration::from_millis(1_500)).await;
    for path in paths {
        tells_one(&rig, &key, path).await;
    }
    rig.stop().await;
}

/// One delivery, which was taken after a second and a half; and what cannot be asked.
async fn tells_one(rig: &Rig, key: &KeyText, path: &str) {
    let counts = json!({
        "succeeded": 1, "failed": 0,
        "attempts": 1, "attempts_succeeded": 1, "attempts_retried": 0, "attempts_failed": 0,
        "latency": {"mean_ms": 1_500, "p50_ms": 2_500, "p95_ms": 2_500, "p99_ms": 2_500},
    });
    let has_counts = |told: &Value| {
        for (name, count) in counts.as_object().unwrap() {
            assert_eq!(&told[name], count, "{name}: {told}");
        }
    };
    has_counts(&rig.get(key, path).await.json());
    for (query, end) in [
        ("resolution=minute", ":00Z"),
        ("resolution=hour&window=3600", ":00:00Z"),
        ("resolution=minute&window=34560000", ":00Z"),
    ] {
        let stats = rig.get(key, &format!("{path}?{query}")).await.json();
        has_counts(&stats);
        let series = stats["series"].as_array().unwrap();
        assert_eq!(series.len(), 1, "{query}");
        has_counts(&series[0]);
        let start = series[0]["start"].as_str().unwrap();
        assert!(start.ends_with(end), "{query}: {start}");
    }
    for (query, parameter) in [
        ("resolution=day", "resolution"),
        ("window=59", "window"),
        ("window=34560001", "window"),
        ("window=1d", "window"),
        ("by=hour", "by"),
    ] {
        let answer = rig.get(key, &format!("{path}?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(
            answer.json()["errors"][0]["parameter"],
            parameter,
            "{query}"
        );
    }
}

async fn a_workspace_is_as_much_of_it_as_the_key_sees(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    for (workspace, project) in [("default", "pr_1"), ("default", "pr_2"), ("other", "pr_1")] {
        let scene = Scene::in_workspace(&rig, workspace, project).await;
        deliver(db, &scene.subscription, Duration::from_millis(3)).await;
    }
    for (workspace, projects, succeeded) in [
        ("default", None, 2),
        ("default", Some(&["pr_1", "pr_2"] as &[&str]), 2),
        ("default", Some(&["pr_2"]), 1),
        ("default", Some(&["pr_3"]), 0),
        ("other", None, 1),
        ("third", None, 0),
    ] {
        let key = Key {
            workspace,
            projects,
            ..Key::with(&READER)
        };
        let key = rig.key(key).await;
        let stats = rig.get(&key, "/v1/stats?resolution=hour").await.json();
        let who = format!("{workspace} {projects:?}: {stats}");
        assert_eq!(stats["succeeded"], succeeded, "{who}");
        let series = stats["series"].as_array().unwrap();
        let steps = series.iter().map(|point| point["attempts"].as_u64());
        assert_eq!(steps.sum::<Option<u64>>(), Some(succeeded), "{who}");
    }
    rig.stop().await;
}

async fn what_is_too_much_is_refused_with_the_way_out(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = rig.key(Key::with(&READER)).await;
    // Minutes of two days are too many of so many subscriptions, hours of 400 days of far fewer.
    let (two_days, too_many) = (48 * 60 * 60, MAX_SUMMED / (48 * 60) + 1);
    for _ in 0..too_many {
        let new = registration(&WorkspaceId::default(), spec(&["*"]));
        register(&*db.store, &new).await.unwrap();
    }
    for (query, way_out) in [
        (
            format!("window={two_days}&resolution=minute"),
            "ask for a shorter one, or for hours (`resolution=hour`)",
        ),
        (
            "window=34560000&resolution=hour".to_owned(),
            "ask for a shorter one",
        ),
        ("window=34560000".to_owned(), "ask for a shorter one"),
    ] {
        let answer = rig.get(&key, &format!("/v1/stats?{query}")).await;
        assert_eq!(answer.problem(), "invalid-parameter", "{query}");
        let error = &answer.json()["errors"][0];
        assert_eq!(error["parameter"], "window", "{query}");
        let detail = error["detail"].as_str().unwrap();
        assert!(detail.ends_with(way_out), "{query}: {detail}");
    }
    // What that leads to is answered; and hours are taken where nobody asks for steps.
    for query in [
        format!("window={two_days}&resolution=hour"),
        "window=3600&resolution=minute".to_owned(),
        format!("window={two_days}"),
    ] {
        let answer = rig.get(&key, &format!("/v1/stats?{query}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}");
    }
    rig.stop().await;
}

async fn what_is_not_all_counted_yet_is_marked(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = rig.key(Key::with(&READER)).await;
    let scene = Scene::in_workspace(&rig, "default", "pr_1").await;
    deliver(db, &scene.subscription, Duration::from_millis(3)).await;
    wait_to_be_folded(db, MAX_UNFOLDED + 1).await;
    let of_one = format!("/v1/subscriptions/{}/stats", scene.subscription);
    for path in [of_one.as_str(), "/v1/stats"] {
        let stats = rig.get(&key, path).await.json();
        assert_eq!(
            (&stats["exact"], &stats["succeeded"]),
            (&json!(false), &json!(MAX_UNFOLDED)),
            "{path}"
        );
    }
    rig.stop().await;
}
