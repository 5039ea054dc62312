//! Editions, one or many.

use http::StatusCode;
use serde_json::{Value, json};

use super::super::rig::{Answer, Rig};
use super::{ed_1, next, reader, tell_all};
use crate::api::told::{edition, message, tell};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    an_edition_is_shown_as_it_stands,
    editions_are_found_by_what_they_are,
    a_list_goes_on_and_says_from_when_to_ask_again,
    only_members_that_are_named_are_shown,
    what_cannot_be_asked_for_is_told,
);

fn ids(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let page = answer.json();
    let items = page["data"].as_array().unwrap().iter();
    items
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect()
}

async fn an_edition_is_shown_as_it_stands(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    let shown = rig.get(&key, "/v1/editions/ed_1").await;
    let mut edition = shown.json();
    assert!(edition["updated_at"].take().is_string());
    let expected = json!({
        "id": "ed_1",
        "project_id": "pr_1",
        "blueprint_id": "bp_1",
        "name": "April",
        "status": "draft",
        "status_changed_at": "2026-04-01T00:00:00Z",
        "period": "2026-04",
        "assignee": {"id": "u_1", "name": "Ada"},
        "version": 7,
        "created_at": "2026-04-01T00:00:00Z",
        "updated_at": null,
    });
    assert_eq!(edition, expected);
    let list = rig.get(&key, "/v1/editions").await.json();
    assert_eq!(list["data"], json!([shown.json()]));
    assert_eq!(list["next_cursor"], Value::Null);
    rig.stop().await;
}

async fn editions_are_found_by_what_they_are(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    let of = |id: &str, project: &str, blueprint: &str, status: &str, period: &str| {
        let data = format!(
            r#"{{"id":"{id}","version":1,"project_id":"{project}","blueprint_id":"{blueprint}","name":"x",
                "status":"{status}","status_changed_at":"2026-04-01T00:00:00Z","period":{period},
                "created_at":"2026-04-01T00:00:00Z"}}"#
        );
        message("default", "edition.snapshot", &data)
    };
    let told = [
        of("ed_2", "pr_1", "bp_1", "approved", r#""2026 Q2""#),
        of("ed_3", "pr_2", "bp_2", "on_ice", "null"),
        of("ed_4", "pr_2", "bp_2", "approved", "null"),
    ];
    tell(&db.store, &told).await;
    for (query, expected) in [
        ("", &["ed_1", "ed_2", "ed_3", "ed_4"] as &[&str]),
        ("?status=approved", &["ed_2", "ed_4"]),
        ("?status=on_ice,draft", &["ed_1", "ed_3"]),
        ("?status=closed", &[]),
        ("?project=pr_2", &["ed_3", "ed_4"]),
        ("?project=pr_1&status=approved,closed", &["ed_2"]),
        ("?blueprint=bp_2&project=pr_1", &[]),
        ("?blueprint=bp_1", &["ed_1", "ed_2"]),
        ("?period=2026+Q2", &["ed_2"]),
        ("?period=", &[]),
        (
            "?updated_since=2020-01-01T00:00:00Z&status=draft",
            &["ed_1"],
        ),
        ("?updated_since=2999-01-01T00:00:00Z", &[]),
    ] {
        let found = rig.get(&key, &format!("/v1/editions{query}")).await;
        assert_eq!(ids(&found), expected, "{query}");
    }
    for (query, expected) in [
        ("", &["ed_1", "ed_2"] as &[&str]),
        ("?status=approved,on_ice&period=2026+Q2", &["ed_2"]),
        ("?updated_since=2999-01-01T00:00:00Z", &[]),
    ] {
        let path = format!("/v1/blueprints/bp_1/editions{query}");
        assert_eq!(ids(&rig.get(&key, &path).await), expected, "{query}");
    }
    // Of a blueprint that was never told of, editions are listed by the filter alone.
    let unknown = rig.get(&key, "/v1/blueprints/bp_2/editions").await;
    assert_eq!(unknown.problem(), "not-found");
    rig.stop().await;
}

async fn a_list_goes_on_and_says_from_when_to_ask_again(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    let more = [2, 3, 4, 5]
        .map(|number| edition("default", "pr_1", "bp_1", &format!("ed_{number}"), 1, "{}"));
    tell(&db.store, &more).await;
    for path in [
        "/v1/editions?limit=2",
        "/v1/blueprints/bp_1/editions?limit=2",
    ] {
        let first = rig.get(&key, path).await;
        assert_eq!(ids(&first), ["ed_1", "ed_2"]);
        let second = rig.get(&key, &next(&first).unwrap()).await;
        assert_eq!(ids(&second), ["ed_3", "ed_4"]);
        let last = rig.get(&key, &next(&second).unwrap()).await;
        assert_eq!(ids(&last), ["ed_5"]);
        assert_eq!(next(&last), None);
        let page = last.json();
        assert_eq!(page["next_cursor"], Value::Null);
        let since = page["as_of"].as_str().unwrap();
        let again = format!("/v1/editions?updated_since={since}");
        assert!(ids(&rig.get(&key, &again).await).is_empty());
        let newest = page["data"][0]["updated_at"].as_str().unwrap();
        let inclusive = format!("/v1/editions?updated_since={newest}");
        let inclusive = rig.get(&key, &inclusive).await;
        assert!(ids(&inclusive).contains(&"ed_5".to_owned()));

        let cursor = first.json()["next_cursor"].as_str().unwrap().to_owned();
        let other = format!("/v1/editions?limit=2&status=draft&after={cursor}");
        assert_eq!(rig.get(&key, &other).await.problem(), "invalid-cursor");
    }
    tell(&db.store, &[ed_1(8, "{}")]).await;
    let all = rig.get(&key, "/v1/editions").await;
    assert_eq!(ids(&all), ["ed_2", "ed_3", "ed_4", "ed_5", "ed_1"]);
    rig.stop().await;
}

async fn only_members_that_are_named_are_shown(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    let trimmed = r#"{"id":"ed_1","assignee":{"id":"u_1","name":"Ada"},"version":7}"#;
    let query = "fields=version,assignee,id";
    let one = rig.get(&key, &format!("/v1/editions/ed_1?{query}")).await;
    assert_eq!(super::text(&one), trimmed);
    let whole = rig.get(&key, "/v1/editions/ed_1").await;
    assert_ne!(one.header("etag"), whole.header("etag"));
    for list in ["/v1/editions", "/v1/blueprints/bp_1/editions"] {
        let list = rig.get(&key, &format!("{list}?{query}")).await;
        let text = super::text(&list).to_owned();
        assert!(
            text.starts_with(&format!(r#"{{"data":[{trimmed}],"#)),
            "{text}"
        );
    }
    rig.stop().await;
}

async fn what_cannot_be_asked_for_is_told(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    for (query, parameter) in [
        ("status=", "status"),
        ("status=Draft", "status"),
        ("status=draft,", "status"),
        ("status=a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a", "status"),
        ("status=draft&status=closed", "status"),
        ("project=", "project"),
        ("project=a%00b", "project"),
        ("blueprint=%0a", "blueprint"),
        ("period=a%00b", "period"),
        ("updated_since=yesterday", "updated_since"),
        ("fields=", "fields"),
        ("fields=id,secret", "fields"),
        ("limit=501", "limit"),
        ("sort=name", "sort"),
    ] {
        let refused = rig.get(&key, &format!("/v1/editions?{query}")).await;
        assert_eq!(refused.problem(), "invalid-parameter", "{query}");
        assert_eq!(
            refused.json()["errors"][0]["parameter"],
            parameter,
            "{query}"
        );
    }
    for path in [
        "/v1/editions/ed_1?fields=x",
        "/v1/blueprints/bp_1/editions?project=pr_1",
    ] {
        assert_eq!(rig.get(&key, path).await.problem(), "invalid-parameter");
    }
    rig.stop().await;
}
