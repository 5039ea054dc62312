//! Subscriptions over HTTP: made, changed, rotated, tested, counted, deleted.

use forge_dispatch::domain::api_key::Scope;
use forge_dispatch::domain::key_text::KeyText;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::rig::{Answer, Key, Rig};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::receiver::Receiver;

on_both_databases!(
    a_subscription_is_made_once_however_often_it_is_asked_for,
    a_change_is_bound_to_the_version_that_was_read,
    values_of_headers_are_never_shown_and_do_not_follow_to_another_host,
    a_secret_is_rotated_and_shown_once,
    a_test_is_sent_at_once_signed_and_kept,
    what_is_wrong_is_named_and_nothing_is_made,
    stats_and_deliveries_are_there_and_gone_with_the_subscription,
    a_rate_limit_is_set_and_taken_away,
    order_is_asked_for_and_given_up,
    an_open_circuit_is_shown_and_is_another_representation,
    enabling_says_how_much_waits_and_offers_what_was_missed,
    enabling_stands_where_what_was_missed_cannot_be_counted,
);

const OPERATOR: [Scope; 3] = [
    Scope::ReadWebhooks,
    Scope::WriteWebhooks,
    Scope::ReadEditions,
];

fn asked(url: &str) -> Value {
    json!({"url": url, "event_types": ["edition.*"], "description": "ERP"})
}

async fn made(rig: &Rig, key: &KeyText, body: &Value) -> (String, Value) {
    let answer = rig.post(key, "/v1/subscriptions", body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let made = answer.json();
    let path = format!("/v1/subscriptions/{}", made["id"].as_str().unwrap());
    assert_eq!(answer.header("location"), path);
    (path, made)
}

async fn a_subscription_is_made_once_however_often_it_is_asked_for(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = rig.key(Key::with(&OPERATOR)).await;
    let ask = async |name: &str, body: &Value| -> Answer {
        let ask = rig
            .ask(Method::POST, "/v1/subscriptions")
            .key(&key)
            .json(body);
        ask.header("idempotency-key", name).send().await
    };
    let body = asked("http://127.0.0.1:9/a");
    let first = ask("one", &body).await;
    assert_eq!(first.status, StatusCode::CREATED);
    let secret = first.json()["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("whsec_"));
    assert_eq!(first.header("etag"), "\"1.json\"");
    assert_eq!(first.header("cache-control"), "no-store");
    let second = ask("one", &body).await;
    assert_eq!(second.problem(), "already-created");
    assert_eq!(second.json()["id"], first.json()["id"]);
    assert!(!String::from_utf8_lossy(&second.body).contains(&secret));
    let other = ask("one", &asked("http://127.0.0.1:9/b")).await;
    assert_eq!(other.problem(), "idempotency-key-reused");
    assert_eq!(ask("two", &body).await.status, StatusCode::CREATED);
    let list = rig.get(&key, "/v1/subscriptions").await.json();
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    assert!(!list.to_string().contains(&secret), "shown once");
    assert_eq!(ask("", &body).await.problem(), "invalid-header");
    rig.stop().await;
}

async fn a_change_is_bound_to_the_version_that_was_read(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = rig.key(Key::with(&OPERATOR)).await;
    let (path, made) = made(&rig, &key, &asked("http://127.0.0.1:9/a")).await;
    let mut expected = made.clone();
    expected.as_object_mut().unwrap().remove("secret");
    let shown = rig.get(&key, &path).await;
    assert_eq!(shown.json(), expected);
    let tag = shown.header("etag").to_owned();
    let known = rig
        .ask(Method::GET, &path)
        .key(&key)
        .header("if-none-match", &tag)
        .send()
        .await;
    assert_eq!(known.status, StatusCode::NOT_MODIFIED);
    assert_eq!(known.header("etag"), tag);
    known.header("x-ratelimit-remaining");

    let change = async |tag: &str, body: Value| {
        let ask = rig.ask(Method::PATCH, &path).key(&key).json(&body);
        ask.header("if-match", tag).send().await
    };
    let changed = change(
        &tag,
        json!({"max_concurrency": 3, "retry_schedule": [1, 2]}),
    )
    .await;
    assert_eq!(changed.status, StatusCode::OK);
    assert_eq!(changed.header("etag"), "\"2.json\"");
    assert_eq!(changed.json()["max_concurrency"], 3);
    assert_eq!(changed.json()["retry_schedule"], json!([1, 2]));
    let late = change(&tag, json!({"description": "mine"})).await;
    assert_eq!(late.problem(), "stale-version");
    assert_eq!(late.status, StatusCode::PRECONDITION_FAILED);
    let stale = rig
        .ask(Method::DELETE, &path)
        .key(&key)
        .header("if-match", &tag)
        .send()
        .await;
    assert_eq!(stale.problem(), "stale-version");

    for nothing in ["url", "event_types", "status"] {
        let refused = rig.patch(&key, &path, &json!({nothing: null})).await;
        assert_eq!(
            refused.problem(),
            "invalid-values",
            "{nothing} has no default"
        );
    }
    let off = rig
        .patch(
            &key,
            &path,
            &json!({"status": "disabled", "disabled_reason": "moving"}),
        )
        .await;
    assert_eq!(
        (&off.json()["status"], &off.json()["disabled_reason"]),
        (&json!("disabled"), &json!("moving"))
    );
    let back = json!({"status": "active", "description": null, "max_concurrency": null, "retry_schedule": null});
    let back = rig.patch(&key, &path, &back).await.json();
    assert_eq!(
        (&back["status"], &back["description"]),
        (&json!("active"), &json!(""))
    );
    assert_eq!(
        (&back["max_concurrency"], &back["retry_schedule"]),
        (&Value::Null, &Value::Null)
    );
    rig.stop().await;
}

async fn values_of_headers_are_never_shown_and_do_not_follow_to_another_host(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = rig.key(Key::with(&OPERATOR)).await;
    let mut body = asked("http://127.0.0.1:9/a");
    body["headers"] = json!({"Authorization": "Bearer s3cret", "X-Team": "blue"});
    let (path, made) = made(&rig, &key, &body).await;
    assert_eq!(
        made["headers"],
        json!({"authorization": "***", "x-team": "***"})
    );
    let moved = rig
        .patch(&key, &path, &json!({"url": "http://127.0.0.1:10/a"}))
        .await;
    assert_eq!(moved.json()["errors"][0]["pointer"], "/headers");
    let within = rig
        .patch(&key, &path, &json!({"url": "http://127.0.0.1:9/b"}))
        .await;
    assert_eq!(within.status, StatusCode::OK, "the same host");
    let one = json!({"headers": {"x-team": null, "X-More": "1"}});
    let one = rig.patch(&key, &path, &one).await.json();
    assert_eq!(
        one["headers"],
        json!({"authorization": "***", "x-more": "***"})
    );
    let none = json!({"url": "http://127.0.0.1:10/a", "headers": null});
    let none = rig.patch(&key, &path, &none).await.json();
    assert_eq!(none["headers"], json!({}));
    let denied = rig
        .patch(&key, &path, &json!({"headers": {"webhook-id": "x"}}))
        .await;
    assert_eq!(denied.json()["errors"][0]["pointer"], "/headers");
    assert!(!db.holds(b"s3cret").await);
    rig.stop().await;
}

async fn a_secret_is_rotated_and_shown_once(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = rig.key(Key::with(&OPERATOR)).await;
    let (path, made) = made(&rig, &key, &asked("http://127.0.0.1:9/a")).await;
    let rotate = format!("{path}/rotate-secret");
    let bare = rig.ask(Method::POST, &rotate).key(&key).send().await;
    assert_eq!(bare.status, StatusCode::OK, "{bare:?}");
    assert_ne!(bare.json()["secret"], made["secret"]);
    assert_eq!(bare.header("cache-control"), "no-store");
    assert_eq!(bare.header("etag"), "\"2.json\"");
    let long = rig
        .post(&key, &rotate, &json!({"overlap_seconds": 604_801}))
        .await;
    assert_eq!(long.json()["errors"][0]["pointer"], "/overlap_seconds");
    let short = rig
        .post(
            &key,
            &rotate,
            &json!({"secret": "short", "overlap_seconds": 0}),
        )
        .await;
    assert_eq!(short.json()["errors"][0]["pointer"], "/secret");
    assert!(!String::from_utf8_lossy(&short.body).contains("short"));
    rig.stop().await;
}

async fn a_test_is_sent_at_once_signed_and_kept(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let receiver = Receiver::ok();
    let key = rig
        .key(Key {
            projects: Some(&["pr_1"]),
            ..Key::with(&OPERATOR)
        })
        .await;
    let (path, made) = made(&rig, &key, &asked(&receiver.url("/hook"))).await;
    rig.patch(&key, &path, &json!({"status": "disabled"})).await;
    let tested = rig
        .ask(Method::POST, &format!("{path}/test"))
        .key(&key)
        .send()
        .await;
    assert_eq!(tested.status, StatusCode::OK, "{tested:?}");
    let result = tested.json();
    assert_eq!(result["attempt"]["succeeded"], true, "{result}");
    assert_eq!(result["attempt"]["trigger"], "test");

    let posts = receiver.received();
    assert_eq!(posts.len(), 1);
    let secret = made["secret"].as_str().unwrap();
    let hook = standardwebhooks::Webhook::new(secret).unwrap();
    hook.verify(&posts[0].body, &posts[0].headers).unwrap();
    let sent: Value = serde_json::from_slice(&posts[0].body).unwrap();
    assert_eq!(sent["type"], "ping");
    assert_eq!(
        posts[0].headers["webhook-id"],
        result["event_id"].as_str().unwrap()
    );

    let kept = format!("/v1/deliveries/{}", result["delivery_id"].as_str().unwrap());
    let kept = rig.get(&key, &kept).await.json();
    assert_eq!(
        (&kept["state"], &kept["type"]),
        (&json!("succeeded"), &json!("ping"))
    );
    assert_eq!(kept["attempts"][0], result["attempt"]);
    assert!(
        db.feed(&forge_dispatch::domain::ids::WorkspaceId::default())
            .await
            .is_empty()
    );

    receiver.stop().await;
    let down = rig
        .ask(Method::POST, &format!("{path}/test"))
        .key(&key)
        .send()
        .await
        .json();
    assert_eq!(down["attempt"]["error"], "connect", "{down}");
    let waiting = rig.get(&key, "/v1/deliveries?state=pending").await.json();
    assert_eq!(waiting["data"], json!([]), "a test is not tried again");
    rig.stop().await;
}

async fn what_is_wrong_is_named_and_nothing_is_made(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = rig.key(Key::with(&OPERATOR)).await;
    for (change, pointer) in [
        (json!({"url": "ftp://x.example/"}), "/url"),
        (json!({"url": "https://192.168.0.1/"}), "/url"),
        (json!({"url": "http://[::ffff:169.254.169.254]/"}), "/url"),
        (json!({"event_types": []}), "/event_types"),
        (json!({"event_types": ["ok", "Not OK"]}), "/event_types/1"),
        (json!({"format": "xml"}), "/format"),
        (json!({"max_concurrency": 0}), "/max_concurrency"),
        (json!({"rate_limit": 0}), "/rate_limit"),
        (json!({"ordering": "project"}), "/ordering"),
        (json!({"retry_schedule": [700_000]}), "/retry_schedule"),
        (json!({"secret": "whsec_x"}), "/secret"),
        (json!({"description": "x".repeat(501)}), "/description"),
        (json!({"workspace": "other"}), "/workspace"),
    ] {
        let mut body = asked("http://127.0.0.1:9/a");
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let answer = rig.post(&key, "/v1/subscriptions", &body).await;
        assert_eq!(answer.problem(), "invalid-values", "{body}");
        assert_eq!(answer.json()["errors"][0]["pointer"], pointer, "{body}");
    }
    let list = rig.get(&key, "/v1/subscriptions").await.json();
    assert_eq!(list["data"], json!([]));
    rig.stop().await;
}

async fn stats_and_deliveries_are_there_and_gone_with_the_subscription(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = rig.key(Key::with(&OPERATOR)).await;
    let scene = super::scene::Scene::in_workspace(&rig, "default", "pr_1").await;
    let path = format!("/v1/subscriptions/{}", scene.subscription);
    let stats = rig.get(&key, &format!("{path}/stats")).await.json();
    assert_eq!(
        stats["pending"],
        json!({"count": 1, "exact": true}),
        "{stats}"
    );
    let event = rig.get(&key, &format!("/v1/events/{}", scene.event)).await;
    assert!(String::from_utf8_lossy(&event.body).contains(r#""data":{"b":1,"a":[1.50]}"#));
    for query in [
        format!("event_id={}", scene.event),
        format!("subscription_id={}&state=pending", scene.subscription),
        "type=edition.archived&edition_id=ed_1".to_owned(),
        "since=2020-01-01T00:00:00Z&until=2099-01-01T00:00:00Z".to_owned(),
    ] {
        let page = rig
            .get(&key, &format!("/v1/deliveries?{query}"))
            .await
            .json();
        assert_eq!(page["data"][0]["id"], scene.delivery, "{query}: {page}");
    }
    for query in [
        "type=edition.other",
        "until=2020-01-01T00:00:00Z",
        "state=failed",
    ] {
        let page = rig
            .get(&key, &format!("/v1/deliveries?{query}"))
            .await
            .json();
        assert_eq!(page["data"], json!([]), "{query}");
    }
    assert_eq!(rig.delete(&key, &path).await.status, StatusCode::NO_CONTENT);
    for path in [path.clone(), format!("{path}/stats")] {
        assert_eq!(rig.get(&key, &path).await.problem(), "not-found");
    }
    assert_eq!(rig.delete(&key, &path).await.problem(), "not-found");
    rig.stop().await;
}

async fn a_rate_limit_is_set_and_taken_away(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = rig.key(Key::with(&OPERATOR)).await;
    let mut body = asked("http://127.0.0.1:9/a");
    body["rate_limit"] = json!(20);
    let (path, made) = made(&rig, &key, &body).await;
    assert_eq!(made["rate_limit"], 20);
    let slower = rig.patch(&key, &path, &json!({"rate_limit": 5})).await;
    assert_eq!(slower.json()["rate_limit"], 5);
    let free = rig.patch(&key, &path, &json!({"rate_limit": null})).await;
    assert_eq!(free.json()["rate_limit"], Value::Null);
    assert_eq!(rig.get(&key, &path).await.json()["rate_limit"], Value::Null);
    rig.stop().await;
}

async fn order_is_asked_for_and_given_up(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = rig.key(Key::with(&OPERATOR)).await;
    let mut body = asked("http://127.0.0.1:9/a");
    let (path, plain) = made(&rig, &key, &body).await;
    assert_eq!(plain["ordering"], "none");
    let ordered = rig
        .patch(&key, &path, &json!({"ordering": "edition"}))
        .await;
    assert_eq!(ordered.json()["ordering"], "edition");
    let other = json!({"description": "another change"});
    assert_eq!(
        rig.patch(&key, &path, &other).await.json()["ordering"],
        "edition"
    );
    let free = rig.patch(&key, &path, &json!({"ordering": null})).await;
    assert_eq!(free.json()["ordering"], "none");
    body["ordering"] = json!("edition");
    let (path, _) = made(&rig, &key, &body).await;
    assert_eq!(rig.get(&key, &path).await.json()["ordering"], "edition");
    rig.stop().await;
}

/// All circuits are open until the year 3000.
async fn open_all_circuits(db: &TestDatabase) {
    let values = match db.kind {
        Kind::Sqlite => "0, 32503680000000, 30000, 0, 10, 0, 10, 10, 0",
        Kind::Postgres => {
            "'epoch'::timestamptz, '3000-01-01T00:00:00Z'::timestamptz, 30000, false, 10,
                'epoch'::timestamptz, 10, 10, 'epoch'::timestamptz"
        }
    };
    let open =
        format!("insert into circuit select id, workspace, 'open', {values} from subscription");
    db.tamper(&open).await;
}

async fn an_open_circuit_is_shown_and_is_another_representation(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = rig.key(Key::with(&OPERATOR)).await;
    let (path, made) = made(&rig, &key, &asked("http://127.0.0.1:9/a")).await;
    let closed = json!({"state": "closed", "since": null, "until": null});
    assert_eq!(made["circuit"], closed);
    let tag = rig.get(&key, &path).await.header("etag").to_owned();

    open_all_circuits(db).await;
    let get = rig.ask(Method::GET, &path).key(&key);
    let shown = get.header("if-none-match", &tag).send().await;
    assert_eq!(
        shown.status,
        StatusCode::OK,
        "it is not what the client has"
    );
    let open = json!({
        "state": "open",
        "since": "1970-01-01T00:00:00Z",
        "until": "3000-01-01T00:00:00Z",
    });
    assert_eq!(shown.json()["circuit"], open);
    let list = rig.get(&key, "/v1/subscriptions").await.json();
    assert_eq!(list["data"][0]["circuit"], open);
    let stats = rig.get(&key, &format!("{path}/stats")).await.json();
    assert_eq!(stats["circuit"], open);

    let tag = shown.header("etag").to_owned();
    let get = rig.ask(Method::GET, &path).key(&key);
    let known = get.header("if-none-match", &tag).send().await;
    assert_eq!(known.status, StatusCode::NOT_MODIFIED);
    // A change is bound to the version alone.
    let change = rig.ask(Method::PATCH, &path).key(&key);
    let change = change.json(&json!({"url": "http://127.0.0.1:9/b"}));
    let changed = change.header("if-match", &tag).send().await;
    assert_eq!(changed.status, StatusCode::OK);
    assert_eq!(changed.json()["circuit"], closed, "another receiver");
    assert_eq!(changed.header("etag"), "\"2.json\"");
    rig.stop().await;
}

async fn enabling_says_how_much_waits_and_offers_what_was_missed(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = rig.key(Key::with(&OPERATOR)).await;
    let scene = super::scene::Scene::in_workspace(&rig, "default", "pr_1").await;
    let path = format!("/v1/subscriptions/{}", scene.subscription);
    let set = async |status: &str| rig.patch(&key, &path, &json!({"status": status})).await;
    assert_eq!(set("active").await.json()["pending"], Value::Null, "it was");
    assert_eq!(set("disabled").await.json()["pending"], Value::Null);
    for _ in 0..2 {
        super::scene::accept(&rig.store, "default", Some("pr_1")).await;
    }
    let enabled = set("active").await.json();
    assert_eq!(enabled["pending"], json!({"count": 1, "exact": true}));
    let missed = &enabled["missed"];
    assert_eq!(
        (&missed["count"], &missed["exact"]),
        (&2.into(), &true.into())
    );
    // What is offered can be asked for as it is, and is as much as was told.
    let mut offered = missed["replay"].clone();
    let begun = rig.post(&key, "/v1/replays", &offered).await;
    assert_eq!(begun.status, StatusCode::CREATED);
    offered["dry_run"] = true.into();
    let counted = rig.post(&key, "/v1/replays", &offered).await.json();
    assert_eq!(counted["total"], 2);
    rig.stop().await;
}

async fn enabling_stands_where_what_was_missed_cannot_be_counted(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = rig.key(Key::with(&OPERATOR)).await;
    let scene = super::scene::Scene::in_workspace(&rig, "default", "pr_1").await;
    let path = format!("/v1/subscriptions/{}", scene.subscription);
    let set = async |status: &str| rig.patch(&key, &path, &json!({"status": status})).await;
    assert_eq!(set("disabled").await.status, StatusCode::OK);
    db.tamper("alter table event_feed rename to event_feed_away")
        .await;
    let enabled = set("active").await;
    assert_eq!(enabled.status, StatusCode::OK, "{enabled:?}");
    let enabled = enabled.json();
    assert_eq!(enabled["status"], "active");
    assert_eq!(enabled["pending"], json!({"count": 1, "exact": true}));
    assert!(enabled.get("missed").is_none(), "{enabled}");
    db.tamper("alter table event_feed_away rename to event_feed")
        .await;
    rig.stop().await;
}
