//! Readers while others write: what changed is never missed, and pages tell what belongs together.

use std::collections::BTreeMap;
use std::sync::Arc;

use forge_dispatch::domain::key_text::KeyText;
use forge_dispatch::store::Store;
use http::StatusCode;
use serde_json::Value;

use super::super::rig::Rig;
use super::{ed_1, next, reader, tell_all};
use crate::api::told::{edition, tell};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    who_follows_changes_sees_every_one,
    pages_of_one_version_belong_together,
);

const EDITIONS: usize = 12;
const VERSIONS: i64 = 15;

/// Versions by edition.
type Seen = BTreeMap<String, i64>;

/// Reads all pages of what changed since; answers from when on to ask the next time.
async fn poll(rig: &Rig, key: &KeyText, since: Option<&str>, seen: &mut Seen) -> String {
    let since = since.map_or(String::new(), |since| format!("&updated_since={since}"));
    let mut path = format!("/v1/editions?limit=3&fields=id,version{since}");
    loop {
        let answer = rig.get(key, &path).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let page = answer.json();
        for item in page["data"].as_array().unwrap() {
            let id = item["id"].as_str().unwrap().to_owned();
            let version = item["version"].as_i64().unwrap();
            let before = seen.insert(id, version);
            assert!(before.is_none_or(|before| before <= version), "{item}");
        }
        match next(&answer) {
            Some(next) => path = next,
            None => return page["as_of"].as_str().unwrap().to_owned(),
        }
    }
}

async fn who_follows_changes_sees_every_one(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    let writing = tokio::spawn(write(Arc::clone(&db.replica)));
    let (mut seen, mut since) = (Seen::new(), None);
    loop {
        let at_rest = writing.is_finished();
        since = Some(poll(&rig, &key, since.as_deref(), &mut seen).await);
        if at_rest {
            break;
        }
    }
    writing.await.unwrap();
    let expected: Seen = (0..EDITIONS)
        .map(|number| (format!("ed_{number}"), last_version(number)))
        .collect();
    assert_eq!(seen, expected);
    rig.stop().await;
}

/// Some are left alone early on: what is missed of them is never made good by a later change.
fn last_version(number: usize) -> i64 {
    VERSIONS - i64::try_from(number).unwrap()
}

async fn write(store: Arc<dyn Store>) {
    for version in 1..=VERSIONS {
        for number in (0..EDITIONS).filter(|number| version <= last_version(*number)) {
            let id = format!("ed_{number}");
            let snapshot = edition("default", "pr_1", "bp_1", &id, version, "{}");
            tell(&store, &[snapshot]).await;
        }
    }
}

/// Fewer or more rows in each version, and each says its version.
fn rows_of(version: i64) -> String {
    let count = 5 + version % 3;
    let rows: Vec<String> = (0..count)
        .map(|number| format!(r#"{{"id":"r{number}","values":{{"amount":{version}}}}}"#))
        .collect();
    format!(r#"{{"costs":{{"rows":[{}]}}}}"#, rows.join(","))
}

async fn pages_of_one_version_belong_together(db: &TestDatabase) {
    const CHANGES: i64 = 40;
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    tell(&db.store, &[ed_1(8, &rows_of(8))]).await;
    let store = Arc::clone(&db.replica);
    let writing = tokio::spawn(async move {
        for version in 9..=8 + CHANGES {
            tell(&store, &[ed_1(version, &rows_of(version))]).await;
        }
    });
    let path = "/v1/editions/ed_1/sections/costs/rows?limit=2";
    let mut whole = 0;
    loop {
        let at_rest = writing.is_finished();
        if let Some((version, rows)) = read(&rig, &key, path).await {
            let count = usize::try_from(5 + version % 3).unwrap();
            assert_eq!(rows, vec![version; count]);
            whole += 1;
            if at_rest {
                assert_eq!(version, 8 + CHANGES);
                break;
            }
        }
    }
    assert!(whole > 0);
    writing.await.unwrap();
    rig.stop().await;
}

/// The version that each row says, if all pages were of one version; and that.
async fn read(rig: &Rig, key: &KeyText, path: &str) -> Option<(i64, Vec<i64>)> {
    let (mut path, mut rows, mut first) = (path.to_owned(), Vec::new(), None);
    loop {
        let answer = rig.get(key, &path).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let page = answer.json();
        let version = page["edition_version"].as_i64().unwrap();
        assert_eq!(answer.header("x-edition-version"), version.to_string());
        for row in page["data"].as_array().unwrap() {
            let said: &Value = &row["values"]["amount"];
            assert_eq!(said.as_i64(), Some(version), "a page is of one version");
        }
        if *first.get_or_insert(version) != version {
            return None;
        }
        let said = page["data"].as_array().unwrap().iter();
        rows.extend(said.map(|row| row["values"]["amount"].as_i64().unwrap()));
        match next(&answer) {
            Some(next) => path = next,
            None => return Some((version, rows)),
        }
    }
}
