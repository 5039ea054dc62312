//! Files, whole and in parts.

use forge_dispatch::domain::api_key::Scope;
use forge_dispatch::domain::key_text::KeyText;
use forge_dispatch::store::JobSettled;
use http::{Method, StatusCode};
use serde_json::Value;

use super::{approved, make, maker, output};
use crate::api::rig::{Answer, Key, Rig};
use crate::api::told::{blueprint, tell};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    a_file_comes_as_it_is_under_a_safe_name,
    who_has_it_is_spared_it,
    a_range_is_a_part_of_it,
    a_range_of_another_file_is_all_of_this_one,
    a_long_file_comes_in_parts_only,
    where_there_is_no_file_the_reason_is_told,
    a_file_that_went_away_is_not_half_sent,
    a_key_of_another_project_does_not_read_it,
);

const DOWNLOAD: &str = "/v1/outputs/out_1/download";

/// An API that knows `ed_1`, approved, with `out_1`.
async fn begin(db: &TestDatabase) -> (Rig, KeyText) {
    let rig = Rig::over(&db.store).await;
    let edition = "Über; \"April\"/2026";
    let told = [
        blueprint("default", "pr_1", "bp_1"),
        approved("default", "pr_1", "bp_1", "ed_1", edition, "{}"),
        output("default", "pr_1", "ed_1", "out_1", "../Figures", "csv"),
    ];
    tell(&db.store, &told).await;
    let key = maker(&rig).await;
    (rig, key)
}

async fn with(rig: &Rig, key: &KeyText, headers: &[(&str, &str)]) -> Answer {
    let mut ask = rig.ask(Method::GET, DOWNLOAD).key(key);
    for (name, value) in headers {
        ask = ask.header(name, value);
    }
    ask.send().await
}

async fn a_file_comes_as_it_is_under_a_safe_name(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let (file, _) = make(&rig, "default", "out_1", b"a,b\r\n1,2\r\n").await;
    let got = rig.get(&key, DOWNLOAD).await;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    assert_eq!(&got.body[..], b"a,b\r\n1,2\r\n");
    for (name, value) in [
        ("content-type", "text/csv; charset=utf-8"),
        ("content-length", "10"),
        ("accept-ranges", "bytes"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "private, no-cache"),
        ("etag", &format!("\"{}\"", file.sha256)),
        (
            "content-disposition",
            "attachment; filename=\"_Figures - _ber; _April__2026.csv\"; \
             filename*=UTF-8''_Figures%20-%20%C3%9Cber%3B%20_April__2026.csv",
        ),
    ] {
        assert_eq!(got.header(name), value, "{name}");
    }
    let head = rig.ask(Method::HEAD, DOWNLOAD).key(&key);
    let head = head.header("range", "bytes=0-1").send().await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    for name in [
        "content-type",
        "content-length",
        "etag",
        "content-disposition",
        "accept-ranges",
    ] {
        assert_eq!(head.header(name), got.header(name), "{name}");
    }
    let also = rig.get(&key, &format!("/report-forge{DOWNLOAD}")).await;
    assert_eq!(also.body, got.body);
    rig.stop().await;
}

async fn who_has_it_is_spared_it(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let (file, _) = make(&rig, "default", "out_1", b"0123456789").await;
    let tag = format!("\"{}\"", file.sha256);
    for given in [&*tag, "*", &format!("\"x\", W/{tag}")] {
        let spared = with(
            &rig,
            &key,
            &[("if-none-match", given), ("range", "bytes=0-1")],
        )
        .await;
        assert_eq!(spared.status, StatusCode::NOT_MODIFIED, "{given}");
        assert_eq!((spared.header("etag"), spared.body.len()), (&*tag, 0));
    }
    let other = with(&rig, &key, &[("if-none-match", "\"x\"")]).await;
    assert_eq!(other.status, StatusCode::OK);
    rig.stop().await;
}

async fn a_range_is_a_part_of_it(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    make(&rig, "default", "out_1", b"0123456789").await;
    for (range, body, place) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=8-", "89", "bytes 8-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-99", "0123456789", "bytes 0-9/10"),
    ] {
        let part = with(&rig, &key, &[("range", range)]).await;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(
            (&part.body[..], part.header("content-range")),
            (body.as_bytes(), place)
        );
        assert_eq!(part.header("content-length"), body.len().to_string());
    }
    for range in ["bytes=10-", "bytes=-0"] {
        let outside = with(&rig, &key, &[("range", range)]).await;
        assert_eq!(outside.problem(), "range-not-satisfiable", "{range}");
        assert_eq!(outside.header("content-range"), "bytes */10");
    }
    for range in ["bytes=0-1,3-4", "lines=1-2", "bytes=4-2"] {
        let whole = with(&rig, &key, &[("range", range)]).await;
        assert_eq!(
            (whole.status, whole.body.len()),
            (StatusCode::OK, 10),
            "{range}"
        );
    }
    make(&rig, "default", "out_1", b"").await;
    let empty = rig.get(&key, DOWNLOAD).await;
    assert_eq!((empty.status, empty.body.len()), (StatusCode::OK, 0));
    rig.stop().await;
}

async fn a_range_of_another_file_is_all_of_this_one(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let (old, _) = make(&rig, "default", "out_1", b"0123456789").await;
    let tag = format!("\"{}\"", old.sha256);
    let headers = [("range", "bytes=5-"), ("if-range", &*tag)];
    let part = with(&rig, &key, &headers).await;
    assert_eq!(
        (part.status, &part.body[..]),
        (StatusCode::PARTIAL_CONTENT, &b"56789"[..])
    );
    let (new, settled) = make(&rig, "default", "out_1", b"abcdefghijkl").await;
    let replaced = Some(old.key);
    assert_eq!(settled, JobSettled::Settled { replaced });
    let whole = with(&rig, &key, &headers).await;
    assert_eq!(
        (whole.status, &whole.body[..]),
        (StatusCode::OK, &b"abcdefghijkl"[..])
    );
    assert_eq!(whole.header("etag"), format!("\"{}\"", new.sha256));
    rig.stop().await;
}

async fn a_long_file_comes_in_parts_only(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let content: Vec<u8> = (0..12_000_000_u32)
        .flat_map(u32::to_be_bytes)
        .take(12_000_000)
        .collect();
    make(&rig, "default", "out_1", &content).await;
    let refused = rig.get(&key, DOWNLOAD).await;
    assert_eq!(refused.problem(), "range-required");
    assert!(
        refused.json()["detail"]
            .as_str()
            .unwrap()
            .contains("12000000 bytes")
    );
    // Its head tells how long it is.
    let head = rig.ask(Method::HEAD, DOWNLOAD).key(&key).send().await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (StatusCode::OK, "12000000")
    );
    let first = with(&rig, &key, &[("range", "bytes=0-")]).await;
    assert_eq!(first.header("content-range"), "bytes 0-9999999/12000000");
    let tag = first.header("etag").to_owned();
    let rest = with(
        &rig,
        &key,
        &[("range", "bytes=10000000-"), ("if-range", &tag)],
    )
    .await;
    assert_eq!(
        rest.header("content-range"),
        "bytes 10000000-11999999/12000000"
    );
    assert!([&first.body[..], &rest.body[..]].concat() == content);
    rig.stop().await;
}

async fn where_there_is_no_file_the_reason_is_told(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    for (status, word) in [
        ("not_generated", "generate it first"),
        ("queued", "being made"),
        ("generating", "being made"),
        ("failed", "`failure`"),
        ("generated", "not kept here"),
    ] {
        db.tamper(&format!("update output set stated_status = '{status}'"))
            .await;
        let shown = rig.get(&key, "/v1/outputs/out_1").await.json();
        assert_eq!(
            (&shown["status"], &shown["download_url"]),
            (&status.into(), &Value::Null)
        );
        let missing = rig.get(&key, DOWNLOAD).await;
        assert_eq!(missing.problem(), "output-not-generated", "{status}");
        let detail = missing.json()["detail"].to_string();
        assert!(detail.contains(word), "{status}: {detail}");
    }
    rig.stop().await;
}

async fn a_file_that_went_away_is_not_half_sent(db: &TestDatabase) {
    let (rig, key) = begin(db).await;
    let (file, _) = make(&rig, "default", "out_1", b"0123456789").await;
    rig.files.delete(&file.key).await.unwrap();
    let gone = rig.get(&key, DOWNLOAD).await;
    assert_eq!(gone.problem(), "unavailable");
    rig.stop().await;
}

async fn a_key_of_another_project_does_not_read_it(db: &TestDatabase) {
    let (rig, _) = begin(db).await;
    make(&rig, "default", "out_1", b"0123456789").await;
    for (workspace, project, status) in [
        ("default", "pr_1", StatusCode::OK),
        ("default", "pr_2", StatusCode::NOT_FOUND),
        ("other", "pr_1", StatusCode::NOT_FOUND),
    ] {
        let key = Key {
            workspace,
            projects: Some(&[project]),
            ..Key::with(&[Scope::ReadOutputs])
        };
        let key = rig.key(key).await;
        assert_eq!(
            rig.get(&key, DOWNLOAD).await.status,
            status,
            "{workspace} {project}"
        );
    }
    rig.stop().await;
}
