//! Who has it already is told so, for one look at an index; and HEAD is GET without the body.

use http::{Method, StatusCode};
use serde_json::Value;

use super::super::rig::Rig;
use super::{SECTIONS, accepting, conditional, ed_1, of_what_is_shown, reader, tell_all};
use crate::api::told::{blueprint, message, output, tell};
use crate::harness::databases::TestDatabase;
use crate::harness::events::event;

on_both_databases!(
    what_is_known_is_not_sent_again,
    what_says_that_it_is_the_same_is_read_alone,
    a_tag_tells_representations_and_states_apart,
    a_head_is_a_get_without_its_body,
);

/// All that has a tag.
const TAGGED: [&str; 9] = [
    "/v1/workspace",
    "/v1/projects/pr_1",
    "/v1/blueprints/bp_1",
    "/v1/editions/ed_1",
    "/v1/editions/ed_1?fields=id,version",
    "/v1/editions/ed_1/sections/summary",
    "/v1/editions/ed_1/sections/costs/rows",
    "/v1/editions/ed_1/sections/costs/rows?limit=2",
    "/v1/outputs/out_1",
];

/// All that can be read, beside it.
const LISTS: [&str; 6] = [
    "/v1/workspace/members",
    "/v1/projects",
    "/v1/projects/pr_1/blueprints",
    "/v1/editions?limit=1",
    "/v1/blueprints/bp_1/editions",
    "/v1/editions/ed_1/outputs",
];

async fn what_is_known_is_not_sent_again(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    for path in TAGGED {
        let shown = rig.get(&key, path).await;
        let tag = shown.header("etag").to_owned();
        assert!(tag.starts_with('"') && tag.contains('.'), "{path}: {tag}");
        for same in [
            tag.clone(),
            format!("W/{tag}"),
            format!("\"1.x\", {tag}"),
            "*".to_owned(),
        ] {
            let spared = conditional(&rig, &key, path, &same).await;
            assert_eq!(spared.status, StatusCode::NOT_MODIFIED, "{path} {same}");
            assert!(spared.body.is_empty());
            for name in ["etag", "cache-control", "vary"] {
                let header = |answer: &super::Answer| answer.headers.get(name).cloned();
                assert_eq!(header(&spared), header(&shown), "{path} {same} {name}");
            }
        }
        for other in ["\"1.x\"", "x", &tag.replace('.', ",")] {
            let sent = conditional(&rig, &key, path, other).await;
            assert_eq!(sent.body, shown.body, "{path} {other}");
        }
    }
    for missing in [
        "/v1/editions/ed_2",
        "/v1/editions/ed_1/sections/x",
        "/v1/editions/ed_1/sections/x/rows",
        "/v1/outputs/out_2",
    ] {
        for tag in ["*", "\"7.1-json\""] {
            let missing = conditional(&rig, &key, missing, tag).await;
            assert_eq!(missing.problem(), "not-found");
        }
    }
    rig.stop().await;
}

/// What sections hold is gone from the database, and outputs: who does not need them does not miss them.
async fn what_says_that_it_is_the_same_is_read_alone(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    let mut tags = Vec::new();
    for path in TAGGED
        .into_iter()
        .filter(|path| path.contains("/editions/"))
    {
        tags.push((path, rig.get(&key, path).await.header("etag").to_owned()));
    }
    assert_eq!(tags.len(), 5);
    for table in ["edition_row", "edition_section"] {
        db.tamper(&format!("alter table {table} rename to away_{table}"))
            .await;
    }
    for (path, tag) in tags {
        let spared = conditional(&rig, &key, path, &tag).await;
        assert_eq!(spared.status, StatusCode::NOT_MODIFIED, "{path}");
        if path.contains("/sections/") {
            assert_eq!(rig.get(&key, path).await.problem(), "internal", "{path}");
        }
    }
    rig.stop().await;
}

async fn a_tag_tells_representations_and_states_apart(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    let rows = TAGGED[6];
    let mut tags = std::collections::BTreeSet::new();
    for accept in ["application/json", "text/csv", "application/x-ndjson"] {
        for query in ["", "?limit=1", "?limit=2"] {
            let rows = accepting(&rig, &key, &format!("{rows}{query}"), accept).await;
            let tag = rows.header("etag").to_owned();
            assert!(tag.starts_with("\"7."), "the edition's version: {tag}");
            assert!(tags.insert(tag), "{accept} {query}");
        }
    }
    // An event changes the status and raises no version.
    let edition = "/v1/editions/ed_1";
    let draft = rig.get(&key, edition).await;
    let approved = event()
        .event_type("edition.approved")
        .data(
            r#"{"edition_id":"ed_1","approved_by":{"id":"u1","name":"Ann"},"timestamp":"2026-05-01T10:00:00Z"}"#,
        )
        .build();
    super::super::feed::accept(&db.store, &[approved]).await;
    let seen = conditional(&rig, &key, edition, draft.header("etag")).await;
    assert_eq!(seen.status, StatusCode::OK);
    assert_eq!(seen.json()["status"], "approved");
    assert_eq!(seen.json()["version"], 7);
    assert_ne!(seen.header("etag"), draft.header("etag"));

    for (path, change) in [
        (edition, ed_1(8, SECTIONS)),
        ("/v1/editions/ed_1/sections/summary", ed_1(9, SECTIONS)),
        (
            "/v1/outputs/out_1",
            output(
                "default",
                "pr_1",
                "ed_1",
                "out_1",
                3,
                r#""status":"generating""#,
            ),
        ),
        (
            "/v1/projects/pr_1",
            message(
                "default",
                "project.snapshot",
                r#"{"id":"pr_1","version":2,"name":"South"}"#,
            ),
        ),
        (
            "/v1/workspace",
            message(
                "default",
                "workspace.snapshot",
                r#"{"version":1,"name":"Acme"}"#,
            ),
        ),
    ] {
        let before = rig.get(&key, path).await.header("etag").to_owned();
        tell(&db.store, &[change]).await;
        let after = conditional(&rig, &key, path, &before).await;
        assert_eq!(after.status, StatusCode::OK, "{path}");
        assert_ne!(after.header("etag"), before, "{path}");
    }
    // Another blueprint may show sections otherwise.
    let before = rig.get(&key, rows).await.header("etag").to_owned();
    let gone = message(
        "default",
        "blueprint.deleted",
        r#"{"id":"bp_1","version":4}"#,
    );
    tell(&db.store, &[gone]).await;
    let after = conditional(&rig, &key, rows, &before).await;
    assert_eq!(after.status, StatusCode::OK);
    drop(blueprint("default", "pr_1", "bp_1"));
    rig.stop().await;
}

async fn a_head_is_a_get_without_its_body(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    for path in TAGGED.into_iter().chain(LISTS) {
        let got = rig.get(&key, path).await;
        assert_eq!(got.status, StatusCode::OK, "{path}: {got:?}");
        assert_eq!(got.header("cache-control"), "private, no-cache");
        let head = rig.ask(Method::HEAD, path).key(&key).send().await;
        assert_eq!(head.status, StatusCode::OK, "{path}");
        assert!(head.body.is_empty());
        assert_eq!(
            of_what_is_shown(&head.headers),
            of_what_is_shown(&got.headers),
            "{path}"
        );
        assert_eq!(got.header("content-length"), got.body.len().to_string());
        if let Some(tag) = got.headers.get("etag") {
            let tag = tag.to_str().unwrap();
            let head = rig.ask(Method::HEAD, path).key(&key);
            let spared = head.header("if-none-match", tag).send().await;
            assert_eq!(spared.status, StatusCode::NOT_MODIFIED, "{path}");
        } else {
            assert!(got.json()["data"].is_array(), "{path}");
            assert_ne!(got.json()["next_cursor"], Value::from(0));
        }
    }
    rig.stop().await;
}
