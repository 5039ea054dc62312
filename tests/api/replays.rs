//! `/v1/replays` and `/v1/deliveries/{id}/replay`.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::api_key::Scope;
use forge_dispatch::domain::attempt::{Attempt, ErrorClass, Trigger};
use forge_dispatch::domain::delivery::{Lane, Verdict};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{Claim, Leasing, Settlement, Store};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::rig::{Key, Rig};
use super::scene::{Scene, accept};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    a_delivery_that_failed_is_pending_again,
    what_cannot_be_replayed_is_told_the_reason,
    a_dry_run_counts_and_does_nothing,
    a_replay_is_begun_shown_listed_and_cancelled,
    a_repeated_request_is_answered_with_the_same_replay,
    a_repeat_is_answered_though_what_was_selected_is_gone,
    a_delivery_is_replayed_once_for_a_request_that_is_repeated,
    what_is_asked_for_is_checked_value_by_value,
    a_restricted_key_replays_and_sees_its_own_only,
    only_so_many_are_under_way_at_once,
);

const WRITER: [Scope; 2] = [Scope::ReadWebhooks, Scope::WriteWebhooks];

/// Leases what is due in a lane and settles it so.
async fn settle(store: &Arc<dyn Store>, lane: Lane, verdict: &Verdict) -> usize {
    let owner = Entropy::system().id(SystemClock.now());
    let due = store.due(Duration::ZERO).await.unwrap();
    let claim = Claim {
        leasing: Leasing {
            owner,
            lease: Duration::from_mins(1),
        },
        grace: Duration::ZERO,
        lane,
        wants: due.work.iter().map(|(to, _)| (to.id(), 100)).collect(),
        max_bytes: usize::MAX,
    };
    let leased = store.claim(&claim).await.unwrap();
    let error = (*verdict != Verdict::Succeeded).then_some(ErrorClass::HttpStatus);
    let outcomes: Vec<Settlement> = leased
        .iter()
        .map(|delivery| {
            let attempt = Attempt {
                at: SystemClock.now(),
                duration: Duration::from_millis(7),
                trigger: Trigger::Schedule,
                status: Some(if error.is_some() { 500 } else { 204 }),
                error,
                response_headers: Vec::new(),
                response_excerpt: String::new(),
            };
            Settlement::of(delivery, verdict.clone(), Some(attempt))
        })
        .collect();
    store.settle(owner, &outcomes).await.unwrap();
    outcomes.len()
}

async fn a_delivery_that_failed_is_pending_again(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let scene = Scene::in_workspace(&rig, "default", "pr_1").await;
    let key = rig.key(Key::with(&WRITER)).await;
    assert_eq!(settle(&db.store, Lane::Fresh, &Verdict::Failed).await, 1);
    let path = format!("/v1/deliveries/{}", scene.delivery);
    let before = rig.get(&key, &path).await.json();
    assert_eq!(before["state"], "failed");

    let replay = format!("{path}/replay");
    let answer = rig.ask(Method::POST, &replay).key(&key).send().await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    let answer = answer.json();
    let due = answer["due_at"].as_str().expect("it is due").to_owned();
    let mut expected = before.clone();
    expected.as_object_mut().unwrap().remove("attempts");
    expected
        .as_object_mut()
        .unwrap()
        .remove("attempts_next_cursor");
    expected["state"] = json!("pending");
    expected["due_at"] = json!(due);
    expected["settled_at"] = Value::Null;
    assert_eq!(answer, expected);
    let again = rig.ask(Method::POST, &replay).key(&key).send().await;
    assert_eq!(again.status, StatusCode::ACCEPTED, "it is under way");
    assert_eq!(again.json(), answer);
    rig.stop().await;
}

async fn what_cannot_be_replayed_is_told_the_reason(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let scene = Scene::in_workspace(&rig, "default", "pr_1").await;
    let key = rig.key(Key::with(&WRITER)).await;
    settle(&db.store, Lane::Fresh, &Verdict::Succeeded).await;
    let subscription = format!("/v1/subscriptions/{}", scene.subscription);
    let disabled = rig
        .patch(&key, &subscription, &json!({"status": "disabled"}))
        .await;
    assert_eq!(disabled.status, StatusCode::OK);
    let path = format!("/v1/deliveries/{}/replay", scene.delivery);
    let refused = rig.ask(Method::POST, &path).key(&key).send().await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(refused.problem(), "not-replayable");
    assert_eq!(refused.json()["reason"], "subscription_disabled");
    assert_eq!(refused.json()["detail"], "The subscription is disabled.");
    rig.stop().await;
}

async fn a_dry_run_counts_and_does_nothing(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    Scene::in_workspace(&rig, "default", "pr_1").await;
    let key = rig.key(Key::with(&WRITER)).await;
    settle(&db.store, Lane::Fresh, &Verdict::Failed).await;
    accept(&rig.store, "default", Some("pr_1")).await;
    let body = json!({"filter": {"states": ["failed", "pending"]}, "dry_run": true});
    let counted = rig.post(&key, "/v1/replays", &body).await;
    assert_eq!(counted.status, StatusCode::OK);
    let expected = json!({"total": 2, "exact": true, "by_state": {"failed": 1, "pending": 1}});
    assert_eq!(counted.json(), expected);
    let list = rig.get(&key, "/v1/replays").await.json();
    assert_eq!(list["data"].as_array().unwrap().len(), 1, "the scene's own");
    rig.stop().await;
}

async fn a_replay_is_begun_shown_listed_and_cancelled(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let scene = Scene::in_workspace(&rig, "default", "pr_1").await;
    let key = rig.key(Key::with(&WRITER)).await;
    let body = json!({
        "filter": {
            "types": ["edition.*", "edition.*"], "from": "2026-05-01T09:00:00+02:00",
            "edition_id": "ed_1", "project_id": "pr_1", "backfill": true,
        },
        "subscription_id": scene.subscription,
        "rate": 7,
    });
    let begun = rig.post(&key, "/v1/replays", &body).await;
    assert_eq!(begun.status, StatusCode::CREATED, "{begun:?}");
    let shown = begun.json();
    let id = shown["id"].as_str().unwrap();
    let path = format!("/v1/replays/{id}");
    assert_eq!(begun.header("location"), path);
    let expected = json!({
        "id": id,
        "state": "pending",
        "event_id": null,
        "subscription_id": scene.subscription,
        "filter": {
            "types": ["edition.*"], "states": ["failed"], "from": "2026-05-01T07:00:00Z",
            "to": null, "edition_id": "ed_1", "project_id": "pr_1", "backfill": true,
        },
        "rate": 7,
        "total": null,
        "queued": 0,
        "done": 0,
        "failed": 0,
        "skipped": {},
        "created_by": key.id().to_string(),
        "created_at": shown["created_at"],
        "finished_at": null,
    });
    assert_eq!(shown, expected);
    assert_eq!(rig.get(&key, &path).await.json(), expected);

    let of_event = json!({"event_id": scene.event});
    let second = rig.post(&key, "/v1/replays", &of_event).await.json();
    assert_eq!(second["event_id"], json!(scene.event));
    assert_eq!(
        (&second["filter"], &second["rate"]),
        (&Value::Null, &json!(500))
    );
    let list = rig.get(&key, "/v1/replays").await.json();
    assert_eq!(list["data"][0], second);
    assert_eq!(list["data"][1], expected);
    assert_eq!(list["data"][2]["id"], json!(scene.replay));
    let page = rig.get(&key, "/v1/replays?limit=1").await.json();
    let next = page["next_cursor"].as_str().unwrap();
    let rest = rig
        .get(&key, &format!("/v1/replays?after={next}"))
        .await
        .json();
    assert_eq!(rest["data"][0], expected);
    assert_eq!(rest["next_cursor"], Value::Null);

    let cancel = format!("{path}/cancel");
    for _ in 0..2 {
        let cancelled = rig.ask(Method::POST, &cancel).key(&key).send().await;
        assert_eq!(cancelled.status, StatusCode::OK);
        assert_eq!(cancelled.json()["state"], "cancelled");
    }
    rig.stop().await;
}

async fn a_delivery_is_replayed_once_for_a_request_that_is_repeated(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let scene = Scene::in_workspace(&rig, "default", "pr_1").await;
    let key = rig.key(Key::with(&WRITER)).await;
    settle(&db.store, Lane::Fresh, &Verdict::Succeeded).await;
    let replay = async |delivery: &str, name: &str| {
        let path = format!("/v1/deliveries/{delivery}/replay");
        let ask = rig.ask(Method::POST, &path).key(&key);
        ask.header("idempotency-key", name).send().await
    };
    let first = replay(&scene.delivery, "k1").await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{first:?}");
    assert_eq!(
        settle(&db.store, Lane::Replay, &Verdict::Succeeded).await,
        1
    );
    // It is done by now, and is not done again.
    let again = replay(&scene.delivery, "k1").await;
    assert_eq!(again.status, StatusCode::ACCEPTED);
    assert_eq!(again.json()["state"], "succeeded");
    assert_eq!(
        settle(&db.store, Lane::Replay, &Verdict::Succeeded).await,
        0
    );
    let anew = replay(&scene.delivery, "k2").await;
    assert_eq!(anew.status, StatusCode::ACCEPTED);

    accept(&rig.store, "default", Some("pr_1")).await;
    let all = rig.get(&key, "/v1/deliveries").await.json();
    let other = all["data"][0]["id"].as_str().unwrap();
    let reused = replay(other, "k1").await;
    assert_eq!(reused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(reused.problem(), "idempotency-key-reused");

    // What is refused leaves its key unused.
    let subscription = format!("/v1/subscriptions/{}", scene.subscription);
    for (status, answered) in [
        ("disabled", StatusCode::CONFLICT),
        ("active", StatusCode::ACCEPTED),
    ] {
        let changed = json!({"status": status});
        rig.patch(&key, &subscription, &changed).await;
        let asked = replay(other, "k3").await;
        assert_eq!(asked.status, answered, "{asked:?}");
    }
    rig.stop().await;
}

async fn a_repeated_request_is_answered_with_the_same_replay(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = rig.key(Key::with(&WRITER)).await;
    let ask = async |body: &Value| {
        rig.ask(Method::POST, "/v1/replays")
            .key(&key)
            .header("idempotency-key", "k1")
            .json(body)
            .send()
            .await
    };
    let body = json!({"filter": {}});
    let first = ask(&body).await;
    let second = ask(&body).await;
    assert_eq!(second.status, StatusCode::CREATED);
    assert_eq!(first.json(), second.json());
    let other = ask(&json!({"filter": {"states": []}})).await;
    assert_eq!(other.problem(), "idempotency-key-reused");
    let list = rig.get(&key, "/v1/replays").await.json();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    rig.stop().await;
}

/// Whoever asks again does it because the answer was lost, and that can take a while.
async fn a_repeat_is_answered_though_what_was_selected_is_gone(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let scene = Scene::in_workspace(&rig, "default", "pr_1").await;
    let key = rig.key(Key::with(&WRITER)).await;
    let ask = async |name: &str, rate: u32| {
        let body = json!({"subscription_id": scene.subscription, "filter": {}, "rate": rate});
        let ask = rig.ask(Method::POST, "/v1/replays").key(&key).json(&body);
        ask.header("idempotency-key", name).send().await
    };
    let first = ask("k1", 7).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    let subscription = format!("/v1/subscriptions/{}", scene.subscription);
    let deleted = rig.ask(Method::DELETE, &subscription).key(&key);
    assert_eq!(deleted.send().await.status, StatusCode::NO_CONTENT);
    let second = ask("k1", 7).await;
    assert_eq!(second.status, StatusCode::CREATED, "{second:?}");
    assert_eq!(second.json()["id"], first.json()["id"]);
    assert_eq!(ask("k1", 8).await.problem(), "idempotency-key-reused");
    assert_eq!(ask("k2", 7).await.problem(), "invalid-values");
    rig.stop().await;
}

async fn what_is_asked_for_is_checked_value_by_value(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let scene = Scene::in_workspace(&rig, "default", "pr_1").await;
    let key = rig.key(Key::with(&WRITER)).await;
    let nowhere = "sub_01h455vb4pex5vsknk084sn02q";
    for (body, pointers) in [
        (json!({}), vec!["/filter"]),
        (
            json!({"event_id": scene.event, "filter": {}}),
            vec!["/filter"],
        ),
        (json!({"event_id": "x"}), vec!["/event_id"]),
        (json!({"filter": {}, "rate": 5_001}), vec!["/rate"]),
        (
            json!({"event_id": "evt_01h455vb4pex5vsknk084sn02q", "subscription_id": nowhere}),
            vec!["/event_id", "/subscription_id"],
        ),
        (
            json!({
                "rate": 0,
                "subscription_id": "x",
                "filter": {
                    "types": ["edition.*", "A"], "states": ["lost"], "from": "now", "to": "then",
                    "edition_id": "", "project_id": "\u{7}", "subscription_id": "y",
                },
            }),
            vec![
                "/rate",
                "/subscription_id",
                "/filter/subscription_id",
                "/filter/types/1",
                "/filter/states/0",
                "/filter/from",
                "/filter/to",
                "/filter/edition_id",
                "/filter/project_id",
            ],
        ),
        (
            json!({"filter": {"backfill": true}}),
            vec!["/filter/backfill"],
        ),
        (
            json!({
                "subscription_id": scene.subscription, "filter": {"subscription_id": nowhere},
            }),
            vec!["/filter/subscription_id"],
        ),
    ] {
        let refused = rig.post(&key, "/v1/replays", &body).await;
        assert_eq!(refused.problem(), "invalid-values", "{body}");
        let errors = refused.json()["errors"].clone();
        let named: Vec<&str> = errors
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["pointer"].as_str().unwrap())
            .collect();
        assert_eq!(named, pointers, "{body}");
    }
    for body in [
        json!({"filter": []}),
        json!({"filter": {}, "x": 1}),
        json!([]),
    ] {
        let refused = rig.post(&key, "/v1/replays", &body).await;
        assert!(refused.status.is_client_error(), "{body}");
    }
    rig.stop().await;
}

async fn a_restricted_key_replays_and_sees_its_own_only(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let own = Scene::in_workspace(&rig, "default", "pr_1").await;
    let other = Scene::in_workspace(&rig, "default", "pr_2").await;
    assert_eq!(settle(&db.store, Lane::Fresh, &Verdict::Failed).await, 2);
    let whole = rig.key(Key::with(&WRITER)).await;
    let key = rig
        .key(Key {
            projects: Some(&["pr_1"]),
            ..Key::with(&WRITER)
        })
        .await;
    let count =
        async |key, body: Value| rig.post(key, "/v1/replays", &body).await.json()["total"].clone();
    let dry = json!({"filter": {}, "dry_run": true});
    assert_eq!(count(&whole, dry.clone()).await, 2);
    assert_eq!(count(&key, dry).await, 1);
    for (body, pointer) in [
        (json!({"event_id": other.event}), "/event_id"),
        (
            json!({"filter": {}, "subscription_id": other.subscription}),
            "/subscription_id",
        ),
    ] {
        let refused = rig.post(&key, "/v1/replays", &body).await;
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer);
    }
    let path = format!("/v1/deliveries/{}/replay", own.delivery);
    let replayed = rig.ask(Method::POST, &path).key(&key).send().await;
    assert_eq!(replayed.status, StatusCode::ACCEPTED);

    let mine = rig
        .post(&key, "/v1/replays", &json!({"filter": {}}))
        .await
        .json();
    let all = rig
        .post(&whole, "/v1/replays", &json!({"filter": {}}))
        .await
        .json();
    let list = rig.get(&key, "/v1/replays").await.json();
    let ids = [&list["data"][0]["id"], &list["data"][1]["id"]];
    assert_eq!(ids, [&mine["id"], &json!(own.replay)]);
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    let path = format!("/v1/replays/{}", all["id"].as_str().unwrap());
    assert_eq!(rig.get(&key, &path).await.problem(), "not-found");
    let cancel = format!("{path}/cancel");
    let refused = rig.ask(Method::POST, &cancel).key(&key).send().await;
    assert_eq!(refused.problem(), "not-found");
    rig.stop().await;
}

async fn only_so_many_are_under_way_at_once(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = rig.key(Key::with(&WRITER)).await;
    let body = json!({"filter": {}});
    for _ in 0..20 {
        let begun = rig.post(&key, "/v1/replays", &body).await;
        assert_eq!(begun.status, StatusCode::CREATED);
    }
    let refused = rig.post(&key, "/v1/replays", &body).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(refused.problem(), "too-many-replays");
    rig.stop().await;
}
