//! Making, listing, showing and revoking keys.

use chrono::{DateTime, Duration};
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::api_key::Scope;
use forge_dispatch::domain::key_text::KeyText;
use forge_dispatch::domain::payload::timestamp;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::rig::{Key, Rig};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    a_key_is_made_shown_once_and_works,
    what_is_wrong_with_a_new_key_is_listed,
    a_revoked_key_is_refused_by_every_replica_from_the_next_request_on,
    revoking_is_idempotent_and_the_key_stays_listed,
    a_list_is_paged_with_cursors_that_belong_to_it,
    a_restricted_admin_administers_nothing,
    a_key_of_another_workspace_is_answered_as_a_missing_one,
);

fn asked() -> Value {
    json!({"name": "ERP", "scopes": ["read:webhooks"]})
}

async fn a_key_is_made_shown_once_and_works(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let admin = rig.admin().await;
    let expires = timestamp(SystemClock.now() + Duration::hours(1));
    let body = json!({
        "name": "ERP",
        "scopes": ["read:webhooks", "read:workspace", "read:webhooks"],
        "project_ids": ["pr_1", "pr_2"],
        "expires_at": expires,
        "limits": {"per_minute": 7},
    });
    let answer = rig.post(&admin, "/report-forge/v1/api-keys", &body).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.header("cache-control"), "no-store");
    let made = answer.json();
    let id = made["id"].as_str().unwrap();
    let path = format!("/report-forge/v1/api-keys/{id}");
    assert_eq!(answer.header("location"), path);
    let text = KeyText::parse(made["key"].as_str().unwrap()).unwrap();

    let shown = rig.get(&admin, &path).await.json();
    let mut expected = made.clone();
    expected.as_object_mut().unwrap().remove("key");
    assert_eq!(shown, expected);
    assert_eq!(shown["scopes"], json!(["read:workspace", "read:webhooks"]));
    assert_eq!(shown["project_ids"], json!(["pr_1", "pr_2"]));
    assert_eq!(shown["status"], "active");
    assert_eq!(shown["created_by"], admin.id().to_string());
    assert_eq!(shown["expires_at"], expires);
    assert_eq!(
        shown["limits"],
        json!({"per_minute": 7, "per_hour": null, "concurrent": null})
    );

    let works = rig.get(&text, "/v1/api-keys").await;
    assert_eq!(works.problem(), "insufficient-scope", "it is known");
    assert_eq!(works.header("x-ratelimit-limit"), "7");
    rig.stop().await;
}

async fn what_is_wrong_with_a_new_key_is_listed(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let admin = rig.admin().await;
    for (change, pointers) in [
        (json!({"name": ""}), vec!["/name"]),
        (json!({"name": 1}), vec!["/name"]),
        (json!({"scopes": []}), vec!["/scopes"]),
        (
            json!({"scopes": ["read:webhooks", "root"]}),
            vec!["/scopes/1"],
        ),
        (json!({"project_ids": []}), vec!["/project_ids"]),
        (
            json!({"project_ids": ["ok", "", "a\nb"]}),
            vec!["/project_ids/1", "/project_ids/2"],
        ),
        (
            json!({"expires_at": "tomorrow", "name": " "}),
            vec!["/expires_at", "/name"],
        ),
        (
            json!({"expires_at": "2020-01-01T00:00:00Z"}),
            vec!["/expires_at"],
        ),
        (
            json!({"limits": {"per_minute": 0}}),
            vec!["/limits/per_minute"],
        ),
        (json!({"scope": []}), vec!["/scope"]),
    ] {
        let mut body = asked();
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let answer = rig.post(&admin, "/v1/api-keys", &body).await;
        assert_eq!(answer.problem(), "invalid-values", "{body}");
        let errors = answer.json()["errors"].clone();
        let named: Vec<&str> = errors
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["pointer"].as_str().unwrap())
            .collect();
        assert_eq!(named, pointers, "{body}");
    }
    let keys = rig.get(&admin, "/v1/api-keys").await.json();
    assert_eq!(
        keys["data"].as_array().unwrap().len(),
        1,
        "nothing was made"
    );
    rig.stop().await;
}

async fn a_revoked_key_is_refused_by_every_replica_from_the_next_request_on(db: &TestDatabase) {
    let here = Rig::over(&db.store).await;
    let there = Rig::over(&db.replica).await;
    let admin = here.admin().await;
    let key = here.key(Key::with(&[Scope::Admin])).await;
    assert_eq!(there.get(&key, "/v1/api-keys").await.status, StatusCode::OK);
    let path = format!("/v1/api-keys/{}", key.id());
    assert_eq!(
        here.delete(&admin, &path).await.status,
        StatusCode::NO_CONTENT
    );
    let refused = there.get(&key, "/v1/api-keys").await;
    assert_eq!(refused.problem(), "unauthorized");
    assert!(
        refused
            .header("www-authenticate")
            .contains("error=\"invalid_token\"")
    );
    assert!(!refused.headers.contains_key("x-ratelimit-limit"));
    here.stop().await;
    there.stop().await;
}

async fn revoking_is_idempotent_and_the_key_stays_listed(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let admin = rig.admin().await;
    let made = rig.post(&admin, "/v1/api-keys", &asked()).await.json();
    let path = format!("/v1/api-keys/{}", made["id"].as_str().unwrap());
    let mut revoked_at = Vec::new();
    for _ in 0..2 {
        let answer = rig.delete(&admin, &path).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert!(answer.body.is_empty());
        let shown = rig.get(&admin, &path).await.json();
        assert_eq!(shown["status"], "revoked");
        revoked_at.push(shown["revoked_at"].as_str().unwrap().to_owned());
    }
    assert_eq!(revoked_at[0], revoked_at[1]);
    DateTime::parse_from_rfc3339(&revoked_at[0]).unwrap();
    rig.stop().await;
}

async fn a_list_is_paged_with_cursors_that_belong_to_it(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let admin = rig.admin().await;
    for _ in 0..4 {
        rig.post(&admin, "/v1/api-keys", &asked()).await;
    }
    let mut seen = Vec::new();
    let mut path = "/report-forge/v1/api-keys?limit=2".to_owned();
    loop {
        let answer = rig.get(&admin, &path).await;
        assert_eq!(answer.status, StatusCode::OK);
        let page = answer.json();
        let items = page["data"].as_array().unwrap();
        seen.extend(
            items
                .iter()
                .map(|key| key["id"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else {
            assert!(!answer.headers.contains_key("link"));
            break;
        };
        assert_eq!(items.len(), 2);
        let link = answer.header("link");
        path = format!("/report-forge/v1/api-keys?limit=2&after={cursor}");
        assert_eq!(link, format!("<{path}>; rel=\"next\""));
        // The same list under its other name.
        let also = rig
            .get(&admin, &format!("/v1/api-keys?after={cursor}"))
            .await;
        assert_eq!(also.status, StatusCode::OK);
    }
    let mut newest_first = seen.clone();
    newest_first.sort_by(|a, b| b.cmp(a));
    newest_first.dedup();
    assert_eq!(seen, newest_first);
    assert_eq!(seen.len(), 5);

    for (query, problem) in [
        ("after=x", "invalid-cursor"),
        ("after=", "invalid-cursor"),
        (&*format!("after={}", seen[1]), "invalid-cursor"),
        ("limit=0", "invalid-parameter"),
        ("limit=501", "invalid-parameter"),
        ("limit=ten", "invalid-parameter"),
        ("page=2", "invalid-parameter"),
    ] {
        let answer = rig.get(&admin, &format!("/v1/api-keys?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(answer.problem(), problem, "{query}");
    }
    let elsewhere = rig
        .key(Key {
            workspace: "other",
            ..Key::with(&[Scope::Admin])
        })
        .await;
    let first = rig.get(&admin, "/v1/api-keys?limit=2").await.json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let theirs = rig
        .get(&elsewhere, &format!("/v1/api-keys?after={cursor}"))
        .await;
    assert_eq!(theirs.problem(), "invalid-cursor");
    rig.stop().await;
}

async fn a_restricted_admin_administers_nothing(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let restricted = rig
        .key(Key {
            projects: Some(&["pr_1"]),
            ..Key::with(&[Scope::Admin])
        })
        .await;
    let own = format!("/v1/api-keys/{}", restricted.id());
    for (method, path) in [
        (Method::GET, "/v1/api-keys"),
        (Method::POST, "/v1/api-keys"),
        (Method::GET, &*own),
        (Method::DELETE, &*own),
    ] {
        let ask = rig
            .ask(method.clone(), path)
            .key(&restricted)
            .json(&asked());
        let answer = ask.send().await;
        assert_eq!(answer.problem(), "restricted-key", "{method} {path}");
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    }
    rig.stop().await;
}

async fn a_key_of_another_workspace_is_answered_as_a_missing_one(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let admin = rig.admin().await;
    let theirs = rig
        .key(Key {
            workspace: "other",
            ..Key::with(&[Scope::Admin])
        })
        .await;
    let missing = forge_dispatch::entropy::Entropy::system();
    let missing: forge_dispatch::domain::ids::ApiKeyId = missing.id(SystemClock.now());
    for method in [Method::GET, Method::DELETE] {
        let ask = async |id: String| {
            let path = format!("/v1/api-keys/{id}");
            rig.ask(method.clone(), &path).key(&admin).send().await
        };
        let hidden = ask(theirs.id().to_string()).await;
        assert_eq!(hidden.problem(), "not-found");
        for other in [
            missing.to_string(),
            "x".to_owned(),
            "sub_01h455vb4pex5vsknk084sn02q".to_owned(),
        ] {
            assert_eq!(ask(other).await.body, hidden.body);
        }
    }
    let shown = rig
        .get(&theirs, &format!("/v1/api-keys/{}", theirs.id()))
        .await;
    assert_eq!(shown.json()["status"], "active", "it was not revoked");
    rig.stop().await;
}
